"""Every engine on an objective with everything that is hard (tests/engines/towers.py), beside one plain process.

One group of processes for each world size runs all of its cases, since starting one takes seconds.
"""

import collections
import json
import math
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from src.checkpoints.read import open_checkpoint
from src.config.engine import EngineConfig
from src.distributed.ranks import Ranks
from src.engines.blocks import prepare_blocks
from src.engines.build import build_engine
from src.engines.engine import Setup
from src.engines.zero import COMPILED_ON_CPU
from tests.commands import ROOT, wait_until
from tests.engines.group import HALF, LR, SETTINGS, STEPS
from tests.engines.towers import Block, Towers, micro_batches
from tools.parity import flat, relative

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(600)]
SHARDED = ["fsdp", *(f"deepspeed:zero_stage={stage}" for stage in range(4))]
ENGINES = ["ddp", *SHARDED]
PLAIN, NO_BATCHNORM = "plain", "batchnorm=no"
TOLERANCE = 1e-4
POISONED = 5
CONTINUED = {"fsdp": "deepspeed:zero_stage=3", "deepspeed:zero_stage=2": "fsdp"}
"""What four ranks were, and the two that went on."""


def case(engine, *words):
    """ENGINE:key=value,..."""
    return engine + (("," if ":" in engine else ":") + ",".join(words) if words else "")


def run_group(world_size, folder, cases, **environment):
    """Run the cases one after the other in one group of processes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {
        "WORLD_SIZE": str(world_size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }
    logs = [(folder / f"rank-{rank}.log").open("w+") for rank in range(world_size)]  # a full pipe would stop a rank
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.engines.group", str(folder), *cases],
            cwd=ROOT,
            env=os.environ
            | shared
            | environment
            | {"RANK": str(rank), "LOCAL_RANK": str(rank), "MEDSSL_DEVICE": "cpu"},
            stdout=logs[rank],
            stderr=subprocess.STDOUT,
        )
        for rank in range(world_size)
    ]
    try:
        wait_until(
            lambda: any(rank.poll() for rank in ranks) or all(rank.poll() == 0 for rank in ranks), 540, "the group"
        )
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    assert all(rank.returncode == 0 for rank in ranks), "\n".join(Path(log.name).read_text()[-3000:] for log in logs)
    return folder


def checkpoint(folder, name, step):
    (found,) = (folder / name.replace("/", "_")).glob(f"step-{step:08d}*")
    return found


def read(folder, name, step):
    opened = open_checkpoint(checkpoint(folder, name, step))
    return {(kind, key): opened.read(kind, key, shape) for kind, key, shape in opened.shapes()}


def records(folder, name):
    return json.loads((folder / name.replace("/", "_") / "records.json").read_text())


def outputs(folder, name):
    return torch.load(folder / name.replace("/", "_") / "outputs.pt", weights_only=True)


def compiled(folder, name):
    return json.loads((folder / name.replace("/", "_") / "compiled.json").read_text())


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """One plain process; its networks without BatchNorm too, and in three micro-batches."""
    folder = tmp_path_factory.mktemp("one")
    cases = [PLAIN, case(PLAIN, NO_BATCHNORM), case(PLAIN, NO_BATCHNORM, "cuts=3"), *SHARDED]
    return run_group(1, folder, cases)


def moved(one, engine):
    return case(engine, f"from={checkpoint(one, PLAIN, HALF)}")


@pytest.fixture(scope="module")
def two(one, tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    cases = [word for engine in ENGINES for word in (engine, case(engine, NO_BATCHNORM, "cuts=3"), moved(one, engine))]
    return run_group(2, folder, cases)


@pytest.fixture(scope="module")
def four(one, tmp_path_factory):
    folder = tmp_path_factory.mktemp("four")
    hybrid = "fsdp:replicas=2"
    return run_group(4, folder, [*ENGINES, hybrid, *(moved(one, engine) for engine in [*ENGINES, hybrid])])


@pytest.fixture(scope="module")
def continued(four, tmp_path_factory):
    """Folders in which four ranks stopped half-way, and two of another engine went on, writing in the background."""
    folder = tmp_path_factory.mktemp("continued")
    cases = []
    for engine, other in CONTINUED.items():
        own = folder / engine.replace(":", "-")
        for step in (1, HALF):
            place = checkpoint(four, engine, step)
            shutil.copytree(place, own / place.name)
        cases.append(case(other, "background=yes", f"into={own}", f"from={own / place.name}"))
    return run_group(2, folder, cases)


@pytest.fixture(scope="module")
def back(two, four, tmp_path_factory):
    """Plain, from what every engine wrote at two and at four ranks."""
    folder = tmp_path_factory.mktemp("back")
    return run_group(1, folder, [returned(group, engine) for group in (two, four) for engine in ENGINES])


def returned(group, engine):
    return case(PLAIN, f"from={checkpoint(group, engine, HALF)}")


def assert_same(reference, name, folder, other):
    """Losses of every step; weights, moments, buffers, the teacher's output and what is generated at the end."""
    ends = read(reference, name, STEPS), read(folder, other, STEPS)
    start = read(reference, name, 1)
    assert ends[0].keys() == ends[1].keys()
    for kind in ("model", "exp_avg", "exp_avg_sq", "buffer"):
        expected, found, early = (flat(tensors, kind) for tensors in (*ends, start))
        if expected.numel():
            assert (found - expected).norm() <= TOLERANCE * (expected - early).norm(), kind
    theirs = records(folder, other)
    for mine, their in zip(records(reference, name)[-len(theirs) :], theirs, strict=True):
        assert their == pytest.approx(mine, rel=TOLERANCE, abs=1e-6)
    mine, their = outputs(reference, name), outputs(folder, other)
    for output in ("features", "generated"):
        torch.testing.assert_close(their[output], mine[output], atol=1e-4, rtol=0)
    assert mine["teacher"].keys() == their["teacher"].keys()
    for key, value in mine["teacher"].items():
        torch.testing.assert_close(their["teacher"][key], value, atol=1e-4, rtol=0)


