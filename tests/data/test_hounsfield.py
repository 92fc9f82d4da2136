"""Wrong units are refused and the right ones are told, on real volumes and on made ones."""

import numpy as np
import pytest

from src.data.builders.hounsfield import Units, implausible, is_label_map, to_hounsfield
from src.data.builders.nifti import read_nifti
from src.data.builders.nrrd_files import read_nrrd
from src.data.builders.volumes import Volume
from tests.data.volumes import chest

VOLUMES = (
    "chest_volumes/LIDC-IDRI-0001_slab.nii.gz",
    "chest_volumes/LIDC-IDRI-0002_slab.nii.gz",
    "chest_volumes/LIDC-IDRI-0003_slab.nii.gz",
    "chest_volumes/cip_ct-64.nrrd",
    "totalsegmentator_example/example_ct.nii.gz",
    "totalsegmentator_example/example_ct_sm.nii.gz",
    "totalsegmentator_example/pulmonary_ct_cropped.nii.gz",
)
LABEL_MAPS = (
    "chest_volumes/cip_lm-64.nrrd",
    "chest_volumes/cip_wholeLung-64.nrrd",
    "totalsegmentator_example/example_seg.nii.gz",
    "totalsegmentator_example/example_seg_fast_force_split.nii.gz",
    "totalsegmentator_example/pulmonary_artery.nii.gz",
)
WIDE = (-1000.0, 1000.0)


@pytest.fixture(scope="module", params=[*VOLUMES, "made"])
def hu(request):
    if request.param == "made":
        return chest()[None].astype(np.float64)
    data = request.getfixturevalue("medssl_data")
    return read(data / "ct" / request.param).values_CXYZ.astype(np.float64)


def read(path):
    if not path.is_file():
        pytest.skip(f"no {path}")
    return (read_nrrd if path.suffix == ".nrrd" else read_nifti)(path)


def interval(hu, low=0.0, high=1.0, window=WIDE):
    """As somebody's preprocessing leaves it."""
    return low + (high - low) * np.clip((hu - window[0]) / (window[1] - window[0]), 0, 1)


def fault(values, units, **scale):
    with pytest.raises(ValueError) as error:
        to_hounsfield(Volume(values, **scale), units, None, None)
    return str(error.value)


def test_the_right_units_give_hu(hu):
    whole = hu.astype(np.int32)
    assert np.array_equal(to_hounsfield(Volume(whole), Units("hu"), None, None), whole)
    rescale = Units("rescale", 1.0, -1024.0)
    stored = Volume((whole + 1024).astype(np.uint16 if whole.min() >= -1024 else np.int16))
    found = to_hounsfield(stored, rescale, None, None)
    assert np.array_equal(found, whole) and found.dtype.kind == "i", "unsigned integers don't wrap around"
    for low in (0.0, -1.0):
        units = Units("unit_interval", interval=(low, 1.0), interval_hu=WIDE)
        found = to_hounsfield(Volume(interval(hu, low).astype(np.float32)), units, None, None)
        assert np.abs(found - np.clip(hu, *WIDE)).max() < 1e-3


def test_a_scale_of_the_record_goes_before_that_of_the_flags():
    values = chest()[None].astype(np.int32) * 2 + 2000
    found = to_hounsfield(Volume(values), Units("rescale", 1.0, -1024.0), 0.5, -1000.0)
    assert np.array_equal(found, chest()[None])


def test_hu_that_are_rescaled_again(hu):
    """What users of CT-RATE's second version did: air comes to lie at -2024."""
    found = fault(hu, Units("rescale", 1.0, -1024.0))
    assert "would be thinner than air" in found and "it looks like HU already, --units hu" in found
    found = fault(hu - 1024, Units("hu"))
    assert "would be thinner than air" in found and "rescaled once too often" in found


def test_stored_values_taken_for_hu(hu):
    found = fault(hu + 1024, Units("hu"))
    assert "no air, lung or fat" in found and "--units rescale with --slope 1 --intercept -1024" in found


def test_rescale_needs_a_slope_and_an_intercept(hu):
    assert "no slope and intercept to rescale with" in fault(hu, Units("rescale"))
    applied = Volume(hu, scale=(1.0, -1024.0))
    assert np.array_equal(to_hounsfield(applied, Units("rescale"), None, None), hu)
    assert "would come on top: leave them out" in fault(hu, Units("rescale", 1.0, -1024.0), scale=(1.0, -1024.0))


