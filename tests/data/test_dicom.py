"""Multi-frame DICOM: the frames are those of pydicom and Pillow, and of a header only the white list comes out."""

import io
import json
import struct

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian

from src.data.builders.about import About
from src.data.builders.dicom import about_dicom, burned_in, meta_of, open_dicom, rate_of, regions_of, times_of
from src.data.builders.dicom_pixels import all_bits, blank_outside, open_frames, stored_slice
from tests.data import dicoms

pytestmark = pytest.mark.filterwarnings("ignore:.*(Invalid value for VR|exceeds the)")  # of what these tests write
GRAY, COLOUR = dicoms.moving(), dicoms.moving(channels=3)
TWELVE = dicoms.moving(top=4095, dtype=np.uint16)


def pixels(path):
    """All frames, and their mean rate in Hz."""
    frames = open_frames(path)
    return np.stack(list(frames)), (frames.frames - 1) / frames.times_T[-1]


@pytest.mark.parametrize("values", [GRAY, COLOUR], ids=["gray", "rgb"])
@pytest.mark.parametrize("form", dicoms.NATIVE)
def test_what_is_not_compressed_comes_out_as_it_was(tmp_path, form, values):
    found, rate = pixels(dicoms.write_native(tmp_path / "a.dcm", values, form))
    assert np.array_equal(found, values) and found.dtype == np.uint8 and rate == 25.0


@pytest.mark.parametrize("values", [GRAY, COLOUR], ids=["gray", "rgb"])
@pytest.mark.parametrize("form", dicoms.LOSSLESS)
def test_lossless_syntaxes_come_out_as_they_were(tmp_path, form, values):
    path = dicoms.write_gdcm(tmp_path / "a.dcm", values, form)
    assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == dicoms.LOSSLESS[form]
    assert np.array_equal(pixels(path)[0], values)


@pytest.mark.parametrize("values", [GRAY, COLOUR], ids=["gray", "rgb"])
def test_rle_comes_out_as_it_was(tmp_path, values):
    assert np.array_equal(pixels(dicoms.write_rle(tmp_path / "a.dcm", values))[0], values)


@pytest.mark.parametrize("values", [GRAY, COLOUR], ids=["gray", "ybr"])
def test_jpeg_frames_are_those_of_gdcm_to_a_level(tmp_path, values):
    path = dicoms.write_jpeg(tmp_path / "a.dcm", values)
    reference = pydicom.dcmread(path)
    reference.pixel_array_options(decoding_plugin="gdcm")
    difference = np.abs(pixels(path)[0].astype(int) - reference.pixel_array)
    assert difference.max() <= 1 and difference.mean() < 0.01


def test_jpeg_extended_of_eight_bits(tmp_path):
    path = dicoms.write_jpeg(tmp_path / "a.dcm", GRAY, dicoms.JPEGExtended12Bit)
    reference = np.stack([np.asarray(Image.open(io.BytesIO(dicoms.jpeg(frame)))) for frame in GRAY])
    assert np.array_equal(pixels(path)[0], reference)


