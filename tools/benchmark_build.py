"""How many records a second a core builds, beside what reading them alone takes: the verb `build` of benchmark."""

from __future__ import annotations

import argparse
import atexit
import csv
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

FROM = Path("../shared/data")
"""Where the public records lie, unless MEDSSL_DATA names another place."""


@dataclass(frozen=True)
class Archive:
    """The public records of a modality."""

    files: Callable[[Path], list[tuple[Path, ...]]]
    """Those of each record, the one that a table names first."""
    builds: Mapping[str, tuple[str, ...]]
    """Flags of build_shards for each row of the table."""
    read: Callable[[Path], object]
    """Decodes a record with an independent reader, and does nothing else."""


def _clips(data: Path) -> list[tuple[Path, ...]]:
    return [(path,) for path in sorted((data / "video" / "lung_ultrasound" / "cc_by").glob("*")) if path.is_file()]


def _read_clip(path: Path) -> None:
    import cv2

    cv2.setNumThreads(1)
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    while capture.read()[0]:
        pass


def _ecgs(data: Path) -> list[tuple[Path, ...]]:
    return [(path, path.with_suffix(".dat")) for path in sorted((data / "ecg/ptbxl500/records100").rglob("*.hea"))]


def _read_ecg(path: Path) -> None:
    import wfdb

    wfdb.rdrecord(os.fspath(path.with_suffix("")), physical=False)


def _pictures(data: Path) -> list[tuple[Path, ...]]:
    """The first frame of each public clip, as a JPEG and as a PNG; gone when the process ends."""
    import cv2

    folder = Path(tempfile.mkdtemp(prefix="medssl-pictures-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    found: list[tuple[Path, ...]] = []
    for number, (clip,) in enumerate(_clips(data)):
        _, frame = cv2.VideoCapture(str(clip)).read()
        for path in (folder / f"{number}.jpg", folder / f"{number}.png"):
            cv2.imwrite(str(path), frame)
            found.append((path,))
    return found


def _read_picture(path: Path) -> None:
    from PIL import Image

    with Image.open(path) as image:
        image.load()


def _volumes(data: Path) -> list[tuple[Path, ...]]:
    chest, whole = data / "ct" / "chest_volumes", data / "ct" / "totalsegmentator_example"
    found = [*chest.glob("*_slab.nii.gz"), *chest.glob("cip_ct*.nrrd"), *whole.glob("*_ct*.nii.gz")]
    return [(path,) for path in sorted(found)]


def _read_volume(path: Path) -> None:
    import nibabel
    import nrrd
    import numpy as np

    if path.suffix == ".nrrd":
        nrrd.read(str(path))
    else:
        np.asanyarray(nibabel.load(path).dataobj)  # type: ignore[attr-defined]


HU = ("--units", "hu", "--path-column", "path")
ARCHIVES = {
    "ct": Archive(
        _volumes,
        {
            "as it is": HU,
            "deflated": (*HU, "--compress"),
            "resampled": (*HU, "--spacing", "2", "1.5", "1.5", "--size", "96", "160", "160"),
        },
        _read_volume,
    ),
    "ecg": Archive(_ecgs, {"at 100 Hz": ("--sampling-rate", "100")}, _read_ecg),
    "image": Archive(_pictures, {"stripped": (), "224 x 224": ("--size", "224", "224")}, _read_picture),
    "video": Archive(
        _clips, {"passed through": ("--pass-through",), "h264": (), "mjpeg": ("--codec", "mjpeg")}, _read_clip
    ),
}


def benchmark_build(arguments: argparse.Namespace) -> Iterator[str]:
    """Build repeated public records with one process; its CPU time, with start and index, beside that of the reader."""
    archive = ARCHIVES[arguments.modality]
    data = Path(os.environ.get("MEDSSL_DATA", FROM))
    records = archive.files(data)
    if not records:
        raise ValueError(f"{data} holds no public records of {arguments.modality}: name their folder by MEDSSL_DATA")
    reading = _seconds_to_read(archive, records[: arguments.records])
    yield f"{arguments.records:,} records of {arguments.modality}: {len(records)} public ones, repeated; one process."
    yield "Seconds are CPU time of all that it took: start, decoding, tars and index."
    yield f"Decoding one alone takes {1000 * reading:.2f} ms: {1 / reading:,.0f} records a second.\n"
    yield "| build | records/s of a core | ms a record | times decoding | wall s | MB of tars |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: |"
    with tempfile.TemporaryDirectory(dir=arguments.output) as room:
        table = repeated(Path(room) / "in", records, arguments.records)
        for name, flags in archive.builds.items():
            if arguments.builds and name not in arguments.builds:
                continue
            output = Path(room) / "out"
            processor, wall = build(arguments.modality, table, output, flags)
            size = sum(path.stat().st_size for path in output.glob("*.tar"))
            each = processor / arguments.records
            speed = f"{1 / each:,.1f} | {1000 * each:.2f} | {each / reading:.2f}"
            yield f"| {name} | {speed} | {wall:.1f} | {size / 1e6:,.1f} |"
            for path in output.iterdir():
                path.unlink()
            output.rmdir()


def _seconds_to_read(archive: Archive, records: Sequence[tuple[Path, ...]]) -> float:
    """CPU seconds of one record, the mean over all; once before, so that files and libraries are there."""
    archive.read(records[0][0])
    start = time.process_time()
    for record in records:
        archive.read(record[0])
    return (time.process_time() - start) / len(records)


def repeated(root: Path, records: Sequence[tuple[Path, ...]], count: int) -> Path:
    """A table of links to the records, each in a folder of its own."""
    rows = []
    for number in range(count):
        folder = root / f"{number:06d}"
        folder.mkdir(parents=True)
        own = records[number % len(records)]
        for path in own:
            (folder / path.name).symlink_to(path.resolve())
        rows.append((f"{number:06d}/{own[0].name}", f"p{number // 2}"))
    with (root / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "patient"), *rows])
    return root / "table.csv"


def build(modality: str, table: Path, output: Path, flags: Sequence[str]) -> tuple[float, float]:
    """CPU and wall seconds of a build."""
    command = [
        sys.executable,
        "-m",
        "tools.build_shards",
        modality,
        "--input",
        str(table.parent),
        "--table",
        str(table),
    ]
    command += ["--patient-column", "patient", "--workers", "1", "--output", str(output), *flags]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise ValueError(f"build_shards {modality} {' '.join(flags)} failed: {done.stderr.strip().splitlines()[-1]}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall
