"""Machines on one machine: a network namespace each, with an address, a /tmp and a /dev/shm of its own.

They are joined by a bridge, which this process is on too, as the one outside. Needs root and iproute2.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

_APART = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")  # Ray looks at all processes it sees
BRIDGE, NET = "tapraybr", "10.77.0"
OUTSIDE = f"{NET}.1"


def sh(command: str) -> None:
    subprocess.run(shlex.split(command), check=True, capture_output=True)


def _kept(tmp: Path) -> str:
    """The part of a command that keeps this repository and its environment in sight, if they lie in /tmp."""
    words = ""
    for path in (Path(__file__).parents[1], Path(sys.prefix)):
        if path.is_relative_to("/tmp"):
            inner = tmp / path.relative_to("/tmp")
            words += f"mkdir -p {inner} && mount --bind {path} {inner} && "
    return words


class Host:
    """A machine; `number` is the last part of its address."""

    def __init__(self, name: str, number: int, scratch: Path) -> None:
        self.name, self.address, self._link = name, f"{NET}.{number}", f"tr{number}"
        self.own = scratch / name
        for part in ("tmp", "shm"):
            (self.own / part).mkdir(parents=True)
        self.namespace = f"tapray-{name}"
        sh(f"ip netns add {self.namespace}")
        sh(f"ip link add {self._link} type veth peer name eth0 netns {self.namespace}")
        sh(f"ip link set {self._link} master {BRIDGE} up")
        for what in (f"addr add {self.address}/24 dev eth0", "link set eth0 up", "link set lo up"):
            sh(f"ip -netns {self.namespace} {what}")

    def start(
        self, command: str, env: Mapping[str, str], log: str, user: str = "root"
    ) -> subprocess.Popen[bytes]:
        """A command in the background; what it says goes to a file of that name."""
        mounts = f"{_kept(self.own / 'tmp')} mount --rbind {self.own}/tmp /tmp"
        mounts += " && mount -t tmpfs -o size=1g tmpfs /dev/shm"
        who = f"setpriv --reuid={user} --regid={user} --init-groups"
        inner = f"{mounts} && cd {self.own} && exec {who} {command}"
        with (self.own / log).open("ab") as out:
            return subprocess.Popen(
                ["ip", "netns", "exec", self.namespace, *_APART, "bash", "-c", inner],
                env={**os.environ, **env},
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def run(self, command: str, env: Mapping[str, str], log: str, user: str = "root") -> None:
        """A command to its end."""
        if self.start(command, env, log, user).wait():
            raise RuntimeError(f"{self.name}: {command} failed: {(self.own / log).read_text()[-500:]}")

    def pids(self) -> list[int]:
        found = subprocess.run(
            ["ip", "netns", "pids", self.namespace], check=True, capture_output=True, text=True
        )
        return [int(pid) for pid in found.stdout.split()]

    def runs(self, word: str) -> list[int]:
        """The processes whose command line holds a word."""
        found = []
        for pid in self.pids():
            with suppress(OSError):
                if word in Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " "):
                    found.append(pid)
        return found

    def kill(self, word: str = "") -> None:
        """Ends its processes at once, as a power cut does; only those with a word in their command line."""
        while pids := self.runs(word):
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def cut(self) -> None:
        """Takes its link away."""
        sh(f"ip link set {self._link} down")

    def mend(self) -> None:
        sh(f"ip link set {self._link} up")

    def remove(self) -> None:
        self.kill()
        sh(f"ip netns del {self.namespace}")


@contextmanager
def network() -> Iterator[None]:
    """The bridge, and its end with all that is on it."""
    _clear()
    sh(f"ip link add {BRIDGE} type bridge")
    sh(f"ip addr add {OUTSIDE}/24 dev {BRIDGE}")
    sh(f"ip link set {BRIDGE} up")
    try:
        yield
    finally:
        _clear()


def _clear() -> None:
    """Removes what a run that was stopped has left."""
    listed = subprocess.run(["ip", "netns", "list"], check=True, capture_output=True, text=True).stdout
    for line in listed.splitlines():
        if (name := line.split()[0]).startswith("tapray-"):
            pids = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=True)
            for pid in pids.stdout.split():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            sh(f"ip netns del {name}")
    links = [path.name for path in Path("/sys/class/net").iterdir() if re.fullmatch(r"tr\d+", path.name)]
    for link in (*links, BRIDGE):  # a namespace lives on while a process of it does, and so do its links
        subprocess.run(["ip", "link", "del", link], capture_output=True, check=False)
