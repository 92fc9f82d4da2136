"""A real SLURM cluster on this machine, from Debian's packages: munged, slurmctld, a slurmd for each pretended node.

Each cluster has a folder, ports, addresses and node names of its own, so that several test processes start theirs side
by side. A node is a slurmd in a host name of its own (unshare --uts) on an address of its own in 127.0.0.0/8; ranks
find each other by the names in a marked block of /etc/hosts, which goes at the end. Daemons die with the process that
started them; what a killed one leaves behind (steps, its block) is removed by the next.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from src.distributed.processes import die_with_parent
from tests.commands import ROOT, environment, kill_tree, wait_until

PACKAGES = {"slurmctld": "slurmctld", "slurmd": "slurmd", "sbatch": "slurm-client", "munged": "munge"}
NODES, CPUS, GPUS = 4, 8, 2
INSTALL_SECONDS, START_SECONDS, CLIENT_SECONDS = 240, 30, 30
LONGEST_FOLDER = 107 - len("/spool/n17008-1/n17008-1_1700900.4294967291")
"""A Unix socket's name has 107 characters, and a step's has these behind the folder's: a longer one starts no job."""
PORTS = range(17008, 19984, 16)  # below those that the kernel hands out, and those that ranks meet at
HOSTS = Path("/etc/hosts")
MARK = "# tests/slurm {end} {port} {conf}"
LOST = {"COMPLETED", "FAILED", "CANCELLED", "OUT_OF_MEMORY", "DEADLINE"}
"""A job in one of these stays there; TIMEOUT, PREEMPTED and NODE_FAIL may be on their way to the queue."""

CONFIGURATION = """\
ClusterName=tests
FirstJobId={port}00
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# so long does a requeued job wait before it may start again: 120 s by default
AuthInfo=socket={folder}/munge.sock,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
MailProg=/bin/true
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
GresTypes=gpu
# nodes are larger than the machine
SlurmdParameters=config_overrides
SlurmctldParameters=preempt_send_user_signal
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
ReturnToService=2
SlurmdTimeout=20
KillWait=5
MinJobAge=3600
CompleteWait=0
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2,sched_min_interval=0
PriorityType=priority/basic
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF
PartitionName=low Nodes=ALL MaxTime=INFINITE PriorityTier=1 PreemptMode=REQUEUE GraceTime=20
PartitionName=down Nodes=ALL MaxTime=INFINITE State=DOWN
"""

SACCT = """\
#!/bin/sh
# sacct without accounting, as far as submitit asks: slurmctld knows the same of jobs that ended in the last hour.
echo 'JobID|State|NodeList'
while [ $# -gt 0 ]; do
  case $1 in
    -j) squeue -h --states=all -j "$2" -o '%i|%T|%N' 2>/dev/null; shift ;;
    -j*) squeue -h --states=all -j "${1#-j}" -o '%i|%T|%N' 2>/dev/null ;;
  esac
  shift
done
"""


@dataclass(frozen=True)
class Member:
    """A process of a job: `kind` is script (with what it starts), srun, task, rank or worker."""

    process: psutil.Process
    kind: str
    node: str
    rank: int
    restart: int
    command: str