def test_micro_batches_have_the_gradient_of_the_whole_batch(one):
    assert_same(one, case(PLAIN, NO_BATCHNORM), one, case(PLAIN, NO_BATCHNORM, "cuts=3"))


@pytest.mark.parametrize("engine", SHARDED)
def test_one_rank_of_a_sharding_engine_is_plain(one, engine):
    assert_same(one, PLAIN, one, engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_two_ranks_are_one_process(one, two, engine):
    assert_same(one, PLAIN, two, engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_two_ranks_in_micro_batches_are_one_process(one, two, engine):
    assert_same(one, case(PLAIN, NO_BATCHNORM), two, case(engine, NO_BATCHNORM, "cuts=3"))


@pytest.mark.parametrize("engine", [*ENGINES, "fsdp:replicas=2"])
def test_four_ranks_are_one_process(one, four, engine):
    assert_same(one, PLAIN, four, engine)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("world_size", [2, 4])
def test_every_engine_goes_on_from_what_plain_wrote(one, two, four, engine, world_size):
    assert_same(one, PLAIN, {2: two, 4: four}[world_size], moved(one, engine))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("world_size", [2, 4])
def test_plain_reads_and_goes_on_from_what_every_engine_wrote(one, two, four, back, engine, world_size):
    group = {2: two, 4: four}[world_size]
    written, own = read(group, engine, HALF), read(one, PLAIN, HALF)
    assert written.keys() == own.keys()
    for key, value in own.items():
        torch.testing.assert_close(written[key], value, atol=1e-4, rtol=1e-3)
    assert_same(one, PLAIN, back, returned(group, engine))


@pytest.mark.parametrize("engine", ENGINES)
def test_each_rank_writes_what_it_owns_and_nothing_twice(two, engine):
    opened = open_checkpoint(checkpoint(two, engine, STEPS))
    assert {file.name for file in opened.manifest.files} == {
        f"{kind}0000{rank}.safetensors" for kind in ("rank-", "frozen-step-00000001.attempt-1.") for rank in (0, 1)
    }
    spans = {}
    for file in opened.manifest.files:
        assert file.ranges, "a rank that writes nothing"
        for part in file.ranges:
            spans.setdefault((part.kind, part.name), []).append((part.start, part.end))
    for parts in spans.values():
        ends = [0, *(end for _, end in sorted(parts))]
        assert [start for start, _ in sorted(parts)] == ends[:-1]
    sizes = [
        sum(
            part.end - part.start
            for file in opened.manifest.files
            if file.name.endswith(f"{rank}.safetensors")
            for part in file.ranges
        )
        for rank in (0, 1)
    ]
    assert max(sizes) < 0.6 * sum(sizes)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_frozen_network_stays_as_it_was_and_is_written_once(two, engine):
    drawn = {name: value for name, value in Towers().state_dict().items() if name.startswith("frozen.")}
    alive = outputs(two, engine)["frozen"]
    assert all(torch.equal(value, alive[name.removeprefix("frozen.")]) for name, value in drawn.items())
    end = {name: value for (_, name), value in read(two, engine, STEPS).items() if name.startswith("frozen.")}
    assert end.keys() == drawn.keys() and len(end) == 7
    assert all(torch.equal(value, end[name]) for name, value in drawn.items())
    for rank in (0, 1):
        places = [checkpoint(two, engine, step) for step in (1, HALF, STEPS)]
        files = [place / f"frozen-{places[0].name}.0000{rank}.safetensors" for place in places]
        assert len({file.stat().st_ino for file in files}) == 1


@pytest.mark.parametrize("engine", CONTINUED)
def test_a_folder_goes_on_with_other_ranks_in_the_background_and_its_frozen_files(one, continued, engine):
    name = engine.replace(":", "-")
    assert_same(one, PLAIN, continued, name)
    end, half = (checkpoint(continued, name, step) for step in (STEPS, HALF))
    names = {path.name for path in end.glob("frozen-*")}
    assert names == {path.name for path in half.glob("frozen-*")} and len(names) == 4
    assert all((end / name).stat().st_ino == (half / name).stat().st_ino for name in names)


VARIANTS = [
    "ddp:recompute=2",
    "fsdp:recompute=1",
    "deepspeed:zero_stage=1,recompute=1",
    "deepspeed:zero_stage=2,recompute=2",
    "deepspeed:zero_stage=3,recompute=1",
    'deepspeed:zero_stage=1,offload={"optimizer":true}',
    'deepspeed:zero_stage=2,offload={"optimizer":true}',
    'deepspeed:zero_stage=3,offload={"optimizer":true}',
    'deepspeed:zero_stage=3,offload={"parameters":true}',
    'fsdp:offload={"parameters":true}',
    *(case(engine, "looks=yes") for engine in ENGINES),
]
OFFLOADED = [f'deepspeed:zero_stage={stage},offload={{"optimizer":true}},batchnorm=no,cuts=3' for stage in (1, 2, 3)]


@pytest.fixture(scope="module")
def varied(tmp_path_factory):
    return run_group(2, tmp_path_factory.mktemp("varied"), [*VARIANTS, *OFFLOADED])


@pytest.mark.parametrize("variant", VARIANTS)
def test_recomputation_offload_and_features_asked_for_in_between_change_no_number(one, varied, variant):
    assert_same(one, PLAIN, varied, variant)


@pytest.mark.parametrize("variant", OFFLOADED)
def test_an_offloaded_optimizer_takes_micro_batches(one, varied, variant):
    assert_same(one, case(PLAIN, NO_BATCHNORM), varied, variant)


def test_recomputed_blocks_run_again_and_only_those_that_are_trained():
    towers, calls = Towers(), []
    for name, block in towers.named_modules():
        if isinstance(block, Block):
            block.mlp.register_forward_pre_hook(lambda *_, name=name: calls.append(name))
    prepare_blocks(towers, EngineConfig(recompute=2, compile="off"), torch.device("cpu"))
    batch = micro_batches(0, 0, 1, 1)[0]
    found = towers(batch)
    forward = collections.Counter(calls)
    (found["labels"] + found["consistency"] + found["features"]["text"].sum()).backward()
    again = collections.Counter(calls) - forward
    assert forward == {
        f"{tower}.blocks.{n}": 2 if tower == "student" else 1
        for tower in ("student", "teacher", "text")
        for n in range(3)
    }
    trained = [f"{tower}.blocks.{n}" for tower in ("student", "text") for n in range(5)]
    assert again == {name: forward[name] for name in trained[::2] if name in forward}


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory):
    return run_group(
        2, tmp_path_factory.mktemp("poisoned"), [case(engine, f"poisoned={POISONED}") for engine in ENGINES]
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_a_gradient_that_is_not_finite_leaves_everything_as_it_was(poisoned, engine):
    name = case(engine, f"poisoned={POISONED}")
    before, after = read(poisoned, name, POISONED), read(poisoned, name, POISONED + 1)
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    told = records(poisoned, name)
    assert not math.isfinite(told[POISONED]["norm"]) and all(
        math.isfinite(record["norm"]) for record in told[POISONED + 1 :]
    )
    manifests = [open_checkpoint(checkpoint(poisoned, name, step)).manifest for step in (POISONED + 1, STEPS)]
    assert [manifest.optimizer_steps for manifest in manifests] == [POISONED, STEPS - 1]
    assert [manifest.state["skipped_steps"] for manifest in manifests] == [1, 1]


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    """In 16 bits, with a gradient that is not finite on the way."""
    folder = tmp_path_factory.mktemp("halves")
    return run_group(2, folder, [in_half(engine, kind) for engine in ENGINES for kind in ("bf16", "fp16")])


def in_half(engine, kind):
    return case(engine, f'precision="{kind}"', f"poisoned={POISONED}")


@pytest.mark.parametrize("engine", ENGINES)
def test_bf16_computes_in_it_and_keeps_everything_else_in_32_bits(one, halves, engine):
    name = in_half(engine, "bf16")
    told, exact = records(halves, name), records(one, PLAIN)
    assert told[0]["loss"] != exact[0]["loss"]
    for mine, theirs in zip(told[:POISONED], exact, strict=False):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-2)
        assert mine["norm"] == pytest.approx(theirs["norm"], rel=2e-2)
    assert relative(teachers_way(halves, name) - teachers_way(one, PLAIN), teachers_way(one, PLAIN)) < 0.5
    assert open_checkpoint(checkpoint(halves, name, STEPS)).manifest.state["skipped_steps"] == 1


def teachers_way(folder, name):
    """What the teacher moved after the first step; all that is saved is in 32 bits."""
    early, end = read(folder, name, 1), read(folder, name, STEPS)
    assert all(value.dtype in (torch.float32, torch.int64) for value in end.values())
    return flat(end, "model", ["teacher."]) - flat(early, "model", ["teacher."])


@pytest.mark.parametrize("engine", ENGINES)
def test_fp16_halves_its_loss_scale_after_an_overflow_skips_and_goes_on_alike_under_every_engine(one, halves, engine):
    name = in_half(engine, "fp16")
    told, ddp = records(halves, name), records(halves, in_half("ddp", "fp16"))
    skipped = [step for step, record in enumerate(told) if not math.isfinite(record["norm"])]
    assert POISONED in skipped and len(skipped) < 5
    scale = 2.0**16
    for step, (mine, theirs) in enumerate(zip(told, ddp, strict=True)):
        assert mine["loss_scale"] == scale
        if step in skipped:
            scale /= 2
        else:
            assert mine["loss"] == pytest.approx(theirs["loss"], rel=2e-3)
            assert mine["norm"] == pytest.approx(theirs["norm"], rel=2e-3)
    manifest = open_checkpoint(checkpoint(halves, name, STEPS)).manifest
    assert manifest.state["loss_scale"] == {"value": scale, "finite_steps": STEPS - 1 - skipped[-1]}
    assert manifest.state["skipped_steps"] == len(skipped) == STEPS - manifest.optimizer_steps
    expected = teachers_way(halves, in_half("ddp", "fp16"))
    assert relative(teachers_way(halves, name) - expected, expected) < 0.05
    assert expected.norm() > 0.2 * teachers_way(one, PLAIN).norm()  # it has lost steps, and goes on


COMPILED = [
    'plain:compile="on"',
    'plain:compile="on",recompute=1',
    'fsdp:compile="on",recompute=1',
    'deepspeed:zero_stage=3,compile="on",recompute=1',
]
COMPILED_WHOLE = ['fsdp:compile="on"', 'deepspeed:zero_stage=3,compile="on"']


@pytest.fixture(scope="module")
def apart(tmp_path_factory):
    """In fp16, where what overflows depends on the cut: in one batch, and in micro-batches with one contrast."""
    folder = tmp_path_factory.mktemp("apart")
    return run_group(2, folder, [in_parts(engine, cuts) for engine in ENGINES for cuts in (1, 3)])


def in_parts(engine, cuts):
    return case(engine, 'precision="fp16"', NO_BATCHNORM, f"cuts={cuts}")


@pytest.mark.parametrize("engine", ENGINES)
def test_micro_batches_in_fp16_have_the_gradient_of_the_whole_batch(apart, engine):
    whole, parts = (records(apart, in_parts(engine, cuts)) for cuts in (1, 3))
    first = next(step for step, record in enumerate(whole) if math.isfinite(record["norm"]))
    assert all(record["loss_scale"] == 2.0 ** (16 - step) for step, record in enumerate(parts[: first + 1]))
    assert parts[first]["norm"] == pytest.approx(whole[first]["norm"], rel=1e-3)  # nothing was updated before it
    for mine, theirs in zip(parts, records(apart, in_parts("ddp", 3)), strict=True):
        assert mine["loss_scale"] == theirs["loss_scale"]
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=5e-3)
        if math.isfinite(theirs["norm"]):
            assert mine["norm"] == pytest.approx(theirs["norm"], rel=5e-3)


