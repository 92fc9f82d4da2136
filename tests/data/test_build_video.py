"""`build_shards video` through the command line: what comes out is what went in, and nobody can be recognised."""

import csv
import io
import json
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest

from src.data.load_index import load_index
from src.data.shards import Shards
from tests.commands import kill_tree, wait_until
from tests.data import dicoms, videos
from tests.data.archive import build, contents, rejected, write_csv
from tests.data.conftest import write_tar
from tests.data.test_video_read import BAD
from tests.data.test_video_remux import PLANTED, SECRETS, TAGS, leaks

ROOT = Path(__file__).resolve().parents[2]
NO_ONE = ("--no-patients", "--workers", "1")


def samples(folder, split="train"):
    with Shards(folder, split) as shards:
        return shards.read(np.arange(len(shards)))


def archive(root, count=6):
    """Clips of patients p0, p0, p1, p1, ... and their table."""
    rows = []
    for number in range(count):
        videos.write(root / f"clip{number}.mp4", videos.frames_of(number, frames=5 + number))
        split = "val" if number >= count - 2 else "train"
        row = {"file": f"clip{number}.mp4", "who": f"p{number // 2}", "part": split, "report": f"clip {number}"}
        rows.append(row | {"normal": number % 2, "view": "AP"})
    return write_csv(root / "clips.csv", rows)


def words(root, *flags):
    table = (
        "--table",
        root / "clips.csv",
        "--path-column",
        "file",
        "--patient-column",
        "who",
        "--split-column",
        "part",
    )
    return ["video", "--input", root, *table, "--text-column", "report", "--label-columns", "normal", *flags]


@pytest.mark.data
def test_the_public_clips_come_out_as_opencv_reads_them(medssl_data, tmp_path, capsys):
    root = medssl_data / "video" / "lung_ultrasound"
    if not root.is_dir():
        pytest.skip(f"no {root}")
    here = ("video", "--input", root, "--table", root / "index.csv", "--path-column", "file")
    table = ("--patient-column", "patient", "--text-column", "text", "--class-column", "label")
    flags = ("--fractions", "train=0.7", "val=0.3", "--pass-through", "--meta-columns", "probe")
    code, out, err = build(capsys, *here, *table, *flags, "--output", tmp_path / "out")
    assert code == 0 and "mpeg2video, h264" in out and rejected(tmp_path / "out") == {}, err
    with (root / "index.csv").open(encoding="utf-8") as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    with (tmp_path / "out.private" / "pseudonyms.csv").open() as file:
        named = {row["key"]: row for row in csv.DictReader(file)}
    index, _ = load_index(tmp_path / "out")
    assert index.codecs == {"mpeg2video": 24, "h264": 14} and index.frames == (104, 495)
    found = [sample for split in ("train", "val") for sample in samples(tmp_path / "out", split)]
    assert len(found) == len(rows) == 38
    for number, sample in enumerate(found):
        row = rows[named[sample["key"]]["record"]]
        (video,) = sample["videos"]
        assert video.told["frames"] == int(row["frames"]) and video.told["made"] == "remuxed"
        assert sample["text"] == row["text"].strip() and sample["meta"]["probe"] == row["probe"]
        assert index.labels.names[int(sample["labels"].argmax())] == row["label"] and sample["labels"].sum() == 1
        reference = videos.by_opencv(root / row["file"])
        wanted = np.random.default_rng(number).integers(0, len(reference), 4)
        assert np.array_equal(video.frames(wanted), reference[wanted])
        if number % 8 == 0:
            assert np.array_equal(video.frames(), reference)
    for word in (b"20200502", b"GE Healthcare", b"Lavf", b"charlotte"):
        assert all(word not in path.read_bytes() for path in (tmp_path / "out").iterdir())


def test_columns_end_where_they_belong(tmp_path, capsys):
    archive(tmp_path / "in")
    flags = ("--lossless", "--meta-columns", "view", "--workers", "1", "--output", tmp_path / "out")
    code, out, err = build(capsys, *words(tmp_path / "in", *flags))
    assert code == 0 and "train: 4 samples of 2 patients, 4 with a report; val: 2 samples of 1 patients" in out, err
    found = {sample["text"]: sample for split in ("train", "val") for sample in samples(tmp_path / "out", split)}
    for number in range(6):
        sample = found[f"clip {number}"]
        assert sample["labels"].tolist() == [number % 2] and sample["meta"]["view"] == "AP"
        assert np.array_equal(sample["videos"][0].frames(), videos.by_opencv(tmp_path / "in" / f"clip{number}.mp4"))
        assert set(sample["meta"]) == {"id", "patient_id", "view"}
    with tarfile.open(tmp_path / "out" / "train-000000.tar") as tar:
        assert {name.split(".", 1)[1] for name in tar.getnames()} == {"mp4", "json", "txt"}


