"""Image files with a name in every place that a format has for one."""

import io
import struct

import numpy as np
from PIL import Image, PngImagePlugin, TiffImagePlugin

from src.data.builders.png import chunk

NAME = "MUSTERMANN"
XMP = f"<x:xmpmeta><dc:creator>{NAME}</dc:creator></x:xmpmeta>".encode()
ICC = b"\x00\x00\x01\x00none" + b"\x00" * 100 + NAME.encode() * 8


def exif(orientation=None):
    tags = Image.Exif()
    tags[0x010E] = tags[0x013B] = f"patient {NAME}"
    tags.get_ifd(0x8769)[0x9286] = NAME.encode()
    tags.get_ifd(0x8825)[29] = NAME
    if orientation:
        tags[0x0112] = orientation
    return tags.tobytes()


def segment(marker, content):
    return bytes((0xFF, marker)) + struct.pack(">H", len(content) + 2) + content


def jpeg(pixels, orientation=None, **settings):
    """A JPEG with a name in APP0 to APP15, in a comment before each table and scan, and behind its end."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", exif=exif(orientation), icc_profile=ICC, xmp=XMP, **settings)
    data = stream.getvalue()
    thumbnail = segment(0xE0, b"JFXX\x00\x13\x02\x02" + NAME.encode() + b"..")
    extra = [segment(marker, NAME.encode()) for marker in range(0xE1, 0xF0)]
    behind = data.index(b"\xff\xdb")
    data = data[:behind] + thumbnail + b"".join(extra) + segment(0xFE, NAME.encode()) + data[behind:]
    scan = data.rindex(b"\xff\xda")
    return data[:scan] + segment(0xFE, NAME.encode()) + b"\xff\xff" + data[scan:] + NAME.encode()


def png(image, **settings):
    """A PNG with a name in text chunks of each kind, EXIF, ICC, an unknown chunk, time and behind its end."""
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    text = PngImagePlugin.PngInfo()
    text.add_text("Patient", NAME)
    text.add_text("Squeezed", NAME, zip=True)
    text.add_itxt("International", NAME)
    stream = io.BytesIO()
    image.save(stream, "PNG", pnginfo=text, exif=exif(settings.pop("orientation", None)), icc_profile=ICC, **settings)
    data = stream.getvalue()
    begin = data.index(b"IDAT") - 4
    own = (
        chunk(b"gAMA", struct.pack(">I", 45455))
        + chunk(b"prIv", NAME.encode())
        + chunk(b"tIME", b"\x07\xea" + bytes(5))
    )
    return data[:begin] + own + data[begin:] + NAME.encode()


def tiff(pixels, orientation=None):
    """A TIFF with a name in its free texts, its EXIF, its XMP and a private tag."""
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    for number in (269, 270, 285, 305, 315, 316, 33432):
        tags[number] = NAME
    tags[700], tags[65000] = XMP, NAME
    tags.tagtype[700] = 1
    if orientation:
        tags[274] = orientation
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "TIFF", tiffinfo=tags)
    return stream.getvalue()


def smooth(height, width, channels=3, dtype=np.uint8, seed=0):
    """An image that JPEG keeps well."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [
        np.sin(x / rng.uniform(4, 20) + phase) + np.cos(y / rng.uniform(4, 20)) for phase in rng.uniform(0, 6, channels)
    ]
    image = (np.stack(waves, -1) + 2) / 4 * np.iinfo(dtype).max
    return image.astype(dtype)[..., 0] if channels == 1 else image.astype(dtype)
