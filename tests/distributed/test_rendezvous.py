"""Ranks find those of their own attempt, and nobody else; who is missing and what does not fit is told."""

import json
import os
import socket
import subprocess
import sys
import time

import pytest

from src.distributed.ranks import device_index
from src.distributed.rendezvous import Place, clash, listed
from tests.commands import LAUNCH_VARIABLES, ROOT

pytestmark = pytest.mark.distributed
CODE = """
import json, os, sys
from src.distributed.rendezvous import Place, meet
rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
try:
    store = meet(rank, world_size, Place(*json.loads(sys.argv[1])), float(sys.argv[2]))
    print("met", flush=True)
    sys.stdin.read()  # the store must outlive the others' look at it
except ValueError as error:
    print(error, flush=True)
os._exit(0)
"""
TORCHRUN = """
import os, sys
import torch, torch.distributed as dist
from src.distributed.ranks import join
ranks = join(1800.0)
own = torch.ones(1)
dist.all_reduce(own)
os.write(1, f"sum {own.item()} in attempt {os.environ['TORCHELASTIC_RESTART_COUNT']}\\n".encode())  # at once
waits = [dist.new_group(backend="gloo")._get_backend(torch.device("cpu")).options._timeout.total_seconds()]
assert waits == [3600.0], waits
os._exit(os.environ["TORCHELASTIC_RESTART_COUNT"] == "0")
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def arrive(rank, world_size, port, patience=60.0, place=("here", ""), **more):
    """A process that comes to the rendezvous."""
    outside = {name: value for name, value in os.environ.items() if name not in LAUNCH_VARIABLES}
    own = {"RANK": rank, "WORLD_SIZE": world_size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, **more}
    return subprocess.Popen(
        [sys.executable, "-c", CODE, json.dumps(place), str(patience)],
        cwd=ROOT,
        env=outside | {name: str(value) for name, value in own.items()},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def said(process):
    """What it says of the rendezvous."""
    return process.stdout.readline().strip()


def end(*processes):
    for process in processes:
        process.kill()
        process.communicate()


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_ranks_that_do_not_come_are_named_on_all_that_did():
    port = free_port()
    came = [arrive(rank, 4, port, patience=5) for rank in (0, 2)]
    for process in came:
        assert said(process).startswith(f"ranks 1, 3 of 4 did not come to rank 0 at 127.0.0.1:{port} within 5 s: ")
    end(*came)


def test_a_store_of_an_earlier_attempt_is_not_joined_and_does_not_notice():
    port = free_port()
    stale = arrive(0, 2, port, MEDSSL_JOB=7, MEDSSL_RESTART=0)
    while not listens(port):
        time.sleep(0.05)
    new = [arrive(rank, 2, port, MEDSSL_JOB=7, MEDSSL_RESTART=1) for rank in (0, 1)]
    assert said(new[0]).startswith(f"rank 0 can't listen at 127.0.0.1:{port}, where another process does")
    assert said(new[1]).startswith(
        f"the store at 127.0.0.1:{port} is that of job 7, restart 0, 2 ranks, and rank 1 is of job 7, restart 1, 2 "
    )
    late = arrive(1, 2, port, MEDSSL_JOB=7, MEDSSL_RESTART=0)
    assert said(stale) == said(late) == "met"
    end(stale, late, *new)


def test_what_listens_and_does_not_answer_is_not_waited_for_for_ever():
    """As a stopped process of an earlier attempt: torch's store has no limit for it."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        rank = arrive(1, 2, other.getsockname()[1], patience=1)
        assert f":{other.getsockname()[1]} does not answer rank 1: " in said(rank)
        end(rank)


def test_two_ranks_with_one_gpu_are_told_on_both():
    port = free_port()
    both = [arrive(rank, 2, port, place=("node7", "GPU-1")) for rank in (0, 1)]
    for process in both:
        assert said(process).startswith("ranks 0, 1 on node7 have the same GPU: ask for as many")
    end(*both)


def test_places_that_go_together():
    assert clash([Place("a", "")] * 3) == "" and clash([Place("a", "1"), Place("a", "2"), Place("b", "3")]) == ""
    assert clash([Place("a", "1"), Place("b", ""), Place("b", "")]).startswith(
        "ranks 1, 2 found no GPU, and the others"
    )
    assert listed(range(20)) == "ranks 0, 1, 2, 3, 4, 5, 6, 7 and 12 more" and listed([3]) == "rank 3"


def test_the_gpu_of_a_rank():
    assert device_index(visible=1, local_rank=3, neighbours=4) == 0
    assert [device_index(4, rank, 4) for rank in range(4)] == [0, 1, 2, 3] and device_index(8, 1, 2) == 1
    with pytest.raises(ValueError, match="4 ranks on .* see 2 GPUs each: .*--gpus-per-node 4"):
        device_index(2, 0, 4)


def test_torchrun_starts_failed_ranks_again_at_the_store_that_it_keeps(tmp_path):
    (tmp_path / "train.py").write_text(TORCHRUN)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, "--max-restarts", "1", str(tmp_path / "train.py")],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == [f"sum 2.0 in attempt {number}" for number in (0, 0, 1, 1)]
