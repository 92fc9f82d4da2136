"""A video, or the several of a study, into the files of a sample: passed through or encoded anew."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from src.data.builders.records import LARGEST_RECORD
from src.data.builders.sources import Source
from src.data.builders.video_encode import encode
from src.data.builders.video_format import Encoding
from src.data.builders.video_read import Contained, Reading
from src.data.builders.video_remux import NotPassed, remux
from src.data.modalities.video import FIELD


@dataclass(frozen=True)
class ConvertVideo:
    """Opens the files of a source and brings each to what is wanted."""

    at_a_time: ClassVar[int] = 1
    reading: Reading
    encoding: Encoding
    pass_through: bool
    """Keep the coded pictures where that can be; what can't be passed is encoded."""
    fewest_frames: int

    def __call__(self, source: Source) -> tuple[dict[str, bytes], dict[str, Any]]:
        """An mp4 for each file, and what the json tells of them.

        Raises:
            ValueError: a file can't be used; of a study it is named.
        """
        files: dict[str, bytes] = {}
        told: list[dict[str, Any]] = []
        parts = source.parts or (source.path,)
        for number, path in enumerate(parts):
            try:
                data, own = self._converted(path)
            except ValueError as error:
                raise ValueError(f"{path.name}: {error}" if len(parts) > 1 else str(error)) from error
            files[f"{number}.{FIELD}" if len(parts) > 1 else FIELD] = data
            told.append(own)
            if sum(map(len, files.values())) > LARGEST_RECORD:
                raise ValueError(f"its {len(parts)} videos are more than {LARGEST_RECORD:,} bytes")
        return files, {"videos": told}

    def _converted(self, path: Path) -> tuple[bytes, dict[str, Any]]:
        pictures = self.reading.pictures(path)
        data, told = self._passed(pictures) or encode(pictures, self.encoding)
        if told["frames"] < self.fewest_frames:
            raise ValueError(f"it has {told['frames']} frames, fewer than {self.fewest_frames} (--fewest-frames)")
        return data, {**pictures.meta, **told}

    def _passed(self, pictures: Any) -> tuple[bytes, dict[str, Any]] | None:
        if not self.pass_through or not isinstance(pictures, Contained):
            return None
        try:
            return remux(pictures.open)
        except NotPassed:
            return None