@pytest.mark.parametrize("flags", [("--pass-through",), ("--shorter-side", "32", "--rate", "10"), ("--codec", "mjpeg")])
def test_two_builds_with_any_number_of_processes_have_the_same_bytes(tmp_path, capsys, flags):
    archive(tmp_path / "in")
    (tmp_path / "two.private").mkdir()
    assert build(capsys, *words(tmp_path / "in", *flags, "--workers", "1", "--output", tmp_path / "one"))[0] == 0
    salt = (tmp_path / "one.private" / "salt").read_bytes()
    (tmp_path / "two.private" / "salt").write_bytes(salt)
    assert build(capsys, *words(tmp_path / "in", *flags, "--workers", "2", "--output", tmp_path / "two"))[0] == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_a_killed_build_goes_on_and_ends_with_the_same_bytes(tmp_path, capsys):
    archive(tmp_path / "in", 14)
    flags = ("--samples-per-shard", "2", "--keep-ids", "--codec", "ffv1", "--size", "240", "320")
    command = [str(word) for word in words(tmp_path / "in", *flags)]
    assert build(capsys, *command, "--workers", "1", "--output", tmp_path / "one")[0] == 0
    output, partial = tmp_path / "two", tmp_path / ".two.partial"
    full = [sys.executable, "-m", "tools.build_shards", *command, "--workers", "2", "--output", str(output)]
    process = subprocess.Popen(full, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: len(list(partial.glob("*.tar"))) >= 3, 60, "tars")
    kill_tree(process.pid)
    process.wait()
    assert not output.exists() and list(partial.glob("*.tar"))
    subprocess.run(full, cwd=ROOT, check=True, capture_output=True)
    assert contents(output) == contents(tmp_path / "one")


def study(root, **changes):
    """Two studies, one of three videos and one of one; the CSV's order is not that of the names."""
    rows = []
    for number, (name, of) in enumerate((("b", "s1"), ("c", "s2"), ("a", "s1"), ("d", "s1"))):
        videos.write(root / f"{name}.mp4", videos.frames_of(number))
        rows.append({"file": f"{name}.mp4", "study": of, "who": of, "part": "train", "report": of, "normal": 1})
        rows[-1] |= {key: value for key, value in changes.items() if name == "d"}
    return write_csv(root / "clips.csv", rows)


def test_videos_of_a_study_are_one_sample_in_the_order_of_the_table(tmp_path, capsys):
    study(tmp_path / "in")
    flags = ("--study-column", "study", "--lossless", "--workers", "1", "--output", tmp_path / "out")
    code, out, err = build(capsys, *words(tmp_path / "in", *flags))
    assert code == 0 and "1 to 3 videos a sample" in out, err
    found = {sample["text"]: sample for sample in samples(tmp_path / "out")}
    for text, names in (("s1", "bad"), ("s2", "c")):
        own = found[text]["videos"]
        assert len(own) == len(names)
        for video, name in zip(own, names, strict=True):
            assert np.array_equal(video.frames(), videos.by_opencv(tmp_path / "in" / f"{name}.mp4"))
    with tarfile.open(tmp_path / "out" / "train-000000.tar") as tar:
        names = tar.getnames()
        told = [json.load(tar.extractfile(name)) for name in names if name.endswith(".json")]
    key = next(name.split(".")[0] for name in names if name.endswith(".2.mp4"))
    own = [name for name in names if name.startswith(key)]
    assert own == [f"{key}.0.mp4", f"{key}.1.mp4", f"{key}.2.mp4", f"{key}.json", f"{key}.txt"]
    assert sorted(len(each["videos"]) for each in told) == [1, 3]
    code, out, _ = build_inspect(capsys, tmp_path / "out")
    assert code == 0 and "videos of a sample: 1 in 1, 3 in 1" in out


def build_inspect(capsys, folder, *more):
    from tools.inspect_shards import main

    code = main([str(folder), *more])
    return (code, *capsys.readouterr())


