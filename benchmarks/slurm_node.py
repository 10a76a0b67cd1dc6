"""A Slurm of one node on this machine: munged, slurmctld and slurmd on loopback, in a folder of its own.

    python benchmarks/slurm_node.py    # prints the line that makes sbatch use it; Ctrl-C ends it

Needs Debian's `slurm-wlm` and `munge`, and root, as slurmd does.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue")
_START_SECONDS = 60.0
_CONF = """\
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str | None:
    """The reason why no Slurm can be started here, or None."""
    lacking = [name for name in PROGRAMS if shutil.which(name) is None]
    if lacking:
        return f"Slurm is not installed ({', '.join(lacking)} missing: apt install slurm-wlm munge)"
    if os.getuid() != 0:
        return "slurmd runs as root"
    return None if "munge" in {user.pw_name for user in pwd.getpwall()} else "no user munge"


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


@contextlib.contextmanager
def slurm_node(cpus: int = 2) -> Iterator[Path]:
    """Slurm during the block; its configuration file, which SLURM_CONF names meanwhile.

    Raises:
        RuntimeError: it did not start; holds the end of its logs.
    """
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    folder.chmod(0o755)
    munge = folder / "munge"
    for path in (munge, folder / "state", folder / "spool"):
        path.mkdir()
    (munge / "key").write_bytes(os.urandom(1024))
    user = pwd.getpwnam("munge")
    for path in (munge, munge / "key"):
        os.chown(path, user.pw_uid, user.pw_gid)
    (munge / "key").chmod(0o400)
    munge.chmod(0o711)
    conf = folder / "slurm.conf"
    conf.write_text(
        _CONF.format(
            host=socket.gethostname(),
            folder=folder,
            controller=_free_port(),
            node=_free_port(),
            cpus=cpus,
        ),
        encoding="utf-8",
    )
    files = [f"--{n}-file={munge / n}" for n in ("key", "pid", "log", "seed")]
    commands = (
        ["munged", "--foreground", f"--socket={munge}/socket", *files],
        ["slurmctld", "-D", "-f", str(conf)],
        ["slurmd", "-D", "-f", str(conf), "-N", socket.gethostname()],
    )
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = str(conf)
    started = []
    try:
        for command in commands:
            own = {"user": user.pw_uid, "group": user.pw_gid} if command[0] == "munged" else {}
            with (folder / f"{command[0]}.out").open("wb") as out:
                started.append(
                    subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True, **own)
                )
            if command[0] == "munged":
                _wait(lambda: (munge / "socket").exists(), folder)
        _wait(_idle, folder)
        yield conf
    finally:
        for process in reversed(started):
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.wait()
        if before is None:
            os.environ.pop("SLURM_CONF")
        else:
            os.environ["SLURM_CONF"] = before
        shutil.rmtree(folder, ignore_errors=True)


def _idle() -> bool:
    done = subprocess.run(
        ["sinfo", "-h", "-o", "%T"], capture_output=True, text=True, encoding="utf-8"
    )
    return done.returncode == 0 and "idle" in done.stdout


def _wait(ready: object, folder: Path) -> None:
    end = time.monotonic() + _START_SECONDS
    while not ready():  # type: ignore[operator]
        if time.monotonic() > end:
            logs = [*folder.glob("*.out"), *folder.glob("*.log")]
            text = "\n".join(f"{p.name}: {p.read_text(encoding='utf-8')[-500:]}" for p in logs)
            raise RuntimeError(f"Slurm did not start:\n{text}")
        time.sleep(0.2)


if __name__ == "__main__":
    with slurm_node() as found, contextlib.suppress(KeyboardInterrupt):
        print(f"export SLURM_CONF={found}", flush=True)
        signal.pause()
