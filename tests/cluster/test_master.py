"""Where ranks meet."""

import os
import socket
import subprocess
import sys

from src.cluster.master import PORTS, address, free_port, resolves
from tests.commands import ROOT


def test_one_node_meets_at_home():
    assert address({"SLURM_JOB_NUM_NODES": "1", "SLURMD_NODENAME": "elsewhere"}) == "127.0.0.1"


def test_several_nodes_meet_at_a_name_that_resolves_or_at_an_address():
    nodes = {"SLURM_JOB_NUM_NODES": "2"}
    assert address(nodes | {"SLURMD_NODENAME": "localhost"}) == "localhost"
    found = address(nodes | {"SLURMD_NODENAME": "no-such-node.invalid"})
    assert resolves(found)


def test_the_port_is_free_and_not_one_of_those_for_outgoing_connections():
    ports = {free_port() for _ in range(20)}
    assert len(ports) > 10 and all(port in PORTS for port in ports)
    with socket.socket() as taken:
        taken.bind(("", ports.pop()))


def test_the_script_of_a_job_gets_two_assignments():
    script = 'meeting=$("$0" -P -m src.cluster.master) || exit 1; export $meeting; echo "$MASTER_ADDR $MASTER_PORT"'
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    told = subprocess.check_output(["bash", "-c", script, sys.executable], env=environment, text=True, cwd="/")
    name, port = told.split()
    assert name == "127.0.0.1" and int(port) in PORTS
