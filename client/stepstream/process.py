"""Which process this is, in a way that outlives the reuse of process numbers."""

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessId:
    """Law: two processes that ever existed on hosts of different names or boots, or at different times, differ."""

    host: str
    pid: int
    start: str
    """When it started, in the system's own units; empty when the system does not tell."""
    boot_id: str
    """Which boot of the host; empty when the system does not tell."""
    namespace: str = ""
    """Which of the host's process namespaces: two containers may share a host's name and boot, and not their pids."""

    def as_dict(self) -> dict[str, str | int]:
        """For JSON."""
        return asdict(self)


def current() -> ProcessId:
    """This process. Not cached: a forked child is another one."""
    return of(os.getpid())


def parent() -> ProcessId:
    """The process that started this one."""
    return of(os.getppid())


def launcher(said: Mapping[str, str], *, may_be_this: bool = False) -> ProcessId:
    """The nearest ancestor that was not started with all of these variables: the one that has set them.

    A wrapper script between a launcher and its ranks has them, too, and is passed over. Where no ancestor tells, the
    process that started this one. With `may_be_this`, a process that has set them itself is the one.
    """
    pid = os.getpid() if may_be_this else os.getppid()
    # Up to 1, which in a container may be the launcher itself.
    while said and pid and _was_started_with(pid, said):
        pid = _parent_of(pid)
    return of(pid) if said and pid else parent()


def of(pid: int) -> ProcessId:
    """The process `pid` on this host."""
    return ProcessId(host=socket.gethostname(), pid=pid, start=start_of(pid), boot_id=boot_id(), namespace=namespace())


def is_dead(other: ProcessId, here: ProcessId) -> bool | None:
    """Whether `other` has ended, as `here` can tell; None when it cannot: another host or container, no start known."""
    if other.host != here.host:
        return None
    if other.boot_id != here.boot_id:
        return True
    if other.namespace != here.namespace or not other.start:
        return None
    return start_of(other.pid) != other.start


def start_of(pid: int) -> str:
    """When `pid` started, in the system's own units; empty when there is no such process."""
    if sys.platform.startswith("linux"):
        try:
            # Not as UTF-8: a command's name is cut to 15 bytes, wherever that falls.
            return parse_stat_start(Path(f"/proc/{pid}/stat").read_text(encoding="latin-1"))
        except (OSError, IndexError, ValueError):
            return ""
    return start_from_ps(pid)


def _was_started_with(pid: int, said: Mapping[str, str]) -> bool:
    try:
        environ = set(Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))
    except OSError:
        return False  # another user's, or a system that does not tell
    return environ.issuperset(f"{name}={value}".encode(errors="surrogateescape") for name, value in said.items())


def _parent_of(pid: int) -> int:
    """0 when there is no such process any more."""
    try:
        return int(_stat_fields(Path(f"/proc/{pid}/stat").read_text(encoding="latin-1"))[1])
    except (OSError, IndexError, ValueError):
        return 0


def start_from_ps(pid: int) -> str:
    """When `pid` started, as `ps` tells it; empty when there is no such process, or no `ps`."""
    return _said_by("ps", "-o", "lstart=", "-p", str(pid))


def parse_stat_start(stat: str) -> str:
    """Field 22 of /proc/PID/stat; empty for a zombie, which writes nothing any more (proc(5))."""
    fields = _stat_fields(stat)
    return "" if fields[0] in "ZX" else fields[19]


def _stat_fields(stat: str) -> list[str]:
    """Those from the third on: the second is the command, and may itself hold spaces and parentheses."""
    return stat[stat.rindex(")") + 2 :].split()


def namespace() -> str:
    """Which process namespace of the host this process lives in; empty when the system has none."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


@lru_cache(maxsize=1)
def boot_id() -> str:
    """Which boot of this host."""
    if sys.platform.startswith("linux"):
        try:
            return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        except OSError:
            return ""
    # Not kern.boottime, which moves when the clock is set.
    return _said_by("sysctl", "-n", "kern.bootsessionuuid")


def _said_by(*command: str) -> str:
    # The same words in whatever language and time zone the process runs: they are compared.
    environ = os.environ | {"LC_ALL": "C", "TZ": "UTC"}
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environ).stdout.strip()
    except OSError:
        return ""
