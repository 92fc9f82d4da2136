"""Whether the scans of a JPEG hold its picture to the end: libjpeg fills up with grey what they don't, without a word.

FFmpeg's decoder has another rule, which this asks: it stops where the codes are none, or end before the last block.
"""

from __future__ import annotations

from src.data.builders.records import Unusable


def refuse_damaged(data: bytes) -> None:
    """Refuse a JPEG whose scans are cut off or damaged, as far as their codes show it.

    What FFmpeg does not decode, arithmetic coding and rare subsamplings, passes unseen; so do a few lost bytes.

    Raises:
        ValueError: so.
    """
    import av

    decoder = av.CodecContext.create("mjpeg", "r")
    assert isinstance(decoder, av.VideoCodecContext)
    decoder.options = {"err_detect": "explode"}
    decoder.thread_count = 1
    try:
        decoder.decode(av.Packet(data))
    except av.error.InvalidDataError:
        raise Unusable("its scans are cut off or damaged: fetch the file again") from None
    except av.error.FFmpegError:  # not of this decoder's kinds
        return