@pytest.mark.parametrize(
    ("change", "what"),
    [({"who": "p9"}, "patient"), ({"part": "val"}, "split"), ({"normal": 0}, "labels"), ({"report": "other"}, "text")],
)
def test_rows_of_a_study_that_disagree_are_both_named(tmp_path, capsys, change, what):
    study(tmp_path / "in", **change)
    code, _, err = build(capsys, *words(tmp_path / "in", "--study-column", "study", "--output", tmp_path / "out"))
    assert code == 1 and f"rows 1 and 4 are of the study s1 and differ in {what}" in err
    assert not (tmp_path / "out").exists()


def test_folders_of_studies_are_in_the_order_of_their_numbers(tmp_path, capsys):
    for number in (10, 9, 1):
        videos.write(tmp_path / "in" / "anna" / "echo" / f"v{number}.mp4", videos.frames_of(number))
    videos.write(tmp_path / "in" / "bert" / "one.mov", videos.frames_of(3))
    flags = ("--study-folders", "--patient-folders", "--lossless", "--workers", "1", "--output", tmp_path / "out")
    code, _, err = build(capsys, "video", "--input", tmp_path / "in", *flags)
    assert code == 0, err
    by_count = {len(sample["videos"]): sample for sample in samples(tmp_path / "out")}
    assert set(by_count) == {1, 3}
    for video, number in zip(by_count[3]["videos"], (1, 9, 10), strict=True):
        path = tmp_path / "in" / "anna" / "echo" / f"v{number}.mp4"
        assert np.array_equal(video.frames(), videos.by_opencv(path))
    with (tmp_path / "out.private" / "pseudonyms.csv").open() as file:
        assert {(row["record"], row["patient"]) for row in csv.DictReader(file)} == {
            ("anna/echo", "anna"),
            ("bert", "bert"),
        }


def test_a_systems_own_files_and_folders_called_as_videos_are_no_videos(tmp_path, capsys):
    for name in ("anna/echo/a.mp4", "bert/echo/a.mp4", "__MACOSX/bert/a.mp4", "bert/.trash/a.mp4"):
        videos.write(tmp_path / "in" / name)
    (tmp_path / "in" / "anna" / "echo" / "._a.mp4").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(100))
    (tmp_path / "in" / "bert" / "echo" / "b.mp4").mkdir()
    flags = ("--study-folders", "--patient-folders", "--workers", "1", "--output", tmp_path / "out")
    code, _, err = build(capsys, "video", "--input", tmp_path / "in", *flags)
    assert code == 0 and rejected(tmp_path / "out") == {}, err
    assert [len(sample["videos"]) for sample in samples(tmp_path / "out")] == [1, 1]


def test_a_video_that_no_encoder_takes_does_not_end_the_build(tmp_path, capsys):
    videos.write(tmp_path / "in" / "a.mkv", np.zeros((3, 4, 20000, 3), np.uint8), codec="ffv1")
    videos.write(tmp_path / "in" / "b.mp4")
    code, _, err = build(capsys, "video", "--input", tmp_path / "in", *NO_ONE, "--output", tmp_path / "out")
    assert code == 0 and list(rejected(tmp_path / "out")) == ["a.mkv"], err


def test_what_can_not_be_blanked_is_rejected(tmp_path, capsys):
    from tests.data.test_dicom import Sequence, ultrasound_region

    regions = Sequence([ultrasound_region(10, 4, 29, 53)])
    dicoms.write_native(tmp_path / "in" / "a.dcm", videos.frames_of(), SequenceOfUltrasoundRegions=regions)
    videos.write(tmp_path / "in" / "b.mp4")
    flags = ("--blank-outside", "--pass-through", "--output", tmp_path / "out")
    code, _, err = build(capsys, "video", "--input", tmp_path / "in", *NO_ONE, *flags)
    assert code == 0 and list(rejected(tmp_path / "out")) == ["b.mp4"], err


PERSON = {
    "PatientName": "Quagmire^Zebedee",
    "PatientID": "MRN-0815",
    "PatientBirthDate": "19411207",
    "StudyDate": "20190302",
    "PatientSex": "F",
    "InstitutionName": "Ward-Nine",
    "ImageComments": SECRETS[0].decode(),
}