class Cluster:
    """Starts on entry, and leaves nothing on exit: `with Cluster(folder) as cluster`.

    Raises:
        ValueError: if the folder's name is longer than `LONGEST_FOLDER`.
    """

    def __init__(self, folder: Path) -> None:
        if len(str(folder)) > LONGEST_FOLDER:
            raise ValueError(f"{folder} has more than {LONGEST_FOLDER} characters: set TMPDIR to a shorter folder")
        self.folder = folder
        self.conf = folder / "slurm.conf"
        self.nodes: list[str] = []
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._claim: socket.socket | None = None

    @property
    def environment(self) -> dict[str, str]:
        """That of a user of this cluster, in whose jobs ranks take one thread each."""
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        return environment() | {"SLURM_CONF": str(self.conf), "PATH": path, "OMP_NUM_THREADS": "1"}

    def __enter__(self) -> Cluster:
        try:
            remove_leftovers()
            self._claim, port = claim_ports()
            self._configure(port)
            self._start("munged", *self._munged())
            wait_until((self.folder / "munge.sock").exists, START_SECONDS, "munged")
            self._start("slurmctld", "slurmctld", "-D")
            wait_until(lambda: answers(port + 1), START_SECONDS, f"slurmctld, see {self.folder}/slurmctld.log")
            for node in self.nodes:
                self.start_node(node)
            self.wait_for_nodes("idle", self.nodes)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: Any) -> None:
        for daemon in self._daemons.values():  # the steps' own daemons outlive them, and are ended with the tasks
            daemon.kill()
            daemon.wait()
        end_processes(self.conf)
        if self._claim is not None:
            forget_names(self.conf)
            self._claim.close()

    def _configure(self, port: int) -> None:
        self.nodes = [f"n{port}-{number}" for number in range(1, NODES + 1)]
        addresses = [f"127.{port >> 8}.{port & 255}.{number}" for number in range(1, NODES + 1)]
        names = zip(self.nodes, addresses, strict=True)
        described = [
            f"NodeName={node} NodeHostname={node} NodeAddr={address} Port={port + 2 + number} CPUs={CPUS} "
            f"RealMemory=64000 Gres=gpu:{GPUS} State=UNKNOWN"
            for number, (node, address) in enumerate(names)
        ]
        self.conf.write_text(
            CONFIGURATION.format(
                host=socket.gethostname().split(".")[0], port=port + 1, folder=self.folder, nodes="\n".join(described)
            )
        )
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")  # unused, but one must be loaded
        devices = [self.folder / f"nvidia{number}" for number in range(GPUS)]
        for device in devices:  # GPUs to SLURM, /dev/null to everyone else
            os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        (self.folder / "gres.conf").write_text("".join(f"Name=gpu File={device}\n" for device in devices))
        key = self.folder / "munge.key"
        key.touch(0o600)
        key.write_bytes(os.urandom(1024))
        for name in ("state", "spool", "bin"):
            (self.folder / name).mkdir()
        sacct = self.folder / "bin" / "sacct"
        sacct.write_text(SACCT)
        sacct.chmod(0o755)
        add_names(self.conf, port, dict(zip(self.nodes, addresses, strict=True)))

    def _munged(self) -> list[str]:
        files = {"socket": "munge.sock", "key-file": "munge.key", "pid-file": "munged.pid"}
        files |= {"log-file": "munged.log", "seed-file": "munge.seed"}
        return ["munged", "--foreground", "--force", *(f"--{key}={self.folder / name}" for key, name in files.items())]

    def _start(self, name: str, *words: str) -> None:
        parent = os.getpid()
        with (self.folder / f"{name}.out").open("ab") as out:
            self._daemons[name] = subprocess.Popen(
                words,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=lambda: die_with_parent(parent),
            )

    def start_node(self, node: str) -> None:
        """Start a node's slurmd."""
        (self.folder / "spool" / node).mkdir(exist_ok=True)
        named = ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', node]
        self._start(node, *named, "slurmd", "-D", "-N", node)

    def kill_node(self, node: str) -> None:
        """SIGKILL a node's slurmd; the tasks that it started run on."""
        self._daemons[node].kill()
        self._daemons[node].wait()

    def wait_for_nodes(self, state: str, nodes: Sequence[str], seconds: float = START_SECONDS) -> None:
        """Poll until all of some nodes are in a state of sinfo's (idle, down*, ...)."""

        def reached() -> bool:
            lines = self.run("sinfo", "-h", "-N", "-p", "main", "-o", "%N %T").splitlines()
            found = dict(line.split() for line in lines)
            return all(found[node] == state for node in nodes)

        wait_until(reached, seconds, f"nodes {state}")

    def attempt(self, *words: str, timeout: float = CLIENT_SECONDS) -> subprocess.CompletedProcess[str]:
        """Run a command as a user of this cluster."""
        process = self.start(*words)
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            kill_tree(process.pid)
            raise
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start a command as a user of this cluster."""
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(words, cwd=ROOT, env=self.environment, text=True, **pipes)

    def run(self, *words: str, timeout: float = CLIENT_SECONDS) -> str:
        """The output of a command that must succeed."""
        done = self.attempt(*words, timeout=timeout)
        assert done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    def queue(self) -> list[str]:
        """Every job that was ever queued here, array tasks each: for what must not have been queued."""
        return self.run("squeue", "-h", "-r", "--states=all", "-o", "%i").split()

    def show(self, job: str) -> dict[str, str]:
        """What slurmctld knows of a job: JobState, Restarts, Reason, NodeList, StdErr, ..."""
        text = self.run("scontrol", "show", "job", "--oneliner", job).splitlines()[0]
        return dict(re.findall(r"(\S+?)=(\S*)", text))

    def state(self, job: str) -> str:
        """A job's state: PENDING, RUNNING, COMPLETED, ..."""
        return self.show(job)["JobState"]

    def wait_for(self, job: str, states: str | Sequence[str], seconds: float) -> str:
        """Poll until a job is in one of the states; an end that is none of them fails at once, with the job's logs."""
        wanted = [states] if isinstance(states, str) else list(states)
        deadline = time.monotonic() + seconds
        while (state := self.state(job)) not in wanted:
            assert state not in LOST, f"job {job} is {state}, not {wanted}\n{self.logs(job)}"
            assert time.monotonic() < deadline, f"job {job} is {state} after {seconds} s\n{self.logs(job)}"
            time.sleep(0.2)
        return state

    def logs(self, job: str, lines: int = 40) -> str:
        """The ends of what a job wrote beside its standard error, for the message of a test that fails."""
        folder = Path(self.show(job).get("StdErr", "/dev/null")).parent
        paths = sorted(path for path in folder.glob(f"*{job}*") if path.suffix in (".out", ".err", ".log"))
        return "\n".join(f"== {path}\n" + "\n".join(path.read_text().splitlines()[-lines:]) for path in paths)

    def scancel(self, job: str, *words: str) -> None:
        """Cancel a job, or with --signal send one."""
        self.run("scancel", *words, job)

    def requeue(self, job: str) -> None:
        """Put a running job back, as an administrator would."""
        self.run("scontrol", "requeue", job)

    def members(self, job: str, *kinds: str) -> list[Member]:
        """The living processes of a job (of some kinds), by rank; an array's task is asked for by its own number."""
        number = self.show(job)["JobId"]
        found = []
        for process, variables in processes(self.conf):
            if variables.get("SLURM_JOB_ID") == number and "SLURMD_NODENAME" in variables:
                kind = kind_of(process)
                if not kind or kind not in (kinds or [kind]):
                    continue
                with suppress(psutil.NoSuchProcess):
                    rank = int(variables.get("SLURM_PROCID", 0))
                    restart = int(variables.get("SLURM_RESTART_COUNT", 0))
                    node, command = variables["SLURMD_NODENAME"], " ".join(process.cmdline())
                    found.append(Member(process, kind, node, rank, restart, command))
        return sorted(found, key=lambda member: (member.rank, member.process.pid))


