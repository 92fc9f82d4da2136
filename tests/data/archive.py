"""Small archives of ECGs as a lab might have them, written by wfdb and numpy."""

import csv
from pathlib import Path

import numpy as np
import wfdb

from tools.build_shards import main

LEADS = ["I", "II", "III", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6"]


def signal(number=0, leads=12, samples=400):
    """Integers that differ from record to record, [samples, leads]."""
    return np.random.default_rng(number).integers(-2000, 2000, (samples, leads))


def write_wfdb(folder, name="rec", values=None, leads=LEADS, rate=100, gain=1000.0):
    """One record; floats are in mV, integers in units."""
    folder.mkdir(parents=True, exist_ok=True)
    values = signal(leads=len(leads)) if values is None else values
    kind = "p_signal" if values.dtype.kind == "f" else "d_signal"
    wfdb.wrsamp(
        name,
        fs=rate,
        units=["mV"] * len(leads),
        sig_name=list(leads),
        fmt=["16"] * len(leads),
        adc_gain=[gain] * len(leads),
        baseline=[0] * len(leads),
        write_dir=str(folder),
        **{kind: values},
    )
    return folder / name


def write_csv(path, rows):
    """A table of dicts."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    return path


def write_arrays(folder, records=240, samples=200, patients=80):
    """Many records in one .npy, and their table."""
    folder.mkdir(parents=True, exist_ok=True)
    array = np.stack([signal(number, samples=samples).T for number in range(records)]).astype(np.int16)
    np.save(folder / "ecgs.npy", array)
    rows = [
        {
            "patient": f"P{number % patients}",
            "split": ["train", "val"][number % patients % 4 == 3],
            "report": f"Sinusrhythmus {number}",
            "af": number % 2,
        }
        for number in range(records)
    ]
    write_csv(folder / "ecgs.csv", rows)
    return [
        *("ecg", "--input", str(folder / "ecgs.npy"), "--table", str(folder / "ecgs.csv")),
        *("--patient-column", "patient", "--split-column", "split", "--text-column", "report"),
        *("--label-columns", "af", "--source-rate", "100", "--per-millivolt", "1000"),
    ]


def build(capsys, *words):
    """Run the command; returns (exit code, stdout, stderr without progress bars)."""
    code = main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


def rejected(output: Path):
    """{record: reason} of a build."""
    with (output.parent / f"{output.name}.private" / "rejected.csv").open(newline="", encoding="utf-8") as file:
        return {row["record"]: row["reason"] for row in csv.DictReader(file)}


def contents(folder: Path):
    """Every file of a folder, in bytes."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
