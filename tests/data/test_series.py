"""Slices come in the order in which they lie in the patient, or it is said why they make no volume."""

import numpy as np
import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless

from src.data.builders.grid import Grid, place
from src.data.builders.series import read_series
from tests.data.dicoms import LOSSLESS
from tests.data.volumes import chest, save_slice, write_series

HU = chest((9, 16, 20))


def spl(paths, grid=None):
    """As the shards have it."""
    found = read_series(sorted(paths))
    return place(found, found.values_CXYZ, grid or Grid())


def reason(paths):
    with pytest.raises(ValueError) as error:
        read_series(sorted(paths))
    return str(error.value)


@pytest.mark.parametrize("scale", [(1.0, -1024.0), (1.0, 0.0), (2.0, -1000.0), None])
def test_neither_names_nor_numbers_order_the_slices(tmp_path, scale):
    hu = HU // 2 * 2
    for seed in range(4):
        paths = write_series(tmp_path / str(seed), hu, seed=seed, scale=scale)
        found = spl(paths)
        assert np.array_equal(found.array_CDHW[0], hu) and found.stored == "exact"
        assert np.allclose(found.spacing, (2.5, 1.2, 0.8)) and found.orientation == "SPL"
        assert read_series(paths).scale == scale


def test_slices_that_go_down_are_turned(tmp_path):
    found = spl(write_series(tmp_path, HU[::-1], gap=-2.5))
    assert np.array_equal(found.array_CDHW[0], HU)


def test_each_slice_has_its_own_scale(tmp_path):
    def change(number, slice_):
        slope, intercept = 1 + number % 2, -1000 - number
        slice_.RescaleSlope, slice_.RescaleIntercept = slope, intercept
        stored = (HU[number].astype(int) - intercept) // slope
        slice_.PixelData = stored.astype("<i2").tobytes()
        slice_.PixelRepresentation = 1
        return slice_

    found = spl(write_series(tmp_path, HU, change=change)).array_CDHW[0]
    for number, slice_YX in enumerate(found):
        slope, intercept = 1 + number % 2, -1000 - number
        assert np.array_equal(slice_YX, (HU[number].astype(int) - intercept) // slope * slope + intercept)


@pytest.mark.parametrize("slope", [0.3, 1.25])
def test_a_slope_with_a_fraction_is_rounded_to_half_a_hu(tmp_path, slope):
    paths = write_series(tmp_path, HU, scale=(slope, -1024.0))
    exact = read_series(paths).values_CXYZ[0]
    found = spl(paths)
    assert found.stored == "rounded" and np.abs(found.array_CDHW[0] - exact).max() <= 0.5


DIRECTIONS = {
    "axial": ([1, 0, 0], [0, 1, 0], (0, 0, 1)),
    "feet first": ([-1, 0, 0], [0, 1, 0], (0, 0, -1)),
    "sagittal": ([0, 1, 0], [0, 0, -1], (-1, 0, 0)),
    "coronal": ([1, 0, 0], [0, 0, -1], (0, 1, 0)),
    "oblique": ([0.8, 0.6, 0], [-0.6, 0.8, 0], (0, 0, 1)),
}


@pytest.mark.parametrize("name", DIRECTIONS)
@pytest.mark.parametrize("way", [1, -1])
def test_series_are_what_simpleitk_reads(tmp_path, name, way):
    """GDCM sorts and rescales by itself, and ITK turns the volume."""
    itk = pytest.importorskip("SimpleITK", reason="no SimpleITK, the independent reader of DICOM series")
    across, down, normal = DIRECTIONS[name]

    def change(number, slice_):
        slice_.ImageOrientationPatient = [*across, *down]
        slice_.ImagePositionPatient = [5.0 + 2.5 * way * number * value for value in normal]
        return slice_

    paths = write_series(tmp_path, HU, change=change)
    reader = itk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    expected = itk.DICOMOrient(reader.Execute(), "LPS")
    found = spl(paths)
    assert np.array_equal(found.array_CDHW[0], itk.GetArrayFromImage(expected))
    assert np.allclose(found.spacing, expected.GetSpacing()[::-1], atol=1e-4)
    assert (read_series(paths).oblique > 30) == (name == "oblique")


@pytest.mark.parametrize("form", ["rle", *LOSSLESS])
def test_compressed_slices(tmp_path, form):
    paths = write_series(tmp_path, HU)
    for path in paths:
        compress(path, form)
        assert pydicom.dcmread(path).file_meta.TransferSyntaxUID.is_compressed
    assert np.array_equal(spl(paths).array_CDHW[0], HU)


def compress(path, form):
    if form == "rle":
        slice_ = pydicom.dcmread(path)
        slice_.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
        slice_.save_as(path)
        return
    import gdcm

    reader, writer, change = gdcm.ImageReader(), gdcm.ImageWriter(), gdcm.ImageChangeTransferSyntax()
    reader.SetFileName(str(path))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(LOSSLESS[form]))))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()


def test_bits_above_those_stored_are_left_out(tmp_path):
    def overlaid(number, slice_):
        stored = (HU[number].astype(int) + 1024).astype("<u2")
        slice_.BitsStored, slice_.HighBit = 12, 11
        slice_.PixelData = (stored | 0x8000).tobytes()
        return slice_

    assert np.array_equal(spl(write_series(tmp_path / "a", HU, change=overlaid)).array_CDHW[0], HU)

    def signed(number, slice_):
        slice_.BitsStored, slice_.HighBit, slice_.PixelRepresentation = 13, 12, 1
        slice_.PixelData = (HU[number].astype("<i2").view("<u2") & 0x1FFF).tobytes()
        return slice_

    assert np.array_equal(spl(write_series(tmp_path / "b", HU, scale=(1, 0), change=signed)).array_CDHW[0], HU)