def kind_of(process: psutil.Process) -> str:
    """Which part of a job a process is; empty if it is gone or SLURM's own."""
    try:
        words, parent = process.cmdline(), process.parent()
        if is_rank(words):
            return "worker" if parent and is_rank(parent.cmdline()) else "rank"
        if not words or "slurmstepd" in words[0]:
            return ""
        if Path(words[0]).name == "srun":
            return "srun"
        return "task" if "submitit.core._submit" in words else "script"
    except psutil.NoSuchProcess:
        return ""


def is_rank(words: Sequence[str]) -> bool:
    """Whether a command line is that of a rank, or of its workers."""
    return len(words) > 1 and "python" in Path(words[0]).name and Path(words[1]).name.endswith("main.py")


def processes(conf: Path) -> Iterator[tuple[psutil.Process, dict[str, str]]]:
    """Every living process that was started with a cluster's SLURM_CONF, and its environment.

    Not by psutil: it stops where SLURM's daemons have written their title over the first entries.
    """
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            entries = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
            variables = dict(entry.decode(errors="replace").split("=", 1) for entry in entries if b"=" in entry)
            if variables.get("SLURM_CONF") == str(conf) and process.status() != psutil.STATUS_ZOMBIE:
                yield process, variables


def end_processes(conf: Path) -> None:
    """SIGKILL all that belongs to a cluster, until nothing is left of it."""
    deadline = time.monotonic() + START_SECONDS
    while found := [process for process, _ in processes(conf)]:
        assert time.monotonic() < deadline, f"cannot end {found}"
        for process in found:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        time.sleep(0.05)


