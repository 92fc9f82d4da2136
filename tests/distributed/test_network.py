"""Nodes whose own names lead to themselves alone, as Debian's /etc/hosts has them, find each other all the same."""

import os
import shutil
import subprocess
import sys

import pytest

from src.distributed.network import interface_of, leads_elsewhere, own_address
from tests.commands import LAUNCH_VARIABLES, ROOT

CODE = """
import os, torch, torch.distributed as dist
from src.distributed.ranks import join
ranks = join(40.0)
total = torch.ones(1)
dist.all_reduce(total)
print(int(total), os.environ.get("GLOO_SOCKET_IFNAME"), flush=True)
os._exit(0)
"""
NODE = """
hostname node$RANK && mount --bind "$HOSTS" /etc/hosts && ip link set lo up && echo there && read go
ip address add 10.77.0.$((RANK + 1))/24 dev end$RANK && ip link set end$RANK up && exec "$PYTHON" -c "$CODE"
"""
"""A node is a network, a host name and an /etc/hosts of its own; an end of the wire between them comes before `go`."""


def test_the_interface_of_an_address():
    assert interface_of("127.0.0.1") == "lo" and interface_of("192.0.2.1") is None
    assert not own_address("127.0.1.1") and not own_address("") and not own_address("no such host")
    assert not leads_elsewhere("localhost") and not leads_elsewhere("no such host") and leads_elsewhere("10.1.2.3")


def node(rank, folder):
    hosts = folder / f"hosts{rank}"
    hosts.write_text(f"127.0.0.1 localhost\n127.0.1.1 node{rank}\n10.77.0.{2 - rank} node{1 - rank}\n")
    told = {"HOSTS": str(hosts), "PYTHON": sys.executable, "CODE": CODE, "RANK": str(rank), "LOCAL_RANK": "0"}
    told |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "node0", "MASTER_PORT": "29512"}
    outside = {name: value for name, value in os.environ.items() if name not in LAUNCH_VARIABLES}
    return subprocess.Popen(
        ["unshare", "--net", "--mount", "--uts", "sh", "-e", "-c", NODE],
        cwd=ROOT,
        env=outside | told | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def may_make_networks():
    if shutil.which("ip") is None or shutil.which("unshare") is None:
        return False
    wire = "hostname node && ip link add end0 type veth peer name end1"
    words = ["unshare", "--net", "--mount", "--uts", "sh", "-c", wire]
    return not subprocess.run(words, capture_output=True).returncode


@pytest.mark.distributed
@pytest.mark.skipif(not may_make_networks(), reason="this container may not make networks (unshare --net)")
def test_ranks_on_hosts_that_know_themselves_as_127_0_1_1_talk_over_the_wire_between_them(tmp_path):
    nodes = [node(rank, tmp_path) for rank in range(2)]
    try:
        assert [one.stdout.readline() for one in nodes] == ["there\n"] * 2, [one.stderr.read() for one in nodes]
        ends = [str(one.pid) for one in nodes]
        wire = ["ip", "link", "add", "end0", "netns", ends[0], "type", "veth", "peer", "name", "end1", "netns", ends[1]]
        subprocess.run(wire, check=True)
        for one in nodes:
            one.stdin.write("go\n")
            one.stdin.flush()
        told = [one.communicate(timeout=150) for one in nodes]
    finally:
        for one in nodes:
            one.kill()
    assert [out for out, _ in told] == ["2 end0\n", "2 end1\n"], told
