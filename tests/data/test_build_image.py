"""The verb `image`: what comes out is what went in, the same bytes every time, and nobody's name."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image

from src.data.load_index import load_index
from tests.commands import alive, descendants, wait_until
from tests.data import dicoms, planted
from tests.data.archive import build, contents, rejected, write_csv
from tests.data.image_archive import by_cv2, encode, put, samples_of, write_archive
from tests.data.planted import NAME, smooth

ROOT = Path(__file__).resolve().parents[2]
SMALL = ("--samples-per-shard", "6")


def succeed(capsys, *words):
    code, out, err = build(capsys, *words)
    assert code == 0, err
    return out, err


def refuse(capsys, *words):
    """The one sentence in which a command ends."""
    code, _, err = build(capsys, *words)
    errors = [line for line in err.split("\n") if line.startswith("error: ")]
    assert code == 1 and len(errors) == 1 and "Traceback" not in err, err
    return errors[0]


def shown_by(path):
    return by_cv2(path.read_bytes())


def test_what_comes_out_of_a_table_is_what_went_in(tmp_path, capsys):
    words = write_archive(tmp_path)
    out, _ = succeed(capsys, *words, "--output", tmp_path / "out", "--keep-ids")
    assert "images of 20-26 x 30-34, grey and RGB, 8 bits" in out and "train: 45 samples of 15 patients" in out
    found = samples_of(tmp_path / "out")
    assert len(found) == 60 and rejected(tmp_path / "out") == {}
    for number in range(60):
        name = f"deep/{number}.jpg" if number % 2 else f"{number}.png"
        split, sample = found[name.replace("/", "-").replace(".", "-")]
        assert np.array_equal(sample["image"], shown_by(tmp_path / "images" / name))
        assert split == ("val" if number % 20 % 4 == 3 else "train")
        assert sample["labels"].tolist() == [number % 2] and sample["text"] == f"no finding {number}"
        assert sample["meta"] == {"id": sample["key"], "patient_id": f"P{number % 20}", "age": 20.0 + number % 20}


def test_a_webdataset_user_reads_them(tmp_path, capsys):
    succeed(capsys, *write_archive(tmp_path), "--output", tmp_path / "out", "--keep-ids")
    read = webdataset.WebDataset(str(tmp_path / "out" / "val-000000.tar"), shardshuffle=False).decode("rgb8")
    samples = list(read)
    assert len(samples) == 15
    for sample in samples:
        pixels = sample.get("png", sample.get("jpg"))
        own = samples_of(tmp_path / "out")[sample["__key__"]][1]["image"]
        assert np.array_equal(pixels, own if own.ndim == 3 else np.stack([own] * 3, -1))


def test_the_number_of_processes_changes_no_byte(tmp_path, capsys):
    words = write_archive(tmp_path)
    for name, workers in (("one", "1"), ("two", "2")):
        put(tmp_path / f"{name}.private" / "salt", b"0" * 64)
        succeed(capsys, *words, *SMALL, "--output", tmp_path / name, "--workers", workers)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert len(list((tmp_path / "one").glob("*.tar"))) == 8 + 3


@pytest.mark.parametrize("layout", ["table", "arrays"])
def test_a_killed_build_goes_on_and_ends_with_the_same_bytes(tmp_path, capsys, layout):
    if layout == "table":
        words = write_archive(tmp_path, images=200)
    else:
        images = np.random.default_rng(0).integers(0, 256, (300, 64, 64), np.uint8)
        np.savez_compressed(tmp_path / "ours.npz", train_images=images)
        words = ["image", "--input", str(tmp_path / "ours.npz")]
    words += [*SMALL, "--keep-ids", "--workers", "1"]
    succeed(capsys, *words, "--output", tmp_path / "once")
    output, partial = tmp_path / "out", tmp_path / ".out.partial"
    for wanted in (2, 6):
        command = [sys.executable, "-m", "tools.build_shards", *words, "--output", str(output)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        wait_until(lambda wanted=wanted: len(list(partial.glob("*.tar"))) >= wanted, 60, "tars")
        children = descendants(process.pid)
        process.kill()
        process.communicate()
        wait_until(lambda children=children: not alive(children), 10, "the end of all")
        assert not output.exists()
    kept = {tar.name: tar.stat().st_ino for tar in partial.glob("*.tar")}
    succeed(capsys, *words, "--output", output)
    assert contents(output) == contents(tmp_path / "once")
    again = {tar.name: tar.stat().st_ino for tar in output.glob("*.tar")}
    assert sum(again[name] == inode for name, inode in kept.items()) >= 5, "whole tars are not written again"
    assert {path.name for path in (tmp_path / "out.private").iterdir()} == {
        "owner.lock",
        "pseudonyms.csv",
        "rejected.csv",
    }


def test_the_public_set_comes_back_whole(medssl_data, tmp_path, capsys):
    path = medssl_data / "image" / "pneumoniamnist" / "pneumoniamnist.npz"
    if not path.is_file():
        pytest.skip(f"no {path}")
    out, err = succeed(
        capsys,
        "image",
        "--input",
        path,
        "--label-names",
        "normal",
        "pneumonia",
        "--output",
        tmp_path / "out",
        "--workers",
        1,
    )
    assert "28 samples hold the very content of another; 8 such contents are in more than one split" in out
    assert "the ids of MedMNIST v2 (Yang et al. 2023) are public" in err and "tells no patients" in err
    arrays, found = dict(np.load(path, allow_pickle=False)), samples_of(tmp_path / "out")
    assert len(found) == 5030
    for key, (split, sample) in found.items():
        number = int(key.rsplit("-", 1)[1])
        assert key == f"pneumoniamnist-{split}-{number:06d}"
        assert np.array_equal(sample["image"], arrays[f"{split}_images"][number])
        assert sample["labels"].argmax() == arrays[f"{split}_labels"][number, 0] and sample["labels"].sum() == 1
    statistics = load_index(tmp_path / "out")[0].statistics
    train = arrays["train_images"] / 255
    assert statistics.mean == pytest.approx([train.mean()], rel=1e-12)
    assert statistics.std == pytest.approx([train.std()], rel=1e-9) and statistics.count == train.size
    assert not (tmp_path / "out.private" / "arrays").exists()


def write_folders(root):
    for split in ("train", "test"):
        for number, category in enumerate(("normal", "opacity")):
            for image in range(3):
                pixels = smooth(16, 16, 1, seed=len(split) * 100 + number * 10 + image)
                put(root / split / category / f"person{split}{number}{image}_a.png", encode(pixels))
    return root


def test_folders_of_classes(tmp_path, capsys):
    root = write_folders(tmp_path / "in")
    out, _ = succeed(
        capsys,
        "image",
        "--input",
        root,
        "--class-folders",
        "--patient-pattern",
        r"(person\w+)_a",
        "--output",
        tmp_path / "out",
        "--keep-ids",
    )
    assert (
        "train: 6 samples of 6 patients; test: 6 samples of 6 patients" in out.replace("\n", " ") or "6 patients" in out
    )
    index, _ = load_index(tmp_path / "out")
    assert index.labels.names == ("normal", "opacity") and index.labels.kind == "multiclass"
    for key, (split, sample) in samples_of(tmp_path / "out").items():
        assert key.startswith(split) and sample["labels"].argmax() == ("opacity" in key)


@pytest.mark.parametrize(
    ("flags", "told"),
    [(["--no-patients"], True), (["--no-patients", "--class-folders"], False), (["--patient-folders"], False)],
)
def test_folders_that_are_taken_for_no_classes_are_told(tmp_path, capsys, flags, told):
    root = write_folders(tmp_path / "in")
    for folder in (root / "test").iterdir():
        folder.rename(folder.with_name(f"other {folder.name}"))  # since they are patients in one of the builds
    _, err = succeed(capsys, "image", "--input", root, *flags, "--output", tmp_path / "out")
    assert ("--class-folders makes labels of them" in err) == told
    assert bool(load_index(tmp_path / "out")[0].labels.names) == ("--class-folders" in flags)


def test_a_patient_in_two_splits_is_refused(tmp_path, capsys):
    root = write_folders(tmp_path / "in")
    sentence = refuse(capsys, "image", "--input", root, "--patient-pattern", "(person)", "--output", tmp_path / "out")
    assert "are of one patient: keep each patient in one split" in sentence and not (tmp_path / "out").exists()


def test_rows_of_an_array(tmp_path, capsys):
    images = np.random.default_rng(0).integers(0, 65536, (4, 8, 9), np.uint16)
    np.save(tmp_path / "x.npy", images)
    table = write_csv(tmp_path / "x.csv", [{"who": f"P{n}", "kind": "ab"[n % 2]} for n in range(4)])
    words = (
        "image",
        "--input",
        tmp_path / "x.npy",
        "--table",
        table,
        "--patient-column",
        "who",
        "--class-column",
        "kind",
    )
    succeed(capsys, *words, "--output", tmp_path / "out", "--keep-ids")
    found = samples_of(tmp_path / "out")
    for number in range(4):
        assert np.array_equal(found[f"x-csv-row-{number + 1}"][1]["image"], images[number])
    write_csv(table, [{"who": "P", "kind": "a"}])
    assert "holds 4 images and" in refuse(capsys, *words, "--output", tmp_path / "two")
    np.save(tmp_path / "x.npy", images.astype(float))
    assert "its array is float64 [4, 8, 9]" in refuse(capsys, *words, "--output", tmp_path / "two")


SECRET = NAME.encode()


def write_everywhere(root):
    """A name in files of every format, in paths, in DICOM headers."""
    grey, colour = smooth(24, 24, 1), smooth(24, 24)
    put(root / NAME / "a.jpg", planted.jpeg(colour))
    put(root / NAME / f"{NAME}.jpeg", planted.jpeg(smooth(24, 24, 1, seed=2), orientation=6))
    put(root / NAME / "c.png", planted.png(grey))
    put(root / NAME / "d.png", planted.png(smooth(24, 24, seed=3), orientation=3))
    put(root / NAME / "e.tif", planted.tiff(smooth(24, 24, 1, seed=4)))
    put(
        root / NAME / "f.webp",
        encode(smooth(24, 24, seed=5), "WEBP", exif=planted.exif(), xmp=planted.XMP, icc_profile=planted.ICC),
    )
    put(root / NAME / "g.gif", encode(smooth(24, 24, 1, seed=6), "GIF", comment=SECRET))
    put(root / NAME / "h.bmp", encode(smooth(24, 24, seed=7), "BMP") + SECRET)
    put(root / NAME / "i.png", planted.png(Image.fromarray(smooth(24, 24, seed=8)).quantize(9)))
    header = {
        "PatientName": f"{NAME}^Max",
        "PatientID": f"{NAME}-4711",
        "PatientBirthDate": "19411207",
        "StudyDate": "20190302",
        "InstitutionName": NAME,
        "ImageComments": f"seen by {NAME}",
        "StudyDescription": NAME,
        "PatientSex": "F",
        "KVP": "120",
        "PixelSpacing": [0.2, 0.1],
        "ViewPosition": "PA",
    }
    dicoms.write_native(root / NAME / "j.dcm", dicoms.moving(1, 24, 24, top=4095, dtype=np.uint16), bits=12, **header)


@pytest.mark.parametrize("more", [(), ("--size", "12", "12"), ("--format", "png")])
@pytest.mark.parametrize("whose", ["--patient-folders", "--no-patients"])
def test_names_stay_at_home(tmp_path, capsys, whose, more):
    write_everywhere(tmp_path / "in")
    out, err = succeed(capsys, "image", "--input", tmp_path / "in", whose, *more, "--output", tmp_path / "out")
    given = {path.name: path.read_bytes() for path in (tmp_path / "in" / NAME).iterdir()}
    assert len(given) == 10 and all(SECRET in data for data in given.values())
    for name, data in contents(tmp_path / "out").items():
        assert SECRET not in data and b"4711" not in data and b"1941" not in data and b"20190302" not in data, name
    assert NAME not in out + err
    found = samples_of(tmp_path / "out")
    assert len(found) == 10
    (meta,) = [sample["meta"] for _, sample in found.values() if "kvp" in sample["meta"]]
    assert meta["sex"] == 1 and meta["age"] == 77 and meta["view_position"] == "PA"
    assert meta["pixel_spacing"] == ([0.4, 0.2] if "--size" in more else [0.2, 0.1])


def test_dicom_keeps_its_bits_or_is_shown_as_by_a_viewer(tmp_path, capsys):
    values = dicoms.moving(1, 24, 32, top=4095, dtype=np.uint16)
    header = {"PatientID": "P1", "WindowCenter": "2048", "WindowWidth": "1000"}
    dicoms.write_native(tmp_path / "in" / "a.dcm", values, bits=12, **header)
    dicoms.write_native(tmp_path / "in" / "b", values, bits=12, interpretation="MONOCHROME1", **header)
    table = write_csv(tmp_path / "x.csv", [{"path": "a.dcm"}, {"path": "b"}])
    words = ["image", "--input", tmp_path / "in", "--table", table, "--no-patients", "--keep-ids"]
    succeed(capsys, *words, "--output", tmp_path / "deep")
    found = samples_of(tmp_path / "deep")
    assert np.array_equal(found["a-dcm"][1]["image"] >> 4, values[0])
    assert np.array_equal(found["b"][1]["image"] >> 4, 4095 - values[0])
    succeed(capsys, *words, "--output", tmp_path / "seen", "--windowed")
    seen = samples_of(tmp_path / "seen")["a-dcm"][1]["image"]
    assert np.abs(seen - np.clip((values[0] - 1548.0) / 999, 0, 1) * 255).max() <= 1 and seen.dtype == np.uint8


def test_words_in_the_pixels_of_a_dicom_are_not_taken_unseen(tmp_path, capsys):
    dicoms.write_native(tmp_path / "in" / "a.dcm", dicoms.moving(1), PatientID="P1", BurnedInAnnotation="YES")
    dicoms.write_native(tmp_path / "in" / "b.dcm", dicoms.moving(1, seed=9), PatientID="P2")
    dicoms.write_native(tmp_path / "in" / "c.dcm", dicoms.moving(3), PatientID="P3")
    words = ("image", "--input", tmp_path / "in")
    succeed(capsys, *words, "--output", tmp_path / "out")
    reasons = rejected(tmp_path / "out")
    assert "words are drawn into its pixels" in reasons["a.dcm"] and "it has 3 frames" in reasons["c.dcm"]
    succeed(capsys, *words, "--output", tmp_path / "all", "--burned-in")
    assert len(samples_of(tmp_path / "all")) == 2
    assert "--keep-ids would put the patients of DICOM" in refuse(
        capsys, *words, "--output", tmp_path / "x", "--keep-ids"
    )


BAD = {
    "empty.png": (b"", "it is empty"),
    "text.jpg": (b"hello, this is no image", "it is no image of these"),
    "cut.png": (encode(smooth(9, 9))[:60], "it is cut off"),
    "flipped.png": (
        encode(smooth(9, 9)).replace(b"IDAT", b"IDAT", 1)[:50] + b"\xff" + encode(smooth(9, 9))[51:],
        "CRC32",
    ),
    "cut.jpg": (encode(smooth(9, 9), "JPEG")[:-30], "it is cut off"),
    "moves.gif": (encode(smooth(9, 9), "GIF", save_all=True, append_images=[Image.new("P", (9, 9), 7)]), "2 frames"),
    "print.jpg": (None, "its colours are CMYK"),
    "nan.tif": (encode(np.full((4, 4), np.nan, np.float32), "TIFF"), "floating point"),
    "no.dcm": (b"\0" * 128 + b"DICM" + b"nonsense", "its transfer syntax"),
}


def test_bad_files_are_left_out_with_a_reason_each(tmp_path, capsys):
    for name, (data, _) in BAD.items():
        put(tmp_path / "in" / "who" / name, data or b"")
    Image.new("CMYK", (8, 8)).save(tmp_path / "in" / "who" / "print.jpg")
    put(tmp_path / "in" / "who" / "good.png", encode(smooth(9, 9)))
    words = ("image", "--input", tmp_path / "in", "--patient-folders")
    _, err = succeed(capsys, *words, "--output", tmp_path / "out")
    assert f"{len(BAD)} records were left out" in err and len(samples_of(tmp_path / "out")) == 1
    found = rejected(tmp_path / "out")
    assert set(found) == {f"who/{name}" for name in BAD}
    for name, (_, reason) in BAD.items():
        assert reason in found[f"who/{name}"], (name, found[f"who/{name}"])
        assert "0x" not in found[f"who/{name}"] and "Traceback" not in found[f"who/{name}"]
    code, out, err = build(capsys, *words, "--dry-run")
    assert code == 1 and all(reason in out for _, reason in BAD.values())
    assert f"{len(BAD)} things are wrong" in err
    put(tmp_path / "in" / "who" / "good.png", b"")
    assert f"none of {len(BAD) + 1} records can be used" in refuse(
        capsys, *words, "--output", tmp_path / "none"
    ).replace(",", "")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--path-column", "fil"], "has no column fil: did you mean file?"),
        (["--class-column", "report", "--label-columns", "pneumonia"], "not allowed with argument"),
        (["--size", "8", "8", "--shorter-side", "8"], "not allowed with argument"),
        (["--quality", "50"], "add --format jpeg"),
        (["--format", "jpeg", "--quality", "101"], "101 must be 1 to 100"),
        (["--patient-pattern", "(P)"], "--patient-pattern does nothing for images that a --table lists"),
        (["--label-names", "a"], "--label-names does nothing for images that a --table lists"),
        (["--fractions", "train=0.5", "val=0.5"], "leave out --split-column"),
        (["--meta-columns", "original_size"], "has no column original_size"),
        (["--root", "/elsewhere"], "--root /elsewhere does nothing"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path, capsys, words, sentence):
    assert sentence in refuse(capsys, *write_archive(tmp_path, 4), *words, "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_folders_and_arrays_refuse_flags_of_tables(tmp_path, capsys):
    root = write_folders(tmp_path / "in")
    out = ("--output", tmp_path / "out")
    assert "has a patient: say whose they are with --patient-folders, --patient-pattern" in refuse(
        capsys, "image", "--input", root, *out
    )
    assert "--text-column does nothing for a folder" in refuse(
        capsys, "image", "--input", root, "--text-column", "x", *out
    )
    assert "needs one pair of brackets" in refuse(capsys, "image", "--input", root, "--patient-pattern", "x", *out)
    assert "is no regular expression" in refuse(capsys, "image", "--input", root, "--patient-pattern", "(", *out)
    assert "leave one out" in refuse(
        capsys, "image", "--input", root, "--patient-pattern", "(x)", "--patient-folders", *out
    )
    assert "is not there" in refuse(capsys, "image", "--input", tmp_path / "gone", *out)
    np.savez(tmp_path / "a.npz", x=np.zeros(3))
    assert "expected are train_images" in refuse(capsys, "image", "--input", tmp_path / "a.npz", *out)
    np.save(tmp_path / "a.npy", np.zeros((2, 3, 3), np.uint8))
    assert "give their CSV with --table" in refuse(capsys, "image", "--input", tmp_path / "a.npy", *out)


def test_rows_that_lead_astray_are_refused_or_told_by_a_dry_run(tmp_path, capsys):
    put(tmp_path / "in" / "a.png", encode(smooth(9, 9)))
    put(tmp_path / "out.png", encode(smooth(9, 9)))
    rows = [
        {"path": path, "who": "P", "sick": sick}
        for path, sick in (("a.png", "1"), ("../out.png", "0"), ("b.png", "no"))
    ]
    table = write_csv(
        tmp_path / "x.csv",
        [*rows, {"path": "a.png", "who": "P", "sick": ""}, {"path": "gone.png", "who": "", "sick": ""}],
    )
    words = (
        "image",
        "--input",
        tmp_path / "in",
        "--table",
        table,
        "--patient-column",
        "who",
        "--label-columns",
        "sick",
    )
    assert "must lead to a record below" in refuse(capsys, *words, "--output", tmp_path / "out")
    code, out, _ = build(capsys, *words, "--dry-run")
    assert code == 1
    told = out.splitlines()
    assert told[0].startswith("row 2: the path '../out.png'") and "row 3:" in told[1] and "is 'no'" in told[1]
    assert "rows 1 and 4 are both of the record a.png" in told[2] and "it has no patient" in told[3]
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.private").exists()


def test_keys_have_no_dot_and_two_of_them_are_told(tmp_path, capsys):
    put(tmp_path / "in" / "a.b.png", encode(smooth(9, 9)))
    put(tmp_path / "in" / "a-b.png", encode(smooth(9, 9, seed=1)))
    words = ("image", "--input", tmp_path / "in", "--no-patients")
    assert "would both have the key a-b-png" in refuse(capsys, *words, "--keep-ids", "--output", tmp_path / "out")
    succeed(capsys, *words, "--output", tmp_path / "out")
    assert all("." not in key for key in samples_of(tmp_path / "out"))


def test_arrays_are_unpacked_where_only_their_owner_reads_and_one_build_writes(tmp_path, capsys):
    images = np.random.default_rng(0).integers(0, 256, (50, 64, 64), np.uint8)
    np.savez(tmp_path / "ours.npz", train_images=images)
    whole = (tmp_path / "ours.npz").read_bytes()
    place = whole.index(images[-1].tobytes())
    (tmp_path / "bad.npz").write_bytes(whole[:place] + bytes(9) + whole[place + 9 :])
    assert "is damaged" in refuse(capsys, "image", "--input", tmp_path / "bad.npz", "--output", tmp_path / "out")
    private = tmp_path / "out.private"
    assert private.stat().st_mode & 0o777 == 0o700 and (private / "arrays").is_dir()
    holds = "import sys; from pathlib import Path; from src.data.build import claim"
    holds += "\nwith claim(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    other = [sys.executable, "-c", holds, str(tmp_path / "two")]
    with subprocess.Popen(other, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as held:
        assert held.stdout.readline() == b"held\n"
        sentence = refuse(capsys, "image", "--input", tmp_path / "ours.npz", "--output", tmp_path / "two")
        assert "is being written by another build" in sentence and not (tmp_path / "two.private" / "arrays").exists()
        held.stdin.close()
    succeed(capsys, "image", "--input", tmp_path / "ours.npz", "--output", tmp_path / "two")


def test_a_dry_run_of_arrays_leaves_nothing(tmp_path, capsys):
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8), np.uint8)
    np.savez(tmp_path / "ours.npz", train_images=images)
    before = sorted(tmp_path.iterdir())
    out, _ = succeed(capsys, "image", "--input", tmp_path / "ours.npz", "--dry-run")
    assert "nothing is wrong with the 3 records" in out and sorted(tmp_path.iterdir()) == before


def test_settings_are_told_by_the_index(tmp_path, capsys):
    words = write_archive(tmp_path, 8)
    succeed(capsys, *words, "--shorter-side", 10, "--format", "jpeg", "--quality", 80, "--output", tmp_path / "out")
    index, _ = load_index(tmp_path / "out")
    assert index.source | {"reader": "table", "shorter_side": 10, "form": "jpeg", "quality": 80} == index.source
    assert index.heights == (10, 10)
    assert all("original_size" in sample["meta"] for _, sample in samples_of(tmp_path / "out").values())
