"""Chunks over the workers of Ray, on this machine or on a cluster."""

from __future__ import annotations

import logging
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from drive_seg.errors import DriveSegError, MissingDependency, pip_install
from drive_seg.offline.chunks import Chunk, ChunkResult, Work, attempt
from drive_seg.privacy import forbid_reports

_RETRIES = 3
_PATIENCE_S = 10.0
_AHEAD = 4
"""Chunks per worker that may be in work or done before their turn: what waits stays bounded."""


class Cluster:
    """A connection to Ray; use it as a context manager.

    Args:
        address: of a running cluster (``auto``, ``ray://host:10001``); empty starts workers on this machine.
        workers: processes to start on this machine; 0 is one per core.

    Raises:
        MissingDependency: ray is not installed.
        DriveSegError: there is no cluster at the address.
    """

    def __init__(self, address: str = "", workers: int = 0) -> None:
        forbid_reports()
        try:
            import ray
        except ImportError as error:
            raise MissingDependency("ray", "--engine ray", pip_install(extra="cluster")) from error
        self._ray: Any = ray
        on_end = signal.getsignal(signal.SIGTERM)
        try:
            if address:
                _knock(address)
                ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
            else:
                cores: dict[str, Any] = {"num_cpus": workers} if workers else {}
                ray.init("local", include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False, **cores)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise DriveSegError(f"cannot reach Ray at {address or 'this machine'}: {error}") from error
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_end)  # Ray's own ends the process, with all that was done
        self.workers = max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self._ray.shutdown()

    def spread(self, work: Work, chunks: Sequence[Chunk]) -> Iterator[ChunkResult | DriveSegError]:
        """Results in the order of the chunks. A chunk whose worker dies is done again by another; only what comes back
        from a whole chunk counts, so nothing is counted twice."""
        ray = self._ray
        remote = ray.remote(num_cpus=1, max_retries=_RETRIES)(attempt)
        shared = ray.put(work)
        waiting: dict[int, Any] = {}
        sent = 0
        for turn, chunk in enumerate(chunks):
            while sent < len(chunks) and sent < turn + _AHEAD * self.workers:
                waiting[sent] = remote.remote(shared, chunks[sent])
                sent += 1
            try:
                yield ray.get(waiting.pop(turn))
            except ray.exceptions.RayError as error:
                reason = str(error).splitlines()[0]
                where = f"{chunk.bag} {'' if chunk.window is None else chunk.window}".rstrip()
                yield DriveSegError(f"chunk {where} was given up after {_RETRIES} retries: {reason}")


def _knock(address: str) -> None:
    """Raise OSError where nobody listens: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), _PATIENCE_S).close()
