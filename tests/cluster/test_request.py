"""What the flags ask for."""

import re
import sys
from contextlib import suppress

import pytest

from src.cluster.flags import parse, request_of
from src.cluster.request import Request, minutes
from tests.commands import ROOT


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90", 90), ("1:30", 2), ("1:30:00", 90), ("1-12", 2160), ("1-12:30", 2190), ("1-12:00:01", 2161), ("0-0:0:1", 1)],
)
def test_times_are_slurms_in_whole_minutes_rounded_up(text, expected):
    """As in `man sbatch`: minutes, minutes:seconds, hours:minutes:seconds, days-hours[:minutes[:seconds]]."""
    assert minutes(text) == expected


@pytest.mark.parametrize("text", ["", "0", "1.5", "-3", "1:2:3:4", "two"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ValueError, match="no time"):
        minutes(text)


def test_the_flags_that_are_written_down_ask_for_the_same_again(monkeypatch):
    asked = Request(
        partition="low", nodes=2, tasks_per_node=4, time=600, memory=1.5, setup=("-x", "echo 'a b'"), retries=0,
        slurm=("mail-type=END", "exclusive"), exclude="n[1-2]", comment="two words", gpus_per_node=4,
    )  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["main_distributed.py", "--fname", "c.yaml", *asked.words()])
    assert request_of(parse()) == asked


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        (Request(slurm=("time=3",)), "--slurm time: that has a flag of its own, use --time"),
        (Request(slurm=("partition=a",)), "use --partition"),
        (Request(slurm=("array=0-3",)), "use --seeds"),
        (Request(slurm=("Not An Option",)), "write an option of sbatch"),
        (Request(time=2, signal_delay=120), "--signal-delay 120 seconds is not less than --time"),
        (Request(cluster="local", nodes=2), "use --nodes 1"),
        (Request(cluster="debug", tasks_per_node=2), "--cluster debug is one process"),
    ],
)
def test_what_can_not_be_asked_for_is_refused(request_, told):
    with pytest.raises(ValueError, match=told):
        request_.check()


def test_flags_that_a_machine_without_slurm_ignores_are_named():
    asked = Request(cluster="local", partition="p", slurm=("a=b",), time=5, setup=("export A=1",))
    assert asked.ignored() == ["--partition", "--slurm"]
    assert Request(partition="p").ignored() == []


def test_every_flag_that_the_page_tells_of_exists(monkeypatch, capsys):
    text = (ROOT / "docs" / "slurm.md").read_text()
    told = set(re.findall(r"--[a-z][a-z-]+", text.partition("## Without main_distributed.py")[0]))
    monkeypatch.setattr(sys, "argv", ["main_distributed.py", "--help"])
    with suppress(SystemExit):
        parse()
    known = set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out))
    assert told - known == {"--signal"}  # scancel's
    assert known - told == {"--help"}
