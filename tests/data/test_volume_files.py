"""What readers of volumes give is what nibabel, pynrrd and numpy give; what is wrong with a file is told."""

import bz2
import gzip
import struct
import tracemalloc

import nibabel
import nrrd
import numpy as np
import pytest

from src.data.builders.arrays import ArrayFiles
from src.data.builders.nifti import read_nifti
from src.data.builders.nrrd_files import read_nrrd
from src.data.modalities import ct
from tests.data.volumes import chest, write_nifti, write_npz, write_nrrd

XYZ = chest((10, 12, 14)).transpose(2, 1, 0)
RAS = ("RAS", "LPS", "LAS", "SPL", "IAR")


def reason(read, path):
    with pytest.raises(ValueError) as error:
        read(path)
    return str(error.value)


def reason_and_peak(read, path):
    """Why, and the most bytes that were held meanwhile."""
    tracemalloc.start()
    try:
        return reason(read, path), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def geometry(image):
    return tuple(round(float(length), 5) for length in image.header.get_zooms()[:3]), "".join(
        nibabel.aff2axcodes(image.affine)
    )


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("kind", ["int16", "uint8", "int32", "float32", "float64", "uint16", ">i2"])
def test_nifti_is_what_nibabel_reads(tmp_path, version, name, kind):
    for codes in RAS:
        values = np.clip(XYZ, 0, 200).astype(kind) if kind == "uint8" else (XYZ + 1024).astype(kind)
        path = write_nifti(tmp_path / name, values, codes, (0.7, 1.1, 2.5), version)
        found, image = read_nifti(path), nibabel.load(path)
        assert np.array_equal(found.values_CXYZ[0], np.asanyarray(image.dataobj)) and found.scale is None
        assert (tuple(round(length, 5) for length in found.spacing), found.orientation) == geometry(image)


@pytest.mark.parametrize("scale", [(1.0, -1024.0), (2.0, 3.0), (0.5, -1000.25), (-1.0, 7.0)])
def test_the_scale_of_a_nifti_is_applied(tmp_path, scale):
    path = write_nifti(tmp_path / "a.nii.gz", (XYZ + 1024).astype(np.int16), scale=scale)
    found = read_nifti(path)
    assert np.array_equal(found.values_CXYZ[0], nibabel.load(path).get_fdata()) and found.scale == scale
    assert (found.values_CXYZ.dtype.kind == "i") == (scale[0] % 1 == 0)
    for none in ((0.0, 5.0), (np.nan, np.nan), (1.0, 0.0)):
        path = write_nifti(tmp_path / "b.nii", XYZ, scale=none)
        found = read_nifti(path)
        assert np.array_equal(found.values_CXYZ[0], XYZ) and found.scale is None


def test_nifti_without_a_form_says_no_orientation(tmp_path):
    found = read_nifti(write_nifti(tmp_path / "a.nii", XYZ, spacing=(1.0, 2.0, 3.0), geometry=False))
    assert found.orientation is None and found.spacing == (1.0, 2.0, 3.0)


def test_units_of_length_become_mm(tmp_path):
    found = read_nifti(write_nifti(tmp_path / "a.nii", XYZ, spacing=(0.001, 0.002, 0.003), xyzt_units=1))
    assert np.allclose(found.spacing, (1.0, 2.0, 3.0))


def test_a_qform_alone_is_enough(tmp_path):
    image = nibabel.Nifti1Image(XYZ, None)
    image.set_sform(None, 0)
    turn = np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.diag([0.8, 0.8, 3.0, 1.0])
    image.set_qform(turn, 1)
    nibabel.save(image, tmp_path / "a.nii")
    found = read_nifti(tmp_path / "a.nii")
    assert found.orientation == "LPS" and np.allclose(found.spacing, (0.8, 0.8, 3.0))


def test_axes_of_length_one_at_the_end_are_left_out(tmp_path):
    nibabel.save(nibabel.Nifti1Image(XYZ[..., None, None], np.eye(4)), tmp_path / "a.nii")
    assert read_nifti(tmp_path / "a.nii").values_CXYZ.shape == (1, *XYZ.shape)
    nibabel.save(nibabel.Nifti1Image(np.stack([XYZ, XYZ], -1), np.eye(4)), tmp_path / "b.nii")
    assert "expected is one volume of three axes" in reason(read_nifti, tmp_path / "b.nii")


