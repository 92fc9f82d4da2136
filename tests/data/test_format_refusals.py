"""Files that are empty, cut off, mistaken, out of place or made to harm end in rejected.csv or in one sentence."""

import gzip
import os
import zlib

import h5py
import numpy as np
import pytest
from scipy.io import savemat

from src.data.builders.edf import EDFFiles
from src.data.builders.hdf5 import TracingFiles
from src.data.builders.matlab import MatlabFiles
from src.data.builders.xml import XMLFiles, about_xml
from tests.data import formats
from tests.data.archive import build, rejected

PER_FOLDER = {"edf": formats.write_edf, "xml": lambda path, units: formats.write_text(path, formats.aecg(units))}


def reason(reader, path, row=None):
    """The sentence with which a record is refused."""
    with pytest.raises(ValueError) as caught:
        reader.read(path, row)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def xml_reason(path, text):
    return reason(XMLFiles(), formats.write_text(path, text))


def mat_reason(path):
    return reason(MatlabFiles("val", formats.LEADS, 500.0), path)


@pytest.fixture
def exams(tmp_path):
    return formats.write_code15(tmp_path / "code15", [formats.ecg(number) / 1000 for number in range(4)])


@pytest.mark.parametrize("form", ["edf", "xml"])
@pytest.mark.parametrize("harm", ["empty", "cut", "noise", "folder", "pipe"])
def test_one_bad_file_of_a_folder_is_rejected(tmp_path, capsys, form, harm):
    for number in range(3):
        path = tmp_path / "in" / f"{number}.{form}"
        path.parent.mkdir(exist_ok=True)
        PER_FOLDER[form](path, formats.ecg(number))
    data = path.read_bytes()
    path.unlink()
    if harm == "folder":
        path.mkdir()
    elif harm == "pipe":
        os.mkfifo(path)
    else:
        path.write_bytes({"empty": b"", "cut": data[: len(data) * 2 // 3], "noise": os.urandom(5000)}[harm])
    words = ("--input", tmp_path / "in", "--format", form, "--no-patients", "--output", tmp_path / "out")
    code, out, err = build(capsys, "ecg", *words)
    assert code == 0, err
    assert list(rejected(tmp_path / "out")) == [f"2.{form}"] and "train: 2 samples" in out


class TestEDF:
    def test_a_header_that_does_not_fit_its_file(self, tmp_path):
        path = formats.write_edf(tmp_path / "a.edf", formats.ecg(), records=9)
        assert "header indicates 9 data records, but file contains 5" in reason(EDFFiles(), path)

    def test_stretches(self, tmp_path):
        path = formats.write_edf(tmp_path / "a.edf", formats.ecg(), reserved="EDF+D")
        assert "discontinuous" in reason(EDFFiles(), path)

    def test_wrong_units_and_ranges(self, tmp_path, capsys):
        formats.write_edf(tmp_path / "in" / "good.edf", formats.ecg())
        formats.write_edf(tmp_path / "in" / "unit.edf", formats.ecg(), unit="mmHg")
        formats.write_edf(tmp_path / "in" / "range.edf", formats.ecg(), least=5, most=5)
        formats.write_edf(tmp_path / "in" / "names.edf", formats.ecg(), names=[f"EEG {n}" for n in range(12)])
        formats.write_edf(tmp_path / "in" / "short.edf", formats.ecg(samples=50))
        formats.write_edf(tmp_path / "in" / "nan.edf", formats.ecg(), most="nan")
        words = ("--input", tmp_path / "in", "--format", "edf", "--no-patients", "--output", tmp_path / "out")
        code, _, err = build(capsys, "ecg", "--sampling-rate", "100", *words)
        reasons = rejected(tmp_path / "out")
        assert code == 0 and set(reasons) == {"unit.edf", "range.edf", "names.edf", "short.edf", "nan.edf"}
        assert "is in mmHg, which is no voltage" in reasons["unit.edf"]
        assert "has the ranges -32768 .. 32767 and 5 .. 5" in reasons["range.edf"]
        assert "--rename" in reasons["names.edf"]

    def test_plain_edf_has_no_patient(self, tmp_path, capsys):
        formats.write_edf(tmp_path / "in" / "a.edf", formats.ecg(), patient="Jane Doe 1930", reserved="")
        words = ("--input", tmp_path / "in", "--format", "edf", "--output", tmp_path / "out")
        code, _, err = build(capsys, "ecg", *words)
        assert code == 1 and "has a patient: say whose they are with --patient-folders" in err and "Doe" not in err


BOMB = (
    '<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY l0 "lol">'
    + "".join(f'<!ENTITY l{n + 1} "{f"&l{n};" * 10}">' for n in range(9))
    + "]><RestingECG>&l9;</RestingECG>"
)


class TestXML:
    @pytest.mark.parametrize(
        "text",
        [BOMB, '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><RestingECG>&e;</RestingECG>'],
        ids=["laughs", "file"],
    )
    def test_entities_are_refused_unread(self, tmp_path, text):
        sentence = "a.xml declares entities, which no ECG needs: it is refused unread"
        assert xml_reason(tmp_path / "a.xml", text) == sentence
        with pytest.raises(ValueError, match="declares entities"):
            about_xml(tmp_path / "a.xml")

    def test_an_outer_dtd_is_not_fetched(self, tmp_path):
        text = formats.muse(formats.ecg(), formats.LEADS).replace("restecg.dtd", f"{tmp_path}/pipe")
        os.mkfifo(tmp_path / "pipe")  # to open it would hang
        assert len(XMLFiles().read(formats.write_text(tmp_path / "a.xml", text), None)) == 12

    def test_endless_depth_and_count(self, tmp_path, monkeypatch):
        assert "nested or repeated" in xml_reason(tmp_path / "a.xml", "<a>" * 200_000)
        monkeypatch.setattr("src.data.builders.xml_tree.MOST_ELEMENTS", 1000)
        assert "nested or repeated" in xml_reason(tmp_path / "a.xml", "<a>" + "<b/>" * 2000 + "</a>")

    def test_too_large(self, tmp_path):
        with (tmp_path / "a.xml").open("wb") as file:
            file.truncate(1 << 30)
        assert "which no ECG in XML has" in reason(XMLFiles(), tmp_path / "a.xml")

    @pytest.mark.parametrize(
        ("old", "new", "sentence"),
        [
            ("RestingECG>", "Letter>", "its root is Letter, known are RestingECG"),
            (">Rhythm<", ">Median<", "it has 0 rhythm waveforms"),
            ("<SampleBase>500", "<SampleBase>fast", "its SampleBase is 'fast', expected is a number"),
            ("<SampleBase>500", "<SampleBase>0", "expected is a number above 0"),
            ("<SampleExponent>0", "<SampleExponent>300", "no recorder has"),
            ("PerBit>1.0", "PerBit>nan", "LeadAmplitudeUnitsPerBit is 'nan'"),
            ("<WaveFormData>", "<WaveFormData>!", "is no base64"),
            ("<LeadSampleCountTotal>500", "<LeadSampleCountTotal>600", "holds 500 samples and says 600"),
            ("FirstSample>0", "FirstSample>7", "begins later"),
            ("SampleSize>2", "SampleSize>4", "samples of 4 bytes"),
        ],
    )
    def test_muse(self, tmp_path, old, new, sentence):
        text = formats.muse(formats.ecg(), formats.LEADS).replace("<!DOCTYPE RestingECG", "<!DOCTYPE x")
        assert old in text and sentence in xml_reason(tmp_path / "a.xml", text.replace(old, new))

    @pytest.mark.parametrize(
        ("old", "new", "sentence"),
        [
            ("ersion>1.04", "ersion>2.0", "it is of version 2.0"),
            ('compression="XLI"', 'compression="ZIP"', "compressed with ZIP, known is XLI"),
            ('"Base64"', '"Hex"', "coded as Hex"),
            ('leadlabels="I II', 'leadlabels="I', "12 leads and names for 11"),
            ('durationperchannel="1000"', 'durationperchannel="900"', "does not hold the 450 samples"),
            ('durationperchannel="1000"', 'durationperchannel="1e30"', "no resting ECG"),
            ('resolution="5"', 'resolution="-5"', "expected is a number above 0"),
            ('signalsigned="True"', 'signalsigned="False"', "its signalsigned is False"),
            ("parsedwaveforms", "otherwaveforms", "it has no parsedwaveforms"),
        ],
    )
    def test_philips(self, tmp_path, old, new, sentence):
        text = formats.philips(formats.ecg())
        assert old in text and sentence in xml_reason(tmp_path / "a.xml", text.replace(old, new))

    def test_philips_that_is_cut_off_or_a_bomb(self, tmp_path):
        whole = formats.xli(formats.residuals(formats.ecg()))
        short = formats.philips(formats.ecg(), data=whole[: len(whole) // 2])
        assert "compressed waveforms end in lead" in xml_reason(tmp_path / "a.xml", short)
        bomb = np.array(formats.ecg()).tolist()
        bomb[3] = [7] * 1_000_000
        packed = b"".join(formats.xli(np.array([row])) for row in bomb)
        sentence = xml_reason(tmp_path / "a.xml", formats.philips(formats.ecg(), data=packed))
        assert "its compressed lead 4 does not hold the 500 samples stated" in sentence

    def test_philips_with_plain_leads_that_are_residuals(self, tmp_path):
        text = formats.philips(formats.residuals(formats.ecg()), compress=False)
        assert "lead III misses II - I" in xml_reason(tmp_path / "a.xml", text)

    @pytest.mark.parametrize(
        ("old", "new", "sentence"),
        [
            ("TIME_ABSOLUTE", "OTHER", "it has 0 time axes"),
            ('unit="s"', 'unit="h"', "its increment is in h"),
            ('scale value="1.0"', 'scale value="0"', "expected is a number above 0"),
            ("<digits>", "<digits>1.5 ", "digits that are no whole numbers"),
            ("<digits>", f"<digits>{10**30} ", "digits that are no whole numbers"),
            ('origin value="0"', 'origin value="1e300"', "no recorder has"),
            ('code="RHYTHM"', 'code="REPRESENTATIVE_BEAT"', "it has 0 stretches of rhythm"),
        ],
    )
    def test_hl7(self, tmp_path, old, new, sentence):
        text = formats.aecg(formats.ecg())
        assert old in text and sentence in xml_reason(tmp_path / "a.xml", text.replace(old, new))

    def test_what_is_left_to_the_leads(self, tmp_path, capsys):
        (tmp_path / "in").mkdir()
        texts = {
            "good": formats.aecg(formats.ecg()),
            "unit": formats.aecg(formats.ecg(), unit="kg"),
            "none": formats.aecg(formats.ecg()[:, :0]),
            "names": formats.aecg(formats.ecg()[:2], ["X", "Y"]),
        }
        for name, text in texts.items():
            formats.write_text(tmp_path / "in" / f"{name}.xml", text)
        words = ("--input", tmp_path / "in", "--format", "xml", "--output", tmp_path / "out")
        code, _, err = build(capsys, "ecg", *words)
        reasons = rejected(tmp_path / "out")
        assert code == 0 and set(reasons) == {"unit.xml", "none.xml", "names.xml"}, err
        assert "no voltage" in reasons["unit.xml"] and reasons["none.xml"] == "it holds no samples"


class TestMatlab:
    def test_a_wrong_variable_and_what_is_no_matrix(self, tmp_path):
        path = formats.write_mat(tmp_path / "a.mat", formats.ecg(), "ecg")
        assert "no variable val: it has ecg; say which with --variable" in mat_reason(path)
        path = formats.write_mat73(tmp_path / "a.mat", formats.ecg(), "ecg")
        assert "it has no val: it has ecg" in mat_reason(path)
        savemat(tmp_path / "a.mat", {"val": {"a": 1}})
        assert "its val is struct" in mat_reason(tmp_path / "a.mat")
        savemat(tmp_path / "a.mat", {"val": np.array([[np.eye(2)], ["a"]], object)})
        assert "its val is cell" in mat_reason(tmp_path / "a.mat")
        savemat(tmp_path / "a.mat", {"val": "text"})
        assert "its val is char" in mat_reason(tmp_path / "a.mat")

    @pytest.mark.parametrize("write", [formats.write_mat, formats.write_mat73])
    def test_damage(self, tmp_path, write):
        path = write(tmp_path / "a.mat", formats.ecg().astype(np.int16))
        data = path.read_bytes()
        for harmed in (b"", data[:1], data[:100], data[:600], data[: len(data) // 2], os.urandom(3000)):
            path.write_bytes(harmed)
            mat_reason(path)
        path.unlink()
        assert mat_reason(path) == "there is no a.mat"

    def test_a_bomb_is_not_unpacked(self, tmp_path, monkeypatch):
        for module in ("matlab", "hdf5"):
            monkeypatch.setattr(f"src.data.builders.{module}.LARGEST_RECORD", 1 << 20)
        path = formats.write_mat(tmp_path / "a.mat", np.zeros((12, 100_000)), do_compression=True)
        assert path.stat().st_size < 20_000 and "it unpacks to more than" in mat_reason(path)
        with h5py.File(path, "w") as file:
            file.create_dataset("val", (100_000, 12), "f8", chunks=(50_000, 12), compression="gzip")
        assert "its array unpacks to" in mat_reason(path)

    def test_a_stream_that_lies_about_its_length(self, tmp_path):
        path = formats.write_mat(tmp_path / "a.mat", formats.ecg())
        packed = zlib.compress(path.read_bytes()[128:140] + b"\xff" * 40)
        path.write_bytes(path.read_bytes()[:128] + (15).to_bytes(4, "little") + b"\xff\xff\xff\x7f" + packed)
        mat_reason(path)

    def test_wrong_shapes_and_a_missing_rate(self, tmp_path, capsys):
        path = formats.write_mat(tmp_path / "a.mat", formats.ecg()[:11])
        assert "its array is [11, 500], with 12 leads" in mat_reason(path)
        table = formats.write_rows(tmp_path / "list.csv", [{"path": "a.mat"}])
        words = ["ecg", "--input", tmp_path, "--table", table, "--no-patients", "--output", tmp_path / "out"]
        assert "a .mat does not tell its sampling rate: state it with --source-rate" in build(capsys, *words)[2]


class TestCode15:
    def test_a_missing_file_rejects_its_exams(self, tmp_path, capsys):
        root = formats.write_code15(tmp_path / "in", [formats.ecg(n) / 1000 for n in range(4)], files=2)
        (root / "exams_part1.hdf5").unlink()
        assert build(capsys, "ecg", "--input", root, "--output", tmp_path / "out")[0] == 0
        reasons = {f"exams_part1.hdf5 exam {exam}": "there is no exams_part1.hdf5" for exam in (1001, 1003)}
        assert rejected(tmp_path / "out") == reasons

    @pytest.mark.parametrize("harm", ["empty", "cut", "noise", "gzip"])
    def test_a_damaged_file_rejects_its_exams(self, tmp_path, capsys, harm):
        root = formats.write_code15(tmp_path / "in", [formats.ecg(n) / 1000 for n in range(4)], files=2)
        path = root / "exams_part0.hdf5"
        data = path.read_bytes()
        path.write_bytes(
            {"empty": b"", "cut": data[:9000], "noise": os.urandom(9000), "gzip": gzip.compress(data)}[harm]
        )
        code, _, err = build(capsys, "ecg", "--input", root, "--output", tmp_path / "out")
        assert code == 0 and set(rejected(tmp_path / "out")) == {f"exams_part0.hdf5 exam {n}" for n in (1000, 1002)}, (
            err
        )

    @pytest.mark.parametrize(
        ("harm", "sentence"),
        [
            (lambda file: file["tracings"].__setitem__(1, np.nan), "no lead carries a signal"),
            (lambda file: file["tracings"].__setitem__(1, 0), "it holds no samples"),
            (lambda file: file["exam_id"].__setitem__(1, 5), "its file does not hold that exam"),
            (lambda file: file["exam_id"].__setitem__(3, 1001), "its file holds that exam twice"),
        ],
    )
    def test_what_is_wrong_with_an_exam(self, exams, tmp_path, capsys, harm, sentence):
        with h5py.File(exams / "exams_part0.hdf5", "r+") as file:
            harm(file)
        code, _, err = build(capsys, "ecg", "--input", exams, "--output", tmp_path / "out")
        assert code == 0, err
        assert sentence in rejected(tmp_path / "out")["exams_part0.hdf5 exam 1001"]

    def test_other_layouts(self, exams, tmp_path):
        path = exams / "exams_part0.hdf5"
        assert "of 4 exams, row 9 is asked for" in reason(TracingFiles(), path, 9)
        with h5py.File(path, "r+") as file:
            del file["tracings"]
        assert "it has no tracings: it has exam_id" in reason(TracingFiles(), path, 0)
        for array in (np.zeros((4, 12, 100)), np.zeros((4, 100)), np.zeros((4, 100, 12), "S4")):
            with h5py.File(path, "w") as file:
                file["tracings"] = array
            assert "expected are numbers [exams, samples, 12]" in reason(TracingFiles(), path, 0)

    def test_links_out_of_the_file_are_not_followed(self, exams):
        path = exams / "exams_part0.hdf5"
        path.rename(exams / "other.hdf5")
        array = h5py.VirtualSource(exams / "other.hdf5", "tracings", (4, 4096, 12), "f4")
        layout = h5py.VirtualLayout((4, 4096, 12), "f4")
        layout[:] = array
        for link in (h5py.ExternalLink("other.hdf5", "tracings"), h5py.SoftLink("/there")):
            with h5py.File(path, "w") as file:
                file["there"], file["tracings"] = np.zeros((4, 4096, 12)), link
            assert "its tracings is no array of its own" in reason(TracingFiles(), path, 0)
        with h5py.File(path, "w") as file:
            file.create_virtual_dataset("tracings", layout)
        assert "lies in other files" in reason(TracingFiles(), path, 0)
        with h5py.File(path, "w") as file:
            file.create_dataset("tracings", (4, 4096, 12), "f4", external=[("/etc/passwd", 0, 786432)])
        assert "lies in other files" in reason(TracingFiles(), path, 0)

    def test_a_bomb_is_not_unpacked(self, exams):
        with h5py.File(exams / "exams_part0.hdf5", "w") as file:
            file.create_dataset("tracings", (4, 1 << 30, 12), "f4", chunks=(1, 1 << 16, 12), compression="gzip")
        assert "its array unpacks to 51,539,607,552 bytes" in reason(TracingFiles(), exams / "exams_part0.hdf5", 0)
        with h5py.File(exams / "exams_part0.hdf5", "w") as file:
            file.create_dataset("tracings", (1 << 20, 64, 12), "f4", chunks=(1 << 19, 64, 12), compression="gzip")
        assert "its array unpacks to" in reason(TracingFiles(), exams / "exams_part0.hdf5", 0)

    @pytest.mark.parametrize(
        ("old", "new", "sentence"),
        [
            ("exams_part0.hdf5\r\n1001", "../x.hdf5\r\n1001", "must lead to a record below"),
            ("exams_part0.hdf5\r\n1001", "/etc/passwd\r\n1001", "must lead to a record below"),
            ("1dAVb", "AVB", "has no column 1dAVb"),
            ("1001,31", "1000,31", "has 2 rows of the exam 1000"),
            ("False,77.7,True", "False,77.7,perhaps", "1dAVb is 'perhaps', expected is True or False"),
        ],
    )
    def test_a_table_that_can_not_be(self, exams, tmp_path, capsys, old, new, sentence):
        text = (exams / "exams.csv").read_bytes().decode()
        text = text.replace("True,77.7", "False,77.7")
        assert old in text
        (exams / "exams.csv").write_bytes(text.replace(old, new, 1).encode())
        code, _, err = build(capsys, "ecg", "--input", exams, "--output", tmp_path / "out")
        assert code == 1 and sentence in err and not (tmp_path / "out").exists()


class TestLayouts:
    def test_a_table_of_two_kinds_is_refused(self, tmp_path, capsys):
        rows = [{"path": "a.edf"}, {"path": "a.xml"}]
        table = formats.write_rows(tmp_path / "list.csv", rows)
        words = ("--input", tmp_path, "--table", table, "--no-patients", "--output", tmp_path / "out")
        assert "lists EDF files and XML files: build them one after the other" in build(capsys, "ecg", *words)[2]

    @pytest.mark.parametrize(
        ("flags", "sentence"),
        [
            (("--source-rate", "5"), "--source-rate does nothing for EDF files"),
            (("--variable", "x"), "--variable does nothing for EDF files"),
            (("--ignore-checksums",), "--ignore-checksums does nothing for EDF files"),
            (("--per-millivolt", "5"), "--per-millivolt does nothing for EDF files"),
            (("--format", "edf"), "--format does nothing for records that a --table lists"),
        ],
    )
    def test_idle_flags_of_a_table(self, tmp_path, capsys, flags, sentence):
        table = formats.write_rows(tmp_path / "list.csv", [{"path": "a.edf"}])
        words = ("--input", tmp_path, "--table", table, "--no-patients", "--output", tmp_path / "out")
        assert sentence in build(capsys, "ecg", *words, *flags)[2]

    @pytest.mark.parametrize("flags", [("--ignore-checksums",), ("--folds", "train=1"), ("--variable", "x")])
    def test_idle_flags_of_a_folder(self, tmp_path, capsys, flags):
        words = ("--input", tmp_path, "--format", "edf", "--no-patients", "--output", tmp_path / "out")
        assert f"{flags[0]} does nothing for a folder of EDF files" in build(capsys, "ecg", *words, *flags)[2]

    def test_a_folder_of_another_format_is_told(self, tmp_path, capsys):
        formats.write_edf(tmp_path / "in" / "a.edf", formats.ecg())
        words = ("--input", tmp_path / "in", "--output", tmp_path / "out")
        err = build(capsys, "ecg", *words)[2]
        assert "holds no WFDB record (*.hea): it holds EDF files, --format edf" in err

    def test_two_archives_in_one_folder_are_refused(self, exams, tmp_path, capsys):
        (exams / "record_list.csv").write_text("subject_id,study_id,path\n")
        words = ("--input", exams, "--output", tmp_path / "out")
        assert "has exams.csv and record_list.csv: keep archives apart" in build(capsys, "ecg", *words)[2]

    def test_without_output_nothing_is_built(self, exams, capsys):
        code, _, err = build(capsys, "ecg", "--input", exams)
        assert code == 1 and "name a new folder with --output" in err

    @pytest.mark.parametrize("path", ["../a", "/etc/passwd", "elsewhere/1", ""])
    def test_a_path_of_mimic_that_leads_out_is_refused(self, tmp_path, capsys, path):
        formats.write_rows(tmp_path / "in" / "record_list.csv", [{"subject_id": 1, "study_id": 2, "path": path}])
        code, _, err = build(capsys, "ecg", "--input", tmp_path / "in", "--output", tmp_path / "out")
        assert code == 1 and "row 1: the path" in err
