"""Every format comes back as an independent reader has it, and to the last unit where the source is integer."""

import base64
import csv
import io
import tarfile
import xml.dom.minidom
from pathlib import Path

import h5py
import numpy as np
import pytest
import sierraecg
import wfdb
from scipy.io import loadmat
from wfdb.io.convert.edf import read_edf

from src.config.data import STANDARD_LEADS
from src.data.builders.aecg import channels as aecg_channels
from src.data.builders.edf import EDFFiles
from src.data.builders.hdf5 import TracingFiles
from src.data.builders.matlab import MatlabFiles
from src.data.builders.xml import XMLFiles, about_xml
from src.data.ecg_shards import ECGShards
from src.data.load_index import load_index
from tests.data import formats
from tests.data.archive import build, write_wfdb


def units(channels):
    """{lead: (units, units for 1 mV)}."""
    factor = {"mV": 1.0, "uV": 1000.0, "V": 0.001}
    return {channel.name: (channel.values_T, channel.gain * factor[channel.unit]) for channel in channels}


def samples(shards):
    """{record: sample}."""
    index, _ = load_index(shards)
    with Path(f"{shards}.private", "pseudonyms.csv").open(newline="", encoding="utf-8") as file:
        names = {row["key"]: row["record"] for row in csv.DictReader(file)}
    found = {}
    for split in index.splits:
        with ECGShards(shards, split, index.leads) as reader:
            found |= {names[sample["key"]]: sample for sample in reader.read(np.arange(len(reader)))}
    return found


def stored(shards):
    """The arrays as they lie in the tars, in the order of the keys."""
    found = {}
    for path in sorted(shards.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".ecg.npy"):
                    found[member.name.partition(".")[0]] = np.load(io.BytesIO(tar.extractfile(member).read()))
    return found


def bits(array):
    return array.astype(np.float32).view(np.int32)


class TestCode15:
    def test_exams_come_back_without_their_padding(self, tmp_path, capsys):
        exams = [formats.ecg(number, samples=4000 if number % 2 else 2800) / 1000 for number in range(6)]
        root = formats.write_code15(tmp_path / "code15", exams, files=2)
        code, out, err = build(capsys, "ecg", "--input", root, "--output", tmp_path / "out")
        assert code == 0, err
        found = samples(tmp_path / "out")
        for number, exam in enumerate(exams):
            sample = found[f"exams_part{number % 2}.hdf5 exam {1000 + number}"]
            with h5py.File(root / f"exams_part{number % 2}.hdf5") as file:
                place = file["exam_id"][:].tolist().index(1000 + number)
                expected = file["tracings"][place]
            lasting = expected[(expected != 0).any(1)]
            assert exam.shape[1] == sample["ecg"].shape[1] == len(lasting)
            assert np.array_equal(bits(sample["ecg"]), bits(lasting.T))
            assert sample["labels"].tolist() == [float((number + k) % 3 == 0) for k in range(6)]
            assert sample["meta"]["age"] == 30 + number and sample["meta"]["sex"] == number % 2
            assert set(sample["meta"]) == {"id", "patient_id", "leads", "sampling_rate", "age", "sex"}
        index, _ = load_index(tmp_path / "out")
        assert index.sampling_rate == 400 and index.leads == STANDARD_LEADS and index.patients == {"train": 3}
        assert index.labels.names == ("1dAVb", "RBBB", "LBBB", "SB", "ST", "AF")

    def test_a_lead_of_zeros_inside_and_zeros_between_stay(self, tmp_path):
        exam = formats.ecg(1, samples=1000) / 1000
        exam[3], exam[:, 400:500] = 0, 0
        root = formats.write_code15(tmp_path, [exam])
        found = TracingFiles().read(root / "exams_part0.hdf5", 0)
        assert np.array_equal(np.stack([channel.values_T for channel in found]), exam.astype(np.float32))

    def test_no_number_of_processes_changes_a_byte(self, tmp_path, capsys):
        root = formats.write_code15(tmp_path / "code15", [formats.ecg(n, 400) / 1000 for n in range(40)], files=3)
        tars = []
        for workers in (1, 3):
            words = ("ecg", "--input", root, "--keep-ids", "--workers", workers, "--output", tmp_path / str(workers))
            assert build(capsys, *words)[0] == 0
            tars.append([path.read_bytes() for path in sorted((tmp_path / str(workers)).iterdir())])
        assert tars[0] == tars[1]

    def test_the_unit_can_be_stated(self, tmp_path):
        root = formats.write_code15(tmp_path, [formats.ecg(1) / 1000])
        (once, tenth) = (TracingFiles(unit).read(root / "exams_part0.hdf5", 0)[0] for unit in (1.0, 10.0))
        assert np.array_equal(once.values_T, tenth.values_T) and tenth.gain == 10 * once.gain


