"""The tables of engines and checkpoints hold what was measured."""

import re

import pytest

from tests.commands import succeed

pytestmark = pytest.mark.distributed
DEBUG = ["--fname", "configs/jepa/ecg_debug.yaml", "--rounds", "1"]


def rows(out):
    return {cells[1].strip(): cells[2:-1] for cells in (line.split("|") for line in out.splitlines()) if len(cells) > 3}


def test_fsdp_holds_less_than_ddp_and_every_engine_is_measured():
    """Not so ZeRO-3: on a model this small DeepSpeed keeps all parameters gathered for the whole step."""
    words = ["engines", *DEBUG, "--steps", "1", "--batch", "2", "--engines", "ddp", "fsdp", "zero3"]
    large = ["--set", "model.encoder.width=256", "model.encoder.depth=4", "model.encoder.heads=4"]
    found = rows(succeed("tools.benchmark", *words, *large, script="-m"))
    assert float(found["ddp"][1]) == 1.0 == float(found["ddp"][3])
    assert float(found["fsdp"][1]) < 0.9 and float(found["zero3"][1]) > 0
    for engine in ("ddp", "fsdp", "zero3"):
        milliseconds, samples, operations = (float(re.match(r" [\d.]+", found[engine][k])[0]) for k in (2, 4, 5))
        assert re.match(r" \d+ \(\d+ to \d+\) $", found[engine][2])
        assert samples == pytest.approx(2 * 2 / milliseconds * 1e3, rel=0.05) and operations > 0


def test_a_checkpoint_is_timed_both_ways(tmp_path):
    found = rows(succeed("tools.benchmark", "checkpoint", *DEBUG, "--output", str(tmp_path), script="-m"))
    for what in ("background: training stands still (snapshot)", "synchronous: training stands still"):
        assert float(found[what][1].replace(",", "")) > 0
    assert not list(tmp_path.iterdir())
