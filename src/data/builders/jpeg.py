"""A JPEG less what decoding does without: no EXIF, XMP, ICC, IPTC, comments, thumbnails, nothing behind its end.

The picture itself is not touched, so that it decodes to the same pixels. Two application segments are needed for the
colours, and are written anew from the one fact that each has: JFIF (the colours are YCbCr) and Adobe's APP14 (which of
RGB, YCbCr, CMYK and YCCK they are). ITU-T T.81 | ISO/IEC 10918-1, annex B; T.872, 6.5.3 for Adobe's.
"""

from __future__ import annotations

import re

START = b"\xff\xd8"
END = 0xD9
SCAN = 0xDA
KEPT = {*range(0xC0, 0xD0), 0xDB, 0xDC, 0xDD} - {0xC8}
"""Frames, Huffman and arithmetic tables, quantisation, number of lines, restart interval."""
ALONE = {0x01, *range(0xD0, 0xD8)}
"""Markers without a segment."""
JFIF = b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"
"""Version 1.1, square pixels, no thumbnail."""
ADOBE = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"
"""Less its last byte, the colour transform."""
AFTER_SCAN = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")


def strip_jpeg(data: bytes) -> bytes:
    """The JPEG with its tables and scans alone.

    Raises:
        ValueError: it is cut off, no JPEG, or has another one in it.
    """
    if not data.startswith(START):
        raise ValueError("it does not begin as a JPEG does")
    kept, place, told = [START], len(START), {0xE0: False, 0xEE: False}
    while True:
        marker, place = _marker(data, place)
        if marker == END:
            return b"".join([*kept, bytes((0xFF, END))])
        if marker in ALONE:
            continue
        if marker == START[1]:
            raise ValueError(f"it is damaged at byte {place:,}, where another JPEG begins")
        content = _segment(data, place)
        place += 2 + len(content)
        if marker in told and not told[marker] and (colours := _colours(marker, content)):
            told[marker] = True
            kept.append(colours)
        if marker in KEPT or marker == SCAN:
            kept += [bytes((0xFF, marker)), data[place - 2 - len(content) : place]]
        if marker == SCAN:
            after = AFTER_SCAN.search(data, place)
            if after is None:
                raise ValueError("it is cut off: its last scan has no end")
            kept.append(data[place : after.start()])
            place = after.start()


def _marker(data: bytes, place: int) -> tuple[int, int]:
    """The marker that begins here, less the bytes that fill up, and where it ends."""
    begin = place
    while place < len(data) and data[place] == 0xFF:
        place += 1
    if place >= len(data):
        raise ValueError(f"it is cut off at byte {len(data):,}")
    if place == begin:
        raise ValueError(f"it is damaged at byte {place:,}, where a marker should be")
    return data[place], place + 1


def _segment(data: bytes, place: int) -> bytes:
    """What a segment holds behind its two bytes of length."""
    length = int.from_bytes(data[place : place + 2], "big")
    if length < 2 or place + length > len(data):
        raise ValueError(f"it is cut off or damaged at byte {place:,}")
    return data[place + 2 : place + length]


def _colours(marker: int, content: bytes) -> bytes | None:
    """What an application segment says of the colours, and nothing else of it."""
    if marker == 0xE0:
        return JFIF if content.startswith(b"JFIF\x00") else None
    return ADOBE + content[11:12] if content.startswith(b"Adobe") and len(content) >= 12 else None
