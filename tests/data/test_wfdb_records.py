"""WFDB records through the command line into shards: every value is the one that the wfdb library reads."""

import csv
import io
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import wfdb

from src.data.ecg_shards import ECGShards
from src.data.load_index import load_index
from tools.build_shards import main

STANDARD = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
FRANK = (*STANDARD, "VX", "VY", "VZ")


def build(source, output, *flags):
    assert main(["ecg", "--input", str(source), "--output", str(output), "--workers", "1", *map(str, flags)]) == 0
    return output


def samples(shards):
    """{key: sample} of all splits."""
    index, _ = load_index(shards)
    found = {}
    for split in index.splits:
        reader = ECGShards(shards, split, index.leads)
        found.update((sample["key"], sample) for sample in reader.read(np.arange(len(reader))))
    return found


def stored(shards):
    """{key: the array as it lies in the tar}."""
    found = {}
    for path in sorted(shards.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".ecg.npy"):
                    data = tar.extractfile(member).read()
                    found[member.name.removesuffix(".ecg.npy")] = np.load(io.BytesIO(data))
    return found


def records_of(shards):
    """{key: record} from the private file."""
    with Path(f"{shards}.private", "pseudonyms.csv").open(newline="", encoding="utf-8") as file:
        return {row["key"]: row["record"] for row in csv.DictReader(file)}


def rejected(shards):
    """{record: reason} from the private file."""
    with Path(f"{shards}.private", "rejected.csv").open(newline="", encoding="utf-8") as file:
        return {row["record"]: row["reason"] for row in csv.DictReader(file)}


def by_wfdb(path, names):
    """Units less baseline and float32 mV of the leads called `names`, [C, T] each."""
    digital = wfdb.rdrecord(str(path), physical=False, smooth_frames=False)
    physical = wfdb.rdrecord(str(path), smooth_frames=False)
    place = {name.casefold(): number for number, name in enumerate(digital.sig_name)}
    rows = [place[name.casefold()] for name in names]
    units = np.stack([digital.e_d_signal[row].astype(np.int64) - digital.baseline[row] for row in rows])
    return units, np.stack([physical.e_p_signal[row] for row in rows]).astype(np.float32)


def same_bits(found, expected):
    return found.dtype == expected.dtype == np.float32 and np.array_equal(found.view(np.int32), expected.view(np.int32))


def write(folder, name="rec", values=None, fmt="16", gain=1000.0, baseline=0, rate=100):
    """A record of I and II; integers are units, floats mV."""
    folder.mkdir(parents=True, exist_ok=True)
    if values is None:
        values = np.random.default_rng(0).integers(-1000, 1000, (400, 2))
    kind = "p_signal" if values.dtype.kind == "f" else "d_signal"
    head = {"fs": rate, "units": ["mV"] * 2, "sig_name": ["I", "II"], "write_dir": str(folder)}
    form = {"fmt": [fmt] * 2, "adc_gain": [gain] * 2, "baseline": [baseline] * 2}
    wfdb.wrsamp(name, **head, **form, **{kind: values})
    return folder / f"{name}.hea"


@pytest.fixture(scope="module", params=[100, 500])
def ptbxl(request, medssl_data, tmp_path_factory):
    """(shards, folder of the records, their number)."""
    root = medssl_data / "ecg" / "ptbxl500"
    if not root.is_dir():
        pytest.skip(f"no {root}")
    shards = tmp_path_factory.mktemp("ptbxl") / "shards"
    return build(root, shards, "--sampling-rate", request.param), root, {100: 500, 500: 20}[request.param]


