"""``drive_seg evaluate``: predictions beside ground truth."""

from __future__ import annotations

import shlex
import sys
from contextlib import ExitStack
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from drive_seg.commands.options import (
    SIM_FRAMES,
    AsJson,
    Backend,
    BackendName,
    Debug,
    Frames,
    Latency,
    MinInstanceArea,
    ModelName,
    NetworkSize,
    Overwrite,
    Precision,
    PrecisionName,
    ScoreThreshold,
    Seed,
    SimWeather,
    Track,
    TrackMaxAge,
    Weather,
    given,
    network_size,
    refuse_idle,
)
from drive_seg.errors import ConfigError, DriveSegError, counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from drive_seg.model import Model
    from drive_seg.offline.chunks import Job, Spread
    from drive_seg.offline.evaluate import Judged
    from drive_seg.offline.predictions import PredictionSource
    from drive_seg.offline.report_frames import WorstFrames
    from drive_seg.offline.simulated import TruthfulSim
    from drive_seg.offline.truth import TruthSource

EXAMPLES = """[bold]Examples[/bold]

drive_seg sim --frames 300 -o out/drive.mcap && drive_seg evaluate out/drive.mcap -o out/report

drive_seg run out/drive.mcap -o out/masks && drive_seg evaluate out/masks --ground-truth out/drive.mcap

drive_seg evaluate leftImg8bit/val/lindau --ground-truth gtFine/val/lindau --format cityscapes

drive_seg evaluate images/ --ground-truth truth/ --label-map my_map.yaml --json

drive_seg evaluate drives.txt --engine ray --workers 8 -o report/    [dim]# a bag per line[/dim]

drive_seg evaluate --compare before/metrics.json after/metrics.json --fail-if miou:0.01 --fail-if pq:0.01"""

RESULTS = {"metrics.json", "frames.jsonl", "summary.json", "report.html"}
"""What is in a folder of results, and replaced."""


OF_A_RUN = (
    *("backend", "precision", "size", "score_threshold", "min_instance_area"),
    *("track", "track_max_age", "latency"),
)
"""Parameters that predictions made before leave nothing to do."""


class Format(str, Enum):
    """Choices of ``--format``."""

    auto = "auto"
    drive_seg = "drive_seg"
    labels = "labels"
    cityscapes = "cityscapes"
    coco = "coco"
    camvid = "camvid"
    kitti = "kitti"
    bdd100k = "bdd100k"
    carla = "carla"
    tusimple = "tusimple"


class Spreading(str, Enum):
    """Choices of ``--engine``."""

    serial = "serial"
    ray = "ray"