def write_mimic(root, count=4, rate=500, reports=True):
    rows, texts = [], []
    for number in range(count):
        subject, study = 10_000_000 + number // 2, 40_000_000 + number
        path = f"files/p1000/p{subject}/s{study}/{study}"
        write_wfdb((root / path).parent, str(study), formats.ecg(number).T, formats.LEADS, rate)
        row = {"subject_id": subject, "study_id": study, "file_name": study, "ecg_time": "2180-07-23 08:44:00"}
        rows.append(row | {"path": path})
        lines = {f"report_{k}": "" for k in range(18)} | {"report_0": "Sinus rhythm", "report_3": f"Line, {number}"}
        texts.append({"subject_id": subject, "study_id": study, "cart_id": 6_848_296, "ecg_time": "2180-07-23"} | lines)
    formats.write_rows(root / "record_list.csv", rows)
    if reports:
        formats.write_rows(root / "machine_measurements.csv", texts)
    return root


class TestMimic:
    def test_records_keep_their_public_ids_and_get_the_report(self, tmp_path, capsys):
        root = write_mimic(tmp_path / "mimic")
        code, _, err = build(capsys, "ecg", "--input", root, "--output", tmp_path / "out")
        assert code == 0 and "the ids of MIMIC-IV-ECG are public and were kept" in err
        found, arrays = samples(tmp_path / "out"), stored(tmp_path / "out")
        for number in range(4):
            subject, study = 10_000_000 + number // 2, 40_000_000 + number
            sample = found[f"files/p1000/p{subject}/s{study}/{study}"]
            assert sample["key"] == f"mimic-{study}" and sample["meta"]["patient_id"] == str(subject)
            assert sample["text"] == f"Sinus rhythm; Line, {number}"
            assert np.array_equal(arrays[sample["key"]], formats.ecg(number))
            assert set(sample["meta"]) == {"id", "patient_id", "leads", "sampling_rate", "scale"}

    def test_without_measurements_there_are_no_reports(self, tmp_path, capsys):
        root = write_mimic(tmp_path / "mimic", reports=False)
        assert build(capsys, "ecg", "--input", root, "--output", tmp_path / "out")[0] == 0
        assert all(sample["text"] is None for sample in samples(tmp_path / "out").values())


class TestMatlab:
    @pytest.mark.parametrize("turned", [False, True])
    @pytest.mark.parametrize("form", ["5", "4", "5 compressed", "7.3"])
    def test_whole_units_come_back(self, tmp_path, form, turned):
        array = formats.ecg().astype(np.int16)
        array = array.T if turned else array
        if form == "7.3":
            path = formats.write_mat73(tmp_path / "a.mat", array)
            with h5py.File(path) as file:
                assert np.array_equal(file["val"][:].T, array)
        else:
            path = formats.write_mat(tmp_path / "a.mat", array, format=form[0], do_compression=len(form) > 1)
            assert np.array_equal(loadmat(path)["val"], array)
        found = MatlabFiles("val", formats.LEADS, 500.0, 1000.0).read(path, None)
        assert np.array_equal(np.stack([channel.values_T for channel in found]), formats.ecg())
        assert all(channel.values_T.dtype == np.int64 for channel in found)

    def test_a_table_of_them_is_built(self, tmp_path, capsys):
        for number in range(3):
            formats.write_mat(tmp_path / "mats" / f"{number}.mat", formats.ecg(number) / 1000, "ecg")
        rows = [{"path": f"{number}.mat", "who": number, "age": 40} for number in range(3)]
        table = formats.write_rows(tmp_path / "list.csv", rows)
        words = ("--table", table, "--patient-column", "who", "--variable", "ecg", "--source-rate", "500")
        code, _, err = build(capsys, "ecg", "--input", tmp_path / "mats", *words, "--output", tmp_path / "out")
        assert code == 0, err
        found = samples(tmp_path / "out")
        for number in range(3):
            assert np.array_equal(bits(found[f"{number}.mat"]["ecg"]), bits(formats.ecg(number) / 1000))

    def test_the_mat_of_a_wfdb_record_is_still_read_by_its_header(self, medssl_data, tmp_path, capsys):
        folder = medssl_data / "ecg" / "wfdb_samples"
        table = formats.write_rows(tmp_path / "list.csv", [{"path": "a103l.mat"}])
        words = ("--table", table, "--no-patients", "--output", tmp_path / "out")
        code, _, err = build(capsys, "ecg", "--input", folder, *words)
        assert code == 0, err
        assert list(samples(tmp_path / "out")) == ["a103l"]