@pytest.mark.data
class TestPublicRecords:
    """All of them."""

    def test_every_record_of_ptbxl_has_the_units_and_the_bits_that_wfdb_reads(self, ptbxl):
        shards, root, count = ptbxl
        records, arrays, found = records_of(shards), stored(shards), samples(shards)
        assert len(found) == len(arrays) == len(records) == count
        for key, record in records.items():
            units, millivolts = by_wfdb(root / record, STANDARD)
            assert arrays[key].dtype == np.int16
            assert np.array_equal(arrays[key], units)
            assert same_bits(found[key]["ecg"], millivolts)
            flat = (units == units[:, :1]).all(1)
            assert np.array_equal(found[key]["lead_keep"], ~flat)

    def test_what_is_not_there_is_told_record_by_record(self, ptbxl):
        shards, root, count = ptbxl
        assert len(rejected(shards)) == 500 - count
        for record, reason in rejected(shards).items():
            assert not (root / f"{record}.hea").exists()
            assert reason == f"there is no {Path(record).name}.hea"

    @pytest.mark.parametrize(
        ("folder", "record", "names", "flags"),
        [
            ("wfdb_samples", "s0010_re", STANDARD, ()),
            ("wfdb_samples", "s0010_re", FRANK, ("--leads", *FRANK)),
            ("wfdb_samples", "s0010_re", ("vz", "V6", "I"), ("--leads", "VZ", "V6", "I")),
            ("wfdb_samples", "a103l", ("II", "V"), ("--leads", "II", "V")),
            ("wfdb_samples", "a103l", ("V", "II"), ("--leads", "V1", "II", "--rename", "V=V1")),
            ("wfdb_samples", "03700181", ("MCL1",), ("--leads", "MCL1")),
            ("wfdb_samples", "03700181", ("MCL1",), ("--leads", "V1", "--rename", "MCL1=V1")),
            ("mitdb/raw", "100", ("MLII", "V5"), ("--leads", "II", "V5", "--rename", "MLII=II")),
            ("mitdb/raw", "208", ("V1", "MLII"), ("--leads", "V1", "II", "--rename", "MLII=II")),
        ],
    )
    def test_every_sample_record_has_the_units_and_the_bits_that_wfdb_reads(
        self, medssl_data, tmp_path, folder, record, names, flags
    ):
        root = medssl_data / "ecg" / folder
        if not (root / f"{record}.hea").is_file():
            pytest.skip(f"no {root / record}")
        (tmp_path / "one.csv").write_text(f"path\n{record}\n")
        table = ("--table", tmp_path / "one.csv", "--no-patients", "--keep-ids")
        shards = build(root, tmp_path / "shards", *table, *flags)
        units, millivolts = by_wfdb(root / record, names)
        assert np.array_equal(stored(shards)[record], units)
        assert same_bits(samples(shards)[record]["ecg"], millivolts)

    def test_a_channel_with_several_samples_a_frame_has_a_rate_of_its_own(self, medssl_data, tmp_path):
        """125 frames a second with four values of MCL1 each."""
        (tmp_path / "one.csv").write_text("path\n03700181\n")
        table = ("--table", tmp_path / "one.csv", "--no-patients", "--keep-ids", "--leads", "MCL1")
        shards = build(medssl_data / "ecg" / "wfdb_samples", tmp_path / "shards", *table)
        index, _ = load_index(shards)
        assert index.sampling_rate == 500
        assert samples(shards)["03700181"]["ecg"].shape == (1, 300_000)

    @pytest.mark.parametrize(("record", "lead"), [("03700181", "ABP"), ("a103l", "PLETH")])
    def test_a_pressure_is_no_lead(self, medssl_data, tmp_path, capsys, record, lead):
        (tmp_path / "one.csv").write_text(f"path\n{record}\n")
        words = ["ecg", "--input", str(medssl_data / "ecg" / "wfdb_samples"), "--table", str(tmp_path / "one.csv")]
        assert main([*words, "--no-patients", "--leads", lead, "--output", str(tmp_path / "shards")]) == 1
        assert "which is no voltage" in capsys.readouterr().err

    def test_records_with_other_leads_share_a_folder_and_miss_what_they_miss(self, medssl_data, tmp_path):
        flags = ("--no-patients", "--keep-ids", "--leads", "II", "V1", "V5", "--rename", "MLII=II")
        found = samples(build(medssl_data / "ecg" / "mitdb" / "raw", tmp_path / "shards", *flags))
        assert found["100"]["lead_keep"].tolist() == [True, False, True]
        assert found["208"]["lead_keep"].tolist() == [True, True, False]
        assert not found["100"]["ecg"][1].any()
        assert not found["208"]["ecg"][2].any()


