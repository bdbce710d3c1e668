"""Small evaluations made for tests: random streets, and a prediction that is wrong as often as asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from drive_seg.labels import DRIVING, LabelSet, mask_of
from drive_seg.offline.evaluate import Scored
from drive_seg.offline.evaluation import Evaluation, FrameScore
from drive_seg.offline.label_map import LabelMap
from drive_seg.offline.scoring import Prediction, Scorer, Truth

HEIGHT, WIDTH = 48, 80
EVIL = "<script>alert(1)</script>\"'><img src=https://example.com/x.png onerror=alert(2)>&amp;"
TIMES = {"inference": [11.0, 12.0, 31.0], "processing": [15.0, 16.0, 40.0], "publish": []}
LATENCY = {
    "inference": {"p50": 11.25, "p95": 14.5, "p99": 20.125, "max": 31.0},
    "processing": {"p50": 15.25, "p95": 19.5, "p99": 26.125, "max": 40.0},
}


def street(random: np.random.Generator) -> np.ndarray:
    """uint16 (H, W) panoptic ids: background, a road with markings, cars and people, some of it unlabelled."""
    ids = np.zeros((HEIGHT, WIDTH), np.uint16)
    ids[20:] = 1
    ids[24:, 38:41] = 2
    ids[-3:] = 65535
    for class_id, tall, wide in ((3, 10, 14), (4, 12, 5), (5, 11, 8)):
        for number in range(1, 3):
            y, x = random.integers(8, HEIGHT - 18), random.integers(0, WIDTH - wide)
            ids[y : y + tall, x : x + wide] = class_id * 1000 + number
    return ids


def guess(truth: np.ndarray, flaws: int, random: np.random.Generator) -> np.ndarray:
    """The truth, as many blocks of it taken for something else as ``flaws`` says; things are numbered by class."""
    ids = np.where(truth == 65535, np.uint16(1), truth)
    for _ in range(flaws):
        y, x = random.integers(0, HEIGHT - 9), random.integers(0, WIDTH - 9)
        ids[y : y + 9, x : x + 9] = random.choice([0, 1, 2, 3007, 4007])
    return ids


def make_evaluation(
    frames: int = 12,
    flaws: int = 4,
    seed: int = 0,
    *,
    instances: bool = True,
    labels: LabelSet = DRIVING,
    name: Callable[[int], str] = "{:06d}".format,
    latency: Mapping[str, Mapping[str, float]] = LATENCY,
    environment: Mapping[str, Any] | None = None,
    command: str = "drive_seg evaluate drive.mcap -o report",
    observe: Callable[[Scored], None] = lambda scored: None,
) -> Evaluation:
    """Score random streets. Equal seeds show the same streets, whatever the flaws.

    Args:
        instances: without, truth and prediction are masks of class ids.
    """
    label_map = LabelMap.identity(labels, instances)
    scorer = Scorer(label_map, predicted_instances=instances)
    records: list[FrameScore] = []
    for number in range(frames):
        truth = street(np.random.default_rng([seed, number]))
        found = guess(truth, flaws, np.random.default_rng([seed, number, flaws]))
        image = np.random.default_rng(number).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
        pair = (Truth(truth), Prediction(found)) if instances else (Truth(mask_of(truth)), Prediction(mask_of(found)))
        records.append(scorer.score(name(number), number * 33_000_000, *pair, image))
        observe(Scored(records[-1], *pair, label_map, image))
    return evaluation_of(records, scorer, latency, environment, command)


def evaluation_of(
    records: Sequence[FrameScore],
    scorer: Scorer,
    latency: Mapping[str, Mapping[str, float]],
    environment: Mapping[str, Any] | None,
    command: str,
) -> Evaluation:
    """The evaluation of frames that were scored."""
    figures = scorer.totals.figures()
    unmatched = {"predictions": 0, "truths": 1}
    metrics = {"frames": figures.pop("frames"), "unmatched": unmatched, **figures, "fps": 42.0 if latency else None}
    around = {"model": "tiny", "source": "drive.mcap", "backend": "onnxruntime", **(environment or {})}
    return Evaluation(metrics, records, latency, around, command)
