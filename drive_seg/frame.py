"""What travels between the stages: Frame -> RawOutputs -> PanopticResult. Frozen, checked at construction.

Those that hold arrays are equal to themselves alone, as arrays have no one answer to ``==``; so they can be looked for
in lists and be keys of a dict.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from numbers import Integral

import numpy as np
from numpy.typing import NDArray

from drive_seg.encodings import Encoding, encoding_named
from drive_seg.errors import EngineError, MalformedImage

MAX_PIXELS = 1 << 26
"""Largest image accepted, in pixels (64 Mpx): a header that claims more is refused before anything is allocated."""
MAX_SIDE = 1 << 15
"""Longest side accepted, in pixels: OpenCV needs minutes to resize a line of 64 million."""


def check_size(width: int, height: int) -> None:
    """Let an image of a camera or a file pass by its size alone.

    Raises:
        MalformedImage: a side is not positive or over ``MAX_SIDE``, or the image is over ``MAX_PIXELS``.
    """
    if width <= 0 or height <= 0:
        raise MalformedImage(f"image size must be positive, got {width}x{height}")
    if width * height > MAX_PIXELS:
        raise MalformedImage(f"image of {width}x{height} is over the limit of {MAX_PIXELS} pixels")
    if max(width, height) > MAX_SIDE:
        raise MalformedImage(f"image of {width}x{height} is over the limit of {MAX_SIDE} pixels a side")


def _check_bytes(data: object) -> None:
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8:
        got = f"{data.dtype} {data.shape}" if isinstance(data, np.ndarray) else type(data).__name__
        raise MalformedImage(f"data must be a uint8 array, got {got}; numpy.frombuffer(data, numpy.uint8) views bytes")


@dataclass(frozen=True, eq=False)
class CameraImage:
    """Pixels as the camera sent them: a ``sensor_msgs/Image`` without ROS.

    Args:
        encoding: a ROS encoding name, one of ``drive_seg.encodings.ENCODINGS``; 8UC3 becomes bgr8 (``encoding_named``).
        width, height: pixels.
        step: bytes per row, padding included.
        data: uint8, 1-D, contiguous, the message's bytes; viewed, never copied or written.
        big_endian: byte order of 16-bit encodings.

    Raises:
        MalformedImage: the fields contradict each other or the encoding is not accepted.
    """

    encoding: str
    width: int
    height: int
    step: int
    data: NDArray[np.uint8]
    big_endian: bool = False

    def __post_init__(self) -> None:
        layout = encoding_named(self.encoding)
        object.__setattr__(self, "encoding", layout.name)
        for name, value in (("width", self.width), ("height", self.height), ("step", self.step)):
            if not isinstance(value, Integral):
                raise MalformedImage(f"{name} must be a whole number, got {value!r:.80}")
        _check_bytes(self.data)
        if not self.data.flags.c_contiguous:  # the views of ``decode.pixels`` would reach beyond it
            raise MalformedImage("data must be contiguous; numpy.ascontiguousarray(data) makes a copy that is")
        check_size(self.width, self.height)
        if self.width % layout.even_width or self.height % layout.even_height:
            raise MalformedImage(f"{self.encoding} needs even sizes, got {self.width}x{self.height}")
        if min(self.width, self.height) < layout.least_side:
            least = f"{layout.least_side}x{layout.least_side}"
            raise MalformedImage(f"{self.encoding} needs at least {least} pixels, got {self.width}x{self.height}")
        row = self.width * layout.bytes_per_pixel
        if self.step < row:
            raise MalformedImage(f"step must be >= {row} for {self.width} px of {self.encoding}, got {self.step}")
        needed = self.step * layout.rows(self.height)
        if self.data.size != needed:
            raise MalformedImage(
                f"data must have step * rows = {self.step} * {layout.rows(self.height)} = {needed} bytes "
                f"for {self.width}x{self.height} {self.encoding}, got {self.data.size}"
            )

    @property
    def layout(self) -> Encoding:
        """How the bytes are laid out."""
        return encoding_named(self.encoding)

    @classmethod
    def from_rgb(cls, image: NDArray[np.uint8]) -> CameraImage:
        """Wrap a uint8 (H, W, 3) RGB array; copied only where it is not C-contiguous, as a part of a larger image is.

        Raises:
            MalformedImage: not such an array, or one that ``check_size`` refuses.
        """
        return cls._from_array(image, "rgb8")

    @classmethod
    def from_bgr(cls, image: NDArray[np.uint8]) -> CameraImage:
        """As ``from_rgb``, of BGR: OpenCV's order."""
        return cls._from_array(image, "bgr8")

    @classmethod
    def _from_array(cls, image: NDArray[np.uint8], encoding: str) -> CameraImage:
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            got = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
            raise MalformedImage(f"expected a uint8 array of shape (height, width, 3), got {got}")
        height, width = image.shape[:2]
        data = np.ascontiguousarray(image).reshape(-1)
        return cls(encoding, width, height, width * 3, data)