@pytest.mark.parametrize("form", [*dicoms.LOSSLESS, "native"])
@pytest.mark.parametrize("window", [None, "LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_twelve_bits_are_windowed_as_pydicom_does(tmp_path, form, window):
    own = {"bits": 12, "RescaleSlope": 2, "RescaleIntercept": -100}
    if window:
        own |= {"WindowCenter": [1500, 9], "WindowWidth": [2200, 9], "VOILUTFunction": window}
    write = dicoms.write_native if form == "native" else dicoms.write_gdcm
    path = write(tmp_path / "a.dcm", TWELVE, **({} if form == "native" else {"form": form}), **own)
    reference = Dataset()
    reference.update(dicoms.dataset_of(TWELVE, **own))
    values = apply_modality_lut(TWELVE, reference)
    least, most = (values_of(reference, edge) for edge in (0, 4095))
    shown = apply_voi_lut(values, reference, index=0) if window else values.astype(float)
    expected = (shown - least) / (most - least) * 255
    assert np.abs(pixels(path)[0] - expected).max() <= 0.51


def values_of(dataset, stored):
    return stored * dataset.RescaleSlope + dataset.RescaleIntercept


def test_signed_values_run_from_the_least_to_the_most(tmp_path):
    values = (TWELVE.astype(np.int16) - 2048).astype(np.int16)
    found, _ = pixels(dicoms.write_native(tmp_path / "a.dcm", values, bits=12))
    assert np.array_equal(found, np.rint(TWELVE / 4095 * 255).astype(np.uint8))


def test_overlays_in_the_high_bits_are_not_seen(tmp_path):
    plain, _ = pixels(dicoms.write_native(tmp_path / "a.dcm", TWELVE, bits=12))
    over, _ = pixels(dicoms.write_native(tmp_path / "b.dcm", TWELVE | 0x8000, bits=12))
    assert np.array_equal(plain, over)


@pytest.mark.parametrize("values", [GRAY, TWELVE], ids=["8", "12"])
def test_monochrome1_is_turned_over(tmp_path, values):
    bits = 8 if values is GRAY else 12
    plain, _ = pixels(dicoms.write_native(tmp_path / "a.dcm", values, bits=bits))
    turned, _ = pixels(dicoms.write_native(tmp_path / "b.dcm", values, bits=bits, interpretation="MONOCHROME1"))
    assert np.array_equal(255 - plain, turned)


@pytest.mark.parametrize("bits", [8, 16])
def test_a_palette_is_looked_up(tmp_path, bits):
    table = np.random.default_rng(0).integers(0, 256, (3, 256), np.uint8)
    palette = {}
    for name, own in zip(("Red", "Green", "Blue"), table, strict=True):
        data = own.tobytes() if bits == 8 else (own.astype("<u2") << 8).tobytes()
        palette |= {f"{name}PaletteColorLookupTableDescriptor": [256, 0, bits]}
        palette |= {f"{name}PaletteColorLookupTableData": data}
    path = dicoms.write_native(tmp_path / "a.dcm", GRAY, interpretation="PALETTE COLOR", **palette)
    assert np.array_equal(pixels(path)[0], np.moveaxis(table[:, GRAY], 0, -1))


def test_a_palette_of_other_bits_than_it_says_is_refused(tmp_path):
    """Of 16 bits with values of 8, of which 8 bits would be black."""
    palette = {}
    for name in ("Red", "Green", "Blue"):
        palette |= {f"{name}PaletteColorLookupTableDescriptor": [256, 0, 16]}
        palette |= {f"{name}PaletteColorLookupTableData": np.arange(256, dtype="<u2").tobytes()}
    path = dicoms.write_native(tmp_path / "a.dcm", GRAY, interpretation="PALETTE COLOR", **palette)
    with pytest.raises(ValueError, match="its palette is of 16 bits by its header and of 8 by its values"):
        list(open_frames(path))


@pytest.mark.parametrize("values", [GRAY, TWELVE], ids=["8", "12"])
@pytest.mark.parametrize("interpretation", ["MONOCHROME1", "MONOCHROME2"])
def test_a_falling_slope_turns_shades_over(tmp_path, values, interpretation):
    """What was stored is then as light or dark as through a window over all of it, and as pydicom shows it."""
    top = 255 if values is GRAY else 4095
    header = {"bits": top.bit_length(), "RescaleIntercept": top, "interpretation": interpretation}
    falling, rising = (
        dicoms.write_native(tmp_path / f"{slope}.dcm", values[:1], RescaleSlope=slope, **header) for slope in (-1, 1)
    )
    bits = 8 if values is GRAY else 16
    lost = bits - top.bit_length()
    stored = values[0] if interpretation == "MONOCHROME1" else top - values[0]
    assert np.array_equal(all_bits(open_frames(falling)) >> lost, stored)
    assert np.array_equal(all_bits(open_frames(rising)) >> lost, top - stored)
    assert np.array_equal(255 - pixels(falling)[0], pixels(rising)[0])
    whole = dicoms.write_native(
        tmp_path / "w.dcm", values[:1], RescaleSlope=-1, WindowCenter=(top + 1) / 2, WindowWidth=top + 1, **header
    )
    assert np.abs(pixels(whole)[0].astype(int) - pixels(falling)[0]).max() <= 1


@pytest.mark.parametrize(("stored", "highest"), [(12, 15), (8, 15), (12, 10), (17, 16)])
def test_values_that_do_not_begin_at_bit_0_are_refused(tmp_path, stored, highest):
    """Shifted by none of the readers, they would be wrong, or black."""
    values = TWELVE[:1] << 4
    path = dicoms.write_native(tmp_path / "a.dcm", values, BitsStored=stored, HighBit=highest)
    for read in (lambda: list(open_frames(path)), lambda: stored_slice(path, open_dicom(path))):
        with pytest.raises(ValueError, match=f"says that {stored} of 16 bits are stored, .* is bit {highest}"):
            read()


def test_planes_become_pixels(tmp_path):
    dataset = dicoms.dataset_of(COLOUR)
    dataset.PlanarConfiguration = 1
    data = np.moveaxis(COLOUR, -1, 1).tobytes()
    path = dicoms.save(tmp_path / "a.dcm", dataset, data, dicoms.NATIVE["explicit"])
    assert np.array_equal(pixels(path)[0], COLOUR)


@pytest.mark.parametrize(
    ("header", "times"),
    [
        ({"FrameTime": 20}, [0, 0.02, 0.04]),
        ({"FrameTime": None, "CineRate": 50}, [0, 0.02, 0.04]),
        ({"FrameTime": None, "RecommendedDisplayFrameRate": 50}, [0, 0.02, 0.04]),
        ({"FrameTime": 0, "CineRate": 50}, [0, 0.02, 0.04]),
        ({"FrameTime": None, "FrameTimeVector": [0, 20, 60]}, [0, 0.02, 0.08]),
        ({"FrameTime": 99, "FrameTimeVector": [0, 20, 60], "FrameIncrementPointer": 0x00181065}, [0, 0.02, 0.08]),
        ({"FrameTime": 20, "FrameTimeVector": [0, 9, 9], "FrameIncrementPointer": 0x00181063}, [0, 0.02, 0.04]),
        ({"FrameTime": None, "FrameTimeVector": [0, 20]}, None),
        ({"FrameTime": None, "FrameTimeVector": [0, 20, -60]}, None),
        ({"FrameTime": None}, None),
        ({"FrameTime": -5}, None),
        ({"FrameTime": 0.0333}, None),
        ({"FrameTime": 0.02, "CineRate": 50}, [0, 0.02, 0.04]),
        ({"FrameTime": None, "FrameTimeVector": [0, 0.02, 0.02]}, None),
    ],
)
def test_times_are_those_that_the_header_states(tmp_path, header, times):
    dataset = open_dicom(dicoms.write_native(tmp_path / "a.dcm", GRAY[:3], **header))
    found = times_of(dataset, 3)
    assert (found is None and times is None) or np.allclose(found, times)
    assert rate_of(dataset) is None if times != [0, 0.02, 0.04] else rate_of(dataset) == 50.0


ABOUT = {"PatientID": " MRN  0815", "PatientAge": "077Y", "PatientSex": "F"}


@pytest.mark.parametrize(
    ("header", "about"),
    [
        (ABOUT, About("MRN 0815", 77.0, 1.0)),
        ({"PatientID": "ANONYMOUS", "PatientAge": "093Y", "PatientSex": "O"}, About(None, 90.0, None)),
        ({"PatientAge": "018M"}, About(None, 1.0, None)),
        ({"PatientBirthDate": "19411207", "StudyDate": "20190302"}, About(None, 77.0, None)),
        ({"PatientBirthDate": "19411207"}, About()),
        ({"PatientAge": "seventy", "PatientBirthDate": "Quagmire"}, About()),
    ],
)
def test_of_whom_a_file_is(tmp_path, header, about):
    assert about_dicom(dicoms.write_native(tmp_path / "a.dcm", GRAY, **header)) == about


SECRET = "Zebedee^Quagmire 19411207"
KEPT = {
    "Modality": "XA",
    "PositionerPrimaryAngle": -30.5,
    "PositionerSecondaryAngle": 20,
    "DistanceSourceToDetector": 1000,
    "KVP": 80,
    "HeartRate": 61,
    "ImagerPixelSpacing": [0.2, 0.3],
    "BodyPartExamined": "HEART",
}


def test_the_white_list_is_all_that_comes_out(tmp_path):
    path = dicoms.write_native(tmp_path / "a.dcm", GRAY, **ABOUT, **KEPT)
    assert meta_of(open_dicom(path)) == {
        "dicom_modality": "XA",
        "primary_angle": -30.5,
        "secondary_angle": 20.0,
        "source_to_detector": 1000.0,
        "kvp": 80.0,
        "heart_rate": 61.0,
        "imager_pixel_spacing": [0.2, 0.3],
        "body_part": "HEART",
    }


def test_no_attribute_of_the_dictionary_gives_a_secret_away(tmp_path, recwarn, caplog):
    """Every attribute that can hold text or a number holds a secret, private ones and nested ones too."""
    from pydicom.datadict import DicomDictionary

    dataset = dicoms.dataset_of(GRAY)
    taken = set(dataset.keys()) | {0x7FE00010}
    for tag, (vr, _, _, _, keyword) in DicomDictionary.items():
        if tag in taken or tag >> 16 in (0, 2) or not keyword or "Palette" in keyword or "Pixel" in keyword:
            continue
        if vr in ("LO", "SH", "PN", "LT", "ST", "UT", "CS", "UC", "UR", "AE"):
            dataset.add_new(tag, vr, "QUAGMIRE" if vr in ("CS", "AE", "SH") else SECRET)
        elif vr in ("DA", "DT", "TM", "AS", "DS", "IS"):
            dataset.add_new(tag, vr, "19411207")
    nested = Dataset()
    nested.PatientName, nested.CodeMeaning = SECRET, SECRET
    dataset.ViewCodeSequence = Sequence([nested])
    block = dataset.private_block(0x0099, SECRET, create=True)
    block.add_new(1, "LO", SECRET)
    path = dicoms.save(tmp_path / "a.dcm", dataset, GRAY.tobytes(), dicoms.NATIVE["explicit"])
    recwarn.clear()
    caplog.clear()
    assert path.read_bytes().count(b"QUAGMIRE") > 100 and path.read_bytes().count(b"19411207") > 500
    meta = meta_of(open_dicom(path))
    assert meta == {}, json.dumps(meta)
    assert about_dicom(path).meta() == {"age": 0.0}, "from one date to the same"
    assert not recwarn.list and not caplog.records


def ultrasound_region(top, left, bottom, right, delta=0.02, unit=3):
    region = Dataset()
    region.RegionLocationMinY0, region.RegionLocationMinX0 = top, left
    region.RegionLocationMaxY1, region.RegionLocationMaxX1 = bottom, right
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = unit
    region.PhysicalDeltaX, region.PhysicalDeltaY = delta, delta
    return region


def test_what_lies_outside_an_ultrasound_scan_is_blanked(tmp_path):
    regions = Sequence([ultrasound_region(10, 4, 29, 63), ultrasound_region(40, 0, 47, 9, unit=4)])
    path = dicoms.write_native(tmp_path / "a.dcm", GRAY, SequenceOfUltrasoundRegions=regions)
    dataset = open_dicom(path)
    assert meta_of(dataset)["pixel_spacing"] == [0.2, 0.2]
    found = blank_outside([place for place, _ in regions_of(dataset)], GRAY[0])
    expected = np.zeros_like(GRAY[0])
    expected[10:30, 4:64], expected[40:48, :10] = GRAY[0, 10:30, 4:64], GRAY[0, 40:48, :10]
    assert np.array_equal(found, expected) and found[:10].max() == 0


@pytest.mark.parametrize(("word", "burned"), [("YES", True), ("yes ", True), ("NO", False), (None, False)])
def test_burned_in_words_are_told(tmp_path, word, burned):
    assert burned_in(open_dicom(dicoms.write_native(tmp_path / "a.dcm", GRAY, BurnedInAnnotation=word))) == burned


def cut(path, share=0.5):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    return path


def other_size(path):
    """Each JPEG is of another size than the header's: what a bomb would be."""
    large = [dicoms.jpeg(np.zeros((1000, 1200, 3), np.uint8))] * len(COLOUR)
    return dicoms.save(path, dicoms.dataset_of(COLOUR, interpretation="YBR_FULL"), large, "1.2.840.10008.1.2.4.50")


def cut_inside(path, values, **settings):
    """Each JPEG lacks its lower half and has its end: others see grey there."""
    noise = np.random.default_rng(0).integers(0, 256, values.shape, np.uint8)
    frames = [data[: len(data) // 2] + data[-2:] for data in (dicoms.jpeg(frame, **settings) for frame in noise)]
    return dicoms.save(path, dicoms.dataset_of(values), frames, "1.2.840.10008.1.2.4.50")


def other_size_told_falsely(path):
    """So, with the size of the header in a comment that looks like the beginning of JPEG 2000."""
    siz = b"\xff\x4f\xff\x51" + struct.pack(">HH4I", 47, 0, COLOUR.shape[2], COLOUR.shape[1], 0, 0) + bytes(16)
    large = dicoms.jpeg(np.zeros((1000, 1200, 3), np.uint8))
    large = large[:2] + b"\xff\xfe" + struct.pack(">H", len(siz) + 2) + siz + large[2:]
    dataset = dicoms.dataset_of(COLOUR, interpretation="YBR_FULL")
    return dicoms.save(path, dataset, [large] * len(COLOUR), "1.2.840.10008.1.2.4.50")


BAD = {
    "cut in the scans of a JPEG": (lambda path: cut_inside(path, GRAY), "its scans are cut off or damaged"),
    "cut in the scans of RGB": (lambda path: cut_inside(path, COLOUR, keep_rgb=True), "its scans are cut off"),
    "no DICOM": (lambda path: path.write_bytes(b"\0" * 500), "no DICOM file"),
    "empty": (lambda path: path.write_bytes(b""), "no DICOM file"),
    "cut in its pixels": (lambda path: cut(dicoms.write_native(path, GRAY)), "can't be read as DICOM pixels"),
    "cut in a JPEG": (lambda path: cut(dicoms.write_jpeg(path, GRAY), 0.6), ""),
    "no pixels": (lambda path: dicoms.dataset_of(GRAY) and no_pixels(path), "no pixels"),
    "frames that are not there": (lambda path: dicoms.write_native(path, GRAY, NumberOfFrames=9), "DICOM pixels"),
    "frames that are too many": (lambda path: dicoms.write_jpeg(path, GRAY, NumberOfFrames=3), "frames"),
    "zero frames": (lambda path: dicoms.write_native(path, GRAY, NumberOfFrames=0), "no usable NumberOfFrames"),
    "absurd size": (lambda path: dicoms.write_native(path, GRAY, Rows=65535, Columns=65535), "may unpack to"),
    "absurd number": (lambda path: dicoms.write_native(path, GRAY, NumberOfFrames=2**31 - 1), "may unpack to"),
    "another size inside": (other_size, "compressed as 1000 x 1200"),
    "another size behind a false one": (other_size_told_falsely, "compressed as 1000 x 1200"),
    "float": (lambda path: dicoms.write_native(path, GRAY, BitsAllocated=64), "64 bits"),
    "CMYK": (lambda path: dicoms.write_native(path, GRAY, interpretation="CMYK"), "CMYK is not read"),
}


def no_pixels(path):
    dicoms.write_native(path, GRAY)
    dataset = pydicom.dcmread(path)
    del dataset.PixelData
    dataset.save_as(path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_said_in_a_sentence(tmp_path, name):
    make, sentence = BAD[name]
    make(tmp_path / "a.dcm")
    with pytest.raises(ValueError, match=sentence) as error:
        list(open_frames(tmp_path / "a.dcm"))
    assert "\n" not in str(error.value)


def test_a_deflated_bomb_is_not_unpacked(tmp_path):
    import resource

    dataset = dicoms.dataset_of(GRAY)
    dataset.ImageComments = "x" * 10_000_000
    path = dicoms.save(tmp_path / "a.dcm", dataset, GRAY.tobytes(), DeflatedExplicitVRLittleEndian)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="deflated as a whole"):
        open_frames(path)
    assert path.stat().st_size < 200_000 and resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 5_000


def test_an_rle_bomb_is_refused(tmp_path):
    dataset = dicoms.dataset_of(GRAY)
    frame = np.array([1, 64, *[0] * 14], "<u4").tobytes() + b"\x81\0" * 100_000
    path = dicoms.save(tmp_path / "a.dcm", dataset, [frame] * len(GRAY), "1.2.840.10008.1.2.5")
    with pytest.raises(ValueError, match="more than it would have uncompressed"):
        list(open_frames(path))