@pytest.mark.parametrize(
    ("compiler", "cases"),
    [("usual", COMPILED), pytest.param("usual", COMPILED_WHOLE, marks=pytest.mark.slow), ("none", COMPILED[:1])],
    ids=["usual", "usual, nothing recomputed", "none"],
)
def test_compiled_blocks_change_no_number_and_without_a_compiler_they_run_as_they_are(one, tmp_path, compiler, cases):
    environment = (
        {} if compiler == "usual" else {"CXX": "/nonexistent/c++", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    )
    run_group(1, tmp_path, cases, **environment)
    for name in cases:
        assert_same(one, PLAIN, tmp_path, name)
    graphs = {name: compiled(tmp_path, name)["graphs"] for name in cases}
    assert compiled(one, PLAIN)["graphs"] == 0
    if compiler == "usual":
        assert min(graphs.values()) > 0, graphs
    if cases == COMPILED:
        assert graphs[COMPILED[0]] == graphs[COMPILED[1]], graphs
    assert ("WON'T CONVERT" in (tmp_path / "rank-0.log").read_text()) == (compiler == "none")


@pytest.mark.parametrize("engine", SHARDED[1:])
def test_deepspeed_compiles_no_operator_that_a_killed_process_would_leave_locked(one, engine):
    assert compiled(one, engine) == {"graphs": 0, COMPILED_ON_CPU: False}


@pytest.mark.parametrize("engine", ["plain", "fsdp", "deepspeed"])
def test_a_0_dimensional_parameter_is_refused_alike(engine):
    towers = Towers()
    towers.extra = torch.nn.Parameter(torch.tensor(1.0))
    setup = Setup(EngineConfig(name=engine), SETTINGS, Ranks(0, 1, torch.device("cpu")), 3, lambda _: LR, lambda _: 0.1)
    with pytest.raises(AssertionError, match=r"no 0-dimensional parameters; make \['extra'\] vectors"):
        build_engine(towers, setup)