def evaluate(
    context: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            metavar="PRED_OR_SOURCE",
            help="What drive_seg run wrote (folder or bag), or what to segment first: sim, bag, a .txt that lists "
            "bags, folder, image, video.",
            show_default=False,
        ),
    ] = "",
    ground_truth: Annotated[
        str,
        typer.Option("--ground-truth", "-g", help="Folder or bag; default: the source's own.", show_default=False),
    ] = "",
    out: Annotated[
        Optional[Path],
        typer.Option("--out", "-o", help="Folder for metrics.json, frames.jsonl and report.html.", show_default=False),
    ] = None,
    kind: Annotated[Format, typer.Option("--format", help="Format of the ground truth.")] = Format.auto,
    truth_topic: Annotated[
        str,
        typer.Option(
            "--truth-topic",
            help="Ground truth topic of a bag; default: the one ending in truth/panoptic or truth/mask.",
        ),
    ] = "",
    label_map: Annotated[
        str,
        typer.Option("--label-map", help="Which classes count as which: a YAML file, or a name of config/label_maps."),
    ] = "",
    tolerance: Annotated[
        int,
        typer.Option(
            "--tolerance", min=0, max=64, help="Distance in pixels within which outlines and markings count as right."
        ),
    ] = 3,
    model: ModelName = "default",
    backend: BackendName = Backend.auto,
    precision: PrecisionName = Precision.auto,
    size: NetworkSize = "auto",
    frames: Frames = 0,
    topic: Annotated[
        str,
        typer.Option(
            "--topic",
            help="Image topic of a bag; default: its only one, or its only image_raw. For a bag with results of "
            "several cameras, the panoptic topic of one.",
        ),
    ] = "",
    seed: Seed = 0,
    weather: SimWeather = Weather.clear,
    score_threshold: ScoreThreshold = 0.3,
    min_instance_area: MinInstanceArea = 64,
    track: Track = True,
    track_max_age: TrackMaxAge = 2.0,
    worst: Annotated[
        int, typer.Option("--worst", min=0, max=100, help="Number of worst frames shown in the report.")
    ] = 8,
    # No pair that is None: typer 0.9.0, which Ubuntu 24.04 has, fails in every command that is not given one.
    compare: Annotated[
        tuple[str, str],
        typer.Option(
            "--compare",
            metavar="BEFORE AFTER",
            help="Compare two metrics.json, or their folders; nothing is run.",
            show_default=False,
        ),
    ] = ("", ""),
    fail_if: Annotated[
        Optional[list[str]],
        typer.Option("--fail-if", metavar="METRIC:MARGIN", help="Exit 1 if the metric is worse by more than this."),
    ] = None,
    engine: Annotated[
        Spreading,
        typer.Option("--engine", help="ray spreads bags over processes and machines; the figures are the same."),
    ] = Spreading.serial,
    address: Annotated[
        str, typer.Option("--address", help="Ray cluster (auto, ray://host:10001); empty starts workers here.")
    ] = "",
    workers: Annotated[int, typer.Option("--workers", min=0, help="Ray workers to start here; 0: one per core.")] = 0,
    chunk_seconds: Annotated[
        float,
        typer.Option("--chunk-seconds", min=0.0, max=1e6, help="Seconds of recording per worker task; 0: a whole bag."),
    ] = 60.0,
    block: Annotated[
        int, typer.Option("--block", min=1, help="Frames that --compare resamples together: about 30 for video.")
    ] = 1,
    latency: Latency = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Score predictions against ground truth: PQ, mIoU, outlines, lane markings, instances, tracking, latency.

    Ground truth is a folder like those of [bold]run[/bold] and [bold]sim[/bold] (panoptic/, mask/), a bag with a truth
    topic, or a data set named by --format. Classes that it does not distinguish are scored together: see --label-map.

    Latencies are measured with several frames in flight; for live latency see [bold]drive_seg benchmark[/bold] and the
    node.
    """
    if any(compare) and not source:
        from drive_seg.commands.compare import compare as compare_two

        others = set(context.params) - {"compare", "fail_if", "seed", "block", "as_json", "debug"}
        refuse_idle(context, "--compare runs and writes nothing", *others)
        before, after = map(Path, compare)
        compare_two(before, after, fail_if or (), seed, block, as_json)
        return
    if engine is not Spreading.ray and (address or workers):
        raise typer.BadParameter("--address and --workers are of --engine ray")
    if any(compare) or fail_if or not source:
        raise typer.BadParameter("give either PRED_OR_SOURCE, or --compare BEFORE AFTER (with --fail-if)")
    _refuse_idle(context, source, ground_truth or source, engine, track, out)
    from drive_seg.model import open_model
    from drive_seg.offline.chunks import Job
    from drive_seg.offline.evaluate import EvaluationOptions
    from drive_seg.offline.report import require_report_packages
    from drive_seg.offline.sinks import make_room, require_replaceable
    from drive_seg.postprocess import FusionOptions
    from drive_seg.resources import at_home
    from drive_seg.tracking import TrackingOptions

    card = open_model(model)
    if out is not None:
        out = at_home(out)  # of --out=~/report no shell makes anything
        require_report_packages()
        require_replaceable(out, overwrite, RESULTS)
    command = shlex.join(["drive_seg", *sys.argv[1:]])
    job = Job(
        model=model if Path(model).suffix == "" else str(card.path.resolve()),
        backend=backend.value,
        precision=precision.value,
        fusion=FusionOptions(score_threshold=score_threshold, min_instance_area=min_instance_area),
        options=EvaluationOptions(label_map or None, tolerance, out, command, frames or None),
        topic=topic or None,
        truth_topic=truth_topic or None,
        carla=kind is Format.carla,
        threads=int(engine is Spreading.ray),
        worst=worst if out is not None else 0,
        latency=latency,
        tracking=TrackingOptions(track_max_age) if track else None,
    )
    ready = partial(make_room, out, overwrite, RESULTS) if out is not None else lambda: None
    asked = _Asked(source, ground_truth, kind, card, size, job, given(context, *OF_A_RUN), ready)
    if engine is Spreading.ray or Path(source).suffix == ".txt":
        outcome, gallery = _over_bags(asked, (address, workers) if engine is Spreading.ray else None, chunk_seconds)
    else:
        simulated = _simulated(frames, seed, weather) if source == "sim" else None
        outcome, gallery = _in_one_pass(asked, simulated)
    _finish(outcome, gallery, out, as_json)


def _refuse_idle(
    context: typer.Context, source: str, truth: str, engine: Spreading, track: bool, out: Path | None
) -> None:
    """Refuse what the other options leave without effect."""
    from drive_seg.offline.bags import is_bag
    from drive_seg.resources import at_home

    refuse_idle(context, "it is of --compare", "block")
    if source == "sim":
        own = ("ground_truth", "kind", "truth_topic", "topic")
        refuse_idle(context, "the simulator has its own images and truth", *own)
    else:
        refuse_idle(context, "the source is not sim", "seed", "weather")
    for name, place in (("topic", at_home(source)), ("truth_topic", at_home(truth))):
        if place.suffix != ".txt" and place.exists() and not is_bag(place):
            refuse_idle(context, f"{place} is no bag", name)
    if engine is not Spreading.ray:
        refuse_idle(context, "it is of --engine ray", "chunk_seconds")
    if not track:
        refuse_idle(context, "with --no-track there are no identities", "track_max_age")
    if out is None:
        refuse_idle(context, "without --out there is no report", "worst")


@dataclass(frozen=True)
class _Asked:
    """What the options come to.

    Attributes:
        job: how frames are run and scored; its ``threads`` are for several bags only.
        of_a_run: options that were given and are of the pipeline.
        ready: makes room for the results. What is to be replaced stays until the source and its truth are open: a slip
            of the pen costs nobody a report.
    """

    source: str
    ground_truth: str
    kind: Format
    card: Model
    size: str
    job: Job
    of_a_run: list[str]
    ready: Callable[[], None]

    def environment(self) -> dict[str, Any]:
        """For the record."""
        from drive_seg.machine import hardware

        return {"hardware": hardware(), "source": self.source, "ground_truth": self.ground_truth or self.source}


def _over_bags(asked: _Asked, cluster: tuple[str, int] | None, chunk_seconds: float) -> tuple[Judged, WorstFrames]:
    """Several bags, to whose first the network's input is fitted; or the workers of Ray: its address and how many."""
    from drive_seg.commands.terminal import few_warnings, progress_bar
    from drive_seg.offline.bags import BagSource
    from drive_seg.offline.chunks import evaluate_chunks, one_after_another, plan, read_list
    from drive_seg.offline.sources import camera_size
    from drive_seg.resources import at_home

    source, job = Path(asked.source), asked.job
    if asked.ground_truth or job.options.limit or asked.kind not in (Format.auto, Format.carla):
        raise typer.BadParameter("several bags, and --engine ray, take whole bags with a truth topic of their own")
    bags = read_list(source) if source.suffix == ".txt" else [asked.source]
    bags = [str(at_home(bag).resolve()) for bag in bags]
    with ExitStack() as stack:
        spread: Spread = one_after_another
        around = asked.environment()
        if cluster is not None:
            from drive_seg.offline.cluster import Cluster

            connected = stack.enter_context(Cluster(*cluster))
            spread = connected.spread
            around["workers"] = connected.workers
        chunks, images = plan(bags, job.topic, chunk_seconds if cluster is not None else None)
        card = network_size(asked.card, asked.size, camera_size(BagSource(Path(bags[0]), job.topic)))
        asked.ready()
        warn = stack.enter_context(few_warnings())
        progress = stack.enter_context(progress_bar(f"evaluating {source.name}", images or None))
        job = replace(job, network=(card.width, card.height))
        return evaluate_chunks(job, chunks, spread, around, progress, warn)


