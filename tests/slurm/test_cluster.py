"""The cluster that the other tests stand on: it comes up quickly, is what it says, and leaves nothing."""

import subprocess
import sys
import time
from collections import Counter

import pytest

from tests.commands import ROOT
from tests.slurm.cluster import HOSTS, NODES, Cluster, processes, remove_leftovers

pytestmark = pytest.mark.slurm


def test_two_nodes_run_two_tasks_each(cluster):
    names = cluster.run("srun", "-N2", "--ntasks-per-node=2", "hostname").split()
    assert sorted(Counter(names).values()) == [2, 2] and set(names) < set(cluster.nodes)


def test_another_cluster_comes_and_goes_beside_it(cluster, tmp_path_factory):
    folder = tmp_path_factory.mktemp("slurm")
    began = time.monotonic()
    with Cluster(folder) as other:
        assert time.monotonic() - began < 15
        assert not set(other.nodes) & set(cluster.nodes) and len(other.nodes) == NODES
        job = other.run("sbatch", "--parsable", "--output=/dev/null", "--wrap", "srun sleep 1000").strip()
        other.wait_for(job, "RUNNING", 20)
        assert other.show(job)["NodeList"] in other.nodes
        assert str(folder) in HOSTS.read_text()
    assert not list(processes(other.conf))
    assert str(folder) not in HOSTS.read_text()
    assert cluster.run("srun", "hostname").strip() in cluster.nodes


def test_what_a_killed_test_process_leaves_is_removed_by_the_next(cluster, tmp_path_factory):
    folder = tmp_path_factory.mktemp("slurm")
    code = (
        "import sys; from pathlib import Path; from tests.slurm.cluster import Cluster\n"
        "with Cluster(Path(sys.argv[1])) as cluster:\n"
        "    cluster.run('sbatch', '--parsable', '--output=/dev/null', '--wrap', 'srun sleep 1000')\n"
        "    cluster.wait_for(cluster.queue()[0], 'RUNNING', 20); print('running', flush=True); sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.read(len("running")) == "running"
    process.kill()
    process.communicate()
    conf = folder / "slurm.conf"
    assert list(processes(conf)) and str(conf) in HOSTS.read_text()
    remove_leftovers()
    assert not list(processes(conf)) and str(conf) not in HOSTS.read_text()
    assert cluster.nodes[0] in HOSTS.read_text()


def test_a_folder_whose_sockets_no_step_could_open_is_refused(tmp_path):
    with pytest.raises(ValueError, match="set TMPDIR to a shorter folder"):
        Cluster(tmp_path / ("long" * 20))