@dataclass(frozen=True, eq=False)
class CompressedImage:
    """A JPEG or PNG as it came (``sensor_msgs/CompressedImage`` without ROS); decoded by the pipeline.

    Attributes:
        data: uint8, 1-D: the file's bytes.
        format: as in the message; only that of a raw Bayer image matters, see ``decode.decode_compressed``.

    Raises:
        MalformedImage: ``data`` is no such array.
    """

    data: NDArray[np.uint8]
    format: str = "jpeg"

    def __post_init__(self) -> None:
        _check_bytes(self.data)


@dataclass(frozen=True)
class Frame:
    """One camera frame on its way in.

    Attributes:
        image: the pixels, still in the camera's encoding.
        camera: the camera's name.
        stamp_ns: acquisition time of the header, nanoseconds; ``received_ns`` where a live camera gives none.
        received_ns: ``time.monotonic_ns()`` when we got it; durations are counted from here.
        transport_ms: receive minus stamp on the node's clock, or None where the clocks do not compare.
        queue_ms: how long it waited for the worker, once it was picked up.
        decode_ms: what decompressing it took, when that happened before ``submit``.
        token: whatever the caller wants back with the result (the ROS header, a file name).

    Raises:
        MalformedImage: ``image`` is none.
    """

    image: CameraImage | CompressedImage
    camera: str = "front"
    stamp_ns: int = 0
    received_ns: int = 0
    transport_ms: float | None = None
    queue_ms: float | None = None
    decode_ms: float | None = None
    token: object = None

    def __post_init__(self) -> None:
        if not isinstance(self.image, CameraImage | CompressedImage):
            raise MalformedImage(
                f"image must be a CameraImage or a CompressedImage, got {type(self.image).__name__}; "
                "CameraImage.from_rgb(array) and from_bgr(array) make one"
            )


@dataclass(frozen=True, eq=False)
class RawOutputs:
    """What an engine returns for a batch of N network inputs of H x W; views into the engine's buffers.

    Attributes:
        semantic: uint8 (N, H', W') class ids, H' and W' a whole fraction of the network's size.
        confidence: uint8 (N, H', W') softmax probability of that class, 0..255.
        centers: float32 (N, T, h, w) heat of instance centres, 0 where there is no peak; T thing classes in id order.
        offsets: float32 (N, 2, h, w) (dy, dx) in network pixels from a cell's middle to its instance's centre.
    """

    semantic: NDArray[np.uint8]
    confidence: NDArray[np.uint8]
    centers: NDArray[np.float32]
    offsets: NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.semantic.ndim != 3 or self.semantic.dtype != np.uint8:
            raise EngineError(f"semantic must be uint8 (N, H, W), got {self.semantic.dtype} {self.semantic.shape}")
        n = self.semantic.shape[0]
        if self.confidence.shape != self.semantic.shape or self.confidence.dtype != np.uint8:
            raise EngineError(
                f"confidence must be uint8 {self.semantic.shape}, got {self.confidence.dtype} {self.confidence.shape}"
            )
        if self.centers.ndim != 4 or self.centers.shape[0] != n or self.centers.dtype != np.float32:
            raise EngineError(f"centers must be float32 ({n}, T, h, w), got {self.centers.dtype} {self.centers.shape}")
        expected = (n, 2, *self.centers.shape[2:])
        if self.offsets.shape != expected or self.offsets.dtype != np.float32:
            raise EngineError(f"offsets must be float32 {expected}, got {self.offsets.dtype} {self.offsets.shape}")