def test_intervals_that_are_others(hu):
    signed, unsigned = interval(hu, -1.0), interval(hu)
    found = fault(signed, Units("unit_interval", interval_hu=WIDE))
    assert "beyond the interval of 0 to 1" in found and "--interval -1 1" in found
    found = fault(unsigned, Units("unit_interval", interval=(-1.0, 1.0), interval_hu=WIDE))
    assert "no air, lung or fat" in found and "--interval" in found
    assert "--units unit_interval --interval 0 1" in fault(unsigned, Units("hu"))
    assert "it looks like HU already" in fault(hu, Units("unit_interval", interval_hu=WIDE))
    narrow = interval(hu, window=(-1000.0, 400.0))
    assert "soft tissue would not be at 0 HU" in fault(narrow, Units("unit_interval", interval_hu=WIDE))


def test_a_narrow_window_without_air_is_no_fault(hu):
    window = (-160.0, 240.0)
    units = Units("unit_interval", interval_hu=window)
    found = to_hounsfield(Volume(interval(hu, window=window)), units, None, None)
    assert np.abs(found - np.clip(hu, *window)).max() < 1e-3


def test_a_wrong_slope(hu):
    assert "air would not be at -1000 HU" in fault(hu * 0.5, Units("hu"))


@pytest.mark.parametrize("window", [WIDE, (-160.0, 240.0)])
def test_pictures_of_8_bits(hu, window):
    assert "a picture of 8 bits" in fault(np.rint(255 * interval(hu, window=window)).astype(np.uint8), Units("hu"))


@pytest.mark.parametrize("padding", [-3024, -2048, -2000])
def test_padding_around_the_field_of_view_is_no_fault(hu, padding):
    padded = hu.copy()
    padded[:, : hu.shape[1] // 5] = padding
    assert implausible(padded) == ""


def test_parts_of_a_chest_are_no_fault(hu):
    """Crops with hardly any air, and with hardly anything else: every eighth of each real volume."""
    _, *sizes = hu.shape
    for corner in np.ndindex(2, 2, 2):
        cut = [slice(at * size // 2, (at + 1) * size // 2) for at, size in zip(corner, sizes, strict=True)]
        assert implausible(hu[0][tuple(cut)]) == ""


def test_air_alone_and_a_spread_of_a_unit_are_refused():
    air = np.random.default_rng(0).normal(-1000, 3, (1, 20, 20, 20))
    assert "98 % of it would lie within" in fault(air, Units("hu"))


def test_unchecked_units_are_taken():
    values = np.arange(1000.0).reshape(1, 10, 10, 10) - 30
    assert "no --units fits it" in fault(values + 1e4, Units("hu"))
    assert np.array_equal(to_hounsfield(Volume(values), Units("hu", checked=False), None, None), values)


@pytest.mark.parametrize("name", LABEL_MAPS)
@pytest.mark.parametrize("kind", [None, np.float32, np.int16])
def test_label_maps_are_told_from_volumes(medssl_data, name, kind):
    labels = read(medssl_data / "ct" / name).values_CXYZ
    labels = labels if kind is None else labels.astype(kind)
    for units in (Units("hu"), Units("rescale", 1.0, -1024.0), Units("hu", checked=False)):
        assert "it is a label map" in fault(labels, units)


def test_volumes_are_no_label_maps(hu):
    assert not is_label_map(hu) and not is_label_map(hu + 1024)
    assert not is_label_map(np.rint(255 * interval(hu)).astype(np.uint8))


def test_masks_and_thin_vessels_are_label_maps():
    rng = np.random.default_rng(0)
    assert is_label_map((rng.random((1, 20, 20, 20)) < 0.01).astype(np.float64))
    assert is_label_map(rng.integers(0, 12, (1, 20, 20, 20)))


def test_values_that_are_none():
    values = chest()[None].astype(np.float32)
    values[0, 3, 4, 5] = np.nan
    values[0, 3, 4, 6] = np.inf
    assert "2 values that are NaN or infinite" in fault(values, Units("hu"))
    assert "the value -7 throughout" in fault(np.full((1, 4, 4, 4), -7, np.int16), Units("hu"))


def test_each_channel_is_looked_at():
    hu = chest()
    unit = interval(hu).astype(np.float32)
    for values, units, wanted in (
        (np.stack([hu, (hu > -500) * np.int16(3)]), Units("hu"), "of its channel 1: it is a label map"),
        (np.stack([hu, unit]), Units("hu"), "of its channel 1: as --units hu 98 % of it would lie within"),
        (np.stack([unit, hu]), Units("hu"), "of its channel 0: as --units hu 98 % of it would lie within"),
        (np.stack([unit, unit * 0 + 0.5]), Units("unit_interval", interval_hu=WIDE), "of its channel 1: it holds the"),
        (
            np.stack([unit, 0.5 + unit / 4]),
            Units("unit_interval", interval_hu=WIDE),
            "of its channel 1: as 0 to 1 for -1000 to 1000 HU",
        ),
    ):
        assert wanted in fault(values, units)
    both = np.stack([hu, chest(seed=1)])
    assert np.array_equal(to_hounsfield(Volume(both), Units("hu"), None, None), both)
