"""The run folder: one owner, and logs that end where the checkpoint stands."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from src.files import replace_text
from src.run import owner as owner_module
from src.run.folder import Attempt, RunFolder, steps_from_the_end
from src.run.logs import Lines, duration

ROOT = Path(__file__).resolve().parents[2]


def make_attempt(number):
    return Attempt(number, 10 * number, 5, 1, {"seed": 0}, "d", {"host": "here"})


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
    assert json.loads((tmp_path / "m.jsonl").read_text()) == {"loss": None, "norm": None, "ok": 1.0}


def test_a_folder_has_one_owner_and_is_free_when_that_dies(tmp_path, monkeypatch):
    code = "from pathlib import Path; from src.run.folder import RunFolder; import sys, time\n"
    code += "folder = RunFolder(Path(sys.argv[1])); print(folder.claim(), flush=True); time.sleep(60)"
    owner = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None and owner.stdout.readline() == "1\n"
    monkeypatch.setattr(owner_module, "PATIENCE_SECONDS", 0.2)
    with pytest.raises(ValueError, match=f"in use by process {owner.pid} on "):
        RunFolder(tmp_path).claim()
    owner.kill()
    owner.communicate()
    folder = RunFolder(tmp_path)
    assert folder.claim() == 1
    folder.record_attempt(make_attempt(1))
    assert json.loads((tmp_path / "owner.lock").read_text())["process"] == os.getpid()


def test_attempts_are_counted_by_their_records(tmp_path):
    folder = RunFolder(tmp_path)
    for expected in (1, 2, 3):
        assert folder.claim() == expected
        folder.record_attempt(make_attempt(expected))
    assert folder.last_attempt() == make_attempt(3)


def test_a_replaced_file_is_whole_at_any_moment(tmp_path):
    path = tmp_path / "config.yaml"
    replace_text(path, "old")
    replace_text(path, "new")
    assert path.read_text() == "new" and [p.name for p in tmp_path.iterdir()] == ["config.yaml"]


@pytest.mark.parametrize(("seconds", "text"), [(45, "45s"), (600, "10m"), (7200, "2.0h")])
def test_durations_are_told_in_the_unit_that_fits(seconds, text):
    assert duration(seconds) == text


def test_what_a_power_cut_leaves_in_a_log_is_passed_over(tmp_path):
    log = tmp_path / "metrics.jsonl"
    whole = "".join(json.dumps({"step": step}) + "\n" for step in range(8))
    log.write_bytes(whole.encode() + b"\0" * 40 + b"\n" + b"{broken}\n" + b"\0" * 9)
    folder = RunFolder(tmp_path)
    assert folder.last_logged_step() == 7
    folder.cut_logs(8)
    assert log.read_text() == whole


def test_only_the_tail_of_a_log_is_read(tmp_path):
    log = tmp_path / "metrics.jsonl"
    log.write_bytes(b"not json\n" * 1000 + b'{"step": 5}\n{"step": 6}\n')
    steps = steps_from_the_end(log)
    assert [next(steps)[1], next(steps)[1]] == [6, 5]


def test_a_file_in_place_of_the_folder_is_told(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(ValueError, match="logging.folder: .*run can't be used as a run folder"):
        RunFolder(tmp_path / "run").claim()


def test_a_run_that_audits_more_often_than_it_logs_has_trained_as_far_as_its_audit(tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.last_logged_step() is None
    folder.audit.mkdir()
    (folder.audit / "rank-0.jsonl").write_text('{"step": 41}\n{"step": 42}\n')
    folder.metrics.write_text("")
    assert folder.last_logged_step() == 42