def test_broken_nifti_files(tmp_path):
    good = write_nifti(tmp_path / "good.nii.gz", XYZ)
    raw = gzip.decompress(good.read_bytes())
    cases = {
        "empty.nii": b"",
        "none.nii": b"no header" * 100,
        "cut.nii": raw[:-10],
        "cut.nii.gz": good.read_bytes()[:-200],
        "head.nii": raw[:300],
        "junk.nii.gz": b"\x1f\x8b" + bytes(100),
    }
    flipped = bytearray(gzip.compress(raw, mtime=0))
    flipped[-8] ^= 1  # of the checksum
    cases["sum.nii.gz"] = bytes(flipped)
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        assert reason(read_nifti, tmp_path / name), name
    assert "it is empty" in reason(read_nifti, tmp_path / "empty.nii")
    assert "does not begin with a NIfTI header" in reason(read_nifti, tmp_path / "none.nii")
    assert "it is cut off" in reason(read_nifti, tmp_path / "cut.nii")
    assert "CRC check failed" in reason(read_nifti, tmp_path / "sum.nii.gz")
    assert reason(read_nifti, tmp_path / "gone.nii") == "there is no gone.nii"
    (tmp_path / "pair.nii").write_bytes(raw[:344] + b"ni1\0" + raw[348:])
    assert "lie in another file" in reason(read_nifti, tmp_path / "pair.nii")
    (tmp_path / "colours.nii").write_bytes(raw[:70] + struct.pack("<hh", 128, 24) + raw[74:])
    assert "expected are numbers" in reason(read_nifti, tmp_path / "colours.nii")
    (tmp_path / "zooms.nii").write_bytes(
        raw[:80] + struct.pack("<f", float("nan")) + raw[84:252] + bytes(4) + raw[256:]
    )
    assert "mm" in reason(read_nifti, tmp_path / "zooms.nii")


def test_bombs_are_refused_before_they_are_unpacked(tmp_path):
    raw = gzip.decompress(write_nifti(tmp_path / "good.nii.gz", XYZ).read_bytes())
    huge = raw[:40] + struct.pack("<8h", 3, 30000, 30000, 30000, 1, 1, 1, 1) + raw[56:]
    (tmp_path / "huge.nii.gz").write_bytes(gzip.compress(huge + bytes(100_000_000)))
    assert (tmp_path / "huge.nii.gz").stat().st_size < 200_000
    found, peak = reason_and_peak(read_nifti, tmp_path / "huge.nii.gz")
    assert "its header announces 54,000,000,000,000 bytes" in found and peak < 10_000_000
    (tmp_path / "tail.nii.gz").write_bytes(gzip.compress(raw + bytes(100_000_000)))
    found, peak = reason_and_peak(read_nifti, tmp_path / "tail.nii.gz")
    assert "goes on for more than" in found and peak < 50_000_000
    short = raw[:40] + struct.pack("<8h", 3, 1000, 1000, 1000, 1, 1, 1, 1) + raw[56:]
    (tmp_path / "short.nii.gz").write_bytes(gzip.compress(short))
    found, peak = reason_and_peak(read_nifti, tmp_path / "short.nii.gz")
    assert "it is cut off" in found and peak < 50_000_000
    far = raw[:108] + struct.pack("<f", 1e9) + raw[112:]
    (tmp_path / "far.nii.gz").write_bytes(gzip.compress(far))
    assert "the voxels begin at byte 1e+09" in reason(read_nifti, tmp_path / "far.nii.gz")


SPACES = {
    "left-posterior-superior": (-1, -1, 1),
    "right-anterior-superior": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1),
    "LPS": (-1, -1, 1),
}


@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2", "ascii"])
@pytest.mark.parametrize("kind", ["int16", "uint16", "float32", ">i2"])
def test_nrrd_is_what_pynrrd_reads(tmp_path, encoding, kind):
    directions = np.array([[0, 0, 2.5], [0.7, 0, 0], [0, -1.1, 0]])
    for space, signs in SPACES.items():
        path = write_nrrd(tmp_path / "a.nrrd", (XYZ + 1024).astype(kind), directions, space, encoding=encoding)
        found = read_nrrd(path)
        assert np.array_equal(found.values_CXYZ[0], nrrd.read(str(path))[0])
        affine = np.eye(4)
        affine[:3, :3] = directions.T * np.array(signs)[:, None]
        assert found.orientation == "".join(nibabel.aff2axcodes(affine))
        assert np.allclose(found.spacing, (2.5, 0.7, 1.1))


def test_nrrd_without_a_patients_space_says_no_orientation(tmp_path):
    found = read_nrrd(write_nrrd(tmp_path / "a.nrrd", XYZ, spacings=[1.0, 2.0, 3.0]))
    assert found.orientation is None and found.spacing == (1.0, 2.0, 3.0)
    found = read_nrrd(write_nrrd(tmp_path / "b.nrrd", XYZ))
    assert found.orientation is None and found.spacing is None
    found = read_nrrd(write_nrrd(tmp_path / "c.nrrd", XYZ, np.diag([1.0, 2.0, 3.0]), "scanner-xyz"))
    assert found.orientation is None and found.spacing == (1.0, 2.0, 3.0)


