"""``drive_seg evaluate`` over many bags, or over the workers of Ray."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from drive_seg.offline.chunks import Job, Spread
    from drive_seg.offline.evaluate import Judged
    from drive_seg.offline.report_frames import WorstFrames


def evaluate_bags(
    source: str, job: Job, environment: Mapping[str, Any], cluster: tuple[str, int] | None, chunk_seconds: float
) -> tuple[Judged, WorstFrames]:
    """Evaluate a bag, or those of a list.

    Args:
        source: a bag, or a ``.txt`` with one per line.
        cluster: address and number of workers of Ray; None does all of it here.
    """
    from drive_seg.commands.terminal import progress_bar, warn
    from drive_seg.offline.chunks import evaluate_chunks, one_after_another, plan, read_list

    bags = read_list(Path(source)) if Path(source).suffix == ".txt" else [source]
    bags = [str(Path(bag).expanduser().resolve()) for bag in bags]
    with ExitStack() as stack:
        spread: Spread = one_after_another
        around = dict(environment)
        if cluster is not None:
            from drive_seg.offline.cluster import Cluster

            connected = stack.enter_context(Cluster(*cluster))
            spread = connected.spread
            around["workers"] = connected.workers
        chunks, images = plan(bags, job.topic, chunk_seconds if cluster is not None else None)
        progress = stack.enter_context(progress_bar(f"evaluating {Path(source).name}", images or None))
        return evaluate_chunks(job, chunks, spread, around, progress, warn)