@dataclass(frozen=True)
class Box:
    """An axis-aligned box in native pixels: column and row of its first pixel, and its size."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Extent:
    """A part of a map in its cells, or of an image in pixels: column and row of its edge, 0 that of the first one, and
    its size."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Instance:
    """One thing segment. ``area`` counts native pixels; ``score`` is 0..1 (see ``postprocess.FusionOptions``);
    ``panoptic_id`` its value in the map. ``core`` is the box without what stray pixels add (see ``cores``); None where
    nobody measured it.

    ``track`` is the same number in all frames of a camera that show this object; None without tracking.
    """

    panoptic_id: int
    class_id: int
    class_name: str
    score: float
    box: Box
    area: int
    track: int | None = None
    core: Extent | None = None

    @property
    def id(self) -> str:
        """What messages and files call it: ``3001``, or with its track ``3001/17``. See ``split_id``."""
        return str(self.panoptic_id) if self.track is None else f"{self.panoptic_id}/{self.track}"


def split_id(text: str) -> tuple[int, int | None]:
    """Panoptic id and track, if it has one, of an ``Instance.id``.

    Raises:
        ValueError: it is none.
    """
    value, _, track = text.partition("/")
    return int(value), int(track) if track else None


@dataclass(frozen=True, eq=False)
class Lane:
    """One lane boundary: a painted line beside which one may or may not drive.

    Attributes:
        order: -1 is the first to the left of the camera, -2 the next one; +1, +2 ... to the right. Unique in a frame.
        points: float32 (N, 2) x, y in native pixels from near to far, N >= 2, rows strictly falling; the middle of
            the first pixel is (0, 0). They run through the gaps of dashes and behind what hides the line for a while.
        confidence: 0..1, how well paint supports it.
        support: native pixels of marking that lie on it.
        dashed: whether it has gaps; None where too little of it is seen to tell.
    """

    order: int
    points: NDArray[np.float32]
    confidence: float = 1.0
    support: int = 0
    dashed: bool | None = None

    def __post_init__(self) -> None:
        shape, dtype = self.points.shape, self.points.dtype
        if self.points.ndim != 2 or shape[1] != 2 or shape[0] < 2 or dtype != np.float32:
            raise ValueError(f"points must be float32 (N >= 2, 2), got {dtype} {shape}")


@dataclass(frozen=True)
class GpuTimes:
    """Milliseconds of one batch on the GPU, by its own clock (CUDA events)."""

    h2d: float
    preprocess: float
    inference: float
    fusion: float
    d2h: float


@dataclass(frozen=True)
class StageTimes:
    """Milliseconds of one frame's walk; None where a stage did not happen or clocks do not compare.

    ``transport`` and ``end_to_end`` compare the header's stamp with the node's clock, all others are monotonic.
    ``processing`` is pick-up to published: decode + preprocess + inference + postprocess + publish, and in a live batch
    what its other frames take in between. ``inference`` and ``gpu_*`` are the whole batch's; the latter are what the
    GPU spent on it, parts of the former, which the host measures.
    """

    transport: float | None = None
    queue: float | None = None
    decode: float | None = None
    preprocess: float | None = None
    inference: float | None = None
    postprocess: float | None = None
    publish: float | None = None
    processing: float | None = None
    end_to_end: float | None = None
    gpu_h2d: float | None = None
    gpu_preprocess: float | None = None
    gpu_inference: float | None = None
    gpu_fusion: float | None = None
    gpu_d2h: float | None = None


@dataclass(frozen=True, eq=False)
class PanopticResult:
    """The answer for one frame.

    Attributes:
        frame: the frame it belongs to.
        mask: uint8 (H, W) class id, 255 unlabelled.
        panoptic: uint16 (H, W) panoptic ids (see ``drive_seg.labels``).
        confidence: uint8 (H, W) probability of the class 0..255, or None when it was not asked for.
        instances: the thing segments in ``panoptic``, in the order of their ids.
        lanes: the lane boundaries from left to right, or None when they were not asked for.
        times: how long each stage took.
        extent: where the camera image lies in maps at the network's resolution, whose cells at its edges may hold more
            than it; None where it fills the maps.
        native_size: (width, height) of the camera image; boxes are in these pixels even when
            ``output_resolution`` is ``network``.
    """

    frame: Frame
    mask: NDArray[np.uint8]
    panoptic: NDArray[np.uint16]
    instances: tuple[Instance, ...]
    native_size: tuple[int, int]
    confidence: NDArray[np.uint8] | None = None
    lanes: tuple[Lane, ...] | None = None
    times: StageTimes = field(default_factory=StageTimes)
    extent: Extent | None = None