def test_dicom_files_tell_patient_age_and_sex(tmp_path, capsys):
    for number in range(3):
        person = {**PERSON, "PatientID": f"MRN-{number // 2}", "Modality": "US", "HeartRate": 60 + number}
        dicoms.write_jpeg(tmp_path / "in" / "Zebedee" / f"IM{number}", videos.frames_of(number), **person)
    videos.write(tmp_path / "in" / "nobody.mp4")
    (tmp_path / "in" / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "in" / "notes").write_text("not a video")
    code, _, err = build(capsys, "video", "--input", tmp_path / "in", "--workers", "1", "--output", tmp_path / "out")
    assert code == 0, err
    assert rejected(tmp_path / "out") == {"nobody.mp4": "it has no patient"}
    found = samples(tmp_path / "out")
    assert len({sample["meta"]["patient_id"] for sample in found}) == 2
    for sample in found:
        assert set(sample["meta"]) == {"id", "patient_id", "age", "sex"} and sample["meta"]["age"] == 77
        told = sample["videos"][0].told
        assert told["dicom_modality"] == "US" and 60 <= told["heart_rate"] < 63 and told["rate"] == 25.0


def test_a_study_of_two_patients_is_rejected(tmp_path, capsys):
    for number, patient in enumerate("AAB"):
        folder = tmp_path / "in" / ("mixed" if number else "good")
        dicoms.write_native(folder / f"{number}.dcm", videos.frames_of(number), PatientID=f"MRN-{patient}")
    dicoms.write_native(tmp_path / "in" / "good" / "more.dcm", videos.frames_of(), PatientID="MRN-A")
    flags = ("--study-folders", "--workers", "1", "--output", tmp_path / "out")
    code, _, err = build(capsys, "video", "--input", tmp_path / "in", *flags)
    assert code == 0, err
    assert "several patients" in rejected(tmp_path / "out")["mixed"] and len(samples(tmp_path / "out")) == 1


def plant(root):
    """Secrets in the name of every file and folder, and in every place of every format that can hold words."""
    where = root / "Zebedee Quagmire"
    for name, make in PLANTED.items():
        where.mkdir(parents=True, exist_ok=True)
        make(where / f"MRN-0815 {name}")
    for suffix in ("mp4", "mov", "mkv"):
        videos.write(where / f"19411207.{suffix}", metadata=TAGS)
    videos.write_mpeg(where / "Ward-Nine.mpg")
    for path in where.glob("*.h264"):
        path.unlink()
    for path in where.glob("*.bin"):
        path.unlink()
    gif = videos.write_gif(where / "Quagmire.gif", comment=b" ".join(SECRETS)).read_bytes()
    (where / "Quagmire.gif").write_bytes(gif)
    write_dicoms(where)
    return where


def write_dicoms(where):
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    words = " ".join(secret.decode() for secret in SECRETS)
    nested = Dataset()
    nested.PatientName, nested.CodeMeaning = words[:60], words[:60]
    more = {"ViewCodeSequence": Sequence([nested]), "SeriesDescription": words[:60], "OperatorsName": "Zebedee"}
    dicoms.write_jpeg(where / "IM19411207.dcm", videos.frames_of(), **PERSON, **more)
    dicoms.write_rle(where / "IM2.dcm", videos.frames_of(1), **PERSON, **more)
    stream = PLANTED["mpeg2.m2v"](where / "inside.m2v").read_bytes()
    for path in (where / "inside.m2v", where / "inside.bin"):
        path.unlink()
    dataset = dicoms.dataset_of(videos.frames_of(), interpretation="YBR_PARTIAL_420", **PERSON, **more)
    dicoms.save(where / "IM3.dcm", dataset, [stream + b"\0" * (len(stream) % 2)], "1.2.840.10008.1.2.4.100")


@pytest.mark.parametrize(
    "flags", [("--pass-through",), (), ("--codec", "mjpeg"), ("--codec", "ffv1", "--shorter-side", "30")]
)
@pytest.mark.parametrize("broken", [False, True])
def test_no_secret_reaches_the_shards_or_the_screen(tmp_path, capsys, flags, broken):
    where = plant(tmp_path / "in")
    count = len([path for path in where.iterdir() if path.suffix not in (".m2v", ".m1v")])
    assert len({secret for path in where.iterdir() for secret in leaks(path.read_bytes())}) == len(SECRETS)
    if broken:
        for path in sorted(where.iterdir())[::2]:
            path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    code, out, err = build(capsys, "video", "--input", tmp_path / "in", *NO_ONE, *flags, "--output", tmp_path / "out")
    assert code == 0, err
    seen = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} | {"screen": (out + err).encode()}
    assert {name: leaks(data) for name, data in seen.items() if leaks(data)} == {}
    assert len(samples(tmp_path / "out")) == count - len(rejected(tmp_path / "out"))
    assert broken == bool(rejected(tmp_path / "out"))


