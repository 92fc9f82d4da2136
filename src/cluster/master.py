"""Where the ranks of a job meet: an address that its nodes reach, and a port that is free on the first of them.

python -m src.cluster.master    called by a job's script on its first node, at each start; prints two assignments
"""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Mapping

PORTS = range(20000, 32768)
"""Below those that Linux gives to outgoing connections, which could take it before rank 0 does."""
NOWHERE = ("192.0.2.1", 9)
"""An address for documentation (RFC 5737): the kernel names the interface that would be used, and sends nothing."""


def address(environment: Mapping[str, str]) -> str:
    """This node's name where it resolves, else its address on the network."""
    if environment.get("SLURM_JOB_NUM_NODES", "1") == "1":
        return "127.0.0.1"
    for name in (environment.get("SLURMD_NODENAME", ""), socket.gethostname()):
        if name and resolves(name):
            return name
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(NOWHERE)
        return str(probe.getsockname()[0])


def resolves(name: str) -> bool:
    """Whether a name leads to an address here."""
    try:
        socket.getaddrinfo(name, None)
    except OSError:
        return False
    return True


def free_port() -> int:
    """A port that nobody on this machine listens at; jobs that start together ask for different ones."""
    for port in random.SystemRandom().sample(PORTS, 100):
        with socket.socket() as trial:
            try:
                trial.bind(("", port))
            except OSError:
                continue
            return port
    raise OSError(f"a hundred ports from {PORTS.start} to {PORTS.stop - 1} are all taken on {socket.gethostname()}")


if __name__ == "__main__":
    print(f"MASTER_ADDR={address(os.environ)} MASTER_PORT={free_port()}")