def test_a_list_axis_of_one_is_left_out(tmp_path):
    directions = [[np.nan] * 3, [1.0, 0, 0], [0, 1.0, 0], [0, 0, 2.0]]
    path = write_nrrd(tmp_path / "a.nrrd", XYZ[None], directions, kinds=["list", "domain", "domain", "domain"])
    found = read_nrrd(path)
    assert np.array_equal(found.values_CXYZ[0], XYZ) and found.orientation == "LPS" and found.spacing == (1, 1, 2)
    write_nrrd(tmp_path / "b.nrrd", np.stack([XYZ, XYZ]), directions)
    assert "expected is one volume of three axes" in reason(read_nrrd, tmp_path / "b.nrrd")


def test_detached_data_beside_the_header(tmp_path):
    for encoding in ("raw", "gzip"):
        write_nrrd(tmp_path / "in" / "a.nhdr", XYZ, np.eye(3), encoding=encoding)
        assert len(list((tmp_path / "in").iterdir())) >= 2
        assert np.array_equal(read_nrrd(tmp_path / "in" / "a.nhdr").values_CXYZ[0], XYZ)


@pytest.mark.parametrize(
    "name", ["../secret.raw", "/etc/passwd", "LIST", "slice%03d.raw 1 9 1", "link.raw", "gone.raw"]
)
def test_data_files_elsewhere_are_refused(tmp_path, name):
    path = write_nrrd(tmp_path / "in" / "a.nhdr", XYZ, np.eye(3), encoding="raw")
    data = next(other for other in path.parent.iterdir() if other != path)
    (tmp_path / "secret.raw").write_bytes(data.read_bytes())
    (path.parent / "link.raw").symlink_to(tmp_path / "secret.raw")
    header = path.read_text()
    assert f"data file: {data.name}" in header
    path.write_text(header.replace(f"data file: {data.name}", f"data file: {name}"))
    told = {"LIST": "in several files", "slice%03d.raw 1 9 1": "in several files", "gone.raw": "there is no gone.raw"}
    assert told.get(name, "out of its folder" if "link" in name else "outside of its folder") in reason(read_nrrd, path)


def test_broken_nrrd_files(tmp_path):
    good = write_nrrd(tmp_path / "good.nrrd", XYZ, np.eye(3)).read_bytes()
    head, _, data = good.partition(b"\n\n")
    cases = {
        "empty": (b"", "it is empty"),
        "none": (b"P5 8 8", "does not begin with NRRD000"),
        "cut": (good[:-100], "it is cut off"),
        "header": (b"NRRD0005\n" + b"#" * (2 << 20), "does not end within"),
        "junk": (head + b"\n\n" + b"no gzip at all", "can't be unpacked"),
        "field": (head + b"\nZebedee Quagmire\n\n" + data, "its header can't be read"),
        "encoding": (head.replace(b"gzip", b"hex") + b"\n\n" + data, "its encoding is none of"),
        "skip": (head + b"\nbyte skip: 5\n\n" + data, "byte skip"),
        "sizes": (head.replace(b"sizes: 14 12 10", b"sizes: 14 12 11") + b"\n\n" + data, "can't be read"),
        "flat": (head.replace(b"sizes: 14 12 10", b"sizes: 0 12 10") + b"\n\n" + data, "expected is one volume"),
        "huge": (head.replace(b"sizes: 14 12 10", b"sizes: 30000 30000 30000") + b"\n\n" + data, "announces"),
        "bomb": (head + b"\n\n" + gzip.compress(bytes(100_000_000)), "unpacks to more bytes than its header"),
        "bomb2": (head.replace(b"gzip", b"bzip2") + b"\n\n" + bz2.compress(bytes(9_000_000)), "unpacks to more bytes"),
    }
    for name, (content, wanted) in cases.items():
        assert content != good
        (tmp_path / f"{name}.nrrd").write_bytes(content)
        found, peak = reason_and_peak(read_nrrd, tmp_path / f"{name}.nrrd")
        assert peak < 10_000_000
        assert wanted in found and "Zebedee" not in found, name


