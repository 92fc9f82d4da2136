"""Volumes come to one orientation, spacing and size, and keep their values where they can."""

import itertools

import nibabel
import numpy as np
import pytest
import scipy.ndimage
import torch
from nibabel.orientations import axcodes2ornt, ornt_transform

from src.data.builders.grid import KEEP, Grid, place, resample
from src.data.builders.volumes import LETTERS, Volume, described, is_orientation
from src.data.npz import pack_npz, unpack_npz
from tests.data.volumes import chest

ALL_CODES = ["".join(letters) for order in itertools.permutations(LETTERS) for letters in itertools.product(*order)]


def volume(codes="RAS", spacing=(1.0, 2.0, 3.0), values=None):
    values = chest((5, 6, 7))[None] if values is None else values
    return Volume(values, spacing, codes)


def test_the_codes_are_nibabels():
    assert len(set(ALL_CODES)) == 48 and all(map(is_orientation, ALL_CODES))
    for wrong in ("", "SP", "SPI", "SPX", "SSS", "spl", "SPLA"):
        assert not is_orientation(wrong)
    rng = np.random.default_rng(0)
    for codes in ALL_CODES:
        steps_33 = np.zeros((3, 3))
        for column, letter in enumerate(codes):
            row = next(number for number, pair in enumerate(LETTERS) if letter in pair)
            steps_33[row, column] = (-1) ** (letter == LETTERS[row][0]) * rng.uniform(0.5, 3)
        found = described(steps_33)
        assert found["orientation"] == codes == "".join(nibabel.aff2axcodes(affine(steps_33)))
        assert np.allclose(found["spacing"], np.abs(steps_33).max(0)) and found["oblique"] == 0


def affine(steps_33):
    found = np.eye(4)
    found[:3, :3] = steps_33
    return found