def moved(numbers, by):
    """A change that shifts some slices, in mm."""

    def change(number, slice_):
        if number in numbers:
            slice_.ImagePositionPatient = [a + b for a, b in zip(slice_.ImagePositionPatient, by, strict=True)]
        return slice_

    return change


def without(*numbers):
    return lambda number, slice_: None if number in numbers else slice_


def setting(numbers, **attributes):
    def change(number, slice_):
        for name, value in attributes.items() if number in numbers else ():
            if value is None:
                delattr(slice_, name)
            else:
                setattr(slice_, name, value)
        return slice_

    return change


ALL = range(9)
SPOILT = {
    "a slice is missing": (without(4), "misses slices, 1 of 9: one lies every 2.5 mm"),
    "the second is missing": (without(1), "misses slices, 1 of 9: one lies every 2.5 mm"),
    "two are missing": (without(2, 6), "misses slices, 2 of 9"),
    "gaps differ": (moved(range(5, 9), (0, 0, 0.9)), "not at equal distances: 2.5 to 3.4 mm"),
    "two at one place": (moved([3], (0, 0, 2.5)), "2 of its 9 slices lie where another one lies"),
    "all at one place": (setting(ALL, ImagePositionPatient=[0, 0, 0]), "lie where another one lies"),
    "shifted to the side": (moved([4], (7, 0, 0)), "don't lie on one line: one is 7 mm off"),
    "turned": (setting([2], ImageOrientationPatient=[0, 1, 0, 0, 0, -1]), "lie in different directions"),
    "turned a little": (setting([2], ImageOrientationPatient=[0.995, 0.0998749, 0, -0.0998749, 0.995, 0]), "different"),
    "zoomed": (setting([7], PixelSpacing=[1.2, 0.9]), "differ in PixelSpacing"),
    "no slope here": (setting([1], RescaleSlope=None), "and others none"),
    "no place": (setting([0], ImagePositionPatient=None), "a slice has no ImagePositionPatient"),
    "no directions": (setting([0], ImageOrientationPatient=None), "a slice has no ImageOrientationPatient"),
    "zero directions": (setting(ALL, ImageOrientationPatient=[0] * 6), "an impossible ImageOrientationPatient"),
    "no spacing": (setting(ALL, PixelSpacing=None), "a slice has no PixelSpacing"),
    "zero spacing": (setting(ALL, PixelSpacing=[0, 1]), "an impossible ImageOrientationPatient or PixelSpacing"),
    "magnetic resonance": (setting(ALL, Modality="MR"), "it is no CT: its Modality is MR"),
    "a made-up modality": (setting(ALL, Modality="ZEBEDEE"), "it is no CT: its Modality is another"),
    "scout": (setting(ALL, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), "a localizer"),
    "frames": (setting(ALL, NumberOfFrames=4), "enhanced CT of many frames"),
    "colour": (setting(ALL, PhotometricInterpretation="MONOCHROME1"), "is not one gray image"),
    "no rows": (setting(ALL, Rows=0), "states no usable Rows"),
    "cut off": (setting([5], PixelData=b"12"), "can't be decoded"),
    "no pixels": (setting([5], PixelData=b""), "can't be decoded"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_what_makes_no_volume_is_told(tmp_path, name):
    change, wanted = SPOILT[name]
    found = reason(write_series(tmp_path, HU, change=change))
    assert wanted in found and "ZEBEDEE" not in found


@pytest.mark.parametrize("gap", [0.33, 0.625, 1.25])
def test_headers_that_are_rounded_are_no_gaps(tmp_path, gap):
    """Places that are written with one digit."""

    def rounded(number, slice_):
        slice_.ImagePositionPatient = [0, 0, round(gap * number, 1)]
        return slice_

    found = spl(write_series(tmp_path, HU, change=rounded))
    assert np.array_equal(found.array_CDHW[0], HU) and abs(found.spacing[0] - gap) < 0.01


def test_a_tilted_gantry_is_told_with_its_angle(tmp_path):
    def tilted(number, slice_):
        y = number * 2.5 * np.tan(np.radians(12))
        slice_.ImagePositionPatient = [0, round(float(y), 6), 2.5 * number]
        return slice_

    assert "12.0 degrees off a right angle, as of a tilted gantry" in reason(write_series(tmp_path, HU, change=tilted))


def test_slices_of_another_size(tmp_path):
    paths = write_series(tmp_path / "a", HU) + write_series(tmp_path / "b", chest((3, 8, 8)))
    assert "slices of 8 x 8 and of 16 x 20 pixels" in reason(paths)
    assert "a single slice is no volume" in reason(paths[:1])


def test_files_that_are_no_slices(tmp_path):
    paths = write_series(tmp_path, HU)
    for content, wanted in ((b"", "no DICM"), (b"x" * 4000, "no DICM"), (paths[2].read_bytes()[:300], "")):
        (tmp_path / "x.dcm").write_bytes(content)
        assert wanted in reason([*paths, tmp_path / "x.dcm"])
    deflated = pydicom.dcmread(paths[0])
    save_slice(tmp_path / "x.dcm", deflated, DeflatedExplicitVRLittleEndian)
    assert "deflated as a whole" in reason([*paths, tmp_path / "x.dcm"])
    assert "there is no gone.dcm" in reason([*paths, tmp_path / "gone.dcm"])
