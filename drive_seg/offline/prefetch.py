"""Reading ahead in a thread, a few items at most."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable
from typing import TypeVar

from drive_seg.engines.threads import cpu_threads

Item = TypeVar("Item")
_END = object()
_GLANCE_S = 0.2


def cores_to_spare() -> bool:
    """Whether what is done quickly, as reading raw images or scoring, deserves a thread beside the pipeline's.

    The engine computes in threads of its own, and whoever feeds it has time for more. On two cores threads beside that
    cost a tenth of the speed: they take the interpreter's lock and the cache from each other.
    """
    return cpu_threads() > 2


def prefetch(
    items: Iterable[Item], ahead: int = 2, stop: Callable[[], bool] = lambda: False
) -> Generator[Item, None, None]:
    """The items, made in a thread of their own while the last ones are used; its error comes in their place.

    Args:
        stop: asked before each and while one is waited for; they end where it is true.
    """
    ready: queue.Queue[object] = queue.Queue(ahead)
    stopping = threading.Event()
    failed: list[BaseException] = []

    def hand_over(item: object) -> bool:
        while not stopping.is_set():
            try:
                ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def read() -> None:
        try:
            for item in items:
                if not hand_over(item):
                    return
        except Exception as error:  # noqa: BLE001 - raised again where the items are taken
            failed.append(error)
        hand_over(_END)

    thread = threading.Thread(target=read, name="drive_seg_prefetch", daemon=True)
    thread.start()
    try:
        while not stop():
            try:
                item = ready.get(timeout=_GLANCE_S)
            except queue.Empty:
                continue
            if item is _END:
                break
            yield item  # type: ignore[misc]
        else:
            return
    finally:
        stopping.set()
        thread.join(timeout=5.0)
    if failed:
        raise failed[0]