@pytest.mark.parametrize("kind", ["int16", "float32", "float64", "uint8", ">i4", "bool"])
def test_arrays_are_what_numpy_reads(tmp_path, kind):
    values = (chest((4, 6, 8)) > 0).astype(kind) if kind == "bool" else np.abs(chest((4, 6, 8)) % 100).astype(kind)
    for array in (values, values[None], np.stack([values, values]), np.asfortranarray(values)):
        write_npz(tmp_path / "a.npz", ct=array)
        np.save(tmp_path / "a.npy", array)
        for path in (tmp_path / "a.npz", tmp_path / "a.npy"):
            found = ArrayFiles().read(path)
            assert np.array_equal(found.values_CXYZ, array if array.ndim == 4 else array[None])
            assert found.spacing is None and found.orientation is None


def test_several_arrays_need_a_name(tmp_path):
    path = write_npz(tmp_path / "a.npz", image=XYZ, label=XYZ * 0)
    assert np.array_equal(ArrayFiles("image").read(path).values_CXYZ[0], XYZ)
    assert "several arrays (image, label): name one" in reason(ArrayFiles().read, path)
    assert "no array ct: it holds image, label" in reason(ArrayFiles("ct").read, path)


def test_broken_arrays(tmp_path, monkeypatch):
    good = write_npz(tmp_path / "good.npz", ct=XYZ).read_bytes()
    np.save(tmp_path / "objects.npy", np.array([{}, 1], object), allow_pickle=True)
    np.savez(tmp_path / "objects.npz", np.array([{}, 1], object), allow_pickle=True)
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "empty.npy").write_bytes(b"")
    (tmp_path / "cut.npz").write_bytes(good[:-40])
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 0x55
    (tmp_path / "flipped.npz").write_bytes(bytes(flipped))
    for name in ("empty.npz", "empty.npy", "cut.npz", "flipped.npz"):
        assert reason(ArrayFiles().read, tmp_path / name)
    assert "would have to be unpickled" in reason(ArrayFiles("arr_0").read, tmp_path / "objects.npz")
    assert "would have to be unpickled" in reason(ArrayFiles().read, tmp_path / "objects.npy")
    for name, array in {
        "flat": XYZ[0],
        "empty": XYZ[:0],
        "many": np.zeros((17, 2, 2, 2)),
        "words": XYZ.astype("U1"),
    }.items():
        assert "its array " in reason(ArrayFiles().read, write_npz(tmp_path / f"{name}.npz", ct=array))
    monkeypatch.setattr("src.data.builders.arrays.LARGEST_VOLUME", 1 << 20)
    bomb = write_npz(tmp_path / "bomb.npz", ct=np.zeros((1, 100, 100, 100), np.int16))
    assert bomb.stat().st_size < 10_000
    assert "unpacks to 2,000,128 bytes, more than 1,048,576" in reason(ArrayFiles().read, bomb)
    assert ct.LARGEST_VOLUME == 2 << 30


@pytest.mark.parametrize(("unit", "factor"), [("mm", 1), ("cm", 10), ("m", 1000), ("um", 0.001), ("", 1)])
def test_units_of_a_nrrd_become_mm(tmp_path, unit, factor):
    units = [unit] * 3
    for name, space in (("a", "left-posterior-superior"), ("b", "scanner-xyz")):
        path = write_nrrd(tmp_path / f"{name}.nrrd", XYZ, np.diag([0.8, 0.7, 2.0]), space, **{"space units": units})
        assert np.allclose(read_nrrd(path).spacing, np.multiply([0.8, 0.7, 2.0], factor))
    path = write_nrrd(tmp_path / "c.nrrd", XYZ, spacings=[0.8, 0.7, 2.0], units=units)
    assert np.allclose(read_nrrd(path).spacing, np.multiply([0.8, 0.7, 2.0], factor))


def test_other_units_of_a_nrrd_are_refused_and_not_quoted(tmp_path):
    path = write_nrrd(tmp_path / "a.nrrd", XYZ, np.eye(3), **{"space units": ["mm", "mm", "Zebedee"]})
    assert reason(read_nrrd, path) == "its space units are not 3 of mm, cm, m, um, micron"


def test_headers_that_nibabel_refuses(tmp_path):
    path = write_nifti(tmp_path / "a.nii", XYZ, scale=(1.05, np.nan))
    with pytest.raises(nibabel.spatialimages.HeaderDataError):
        nibabel.load(path).get_fdata()
    assert "has the slope 1.05 and an intercept that is no number" in reason(read_nifti, path)
    raw = bytearray(write_nifti(tmp_path / "b.nii", XYZ).read_bytes())
    raw[344:348] = bytes(4)
    (tmp_path / "c.nii").write_bytes(raw)
    assert "its header lacks the mark of a NIfTI" in reason(read_nifti, tmp_path / "c.nii")
