"""The run folder: one owner, and logs that end where the checkpoint stands."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from src.run import folder as folder_module
from src.run.folder import RunFolder, read_lines, replace_text
from src.run.logs import Lines, duration

ROOT = Path(__file__).resolve().parents[2]


def test_logs_are_cut_back_to_the_step_and_lose_a_half_written_line(tmp_path):
    folder = RunFolder(tmp_path)
    folder.audit.mkdir()
    records = [{"step": step, "loss": step / 3} for step in range(10)]
    for path in (folder.metrics, folder.audit / "rank-0.jsonl", folder.audit / "rank-1.jsonl"):
        path.write_text("".join(json.dumps(record) + "\n" for record in records) + '{"step": 10, "lo')
    assert folder.last_logged_step() == 9
    folder.cut_logs(6)
    for path in (folder.metrics, folder.audit / "rank-0.jsonl", folder.audit / "rank-1.jsonl"):
        assert path.read_text() == "".join(json.dumps(record) + "\n" for record in records[:6])


def test_cutting_nothing_leaves_the_bytes_as_they_were(tmp_path):
    lines = Lines(tmp_path / "metrics.jsonl")
    for step in range(5):
        lines.write({"step": step, "loss": math.pi / (step + 1), "lr/x": 1e-9})
    before = (tmp_path / "metrics.jsonl").read_bytes()
    RunFolder(tmp_path).cut_logs(5)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_numbers_that_json_lacks_are_null(tmp_path):
    Lines(tmp_path / "m.jsonl").write({"loss": math.nan, "norm": math.inf, "ok": 1.0})
    assert list(read_lines(tmp_path / "m.jsonl")) == [{"loss": None, "norm": None, "ok": 1.0}]


def test_a_folder_has_one_owner_and_is_free_when_that_dies(tmp_path, monkeypatch):
    code = "from pathlib import Path; from src.run.folder import RunFolder; import sys, time\n"
    code += "folder = RunFolder(Path(sys.argv[1])); print(folder.claim(), flush=True); time.sleep(60)"
    owner = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None and owner.stdout.readline() == "1\n"
    monkeypatch.setattr(folder_module, "PATIENCE_SECONDS", 0.2)
    with pytest.raises(ValueError, match=f"in use by process {owner.pid} on "):
        RunFolder(tmp_path).claim()
    owner.kill()
    owner.communicate()
    folder = RunFolder(tmp_path)
    assert folder.claim() == 1
    folder.record_attempt(1, {})
    assert (tmp_path / "owner.lock").read_text().startswith(f"process {os.getpid()} on ")


def test_attempts_are_counted_by_their_records(tmp_path):
    folder = RunFolder(tmp_path)
    for expected in (1, 2, 3):
        assert folder.claim() == expected
        folder.record_attempt(expected, {"start": 0})


def test_a_replaced_file_is_whole_at_any_moment(tmp_path):
    path = tmp_path / "config.yaml"
    replace_text(path, "old")
    replace_text(path, "new")
    assert path.read_text() == "new" and [p.name for p in tmp_path.iterdir()] == ["config.yaml"]


@pytest.mark.parametrize(("seconds", "text"), [(45, "45s"), (600, "10m"), (7200, "2.0h")])
def test_durations_are_told_in_the_unit_that_fits(seconds, text):
    assert duration(seconds) == text