class TestEDF:
    def test_whole_units_come_back_as_wfdb_reads_them(self, tmp_path):
        path = formats.write_edf(tmp_path / "a.edf", formats.ecg())
        found = units(EDFFiles().read(path, None))
        other = read_edf(str(path))
        for place, name in enumerate(formats.LEADS):
            values_T, gain = found[name]
            assert np.array_equal(values_T, formats.ecg()[place]) and gain == 1000
            column = other.sig_name.index(name)
            assert np.abs(other.p_signal[:, column] - values_T).max() <= 1.001, "which is off by a unit"

    @pytest.mark.parametrize(
        ("unit", "least", "most", "per_millivolt"),
        [("uV", -3276.8, 3276.7, 10_000), ("mV", -3.2768, 3.2767, 10_000), ("V", "-.032768", ".032767", 1_000)],
    )
    def test_units_are_brought_to_millivolts(self, tmp_path, unit, least, most, per_millivolt):
        path = formats.write_edf(tmp_path / "a.edf", formats.ecg(), unit=unit, least=least, most=most)
        values_T, gain = units(EDFFiles().read(path, None))["V1"]
        assert np.array_equal(values_T, formats.ecg()[6])
        assert gain == pytest.approx(per_millivolt, rel=1e-4), "the header has eight characters for a limit"

    def test_a_zero_between_two_units_gives_floats(self, tmp_path):
        path = formats.write_edf(tmp_path / "a.edf", formats.ecg(), unit="mV", least=-5, most=5)
        values_T, gain = units(EDFFiles().read(path, None))["V1"]
        expected = (formats.ecg()[6] + 32768) * (10 / 65535) - 5
        assert gain == 1 and values_T.dtype == np.float64 and np.allclose(values_T, expected, rtol=0, atol=1e-12)

    def test_turned_limits_turn_the_signal(self, tmp_path):
        path = formats.write_edf(tmp_path / "a.edf", formats.ecg(), least=32768, most=-32767)
        values_T, gain = units(EDFFiles().read(path, None))["II"]
        assert np.array_equal(values_T, -formats.ecg()[1]) and gain == 1000

    def test_a_folder_is_split_by_the_code_of_the_patient(self, tmp_path, capsys):
        for number in range(4):
            person = f"code{number // 2} F 02-JAN-1930 Jane_Doe"
            recording = "Startdate 01-JAN-2001 X X X"
            path = tmp_path / "edf" / f"{number}.edf"
            formats.write_edf(path, formats.ecg(number), patient=person, recording=recording)
        words = ("ecg", "--input", tmp_path / "edf", "--format", "edf", "--output", tmp_path / "out")
        code, _, err = build(capsys, *words)
        assert code == 0, err
        found = samples(tmp_path / "out")
        assert len({sample["meta"]["patient_id"] for sample in found.values()}) == 2
        assert {(sample["meta"]["age"], sample["meta"]["sex"]) for sample in found.values()} == {(70.0, 1.0)}


def by_minidom(text, tag):
    return xml.dom.minidom.parseString(text).getElementsByTagName(tag)


