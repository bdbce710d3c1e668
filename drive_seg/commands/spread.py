"""``drive_seg evaluate`` over many bags, or over the workers of Ray."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drive_seg.commands.options import network_size

if TYPE_CHECKING:
    from drive_seg.offline.chunks import Job, Spread
    from drive_seg.offline.evaluate import Judged
    from drive_seg.offline.report_frames import WorstFrames


def evaluate_bags(
    source: str,
    job: Job,
    size: str,
    environment: Mapping[str, Any],
    cluster: tuple[str, int] | None,
    chunk_seconds: float,
    ready: Callable[[], None],
) -> tuple[Judged, WorstFrames]:
    """Evaluate a bag, or those of a list.

    Args:
        source: a bag, or a ``.txt`` with one per line.
        size: of the network's input, as given to ``--network-size``; the first bag has the images that it is fitted to.
        ready: called once all bags are there.
        cluster: address and number of workers of Ray; None does all of it here.
    """
    from drive_seg.commands.terminal import progress_bar, warn
    from drive_seg.model import open_model
    from drive_seg.offline.bags import BagSource
    from drive_seg.offline.chunks import evaluate_chunks, one_after_another, plan, read_list
    from drive_seg.offline.sources import camera_size
    from drive_seg.resources import at_home

    bags = read_list(Path(source)) if Path(source).suffix == ".txt" else [source]
    bags = [str(at_home(bag).resolve()) for bag in bags]
    with ExitStack() as stack:
        spread: Spread = one_after_another
        around = dict(environment)
        if cluster is not None:
            from drive_seg.offline.cluster import Cluster

            connected = stack.enter_context(Cluster(*cluster))
            spread = connected.spread
            around["workers"] = connected.workers
        chunks, images = plan(bags, job.topic, chunk_seconds if cluster is not None else None)
        card = open_model(job.model)
        card = network_size(card, size, camera_size(BagSource(Path(bags[0]), job.topic)))
        job = replace(job, network=(card.width, card.height))
        ready()
        progress = stack.enter_context(progress_bar(f"evaluating {Path(source).name}", images or None))
        return evaluate_chunks(job, chunks, spread, around, progress, warn)
