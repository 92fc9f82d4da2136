"""Small chest CTs as a lab might have them, written by nibabel, pynrrd, pydicom and numpy."""

import gzip
import io

import nibabel
import nrrd
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
AIR, LUNG, FAT, MUSCLE, BONE = -1000, -850, -90, 50, 700


def chest(shape=(24, 32, 28), seed=0, noise=15.0):
    """HU of a body with two lungs and a spine, [D, H, W], int16; no two directions look alike."""
    axes = (np.linspace(-1, 1, size) for size in shape)
    z, y, x = np.meshgrid(*axes, indexing="ij")
    body = (x / 0.9) ** 2 + (y / 0.7) ** 2 < 1
    values = np.where(body, MUSCLE, AIR)
    values = np.where(body & ((x / 0.8) ** 2 + (y / 0.6) ** 2 > 1), FAT, values)
    for side, size in ((-0.4, 0.28), (0.4, 0.22)):
        values = np.where(((x - side) / size) ** 2 + (y / 0.45) ** 2 + (z - 0.1) ** 2 < 0.9, LUNG, values)
    values = np.where(x**2 + (y - 0.5) ** 2 < 0.015, BONE, values)
    values = values + np.random.default_rng(seed).normal(0, noise, shape)
    return np.clip(np.rint(values), -1024, 3071).astype(np.int16)


def affine(codes="LPS", spacing=(1.5, 1.5, 2.0), origin=(-7.0, 11.0, 13.0)):
    """Of a volume whose axes go to `codes`, RAS mm."""
    found = np.eye(4)
    found[:3, :3] = 0
    for column, (letter, length) in enumerate(zip(codes, spacing, strict=True)):
        row = next(number for number, pair in enumerate(("LR", "PA", "IS")) if letter in pair)
        found[row, column] = length * (1 if letter in "RAS" else -1)
    found[:3, 3] = origin
    return found


def write_nifti(path, values, codes="LPS", spacing=(1.5, 1.5, 2.0), version=1, scale=None, geometry=True, **header):
    """[X, Y, Z] as they are stored; `scale` is slope and intercept of the header."""
    kind = nibabel.Nifti1Image if version == 1 else nibabel.Nifti2Image
    image = kind(values, affine(codes, spacing) if geometry else None, dtype=values.dtype)
    if not geometry:
        image.header.set_zooms(spacing)
        image.set_sform(None, 0)
        image.set_qform(None, 0)
    if scale is not None:
        image.header["scl_slope"], image.header["scl_inter"] = scale
    for name, value in header.items():
        image.header[name] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    if scale is None:
        nibabel.save(image, path)
    else:  # nibabel would write values that this scale gives
        raw = io.BytesIO()
        image.header["vox_offset"], image.header["magic"] = 352, b"n+1"
        raw.write(image.header.binaryblock + bytes(4) + values.tobytes("F"))
        path.write_bytes(gzip.compress(raw.getvalue()) if path.suffix == ".gz" else raw.getvalue())
    return path


def write_nrrd(path, values, directions=None, space="left-posterior-superior", **header):
    """[X, Y, Z] with the directions of its axes in rows, mm."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if directions is not None:
        header = {"space": space, "space directions": np.asarray(directions, float), **header}
    nrrd.write(str(path), values, header)
    return path


def write_npz(path, **arrays):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)
    return path


def slice_of(stored_YX, position, uid, number=1, scale=(1.0, -1024.0), spacing=(1.2, 0.8), **attributes):
    """The data set of one slice."""
    found = Dataset()
    found.SOPClassUID, found.SOPInstanceUID = CT_IMAGE, generate_uid()
    found.SeriesInstanceUID, found.StudyInstanceUID, found.Modality = uid, uid + ".1", "CT"
    found.InstanceNumber = number
    found.ImagePositionPatient = [float(f"{value:.6f}") for value in position]
    found.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    found.PixelSpacing = list(spacing)
    found.Rows, found.Columns = stored_YX.shape
    found.SamplesPerPixel, found.PhotometricInterpretation = 1, "MONOCHROME2"
    found.BitsAllocated = 16
    found.BitsStored, found.HighBit = 16, 15
    found.PixelRepresentation = int(stored_YX.dtype.kind == "i")
    found.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    if scale is not None:
        found.RescaleSlope, found.RescaleIntercept = scale
    for name, value in attributes.items():
        if value is None:
            delattr(found, name)
        else:
            setattr(found, name, value)
    return found


def write_series(folder, hu_DYX, uid="1.2.3.4", gap=2.5, seed=0, scale=(1.0, -1024.0), change=None, **attributes):
    """A slice a file, in shuffled names and numbers; `change(number, data set)` may spoil one, or return None for it.

    D goes up, rows go back, columns go to the left: SPL.
    """
    folder.mkdir(parents=True, exist_ok=True)
    order = np.random.default_rng(seed).permutation(len(hu_DYX))
    paths = []
    for number, name in enumerate(order.tolist()):
        stored = hu_DYX[number].astype(np.int32)
        if scale is not None:
            stored = np.rint((stored - scale[1]) / scale[0]).astype(np.int32)
        stored = stored.astype(np.uint16 if stored.min() >= 0 else np.int16)
        found = slice_of(stored, (-100.5, -80.25, -30 + gap * number), uid, name + 1, scale, **attributes)
        if change is not None and (found := change(number, found)) is None:
            continue
        if "PixelData" not in found:
            found.PixelData = stored.astype("<u2" if stored.dtype.kind == "u" else "<i2").tobytes()
        paths.append(save_slice(folder / f"IM{name:04d}", found))
    return paths


def save_slice(path, found, syntax=ExplicitVRLittleEndian):
    found.file_meta = FileMetaDataset()
    found.file_meta.TransferSyntaxUID = syntax
    found.file_meta.MediaStorageSOPClassUID = found.SOPClassUID
    found.file_meta.MediaStorageSOPInstanceUID = found.SOPInstanceUID
    found["PixelData"].VR = "OW"
    found.save_as(path, enforce_file_format=True)
    return path