class TestXML:
    def test_muse_gives_its_eight_leads_and_the_four_that_follow(self, tmp_path):
        eight = formats.ecg()[[0, 1, 6, 7, 8, 9, 10, 11]]
        text = formats.muse(eight, per_bit=4.88)
        found = units(XMLFiles().read(formats.write_text(tmp_path / "a.xml", text), None))
        leads = {}
        for lead in by_minidom(text, "Waveform")[1].getElementsByTagName("LeadData"):
            data = base64.b64decode(lead.getElementsByTagName("WaveFormData")[0].firstChild.data)
            leads[lead.getElementsByTagName("LeadID")[0].firstChild.data] = np.frombuffer(data, "<i2") * 0.00488
        one, two = leads["I"], leads["II"]
        leads |= {"III": two - one, "aVR": -(one + two) / 2, "aVL": one - two / 2, "aVF": two - one / 2}
        assert set(found) == set(formats.LEADS)
        for name, (values_T, gain) in found.items():
            assert values_T.dtype == np.int64 and np.allclose(values_T / gain, leads[name], rtol=0, atol=1e-12)

    def test_muse_with_twelve_leads_derives_none(self, tmp_path):
        text = formats.muse(formats.ecg() + 1, formats.LEADS)
        found = XMLFiles().read(formats.write_text(tmp_path / "a.xml", text), None)
        assert [channel.name for channel in found] == list(formats.LEADS)
        assert np.array_equal(np.stack([channel.values_T for channel in found]), formats.ecg() + 1)

    def test_a_muse_lead_without_electrode_is_missing(self, tmp_path):
        text = formats.muse(formats.ecg(), formats.LEADS)
        place = text.rindex("<LeadID>V6")
        text = text[:place] + text[place:].replace("<LeadOff>FALSE", "<LeadOff>TRUE")
        found = XMLFiles().read(formats.write_text(tmp_path / "a.xml", text), None)
        assert [channel.name for channel in found] == list(formats.LEADS[:11])

    @pytest.mark.parametrize("compress", [True, False])
    def test_philips_comes_back_as_sierraecg_reads_it(self, tmp_path, compress):
        path = formats.write_text(tmp_path / "a.xml", formats.philips(formats.ecg(), compress))
        found = units(XMLFiles().read(path, None))
        for place, name in enumerate(formats.LEADS):
            assert np.array_equal(found[name][0], formats.ecg()[place]) and found[name][1] == 200
        if compress:  # it can't change what it reads from a plain file
            other = {lead.label: lead.samples for lead in sierraecg.read_file(str(path)).leads}
            for name in ("I", "II", "III", "V1", "V6"):
                assert np.array_equal(other[name], found[name][0])

    def test_philips_of_version_1_03_and_in_utf_16(self, tmp_path):
        text = formats.philips(formats.ecg()).replace("1.04", "1.03").replace("compression=", "compressmethod=")
        text = text.replace("<resolution>", "<signalresolution>").replace("</resolution>", "</signalresolution>")
        for name in ("leadlabels", "numberofleads", "resolution", "samplespersecond", "bitspersample"):
            text = text.replace(f" {name}=", f" x{name}=")
        (tmp_path / "a.xml").write_bytes(text.replace("UTF-8", "UTF-16").encode("utf-16"))
        found = units(XMLFiles().read(tmp_path / "a.xml", None))
        assert np.array_equal(np.stack([found[name][0] for name in formats.LEADS]), formats.ecg())

    @pytest.mark.parametrize(("scale", "unit", "origin"), [(1.0, "uV", 0), (0.0025, "mV", 0.05), (5, "uV", 0.5)])
    def test_hl7_comes_back(self, tmp_path, scale, unit, origin):
        path = formats.write_text(
            tmp_path / "a.xml", formats.aecg(formats.ecg(), scale=scale, unit=unit, origin=origin)
        )
        found = XMLFiles().read(path, None)
        assert [channel.name for channel in found] == [name.upper() for name in formats.LEADS]
        for place, channel in enumerate(found):
            assert channel.rate == 500 and channel.unit == unit
            expected = origin + formats.ecg()[place] * scale
            assert np.allclose(channel.values_T / channel.gain, expected, rtol=1e-12, atol=1e-9)
            assert (channel.values_T.dtype == np.int64) == (origin / scale == round(origin / scale))

    @pytest.mark.parametrize("rate", [100, 240, 250, 500, 512, 1000])
    def test_the_rate_of_hl7_is_whole_where_it_was(self, rate):
        import xml.etree.ElementTree as tree

        (channel,) = aecg_channels(tree.fromstring(formats.aecg(formats.ecg()[:1], ["I"], rate)))
        assert channel.rate == rate

    def test_age_sex_and_patient_are_told(self, tmp_path):
        texts = {"muse": formats.muse(formats.ecg()[:8]), "hl7": formats.aecg(formats.ecg())}
        texts["philips"] = formats.philips(formats.ecg())
        told = {name: about_xml(formats.write_text(tmp_path / name, text)) for name, text in texts.items()}
        assert (told["muse"].patient, told["muse"].age, told["muse"].sex) == ("P-77", 63, 1)
        assert (told["hl7"].patient, told["hl7"].age, told["hl7"].sex) == ("SUBJ-9", 64, 0), "a day before the birthday"
        assert (told["philips"].patient, told["philips"].age, told["philips"].sex) == ("PH-5", 90, 0)