def turn(degrees, axis=0):
    """A rotation about an axis."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.roll(np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]]), (axis, axis), (0, 1))


@pytest.mark.parametrize("degrees", [1.0, 12.5, 40.0])
def test_oblique_axes_take_the_nearest_of_the_patient(degrees):
    for codes in ALL_CODES[::5]:
        straight = np.zeros((3, 3))
        for column, letter in enumerate(codes):
            row = next(number for number, pair in enumerate(LETTERS) if letter in pair)
            straight[row, column] = -1.5 if letter == LETTERS[row][0] else 1.5
        steps_33 = turn(degrees, 1) @ straight
        found = described(steps_33)
        assert found["orientation"] == codes == "".join(nibabel.aff2axcodes(affine(steps_33)))
        assert np.isclose(found["oblique"], degrees) and np.allclose(found["spacing"], 1.5)


def test_a_tilted_gantry_is_refused():
    steps_33 = np.eye(3)
    steps_33[:, 2] = turn(12) @ [0, 0, 2.0]
    with pytest.raises(ValueError, match=r"12\.0 degrees off a right angle, as of a tilted gantry"):
        described(steps_33)
    for wrong in (0.0, np.nan):
        with pytest.raises(ValueError, match="its header gives axes of"):
            described(np.diag([1.0, wrong, 1.0]))


@pytest.mark.parametrize("wanted", ["RAS", "SPL", "IAR", "PSL"])
@pytest.mark.parametrize("codes", ALL_CODES)
def test_orientations_are_those_of_nibabel(codes, wanted):
    source = volume(codes)
    found = place(source, source.values_CXYZ, Grid(orientation=wanted))
    transform = ornt_transform(axcodes2ornt(codes), axcodes2ornt(wanted))
    expected = nibabel.orientations.apply_orientation(source.values_CXYZ[0], transform)
    assert np.array_equal(found.array_CDHW[0], expected) and found.array_CDHW.dtype == np.int16
    moved = dict(
        zip([code if code in "RAS" else "RAS"["LPI".index(code)] for code in codes], source.spacing, strict=True)
    )
    assert found.spacing == tuple(moved[code if code in "RAS" else "RAS"["LPI".index(code)]] for code in wanted)
    assert found.orientation == wanted and found.stored == "exact"


def test_a_voxel_keeps_its_place_in_the_patient():
    """Without any library: where a marked voxel lies in mm is where it lay."""
    values = np.zeros((1, 4, 5, 6), np.int16)
    values[0, 3, 1, 2] = 100
    source = Volume(values, (1.0, 2.0, 3.0), "LPS")  # to the left 3 mm, to the back 2 mm, up 6 mm
    found = place(source, values, Grid())
    assert np.argwhere(found.array_CDHW[0]).tolist() == [[2, 1, 3]] and found.spacing == (3.0, 2.0, 1.0)
    source = Volume(values, (1.0, 2.0, 3.0), "RAS")
    assert np.argwhere(place(source, values, Grid()).array_CDHW[0]).tolist() == [[2, 5 - 1 - 1, 4 - 1 - 3]]


def test_keep_leaves_what_is_not_known():
    source = Volume(chest((5, 6, 7))[None])
    found = place(source, source.values_CXYZ, Grid(orientation=KEEP))
    assert np.array_equal(found.array_CDHW, source.values_CXYZ) and found.orientation is None and found.spacing is None
    with pytest.raises(ValueError, match="state it with --source-orientation"):
        place(source, source.values_CXYZ, Grid())
    with pytest.raises(ValueError, match="state it with --source-spacing"):
        place(source, source.values_CXYZ, Grid(orientation=KEEP, spacing=(1, 1, 1)))


def test_finer_grids_are_scipys_linear_interpolation():
    values = chest((6, 8, 10))[None]
    found = resample(values, (3.0, 2.0, 1.0), (1.5, 0.5, 0.4))
    expected = scipy.ndimage.zoom(values[0].astype(float), (2, 4, 2.5), order=1, grid_mode=True, mode="nearest")
    assert found.shape[1:] == expected.shape and np.abs(found[0] - expected).max() < 0.01


@pytest.mark.parametrize("factor", [2.0, 2.5, 4.0])
def test_coarser_grids_are_torchs_antialiasing(factor):
    values = chest((4, 40, 20))[None]
    found = resample(values, (1.0, 1.0, 1.0), (1.0, factor, factor))
    sizes = (int(40 / factor), int(20 / factor))
    images = torch.from_numpy(values[0].astype(np.float64))[:, None]
    expected = torch.nn.functional.interpolate(images, sizes, mode="bilinear", antialias=True, align_corners=False)
    assert np.abs(found[0] - expected[:, 0].numpy()).max() < 0.01


@pytest.mark.parametrize(("size", "spacing", "wanted"), [(7, 1.3, 0.9), (9, 0.7, 2.0), (5, 2.5, 1.0), (11, 1.0, 3.3)])
def test_odd_ratios_keep_the_middle_and_straight_lines(size, spacing, wanted):
    """A ramp in mm stays that ramp, less the rim, on a grid of exactly the wanted spacing about the same middle."""
    ramp_mm = (np.arange(size) - (size - 1) / 2) * spacing
    values = np.broadcast_to(ramp_mm[:, None, None], (size, 2, 2))[None].astype(np.float32)
    found = resample(values, (spacing, 1, 1), (wanted, 1, 1))[0, :, 0, 0]
    assert len(found) == max(round(size * spacing / wanted), 1)
    expected = (np.arange(len(found)) - (len(found) - 1) / 2) * wanted
    inside = np.abs(expected) + max(wanted, spacing) <= ramp_mm[-1]
    assert inside.any() and np.allclose(found[inside], expected[inside], atol=1e-5)
    assert np.allclose(found, -found[::-1], atol=1e-5)


def test_thin_slices_do_not_fold():
    """Slices that alternate become their mean; picking every fourth would keep one of the two."""
    values = np.broadcast_to(np.where(np.arange(40) % 2, 100, -100)[:, None, None], (40, 3, 3))[None]
    found = resample(values, (1.0, 1.0, 1.0), (4.0, 1.0, 1.0))
    assert np.abs(found[0, 1:-1]).max() < 1e-3


def test_the_same_spacing_changes_no_bit():
    source = volume("SPL", (2.5, 1.40625, 1.40625))
    found = place(source, source.values_CXYZ, Grid(spacing=(2.5, 1.4062, 1.4063)))
    assert np.array_equal(found.array_CDHW, source.values_CXYZ) and found.stored == "exact"


@pytest.mark.parametrize("size", [(5, 6, 7), (3, 9, 4), (8, 2, 7), (9, 9, 9)])
def test_crop_and_pad_are_about_the_middle(size):
    source = volume("SPL", (1.0, 1.0, 1.0))
    found = place(source, source.values_CXYZ, Grid(size=size)).array_CDHW[0]
    assert found.shape == size
    for index in np.ndindex(*size):
        back = [
            at + (have - min(have, want)) // 2 - (want - min(have, want)) // 2
            for at, have, want in zip(index, (5, 6, 7), size, strict=True)
        ]
        inside = all(0 <= at < have for at, have in zip(back, (5, 6, 7), strict=True))
        assert found[index] == (source.values_CXYZ[0][tuple(back)] if inside else -1024)


def test_padding_is_what_was_asked_for():
    source = volume("SPL", (1.0, 1.0, 1.0), chest((4, 4, 4))[None].clip(-100, 100).astype(np.int8))
    found = place(source, source.values_CXYZ, Grid(size=(6, 4, 4), pad_value=-2000)).array_CDHW
    assert (found[0, 0] == -2000).all() and np.array_equal(found[0, 1:5], source.values_CXYZ[0])
    with pytest.raises(ValueError, match=r"more than the \[3, 9, 9\] of --size"):
        place(source, source.values_CXYZ, Grid(size=(3, 9, 9), crop="never"))


def test_how_values_are_stored():
    whole, source = chest((4, 4, 4))[None], volume("SPL", (1.0, 1.0, 1.0), chest((4, 4, 4))[None])
    for kind in (np.int16, np.int32, np.float32, np.float64, ">i2"):
        found = place(source, whole.astype(kind), Grid())
        assert (
            found.stored == "exact" and found.array_CDHW.dtype == np.int16 and np.array_equal(found.array_CDHW, whole)
        )
    third = whole / 7
    found = place(source, third, Grid())
    assert found.stored == "rounded" and found.array_CDHW.dtype == np.int16
    assert 0.4 < np.abs(found.array_CDHW - third).max() <= 0.5
    found = place(source, third, Grid(keep_float=True))
    assert found.stored == "float" and np.array_equal(found.array_CDHW, third.astype(np.float32))
    assert place(source, whole.astype(np.float64), Grid(keep_float=True)).stored == "exact"
    with pytest.raises(ValueError, match="more than 16 bits hold"):
        place(source, whole.astype(np.int32) * 100_000, Grid())


def test_a_single_slice_is_no_volume():
    source = volume("SPL", (1.0, 1.0, 1.0), chest((1, 8, 8))[None])
    with pytest.raises(ValueError, match="a single slice is no volume"):
        place(source, source.values_CXYZ, Grid())


@pytest.mark.parametrize("spacing", [(1500.0, 1500.0, 2000.0), (1.0, 0.0015, 1.0)])
def test_voxels_of_another_unit_are_refused(spacing):
    source = volume(spacing=spacing)
    for grid in (Grid(), Grid(spacing=(1, 1, 1))):
        with pytest.raises(ValueError, match="expected is 0.01 to 50"):
            place(source, source.values_CXYZ, grid)


@pytest.mark.parametrize(
    ("codes", "grid"), [("SPL", Grid(spacing=(0.01, 0.01, 0.01))), ("SPL", Grid(size=(4096, 4096, 4096)))]
)
def test_what_would_become_huge_is_refused_before_it_is(codes, grid):
    source = volume(codes, (50.0, 50.0, 50.0))
    with pytest.raises(ValueError, match="more than the 2,147,483,648 of a volume"):
        place(source, source.values_CXYZ, grid)


@pytest.mark.parametrize("keep_float", [False, True])
def test_the_largest_that_is_stored_is_the_largest_that_is_read(monkeypatch, keep_float):
    source = volume()
    values = source.values_CXYZ + (0.25 if keep_float else 0)
    stored = place(source, values, Grid(keep_float=keep_float)).array_CDHW
    packed, size = pack_npz("ct", stored), 128 + stored.nbytes
    assert unpack_npz(memoryview(packed), None, size).dtype == stored.dtype
    with pytest.raises(ValueError, match="unpacks to"):
        unpack_npz(memoryview(packed), None, size - 1)
    monkeypatch.setattr("src.data.builders.grid.LARGEST_VOLUME", size)
    place(source, values, Grid(keep_float=keep_float))
    monkeypatch.setattr("src.data.builders.grid.LARGEST_VOLUME", size - 1)
    with pytest.raises(ValueError, match="of a volume"):
        place(source, values, Grid(keep_float=keep_float))
