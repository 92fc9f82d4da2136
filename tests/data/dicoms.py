"""Multi-frame DICOM files in each transfer syntax, written with pydicom, Pillow and GDCM, and not by our readers."""

import io

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
    generate_uid,
)

US_MULTIFRAME = "1.2.840.10008.5.1.4.1.1.3.1"
NATIVE = {
    "implicit": ImplicitVRLittleEndian,
    "explicit": ExplicitVRLittleEndian,
    "big endian": ExplicitVRBigEndian,
}
LOSSLESS = {
    "jpeg lossless": JPEGLossless,
    "jpeg lossless sv1": JPEGLosslessSV1,
    "jpeg-ls": JPEGLSLossless,
    "jpeg 2000": JPEG2000Lossless,
}


def moving(frames=5, height=48, width=64, channels=None, top=255, seed=0, dtype=np.uint8):
    """Smooth shapes that move: [T, H, W] or [T, H, W, 3]."""
    t, y, x = np.meshgrid(*map(np.arange, (frames, height, width)), indexing="ij")
    waves = [np.sin((x + 3 * t + seed) / (5 + k)) * np.cos((y - 2 * t) / (7 + k)) for k in range(channels or 1)]
    values = np.rint((np.stack(waves, -1) + 1) / 2 * top).astype(dtype)
    return values if channels else values[..., 0]


def dataset_of(values, bits=None, interpretation=None, **attributes):
    """A data set for [T, H, W] or [T, H, W, 3], without pixels."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = US_MULTIFRAME, generate_uid()
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = values.shape[:3]
    dataset.SamplesPerPixel = 3 if values.ndim == 4 else 1
    dataset.PhotometricInterpretation = interpretation or ("RGB" if values.ndim == 4 else "MONOCHROME2")
    if values.ndim == 4:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = values.dtype.itemsize * 8
    dataset.BitsStored = bits or dataset.BitsAllocated
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(values.dtype.kind == "i")
    dataset.FrameTime = 40
    for name, value in attributes.items():
        setattr(dataset, name, value)
    return dataset


def save(path, dataset, data, syntax):
    """Write; `data` are the frames' bytes, one after another or each compressed in a list."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.PixelData = encapsulate(data) if isinstance(data, list) else data
    dataset["PixelData"].VR = "OB" if isinstance(data, list) or dataset.BitsAllocated <= 8 else "OW"
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_native(path, values, form="explicit", **settings):
    syntax = NATIVE[form]
    data = values.astype(values.dtype.newbyteorder(">" if form == "big endian" else "<")).tobytes()
    data += b"\0" * (len(data) % 2)
    return save(path, dataset_of(values, **settings), data, syntax)


def write_rle(path, values, **settings):
    write_native(path, values, **settings)
    import pydicom

    dataset = pydicom.dcmread(path)
    dataset.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    dataset.save_as(path)
    return path


def jpeg(frame, quality=95, **settings):
    stream = io.BytesIO()
    Image.fromarray(frame).save(stream, "JPEG", quality=quality, **settings)
    return stream.getvalue()


def write_jpeg(path, values, syntax=JPEGBaseline8Bit, **settings):
    """JPEG baseline as ultrasound devices send it, YBR_FULL_422 where it is coloured."""
    settings = {"interpretation": "YBR_FULL_422" if values.ndim == 4 else None, **settings}
    return save(path, dataset_of(values, **settings), [jpeg(frame) for frame in values], syntax)


def write_gdcm(path, values, form, **settings):
    """Compressed by GDCM without loss."""
    import gdcm

    native = write_native(path.with_name("native.dcm"), values, **settings)
    reader = gdcm.ImageReader()
    reader.SetFileName(str(native))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(LOSSLESS[form]))))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    native.unlink()
    return path


__all__ = ["JPEGExtended12Bit", "JPEGLSNearLossless", "dataset_of", "jpeg", "moving", "save"]