def claim_ports() -> tuple[socket.socket, int]:
    """A socket that holds the first of 16 ports; the others are for who holds it."""
    for port in PORTS:
        claim = socket.socket()
        try:
            claim.bind(("127.0.0.1", port))
        except OSError:
            claim.close()
            continue
        if not any(answers(port + number) for number in range(1, NODES + 2)):
            return claim, port
        claim.close()
    raise OSError("no 16 free ports")


def answers(port: int) -> bool:
    """Whether somebody listens on a port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def hosts() -> Iterator[Any]:
    """/etc/hosts, to read and write, for one process at a time; in place: in a container it is a mount."""
    with HOSTS.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def rewrite(file: Any, text: str) -> None:
    """Give an open file another content."""
    file.seek(0)
    file.write(text)
    file.truncate()


def add_names(conf: Path, port: int, addresses: dict[str, str]) -> None:
    """Write a cluster's block."""
    names = "".join(f"{address} {node}\n" for node, address in addresses.items())
    begin, end = (MARK.format(end=end, port=port, conf=conf) for end in ("begin", "end"))
    with hosts() as file:
        text = file.read()
        rewrite(file, f"{text}{'' if text.endswith(chr(10)) else chr(10)}{begin}\n{names}{end}\n")


def forget_names(conf: Path) -> None:
    """Remove a cluster's block."""
    begin, end = (MARK.format(end=end, port=r"\d+", conf=re.escape(str(conf))) for end in ("begin", "end"))
    with hosts() as file:
        rewrite(file, re.sub(rf"{begin}\n.*?{end}\n", "", file.read(), flags=re.DOTALL))


def remove_leftovers() -> None:
    """End and forget clusters whose owner was killed: nobody holds their port any more."""
    begin = MARK.format(end="begin", port=r"(\d+)", conf="(.+)")
    with hosts() as file:
        found = re.findall(rf"^{begin}$", file.read(), flags=re.MULTILINE)
    for port, conf in found:
        with socket.socket() as claim:
            try:
                claim.bind(("127.0.0.1", int(port)))
            except OSError:
                continue
            end_processes(Path(conf))
            forget_names(Path(conf))


def reason_to_skip() -> str:
    """Why no cluster can be had here, after trying to install what is missing; empty if one can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "a SLURM cluster of several nodes needs root on Linux"
    if subprocess.run(["unshare", "--uts", "true"], capture_output=True).returncode:
        return "this container may not give a process a host name of its own (unshare --uts)"
    missing = [package for program, package in PACKAGES.items() if not shutil.which(program)]
    if missing and not shutil.which("apt-get"):
        return f"{', '.join(missing)} are missing, and this is no Debian that could install them"
    with hosts():  # one process at a time
        missing = [package for program, package in PACKAGES.items() if not shutil.which(program)]
        return install(missing) if missing else ""


def install(packages: Sequence[str]) -> str:
    """Install Debian packages within a bounded time; returns what went wrong."""
    deadline = time.monotonic() + INSTALL_SECONDS
    for words in (["update"], ["install", "--yes", "--no-install-recommends", *packages]):
        process = subprocess.Popen(
            ["apt-get", "--quiet", *words],
            env=os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            out, _ = process.communicate(timeout=deadline - time.monotonic())
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGTERM)
            return f"apt-get {words[0]} took more than {INSTALL_SECONDS} s"
        if process.returncode:
            return f"apt-get {' '.join(words)} failed: {(out.strip().splitlines() or ['without a word'])[-1]}"
    return ""
