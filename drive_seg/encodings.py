"""The pixel encodings a camera may use: ROS ``sensor_msgs/image_encodings`` names and their byte layouts."""

from __future__ import annotations

from dataclasses import dataclass

from drive_seg.errors import MalformedImage


@dataclass(frozen=True)
class Encoding:
    """Byte layout of one encoding.

    Attributes:
        bytes_per_pixel: bytes of one pixel in one row (1 for the luma plane of NV12 and for Bayer).
        even_width, even_height: 2 where chroma or the Bayer tile needs an even size, else 1.
        least_side: pixels that width and height have at least: OpenCV makes no colours of a single Bayer tile.
        chroma_rows: whether half as many rows of interleaved chroma follow the luma plane.
    """

    name: str
    bytes_per_pixel: int
    even_width: int = 1
    even_height: int = 1
    least_side: int = 1
    chroma_rows: bool = False

    def rows(self, height: int) -> int:
        """Rows of ``step`` bytes in the data of an image ``height`` pixels high."""
        return height * 3 // 2 if self.chroma_rows else height


ENCODINGS: dict[str, Encoding] = {
    encoding.name: encoding
    for encoding in (
        Encoding("rgb8", 3),
        Encoding("bgr8", 3),
        Encoding("rgba8", 4),
        Encoding("bgra8", 4),
        Encoding("mono8", 1),
        Encoding("mono16", 2),
        Encoding("yuv422", 2, even_width=2),
        Encoding("uyvy", 2, even_width=2),
        Encoding("yuv422_yuy2", 2, even_width=2),
        Encoding("yuyv", 2, even_width=2),
        Encoding("nv12", 1, even_width=2, even_height=2, chroma_rows=True),
        Encoding("nv21", 1, even_width=2, even_height=2, chroma_rows=True),
        *(
            Encoding(f"bayer_{order}8", 1, even_width=2, even_height=2, least_side=4)
            for order in ("rggb", "bggr", "gbrg", "grbg")
        ),
    )
}
"""Every accepted encoding by name. ``yuv422`` is ROS 1's name of ``uyvy``, ``yuv422_yuy2`` that of ``yuyv``."""

_UNNAMED = {"8UC1": "mono8", "8UC3": "bgr8", "8UC4": "bgra8"}
"""What cv_bridge calls images whose order of colours it is not told; OpenCV's, as RViz and Foxglove show them."""

_ACCEPTED = f"encoding must be one of {', '.join([*ENCODINGS, *_UNNAMED])}"


def encoding_named(name: str) -> Encoding:
    """The layout of the encoding ``name``; of 8UC1, 8UC3 and 8UC4 that of mono8, bgr8 and bgra8.

    Raises:
        MalformedImage: not accepted; 16UC1 is named separately since it is a depth image by convention.
    """
    if not isinstance(name, str):
        raise MalformedImage(f"{_ACCEPTED}; got {type(name).__name__}")
    found = ENCODINGS.get(_UNNAMED.get(name, name))
    if found is not None:
        return found
    refuse_depth(name)
    raise MalformedImage(f"{_ACCEPTED}; got {name[:40]!r}: let the driver or image_proc send one of these")


def refuse_depth(name: str) -> None:
    """Let every encoding pass but those of depth images, whose grey is no picture.

    Raises:
        MalformedImage: it is one.
    """
    if name in ("16UC1", "32FC1"):
        raise MalformedImage(
            f"encoding {name} is a depth image by ROS convention (REP 118); send a colour image or mono16"
        )