def test_bad_files_are_told_one_by_one(tmp_path, capsys):
    videos.write(tmp_path / "in" / "a.mp4")
    for name, (make, _) in BAD.items():
        if name not in ("none.mp4",):
            make(tmp_path / "in" / name)
    for scrap in (tmp_path / "in").glob("*.h264"):
        scrap.unlink()
    videos.write(tmp_path / "in" / "short.mp4", videos.frames_of(frames=1))
    (tmp_path / "in" / "locked.mp4").symlink_to(tmp_path / "nowhere.mp4")
    os.mkfifo(tmp_path / "in" / "pipe.mp4")
    code, _, err = build(capsys, "video", "--input", tmp_path / "in", *NO_ONE, "--output", tmp_path / "out")
    assert code == 0, err
    told = rejected(tmp_path / "out")
    assert set(told) == {*BAD, "short.mp4", "locked.mp4", "pipe.mp4"} - {"none.mp4", "folder.mp4"}
    assert "fewer than 2" in told["short.mp4"] and "pipe" in told["pipe.mp4"]
    assert all(reason and "\n" not in reason for reason in told.values())
    assert len(samples(tmp_path / "out")) == 1


def test_of_a_study_the_bad_file_is_named(tmp_path, capsys):
    study(tmp_path / "in")
    (tmp_path / "in" / "a.mp4").write_bytes(b"")
    flags = ("--study-column", "study", "--workers", "1", "--output", tmp_path / "out")
    assert build(capsys, *words(tmp_path / "in", *flags))[0] == 0
    assert rejected(tmp_path / "out") == {"s1": "a.mp4: it is empty"}


