"""The whole way of a frame. ``Pipeline.submit`` and ``Pending.wait`` below are its table of contents."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drive_seg.decode import decode
from drive_seg.engines import Engine, EngineOptions, Slot, open_engine
from drive_seg.errors import EngineError, MalformedImage
from drive_seg.frame import CameraImage, Frame, GpuTimes, PanopticResult, StageTimes
from drive_seg.labels import LabelSet
from drive_seg.letterbox import Geometry
from drive_seg.model import Model, open_model
from drive_seg.postprocess import FusionOptions
from drive_seg.ranges import check_kind
from drive_seg.resources import CACHE, cache_folder
from drive_seg.stages import Allocator, Stages, fresh, stages_of
from drive_seg.telemetry import Stopwatch
from drive_seg.tracking import Tracking, TrackingOptions
from drive_seg.turns import Turns


@dataclass(frozen=True)
class Prepared:
    """A frame whose pixels are in a slot: its place in the batch, the way back, what it took."""

    frame: Frame
    index: int
    geometry: Geometry
    times: StageTimes


class Pending:
    """A batch in the engine's hands. Must be waited for once, in the order of submission; keeps a slot until then."""

    def __init__(
        self,
        slot: Slot,
        prepared: Sequence[Prepared],
        stages: Stages[Any, Any],
        options: FusionOptions,
        track: Tracking | None,
        turns: Turns,
        started: Stopwatch,
    ) -> None:
        self._slot = slot
        self._prepared = prepared
        self._stages = stages
        self._options = options
        self._track = track
        self._turns = turns
        self._waited = False
        self._started = started
        self._inference = 0.0
        self._outputs: Any = None
        self._error: Exception | None = None

    def collect(self) -> None:
        """Block until the engine is done. It may be given the next batch before this one's results are made; an error
        is raised by ``wait``."""
        with self._turns.take():
            if self._outputs is not None or self._error is not None:
                return
            try:
                self._outputs = self._stages.collect(self._slot)
            except Exception as error:  # noqa: BLE001 - wait() raises it
                self._error = error
            self._inference = self._started.lap()

    def wait(self) -> list[PanopticResult]:
        """Block until the batch is done; one result per frame, in order.

        Raises:
            EngineError: inference failed; the frames are lost, the pipeline goes on. Or it was waited for before, or
                the pipeline was closed meanwhile, with the memory that the answer lies in.
        """
        with self._turns.take():
            return self._finish()

    def _finish(self) -> list[PanopticResult]:
        if self._waited:  # its slot may be another batch's by now
            raise EngineError("this batch was waited for already: keep the results that wait() returned")
        self._waited = True
        try:
            self.collect()
            if self._error is not None:
                raise self._error
            outputs, inference = self._outputs, self._inference
            gpu = _by_stage(self._stages.gpu_times(outputs))
            results = []
            for item in self._prepared:
                watch = Stopwatch()
                result = self._stages.finish(item.frame, outputs, item.index, item.geometry, self._options)
                if self._track is not None:
                    result = self._track(result)
                times = dataclasses.replace(item.times, inference=inference, postprocess=watch.lap(), **gpu)
                results.append(dataclasses.replace(result, times=times))
            return results
        finally:
            self._turns.free.append(self._slot)