@pytest.mark.parametrize(("fmt", "lowest", "highest"), [("16", -32767, 32768), ("212", -2047, 2048), ("80", -127, 128)])
@pytest.mark.parametrize(("gain", "baseline"), [(200.0, 0), (204.8, 24), (2963.77, -100)])
def test_every_format_comes_out_as_units_less_baseline(tmp_path, fmt, lowest, highest, gain, baseline):
    values = np.random.default_rng(0).integers(lowest, highest, (400, 2))
    header = write(tmp_path / "in", values=values, fmt=fmt, gain=gain, baseline=baseline)
    shards = build(tmp_path / "in", tmp_path / "shards", "--no-patients", "--keep-ids", "--leads", "I", "II")
    units, millivolts = by_wfdb(header.with_suffix(""), ("I", "II"))
    assert np.array_equal(units, values.T - baseline)
    assert same_bits(samples(shards)["rec"]["ecg"], millivolts)
    if np.abs(units).max() < 32768:
        assert np.array_equal(stored(shards)["rec"], units)


@pytest.mark.parametrize("fmt", ["24", "32"])
def test_wide_formats_that_exceed_int16_are_the_bits_of_wfdb(tmp_path, fmt):
    values = np.random.default_rng(0).integers(-(2**22), 2**22, (400, 2))
    header = write(tmp_path / "in", values=values, fmt=fmt, gain=100_000.0)
    shards = build(tmp_path / "in", tmp_path / "shards", "--no-patients", "--keep-ids", "--leads", "I", "II")
    assert stored(shards)["rec"].dtype == np.float32
    assert same_bits(samples(shards)["rec"]["ecg"], by_wfdb(header.with_suffix(""), ("I", "II"))[1])


@pytest.mark.parametrize("fmt", ["16", "212"])
def test_what_wfdb_marks_as_invalid_is_a_gap(tmp_path, fmt):
    millivolts = np.random.default_rng(0).integers(-1000, 1000, (400, 2)) / 1000
    millivolts[40:50, 0], millivolts[395:, 0], millivolts[100:200, 1] = np.nan, np.nan, np.nan
    header = write(tmp_path / "in", values=millivolts, fmt=fmt, baseline=7)
    assert np.isnan(wfdb.rdrecord(str(header.with_suffix(""))).p_signal).sum() == 115
    shards = build(tmp_path / "in", tmp_path / "shards", "--no-patients", "--keep-ids", "--leads", "I", "II")
    sample, (first, second) = samples(shards)["rec"], stored(shards)["rec"]
    present = np.flatnonzero(~np.isnan(millivolts[:, 0]))
    expected = np.rint(np.interp(np.arange(400), present, np.rint(1000 * millivolts[present, 0])))
    assert np.array_equal(first, expected)
    assert not second.any()
    assert sample["lead_keep"].tolist() == [True, False]
    assert sample["meta"]["gaps"] == {"I": 0.15, "II": 1.0}


