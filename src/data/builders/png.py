"""A PNG less whatever is not needed to decode it: no text, EXIF, ICC profile, time, nothing behind its end.

What stays are header, palette, transparency and the pixels as they are compressed. Gamma and chromaticities go too: no
reader of training data applies them, so that the numbers stay what they are. PNG, third edition, W3C 2025.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

START = b"\x89PNG\r\n\x1a\n"
KEPT = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
ORIENTATION = b"eXIf"
ANIMATION = b"acTL"
GREY, COLOUR, PALETTE, GREY_ALPHA, COLOUR_ALPHA = 0, 2, 3, 4, 6
CHANNELS = {GREY: 1, COLOUR: 3, PALETTE: 1, GREY_ALPHA: 2, COLOUR_ALPHA: 4}


class Header(NamedTuple):
    """What IHDR says."""

    width: int
    height: int
    bits: int
    """Of a channel."""
    colours: int
    compression: int
    filtering: int
    interlaced: int


class Strip(NamedTuple):
    """A PNG that holds pixels and nothing of anybody."""

    data: bytes
    header: Header
    orientation: bytes
    """Its EXIF, for the one number that says how it was held; goes nowhere."""
    transparent: bool
    animated: bool

    def plain(self) -> bool:
        """Whether it can stay as it is: grey of 8 or 16 bits or RGB of 8, not interlaced, and only pixels in its data.

        Others are written anew: a palette has entries that no pixel uses, and compressed data can go on behind the last
        row, which are places for a text.
        """
        header = self.header
        form = (header.colours, header.bits) in {(GREY, 8), (GREY, 16), (COLOUR, 8)}
        return form and not header.interlaced and not self.transparent and self._only_pixels()

    def _only_pixels(self) -> bool:
        row = 1 + (self.header.width * CHANNELS[self.header.colours] * self.header.bits + 7) // 8
        size = row * self.header.height
        stream = b"".join(content for name, content in _chunks(self.data) if name == b"IDAT")
        unpacking = zlib.decompressobj()
        try:
            found = len(unpacking.decompress(stream, size + 1))
        except zlib.error:
            return False
        return found == size and unpacking.eof and not unpacking.unused_data


def strip_png(data: bytes) -> Strip:
    """The PNG with its pixels alone; a palette that these don't use, which is one of RGB or grey, goes.

    Raises:
        ValueError: it is cut off or damaged, has two headers, or is no PNG.
    """
    if not data.startswith(START):
        raise ValueError("it does not begin as a PNG does")
    kept, header, names, orientation = [START], None, set(), b""
    for name, content in _chunks(data):
        if header is None:
            header = _header(name, content)
        elif name == b"IHDR":
            raise ValueError("it has a second header")
        if name in KEPT and (name != b"PLTE" or header.colours == PALETTE):
            kept.append(chunk(name, content))
        elif name == ORIENTATION:
            orientation = content
        names.add(name)
    if header is None or b"IDAT" not in names:
        raise ValueError("it holds no pixels")
    return Strip(b"".join(kept), header, orientation, b"tRNS" in names, ANIMATION in names)


def chunk(name: bytes, content: bytes) -> bytes:
    """A chunk with its length and checksum."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _header(name: bytes, content: bytes) -> Header:
    header = Header(*struct.unpack(">IIBBBBB", content)) if name == b"IHDR" and len(content) == 13 else None
    if header is None or header.colours not in CHANNELS:
        raise ValueError("its header is damaged")
    return header


def _chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """Name and content of each chunk up to IEND, checked by its CRC32."""
    place, found = len(START), []
    while True:
        if place + 12 > len(data):
            raise ValueError(f"it is cut off at byte {len(data):,}")
        length, name = struct.unpack_from(">I4s", data, place)
        if place + 12 + length > len(data):
            raise ValueError(f"it is cut off at byte {len(data):,}")
        content = data[place + 8 : place + 8 + length]
        if struct.unpack_from(">I", data, place + 8 + length)[0] != zlib.crc32(name + content):
            raise ValueError(f"it is damaged: the chunk at byte {place:,} has another CRC32")
        found.append((name, content if name != b"IEND" else b""))
        place += 12 + length
        if name == b"IEND":
            return found