def _simulated(frames: int, seed: int, weather: Weather) -> TruthfulSim:
    from drive_seg.offline.simulated import TruthfulSim

    return TruthfulSim(frames or SIM_FRAMES, seed, None if weather is Weather.any else weather.value)


def _in_one_pass(asked: _Asked, simulated: TruthfulSim | None) -> tuple[Judged, WorstFrames]:
    """Predictions, or what the model says of the source, beside one ground truth."""
    from drive_seg.offline.evaluate import label_map_for
    from drive_seg.offline.report_frames import WorstFrames

    predictions, truth = _opened(asked) if simulated is None else (None, simulated)
    gallery = WorstFrames(asked.job.worst)
    try:
        label_map_for(truth, asked.card.labels, asked.job.options.label_map)  # whether it fits
        if predictions is not None:
            outcome = _score(predictions, truth, asked, gallery)
        else:
            outcome = _run_and_score(simulated, truth, asked, gallery)
    finally:
        truth.close()
    return outcome, gallery


def _opened(asked: _Asked) -> tuple[PredictionSource | None, TruthSource]:
    """The source where it is of predictions, and its truth."""
    from drive_seg.offline.predictions import FolderPredictions, open_predictions
    from drive_seg.offline.truth import open_truth
    from drive_seg.resources import at_home

    source, labels = asked.source, asked.card.labels
    if not asked.ground_truth and not at_home(source).exists():
        raise ConfigError(
            f"source '{source}' is no file or folder; expected sim, or a bag or folder that has its truth, "
            "or name the truth with --ground-truth"
        )
    predictions = open_predictions(source, labels, asked.job.topic)
    if isinstance(predictions, FolderPredictions) and not asked.ground_truth:
        raise ConfigError(f"{source} holds predictions only; name their truth with --ground-truth")
    return predictions, open_truth(asked.ground_truth or source, labels, asked.kind.value, asked.job.truth_topic)