class TestDamage:
    """What can't be read is left out and told; the rest is built."""

    def attempt(self, folder, capsys, *flags):
        """Build a folder whose record `good` is whole; returns {record: reason}."""
        write(folder, "good")
        words = ["--no-patients", "--keep-ids", "--leads", "I", "II", "--workers", "1", *flags]
        output = folder.parent / "shards"
        code = main(["ecg", "--input", str(folder), "--output", str(output), *words])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        assert code == 0, err.splitlines()[-1]
        return output, rejected(output)

    def test_a_changed_byte_is_found_by_the_checksum_and_taken_if_asked_for(self, tmp_path, capsys):
        header = write(tmp_path / "in", "bad")
        data = bytearray(header.with_suffix(".dat").read_bytes())
        data[100] ^= 1
        header.with_suffix(".dat").write_bytes(data)
        shards, reasons = self.attempt(tmp_path / "in", capsys)
        assert list(reasons) == ["bad"]
        assert "its checksum is not the header's (--ignore-checksums" in reasons["bad"]
        shutil.rmtree(shards)
        shards, reasons = self.attempt(tmp_path / "in", capsys, "--ignore-checksums")
        assert reasons == {}
        units, _ = by_wfdb(tmp_path / "in" / "bad", ("I", "II"))
        assert np.array_equal(stored(shards)["bad"], units)

    @pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
    def test_a_truncated_record_is_left_out(self, tmp_path, capsys, share):
        header = write(tmp_path / "in", "short")
        data = header.with_suffix(".dat").read_bytes()
        header.with_suffix(".dat").write_bytes(data[: int(share * len(data))])
        _, reasons = self.attempt(tmp_path / "in", capsys)
        assert list(reasons) == ["short"]
        assert reasons["short"]

    def test_a_record_without_its_signals_names_the_file(self, tmp_path, capsys):
        write(tmp_path / "in", "bad").with_suffix(".dat").unlink()
        assert self.attempt(tmp_path / "in", capsys)[1] == {"bad": "there is no bad.dat"}

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"\n\n",
            b"# a comment\n",
            b"no header at all",
            b"bad 2 100\n",
            b"bad x 100 400\n",
            b"bad 2 100 400\nbad.dat 77 1000/mV 16 0 0 0 0 I\n",
            b"bad 2 100 99999999999\nbad.dat 16 1000/mV 16 0 0 0 0 I\nbad.dat 16 1000/mV 16 0 0 0 0 II\n",
            b"bad/2 2 100 800\nbad_1 400\nbad_2 400\n",
            bytes(range(256)) * 4,
        ],
        ids=[
            *("empty", "blank", "comment", "prose", "no signals", "no count", "no format", "huge"),
            *("missing segments", "bytes"),
        ],
    )
    def test_a_header_that_is_none_is_left_out(self, tmp_path, capsys, content):
        write(tmp_path / "in", "bad").write_bytes(content)
        _, reasons = self.attempt(tmp_path / "in", capsys)
        assert list(reasons) == ["bad"]
        assert "\n" not in reasons["bad"]

    @pytest.mark.parametrize("name", [".", "folder"])
    def test_a_header_whose_signals_are_a_folder_is_left_out(self, tmp_path, capsys, name):
        header = write(tmp_path / "in", "bad")
        (tmp_path / "in" / "folder").mkdir()
        header.write_text(header.read_text().replace("bad.dat", name))
        assert list(self.attempt(tmp_path / "in", capsys)[1]) == ["bad"]

    def test_a_header_whose_signals_have_too_long_a_name_is_left_out(self, tmp_path, capsys):
        header = write(tmp_path / "in", "bad")
        header.write_text(header.read_text().replace("bad.dat", "a" * 300))
        assert list(self.attempt(tmp_path / "in", capsys)[1]) == ["bad"]

    def test_a_folder_called_like_a_header_is_no_record_or_a_rejected_one(self, tmp_path, capsys):
        (tmp_path / "in" / "bad.hea").mkdir(parents=True)
        shards, reasons = self.attempt(tmp_path / "in", capsys)
        assert set(reasons) <= {"bad"}
        assert list(samples(shards)) == ["good"]

    @pytest.mark.parametrize("column", ["checksum", "name"])
    def test_a_channel_without_a_name_is_no_reason_to_stop(self, tmp_path, capsys, column):
        """Fields of a signal line may be left out from the right on: header(5) of WFDB."""
        header = write(tmp_path / "in", "bad")
        first, *lines = header.read_text().splitlines()
        nameless = [" ".join(line.split()[: {"checksum": 6, "name": 8}[column]]) for line in lines]
        header.write_text("\n".join([first, *nameless]) + "\n")
        assert wfdb.rdheader(str(header.with_suffix(""))).sig_name == [None, None]
        _, reasons = self.attempt(tmp_path / "in", capsys)
        assert list(reasons) == ["bad"]

    @pytest.mark.parametrize("flags", [(), ("--sampling-rate", "100")])
    def test_a_rate_of_zero_is_left_out(self, tmp_path, capsys, flags):
        header = write(tmp_path / "in", "zero")
        header.write_text(header.read_text().replace("2 100 400", "2 0 400"))
        assert list(self.attempt(tmp_path / "in", capsys, *flags)[1]) == ["zero"]

    def test_when_the_first_record_has_a_rate_of_zero_the_next_one_says_it(self, tmp_path, capsys):
        header = write(tmp_path / "in", "a")
        header.write_text(header.read_text().replace("2 100 400", "2 0 400"))
        assert list(self.attempt(tmp_path / "in", capsys)[1]) == ["a"]

    @pytest.mark.parametrize("gain", ["-1000", "1e300", "1e999"])
    def test_a_gain_that_no_recorder_has_does_not_end_the_build(self, tmp_path, capsys, gain):
        """A lead upside down may be taken as wfdb reads it, too; a gain beyond all bounds may not."""
        header = write(tmp_path / "in", "bad")
        header.write_text(header.read_text().replace("1000.0(0)", f"{gain}(0)"))
        shards, reasons = self.attempt(tmp_path / "in", capsys)
        if gain == "-1000" and not reasons:
            assert same_bits(samples(shards)["bad"]["ecg"], by_wfdb(header.with_suffix(""), ("I", "II"))[1])
        else:
            assert list(reasons) == ["bad"]
