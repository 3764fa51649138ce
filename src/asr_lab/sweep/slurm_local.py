"""A Slurm of one node on this machine, for trying and for tests: no systemd, no cgroups, nothing outside one folder.

    python -m asr_lab.sweep.slurm_local start FOLDER     prints the line that points Slurm's commands there
    python -m asr_lab.sweep.slurm_local stop FOLDER

Needs root and Debian's or Ubuntu's packages slurm-wlm and munge.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
WAIT_S = 30.0  # for the node to get ready
STOP_S = 15.0  # for cancelled jobs to be gone

CONF = """\
ClusterName=local
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort={port_1}
SlurmdPort={port_2}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,bf_interval=5
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
KillWait=5
JobRequeue=1
MaxArraySize={max_array_size}
AccountingStorageType=accounting_storage/none
NodeName={host} NodeAddr=127.0.0.1 NodeHostname={host} CPUs={cpus} RealMemory={memory_mb} State=UNKNOWN
PartitionName=debug Nodes={host} Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:2
"""


class LocalSlurm:
    """The three daemons of one folder."""

    def __init__(self, folder: Path, max_array_size: int = 1001):
        self.folder, self.max_array_size = Path(folder).absolute(), max_array_size
        self.conf = self.folder / "slurm.conf"
        self.log = self.folder / "start.log"

    @property
    def env(self) -> dict[str, str]:
        """What Slurm's commands need to find it"""
        return {"SLURM_CONF": str(self.conf)}

    def start(self) -> None:
        """Raises RuntimeError, with the daemons' last words, if the node does not get ready."""
        for name in DAEMONS:
            if not _program(name):
                raise RuntimeError(f"{name} is not installed: apt-get install slurm-wlm munge")
        for name in ("state", "spool"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        host = socket.gethostname().partition(".")[0]
        port_1, port_2 = _free_ports(2)
        self.conf.write_text(
            CONF.format(
                host=host,
                folder=self.folder,
                port_1=port_1,
                port_2=port_2,
                max_array_size=self.max_array_size,
                cpus=os.cpu_count() or 1,
                memory_mb=2000,
            )
        )
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        self._run(
            "munged",
            "--force",
            f"--key-file={key}",
            f"--socket={self.folder}/munge.sock",
            f"--pid-file={self.folder}/munged.pid",
            f"--log-file={self.folder}/munged.log",
            f"--seed-file={self.folder}/munge.seed",
        )
        self._run("slurmctld", "-c")
        self.start_slurmd()

    def start_slurmd(self) -> None:
        self._run("slurmd", "-c")
        until = time.monotonic() + WAIT_S
        while time.monotonic() < until:
            done = self.ask("sinfo", "-h", "-o", "%T")
            if done.stdout.strip() in ("idle", "mixed", "allocated"):
                return
            time.sleep(0.1)
        logs = [f"{p}:\n{p.read_text()[-1000:]}" for p in sorted(self.folder.glob("*.log"))]
        raise RuntimeError("\n".join(["Slurm's node does not get ready", *logs]))

    def ask(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, env=os.environ | self.env, capture_output=True, text=True, check=False)

    def pid(self, name: str) -> int | None:
        try:
            return int((self.folder / f"{name}.pid").read_text())
        except (OSError, ValueError):
            return None

    def kill(self, name: str) -> None:
        """A daemon, without a chance to say good-bye"""
        if pid := self.pid(name):
            _signal(pid, signal.SIGKILL)

    def jobs(self) -> list[str]:
        """Ids of all that is in the queue"""
        return self.ask("squeue", "-h", "-o", "%A").stdout.split()

    def stop(self) -> None:
        """Cancel all jobs, then end the daemons."""
        if jobs := self.jobs():
            self.ask("scancel", *jobs)
            until = time.monotonic() + STOP_S
            while self.jobs() and time.monotonic() < until:
                time.sleep(0.2)
        for name in reversed(DAEMONS):
            if pid := self.pid(name):
                _signal(pid, signal.SIGTERM)
                until = time.monotonic() + 10
                while _signal(pid, 0) and time.monotonic() < until:
                    time.sleep(0.05)
                _signal(pid, signal.SIGKILL)

    def _run(self, name: str, *args: str) -> None:
        program = _program(name)
        assert program
        with open(self.log, "ab") as out:
            subprocess.run([program, *args], env=os.environ | self.env, stdout=out, stderr=out, check=True)


def is_installed() -> bool:
    return all(map(_program, DAEMONS))


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _free_ports(n: int) -> list[int]:
    sockets = [socket.socket() for _ in range(n)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def _signal(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def main(argv: list[str]) -> int:
    if len(argv) != 2 or argv[0] not in ("start", "stop"):
        print("asr_lab.sweep.slurm_local start|stop FOLDER", file=sys.stderr)
        return 2
    slurm = LocalSlurm(Path(argv[1]))
    if argv[0] == "stop":
        slurm.stop()
        return 0
    try:
        slurm.start()
    except (RuntimeError, subprocess.CalledProcessError) as error:
        print(f"asr-lab: {error}", file=sys.stderr)
        return 2
    print(f"export SLURM_CONF={slurm.conf}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