def _score(predictions: PredictionSource, truth: TruthSource, asked: _Asked, gallery: WorstFrames) -> Judged:
    from drive_seg.commands.terminal import progress_bar, warn
    from drive_seg.offline.evaluate import evaluate_predictions

    if asked.of_a_run:
        warn(f"no effect of {', '.join(asked.of_a_run)}: {asked.source} holds predictions made before")
    asked.ready()
    total = min((n for n in (asked.job.options.limit, predictions.count) if n is not None), default=None)
    with progress_bar(f"scoring {Path(asked.source).name}", total) as progress:
        return evaluate_predictions(
            predictions, truth, asked.card.labels, asked.job.options, asked.environment(), progress, gallery.see
        )


def _run_and_score(simulated: TruthfulSim | None, truth: TruthSource, asked: _Asked, gallery: WorstFrames) -> Judged:
    from drive_seg.commands.terminal import few_warnings, progress_bar
    from drive_seg.offline.evaluate import evaluate_source
    from drive_seg.offline.opening import open_offline
    from drive_seg.offline.sources import camera_size, open_source

    opened = simulated or open_source(asked.source, asked.job.topic)
    sized = network_size(asked.card, asked.size, camera_size(opened))
    asked.ready()
    job = asked.job
    total = min((n for n in (job.options.limit, opened.count) if n is not None), default=None)
    with (
        open_offline(sized, job.backend, job.precision, job.fusion, job.latency, tracking=job.tracking) as pipeline,
        few_warnings() as warn,
        progress_bar(f"evaluating {Path(asked.source).name}", total) as progress,
    ):
        return evaluate_source(
            opened, truth, pipeline, asked.card.name, job.options, asked.environment(), progress, warn, gallery.see
        )


def _finish(outcome: Judged, gallery: WorstFrames, out: Path | None, as_json: bool) -> None:
    """Write and print; raises what ended the evaluation early."""
    from drive_seg.commands.figures import tables
    from drive_seg.commands.terminal import report
    from drive_seg.offline.report import write_report

    evaluation = outcome.evaluation
    if out is not None:
        evaluation.write(out)
        write_report(out / "report.html", evaluation, gallery.frames, outcome.times_ms)
    document = evaluation.to_dict()
    report(as_json, document, *tables(document), *([f"figures in {out}"] if out else []))
    if outcome.error is not None:
        raise outcome.error
    if outcome.interrupted:
        raise DriveSegError(f"interrupted; the figures are those of {counted(document['frames'], 'frame')}")
