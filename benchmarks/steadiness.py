"""How steady the masks of a recording are, without any truth: ``python benchmarks/steadiness.py VIDEO``, folder or bag.

Of the pixels that hardly changed their brightness since the frame before, the share that changed their class: of all,
and of those that were of a class in the frame before. A camera that drives leaves still what looks the same afterwards
(the road ahead, the sky, the bonnet), which is just where flicker shows. What moves counts as well where it looks
alike, so this is an upper bound. ``area``: the part of the image that is of the class, and by how much of it that part
changes from one frame to the next (the median).
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from drive_seg import open_pipeline
from drive_seg.decode import decode, decode_rgb
from drive_seg.frame import Frame
from drive_seg.model import load_model
from drive_seg.offline.metrics.temporal import STILL
from drive_seg.offline.sources import camera_size, open_source
from drive_seg.resources import find_model


def main() -> None:
    """Command line of this file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", help="a video, a folder of images or a bag")
    parser.add_argument("--model", default="default")
    parser.add_argument("--frames", type=int, default=0, help="at most so many")
    arguments = parser.parse_args()
    source = open_source(arguments.source)
    card = load_model(find_model(arguments.model)).fitted(camera_size(source))
    count = len(card.labels)
    still, changed = np.zeros(count), np.zeros(count)
    areas: list[np.ndarray] = []
    before: tuple[np.ndarray, np.ndarray] | None = None
    with open_pipeline(card) as pipeline:
        for entry in source:
            if not isinstance(entry, Frame):
                continue
            image = decode(entry.image)
            grey = cv2.cvtColor(decode_rgb(image), cv2.COLOR_RGB2GRAY)
            mask = pipeline(replace(entry, image=image)).mask.copy()
            areas.append(np.bincount(mask.ravel(), minlength=256)[:count] / mask.size)
            if before is not None:
                same = cv2.absdiff(grey, before[0]) <= STILL
                was = before[1][same]
                still += np.bincount(was, minlength=256)[:count]
                changed += np.bincount(was[was != mask[same]], minlength=256)[:count]
            before = grey, mask
            if len(areas) == arguments.frames:
                break
    share = np.array(areas)
    step = np.median(np.abs(np.diff(share, axis=0)), axis=0)
    flicker = f"{100 * changed.sum() / still.sum():.2f} % of still pixels changed their class"
    title = f"{len(areas)} frames, network {card.width}x{card.height}; {flicker}"
    table = Table("class", "changed, % of still pixels of it", "area, % of the image", "step, % of it", title=title)
    for label in card.labels:
        k = label.id
        if share[:, k].any():
            row = (100 * changed[k] / max(still[k], 1), 100 * share[:, k].mean(), 100 * step[k] / share[:, k].mean())
            table.add_row(label.name, *(f"{value:.2f}" for value in row))
    Console().print(table)


if __name__ == "__main__":
    main()