@pytest.fixture(scope="module")
def records(medssl_data):
    root = medssl_data / "ecg" / "ptbxl500"
    paths = sorted(root.glob("records500/*/*.hea"))[:6]
    assert paths
    found = {}
    for path in paths:
        record = wfdb.rdrecord(str(path.with_suffix("")), physical=False)
        place = {name.casefold(): number for number, name in enumerate(record.sig_name)}
        found[path.stem] = record.d_signal.T[[place[name.casefold()] for name in formats.LEADS]].astype(np.int64)
        assert set(record.adc_gain) == {1000.0} and set(record.baseline) == {0}
    return found


@pytest.mark.data
class TestPublicRecords:
    """Real records, saved in each format."""

    @pytest.mark.parametrize("form", ["edf", "muse", "philips", "hl7", "mat", "mat73"])
    def test_they_come_back_to_the_last_unit(self, records, tmp_path, capsys, form):
        folder = tmp_path / "in"
        for name, units_CT in records.items():
            if form == "edf":
                formats.write_edf(folder / f"{name}.edf", units_CT, rate=500)
            elif form.startswith("mat"):
                write = formats.write_mat73 if form == "mat73" else formats.write_mat
                write(folder / f"{name}.mat", units_CT.astype(np.int16))
            else:
                text = {
                    "muse": lambda x: formats.muse(x, formats.LEADS),
                    "philips": lambda x: formats.philips(x, resolution=1),
                    "hl7": formats.aecg,
                }[form](units_CT)
                formats.write_text(folder / f"{name}.xml", text)
        words = ["ecg", "--input", folder, "--no-patients", "--keep-ids", "--output", tmp_path / "out"]
        if form.startswith("mat"):
            table = formats.write_rows(tmp_path / "list.csv", [{"path": f"{name}.mat"} for name in records])
            words += ["--table", table, "--source-rate", "500", "--per-millivolt", "1000"]
        else:
            words += ["--format", "edf" if form == "edf" else "xml"]
            words.remove("--keep-ids")
        code, _, err = build(capsys, *words)
        assert code == 0 and "left out" not in err, err
        arrays = stored(tmp_path / "out")
        for name, sample in samples(tmp_path / "out").items():
            units_CT = records[Path(name).stem]
            assert arrays[sample["key"]].dtype == np.int16 and np.array_equal(arrays[sample["key"]], units_CT)
            assert np.array_equal(bits(sample["ecg"]), bits(units_CT / 1000))

    def test_exams_of_code15_come_back_to_the_last_bit(self, records, tmp_path, capsys):
        exams = [units_CT[:, :4000] / 1000 for units_CT in records.values()]
        root = formats.write_code15(tmp_path / "in", exams)
        assert build(capsys, "ecg", "--input", root, "--output", tmp_path / "out")[0] == 0
        found = samples(tmp_path / "out")
        for number, exam in enumerate(exams):
            there = np.flatnonzero(exam.any(0))
            kept = exam[:, there[0] : there[-1] + 1]
            assert np.array_equal(bits(found[f"exams_part0.hdf5 exam {1000 + number}"]["ecg"]), bits(kept))

    def test_the_layout_of_mimic_gives_the_same_units(self, records, tmp_path, capsys):
        rows = []
        for study, units_CT in enumerate(records.values(), 100):
            write_wfdb(tmp_path / "in" / "files" / f"s{study}", str(study), units_CT.T, formats.LEADS, 500)
            rows.append({"subject_id": 7, "study_id": study, "path": f"files/s{study}/{study}"})
        formats.write_rows(tmp_path / "in" / "record_list.csv", rows)
        assert build(capsys, "ecg", "--input", tmp_path / "in", "--output", tmp_path / "out")[0] == 0
        arrays = stored(tmp_path / "out")
        for study, units_CT in enumerate(records.values(), 100):
            assert np.array_equal(arrays[f"mimic-{study}"], units_CT)
