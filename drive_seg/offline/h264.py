"""H.264, which browsers and editors show, through PyAV: the OpenCV of PyPI cannot encode it."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drive_seg.errors import DriveSegError, one_line

_OPTIONS = {"preset": "ultrafast", "crf": "20"}
"""The quality and size of OpenCV's MPEG-4, for hardly more time: beside a network that wants the same cores."""
_BT601 = 6
"""What the pixels are converted by; a player that is not told takes BT.709 for a picture of this size."""


class H264Writer:
    """An MP4 file, to its user like ``cv2.VideoWriter``.

    Raises:
        ImportError: PyAV is not installed.
        DriveSegError: the file cannot be written; also while writing.
    """

    def __init__(self, path: Path, fps: float, size: tuple[int, int]) -> None:
        self._av: Any = importlib.import_module("av")
        self._path = path
        self._frames = 0
        with self._translated():
            self._file: Any = self._av.open(str(path), "w", format="mp4")
            self._stream: Any = self._file.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
            self._stream.width, self._stream.height = size
            self._stream.pix_fmt = "yuv420p"
            self._stream.options = _OPTIONS
            self._stream.codec_context.colorspace = _BT601
            self._file.start_encoding()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (OSError, self._av.error.FFmpegError) as error:
            raise DriveSegError(f"cannot write video {self._path}: {one_line(error)}") from error

    def write(self, bgr: NDArray[np.uint8]) -> None:
        """Append uint8 (H, W, 3) BGR of the file's size."""
        frame = self._av.VideoFrame.from_ndarray(bgr, format="bgr24")
        frame.pts, frame.time_base = self._frames, 1 / self._stream.average_rate
        self._frames += 1
        with self._translated():
            self._file.mux(self._stream.encode(frame))

    def release(self) -> None:
        """Write what the encoder still holds, and the index."""
        with self._translated():
            self._file.mux(self._stream.encode(None))
            self._file.close()