class Pipeline:
    """Camera pixels in, panoptic result out. Owns its engine. Threads may share it: they take turns. A process forked
    meanwhile cannot, and opens its own.

    Attributes:
        slots: how many batches may be submitted before the first of them is waited for.
        max_batch: most frames of one batch.
        network_size: (width, height) of the network's input.

    Args:
        engine: an open engine; closed with the pipeline, and when the pipeline cannot be made.
        labels: the classes, in the channel order of the network.
        options: thresholds and output size; may be replaced at any time through ``options``.
        allocate: where results are written. The default makes fresh arrays; a publisher that reuses its buffers
            passes its own, and a result is then valid until that buffer is handed out again.
        tracking: give instances a ``track``; for frames of cameras, in their order. None does not.

    Raises:
        ConfigError: ``options`` or ``tracking`` are none.
        ModelError: panoptic ids cannot tell the objects of these labels apart.
    """

    def __init__(
        self,
        engine: Engine,
        labels: LabelSet,
        options: FusionOptions = FusionOptions(),
        allocate: Allocator | None = None,
        tracking: TrackingOptions | None = None,
    ) -> None:
        self.engine = engine
        self.labels = labels
        self._turns = Turns(engine.slots)
        self.slots = len(engine.slots)
        self.max_batch, height, width, _ = engine.slots[0].input.shape
        self.network_size = (width, height)
        try:
            check_kind("options", options, FusionOptions)
            labels.check_panoptic()
            self._options = options
            self._stages = stages_of(engine, labels, self.network_size, options, allocate or fresh)
            self._track: Tracking | None = None
            self._numbers: dict[str, int] = {}
            self.tracking = tracking
        except BaseException:
            engine.close()
            raise

    @property
    def options(self) -> FusionOptions:
        """Thresholds and output size of the frames submitted from now on."""
        return self._options

    @options.setter
    def options(self, options: FusionOptions) -> None:
        check_kind("options", options, FusionOptions)
        self._options = options

    @property
    def tracking(self) -> TrackingOptions | None:
        """How instances of the frames submitted from now on are followed; another value begins with no tracks, and with
        numbers that were not used before."""
        return None if self._track is None else self._track.options

    @tracking.setter
    def tracking(self, options: TrackingOptions | None) -> None:
        if options is not None:
            check_kind("tracking", options, TrackingOptions)
        if options != self.tracking:
            self._track = None if options is None else Tracking(options, self._numbers)

    def forget_tracks(self) -> None:
        """Another recording begins: nothing that was seen before goes on in it."""
        self._numbers = {}
        self._track = None if self._track is None else Tracking(self._track.options, self._numbers)

    def continue_tracks(self, other: Pipeline) -> None:
        """Go on with the tracks of a pipeline that this one takes the place of."""
        self._track, self._numbers = other._track, other._numbers

    def submit(self, frames: Sequence[Frame]) -> Pending:
        """Preprocess a batch into a free slot and start the engine on it.

        Raises:
            MalformedImage: not a sequence of Frames; or a compressed image cannot be decoded: decode it first to know
                which.
            EngineError: more frames than ``max_batch``, every slot is in flight, the pipeline is closed, or the backend
                refused.
        """
        with self._turns.take():
            return self._submit(frames)

    def _submit(self, frames: Sequence[Frame]) -> Pending:
        if not isinstance(frames, Sequence) or not all(isinstance(frame, Frame) for frame in frames):
            raise MalformedImage(
                f"expected a sequence of Frames, got {frames!r:.80}; "
                "[Frame(CameraImage.from_rgb(image))] is one of a uint8 (height, width, 3) array"
            )
        if not 0 < len(frames) <= self.max_batch:
            raise EngineError(f"a batch must have 1..{self.max_batch} frames, got {len(frames)}")
        if not self._turns.free:
            raise EngineError("every slot is in flight: wait for a pending batch before submitting another")
        slot = self._turns.free.pop()
        options = self._stages.options = self._options  # which another thread may replace meanwhile
        try:
            prepared = [self._prepare(frame, slot, index) for index, frame in enumerate(frames)]
            started = Stopwatch()  # before it is: engines begin, and some do all that is theirs to prepare, in there
            self._stages.start(slot, len(prepared))
        except BaseException:
            self._turns.free.append(slot)
            raise
        return Pending(slot, prepared, self._stages, options, self._track, self._turns, started)

    def _prepare(self, frame: Frame, slot: Slot, index: int) -> Prepared:
        watch = Stopwatch()
        image = decode(frame.image)
        decoded = watch.lap() if frame.decode_ms is None else frame.decode_ms
        geometry = self._stages.load(image, slot, index)
        return Prepared(frame, index, geometry, StageTimes(decode=decoded, preprocess=watch.lap()))

    def __call__(self, image: NDArray[np.uint8] | Frame) -> PanopticResult:
        """One frame, synchronously: ``submit`` and ``wait``.

        The maps of the result are the caller's own, unless ``allocate`` gave them. The image is read before this
        returns and never written. The result keeps it as ``result.frame``: who keeps many results without their images
        takes out what is wanted.

        Args:
            image: uint8 (H, W, 3) RGB, or a Frame.

        Raises:
            MalformedImage: not such an array, or a frame that cannot be decoded.
            EngineError: the backend failed.
        """
        if not isinstance(image, Frame):
            now = time.monotonic_ns()  # the only time that is known of it, and what its tracks move by
            image = Frame(CameraImage.from_rgb(image), stamp_ns=now, received_ns=now)
        with self._turns.take():
            return self.submit([image]).wait()[0]

    def warm_up(self, frames: Sequence[Frame], rounds: int = 1) -> None:
        """Run frames like those to come, whose results are thrown away: what is slow the first time, or allocates.

        Args:
            frames: one of each camera.
            rounds: how often each of them is run.

        Raises:
            DriveSegError: as ``submit`` and ``Pending.wait``.
        """
        for _ in range(rounds):
            for frame in frames:
                self(frame)
        if self.engine.info.on_gpu:  # there, each place of a batch in each slot has memory of its own for its camera
            for pending in [self.submit(frames[: self.max_batch]) for _ in range(self.slots)]:
                pending.wait()

    def close(self) -> None:
        """Close the engine, after the call that another thread is in; a second call does nothing. Batches that were
        not waited for are lost; results stay."""
        with self._turns.end() as last:
            if last:
                self.engine.close()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def open_pipeline(
    model: str | Path | Model = "default",
    backend: str = "auto",
    precision: str = "auto",
    max_batch: int = 1,
    options: FusionOptions = FusionOptions(),
    cache_dir: str | Path | None = CACHE,
    allocate: Allocator | None = None,
    engine_options: EngineOptions | None = None,
    tracking: TrackingOptions | None = None,
    camera: tuple[int, int] | None = None,
) -> Pipeline:
    """Load a model and open the pipeline on the best backend this machine has.

    Args:
        model: path of a sidecar YAML, the name of a shipped model, or a model that is loaded.
        backend: ``auto`` (tensorrt, then openvino, then onnxruntime), or one of them.
        precision: ``auto``, ``fp32``, ``fp16`` or ``int8``.
        max_batch: most frames in one ``submit``.
        options: thresholds and output size.
        cache_dir: compiled engines are kept here; None disables the cache.
        allocate: see ``Pipeline``.
        engine_options: replaces precision, max_batch and cache_dir when given.
        tracking: see ``Pipeline``.
        camera: (width, height) of the images to come: the network's input takes their shape, see ``Model.fitted``.
            None keeps the model's own; images of every size are taken in any case.

    Raises:
        ModelError: the model is missing or damaged.
        EngineError: no backend can run it.
        ConfigError: another argument cannot be.
    """
    card = (model if isinstance(model, Model) else open_model(model)).fitted(camera)
    cache = None if cache_dir is None else cache_folder(cache_dir)
    if engine_options is not None:
        check_kind("engine_options", engine_options, EngineOptions)
    settings = engine_options or EngineOptions(precision=precision, max_batch=max_batch, cache_dir=cache)
    return Pipeline(open_engine(card, backend, settings), card.labels, options, allocate, tracking)


def _by_stage(times: GpuTimes | None) -> dict[str, float]:
    """As fields of StageTimes."""
    return {} if times is None else {f"gpu_{stage}": ms for stage, ms in vars(times).items()}
