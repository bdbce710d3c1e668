"""How many CPU threads an engine may use, and how batches in flight share them with each other and their caller."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from drive_seg.engines.protocol import EngineOptions
from drive_seg.errors import EngineError

_CGROUP = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")
_TASKS = Path("/proc/self/task")
_NICENESS = 5
_SPARE = 3
"""Batches in flight beyond those computed side by side: whoever feeds the engine may be busy for as many."""


@dataclass(frozen=True)
class CpuShare:
    """``threads`` in all, for ``streams`` batches computed side by side, of ``slots`` that may be in flight."""

    threads: int
    streams: int
    slots: int


def cpu_threads(asked: int = 0, cgroup: Path = _CGROUP, membership: Path = _MEMBERSHIP) -> int:
    """``asked`` or, when 0, the cores this process may run on: CPU sets, taskset and quotas (of a container, of a
    systemd unit) respected.

    Of a quota of 2.5 cores 2 are taken: whoever uses up a quota is stopped until its period, a tenth of a second, ends.
    """
    if asked > 0:
        return asked
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min(cores, *map(_quota, _groups(cgroup, membership)))))


def _groups(cgroup: Path, membership: Path) -> set[Path]:
    """The folders of the control groups that this process is in (cgroups version 2 or 1), up to the root.

    In a container its group is most often the root; a systemd unit sees its place in the whole tree.
    """
    found = {cgroup, cgroup / "cpu"}
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:  # only Linux has it
        return found
    for line in lines:
        _, controllers, place = line.split(":", 2)
        if not controllers or "cpu" in controllers.split(","):  # version 2 names none
            root = cgroup / "cpu" if controllers else cgroup
            group = root / place.lstrip("/")
            found |= {group, *(parent for parent in group.parents if root in parent.parents)}
    return found


def _quota(group: Path) -> float:
    """Cores of processor time that the control group may use; infinite without a limit."""
    for quota, period in ((group / "cpu.max", None), (group / "cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            numbers = quota.read_text(encoding="ascii").split()
            if period is not None:
                numbers.append(quota.with_name(period).read_text(encoding="ascii"))
            allowed, every = int(numbers[0]), int(numbers[1])
        except (OSError, ValueError, IndexError):  # not there, or "max"
            continue
        if allowed > 0 and every > 0:  # version 1 writes -1 for no quota
            return allowed / every
    return math.inf


def cpu_share(options: EngineOptions) -> CpuShare:
    """What ``options`` come to on this machine; see ``EngineOptions``."""
    threads = cpu_threads(options.threads)
    streams = min(options.streams, threads) if options.streams > 0 else threads
    return CpuShare(threads, streams, options.slots if streams == 1 else max(options.slots, streams + _SPARE))


def give_way(thread: int | None = None) -> None:
    """Let a thread of this process, by default the calling one, wait for others that have work (Linux only).

    Streams keep every core busy. Unless they give way, who feeds them waits for its turn, and soon so do they.
    """
    if not _TASKS.is_dir():  # niceness is that of the whole process
        return
    number = threading.get_native_id() if thread is None else thread
    with suppress(OSError):  # already ended
        os.setpriority(os.PRIO_PROCESS, number, os.getpriority(os.PRIO_PROCESS, number) + _NICENESS)


def require_process(opened_in: int) -> None:
    """Whoever goes on in a forked process would wait for threads that stayed behind, for ever.

    Raises:
        EngineError: this is another process than the one (its id) that the engine was opened in.
    """
    if os.getpid() != opened_in:
        raise EngineError(
            "the engine was opened in another process, and its threads did not come along in the fork: open one in "
            "each process"
        )


@contextmanager
def giving_way(share: CpuShare) -> Iterator[None]:
    """Threads that are started meanwhile ``give_way``, if there are several streams."""
    before = _threads()
    yield
    if share.streams > 1:
        for thread in _threads() - before:
            give_way(thread)


def _threads() -> set[int]:
    return {int(entry.name) for entry in _TASKS.iterdir()} if _TASKS.is_dir() else set()