TABLES = {
    "missing column": ({}, ("--path-column", "fil"), "did you mean file?"),
    "path outside": ({"file": "../x.mp4"}, (), "must lead to a record below"),
    "absolute path": ({"file": "/x.mp4"}, (), "must lead to a record below"),
    "file twice": ({"file": "clip1.mp4"}, (), "rows 1 and 2 are both of the record clip1.mp4"),
    "label that is a word": ({"normal": "yes"}, (), "the label normal is 'yes'"),
    "patient in two splits": ({"part": "val"}, (), "are of one patient"),
    "reserved name": ({}, ("--meta-columns", "file", "videos"), "no column videos"),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_wrong_table_stops_with_a_sentence(tmp_path, capsys, name):
    change, flags, sentence = TABLES[name]
    table = archive(tmp_path / "in")
    with table.open() as file:
        rows = list(csv.DictReader(file))
    rows[0] |= change
    write_csv(table, rows)
    code, out, err = build(capsys, *words(tmp_path / "in", *flags, "--output", tmp_path / "out"))
    assert code == 1 and sentence in err and err.count("\n") == 1, err
    assert not (tmp_path / "out").exists()


def test_a_name_with_a_dot_makes_no_key_with_one(tmp_path, capsys):
    table = archive(tmp_path / "in")
    (tmp_path / "in" / "clip0.mp4").rename(tmp_path / "in" / "clip.0.mp4")
    table.write_text(table.read_text().replace("clip0.mp4", "clip.0.mp4"))
    flags = ("--keep-ids", "--workers", "1", "--output", tmp_path / "out")
    assert build(capsys, *words(tmp_path / "in", *flags))[0] == 0
    keys = [sample["key"] for sample in samples(tmp_path / "out")]
    assert "clip-0-mp4" in keys and all("." not in key for key in keys)


FLAGS = [
    (("--pass-through", "--rate", "5"), "--rate needs the pictures to be encoded anew"),
    (("--pass-through", "--gray"), "--gray needs the pictures"),
    (("--fit", "crop"), "--fit crop is how a picture gets to --size"),
    (("--codec", "mjpeg", "--lossless"), "--lossless is of h264 or ffv1"),
    (("--lossless", "--quality", "3"), "knows no --quality"),
    (("--codec", "ffv1", "--quality", "3"), "does nothing for ffv1"),
    (("--codec", "mjpeg", "--keyframes", "3"), "--keyframes does nothing for mjpeg"),
    (("--quality", "77"), "must be 0 (best) to 51"),
    (("--codec", "mjpeg", "--quality", "1"), "must be 2 (best) to 31"),
    (("--study-folders",), "--study-folders does nothing for videos that a --table lists"),
    (("--size", "20000", "20000"), "a side of 20000 pixels"),
    (("--size", "1", "1", "--codec", "ffv1"), "a side of 1 pixels"),
    (("--shorter-side", "1"), "a side of 1 pixels"),
    (("--rate", "200000"), "--rate 200000 is above 1,000 Hz"),
    (("--assume-rate", "1001"), "--assume-rate 1001 is above"),
    (("--size", "3", "4", "--shorter-side", "3"), "not allowed with"),
    (("--fractions", "train=1"), "--fractions splits by itself"),
]


@pytest.mark.parametrize(("flags", "sentence"), FLAGS)
def test_flags_that_make_no_sense_together_are_refused(tmp_path, capsys, flags, sentence):
    archive(tmp_path / "in", 2)
    code, _, err = build(capsys, *words(tmp_path / "in", *flags, "--output", tmp_path / "out"))
    assert code == 1 and sentence in err and err.count("\n") == 1


def test_a_dry_run_writes_nothing_and_tells_rows(tmp_path, capsys):
    archive(tmp_path / "in")
    before = sorted(tmp_path.rglob("*"))
    assert build(capsys, *words(tmp_path / "in", "--dry-run", "--workers", "1"))[0] == 0
    (tmp_path / "in" / "clip3.mp4").write_bytes(b"")
    code, out, _ = build(capsys, *words(tmp_path / "in", "--dry-run", "--workers", "1"))
    assert code == 1 and out == "row 4: clip3.mp4: it is empty\n" and sorted(tmp_path.rglob("*")) == before


def test_paths_of_another_machine_are_rerooted(tmp_path, capsys):
    table = archive(tmp_path / "in")
    table.write_text(table.read_text().replace("\nclip", "\n/mnt/echo/clip"))
    flags = ("--root", "/mnt/echo", "--workers", "1", "--output", tmp_path / "out")
    assert build(capsys, *words(tmp_path / "in", *flags))[0] == 0 and len(samples(tmp_path / "out")) == 4


def test_copies_are_counted(tmp_path, capsys):
    archive(tmp_path / "in")
    (tmp_path / "in" / "clip5.mp4").write_bytes((tmp_path / "in" / "clip0.mp4").read_bytes())
    code, out, _ = build(capsys, *words(tmp_path / "in", "--workers", "1", "--output", tmp_path / "out"))
    assert code == 0 and "duplicates: 1 samples hold the very content of another; 1 such contents are in more" in out


def test_tars_of_others_are_indexed(tmp_path, capsys):
    def clip(suffix, write):
        return write(tmp_path / f"clip.{suffix}").read_bytes()

    members = [
        ("a.mp4", clip("mp4", videos.write)),
        ("a.json", {"labels": [1, None], "patient_id": "x"}),
        ("b.0.avi", clip("avi", videos.write_avi)),
        ("b.1.mp4", clip("mp4", videos.write)),
        ("b.json", {"labels": [0, 1], "patient_id": "y"}),
    ]
    (tmp_path / "tars").mkdir()
    write_tar(tmp_path / "tars" / "train-0.tar", members)
    code, out, err = build(capsys, "index", "--input", tmp_path / "tars", "--labels", "one", "two")
    assert code == 0 and "1 to 2 videos a sample of 12 to 12 frames" in out, err
    one, other = samples(tmp_path / "tars")
    assert len(one["videos"]) == 1 and [video.frames().shape for video in other["videos"]] == [(12, 48, 64, 3)] * 2
    write_tar(tmp_path / "bad.tar", [("a.mp4", b"no video"), ("a.json", {})])
    (tmp_path / "more").mkdir()
    (tmp_path / "bad.tar").rename(tmp_path / "more" / "train-0.tar")
    code, _, err = build(capsys, "index", "--input", tmp_path / "more")
    assert code == 1 and "train-0.tar: sample a can't be used: its video 0: it can't be read as a video" in err


def test_no_process_reads_for_long_what_it_does_not_need(tmp_path, capsys):
    """The report of a folder without videos comes at once."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").write_text("x")
    start = time.perf_counter()
    code, _, err = build(capsys, "video", "--input", tmp_path / "in", *NO_ONE, "--output", tmp_path / "out")
    assert code == 1 and "holds no videos" in err and time.perf_counter() - start < 2
    assert io.StringIO(err).readline().startswith("error: ")
