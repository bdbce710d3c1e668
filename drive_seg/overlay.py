"""The picture for people: classes tinted, every instance outlined and named, and where the time went."""

from __future__ import annotations

import colorsys
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from drive_seg.frame import Box, Extent, Instance, Lane, PanopticResult, StageTimes
from drive_seg.labels import PANOPTIC_DIVISOR, UNLABELLED, LabelSet
from drive_seg.letterbox import shown

TINT = 0.45
"""How much of a pixel's colour is its class's."""

FRAME_BUDGET_MS = 1000 / 30
"""The latency strip is as wide as this many milliseconds, or as the frame took if that is more."""

Color = tuple[int, int, int]

STAGE_COLORS: dict[str, Color] = {
    "transport": (190, 190, 190),
    "queue": (135, 135, 135),
    "decode": (86, 180, 233),
    "preprocess": (0, 158, 115),
    "inference": (230, 159, 0),
    "postprocess": (204, 121, 167),
    "publish": (240, 228, 66),
}
"""Of the stages in their order: of the strip, and of plots beside it."""

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_OWN_LANE: Color = (60, 255, 90)
_OTHER_LANE: Color = (70, 220, 255)
_SHIFT = 4
"""Fractional bits of OpenCV's drawing coordinates."""
_WHITE: Color = (255, 255, 255)
_BLACK: Color = (0, 0, 0)


def draw_overlay(
    rgb: NDArray[np.uint8],
    result: PanopticResult,
    labels: LabelSet,
    times: StageTimes | None = None,
    out: NDArray[np.uint8] | None = None,
    *,
    fps: float | None = None,
) -> NDArray[np.uint8]:
    """Draw a result over its image. ``background`` and unlabelled pixels keep the camera's colours.

    Lane boundaries are lines with dark edges: those of the own lane green, the others cyan, the fainter the less sure
    they are.

    Args:
        rgb: uint8 (H, W, 3) RGB, the native image that ``result`` belongs to.
        result: maps of any resolution; boxes in native pixels.
        labels: the classes with their colours.
        times: stages for the strip at the bottom; no strip when None.
        out: uint8 (H, W, 3), written and returned; may be ``rgb`` itself, or a part of a larger image. Allocated when
            None.
        fps: measured frames per second, for the strip.

    Raises:
        ValueError: ``rgb`` or ``out`` does not fit the result, or ``out`` is read-only, or its rows are not contiguous.
    """
    width, height = result.native_size
    if out is None:
        out = np.empty((height, width, 3), np.uint8)
    for name, image in (("rgb", rgb), ("out", out)):
        if image.shape != (height, width, 3) or image.dtype != np.uint8:
            raise ValueError(f"{name} must be uint8 {height, width, 3}, got {image.dtype} {image.shape}")
    if not out.flags.writeable:
        raise ValueError("out must be writable; the RGB of an rgb8 camera image is a view of its message")
    if out.strides[1:] != (3, 1) or out.strides[0] < 0:  # OpenCV draws into nothing else
        raise ValueError("out must have contiguous rows from top to bottom, got a view of another order")
    scale = _scale((width, height))
    codes, palette = _codes(result, labels)
    _tint(rgb, codes, palette, labels, outline_thickness((width, height)), out)
    _draw_lanes(out, result.lanes or (), scale)
    strip = max(12, round(26 * scale)) if times is not None else 0
    _name_instances(out[: height - strip], result.instances, labels, scale)
    if times is not None and strip < height:
        _draw_strip(out[height - strip :], times, fps, scale)
    return out


def outline_thickness(native: tuple[int, int]) -> int:
    """How many pixels the border of an instance reaches to either side, in an image of (width, height)."""
    scale = _scale(native)
    return 1 if scale < 0.8 else round(2 * scale)


@lru_cache(maxsize=1024)
def shade(color: Color, number: int) -> Color:
    """The colour of a class's instance ``number``: lighter and turned a little, neighbours in number far apart."""
    step = (number * 0.618034) % 1.0  # golden ratio: the first n are always well spread
    hue, lightness, saturation = colorsys.rgb_to_hls(*(channel / 255 for channel in color))
    hue = (hue + 0.06 * (step - 0.5)) % 1.0
    lightness = min(0.85, lightness + 0.22 * ((number * 0.381966) % 1.0))
    r, g, b = colorsys.hls_to_rgb(hue, lightness, saturation)
    return round(255 * r), round(255 * g), round(255 * b)


def _scale(native: tuple[int, int]) -> float:
    """Size of the image against 1280x720, by which text and lines grow."""
    return min(native[1] / 720, native[0] / 1280)


def _codes(result: PanopticResult, labels: LabelSet) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """uint8 (H, W) with one value per class and per instance, and their colours, uint8 (256, 3). Instances that there
    are no values left for keep that of their class."""
    width, height = result.native_size
    mask, panoptic, extent = result.mask, result.panoptic, result.extent
    if mask.shape == (height, width):
        codes = mask.copy()
    elif extent and extent != Extent(0, 0, mask.shape[1], mask.shape[0]):
        codes, panoptic = (_at_native(cells, extent, (width, height)) for cells in (mask, panoptic))
    else:
        codes, native = np.empty((height, width), np.uint8), np.empty((height, width), np.uint16)
        cv2.resize(mask, (width, height), dst=codes, interpolation=cv2.INTER_NEAREST_EXACT)
        cv2.resize(panoptic, (width, height), dst=native, interpolation=cv2.INTER_NEAREST_EXACT)
        panoptic = native
    palette = labels.palette.copy()
    for code, instance in enumerate(result.instances[: UNLABELLED - len(labels)], len(labels)):
        palette[code] = _color(instance, labels)
        place = _slices(instance.box)
        np.copyto(codes[place], np.uint8(code), where=panoptic[place] == instance.panoptic_id)
    return codes, palette


def _at_native(cells: NDArray[Any], extent: Extent, native: tuple[int, int]) -> NDArray[Any]:
    """(H, W): the cell of a map (h, w) that each pixel of the image lies in."""
    columns = shown(extent.x, extent.width, cells.shape[1], native[0])
    rows = shown(extent.y, extent.height, cells.shape[0], native[1])
    return np.take(np.take(cells, columns, axis=1), rows, axis=0)


def _tint(
    rgb: NDArray[np.uint8],
    codes: NDArray[np.uint8],
    palette: NDArray[np.uint8],
    labels: LabelSet,
    thickness: int,
    out: NDArray[np.uint8],
) -> None:
    """Blend the colours over the image, and draw the border of every instance at full strength."""
    colors = np.empty(rgb.shape, np.uint8)
    cv2.applyColorMap(codes, palette.reshape(256, 1, 3), dst=colors)
    for untouched in (UNLABELLED, *(label.id for label in labels if label.name == "background")):
        cv2.copyTo(rgb, cv2.inRange(codes, untouched, untouched), colors)
    cv2.addWeighted(rgb, 1 - TINT, colors, TINT, 0, dst=out)
    window = np.ones((2 * thickness + 1, 2 * thickness + 1), np.uint8)
    border = cv2.morphologyEx(codes, cv2.MORPH_GRADIENT, window)
    thing = cv2.inRange(codes, len(labels), UNLABELLED - 1)
    cv2.copyTo(colors, cv2.min(border, thing), out)


def _draw_lanes(image: NDArray[np.uint8], lanes: Sequence[Lane], scale: float) -> None:
    thickness, edge = max(1, round(3 * scale)), max(1, round(scale))
    for lane in lanes:
        red, green, blue = _OWN_LANE if abs(lane.order) == 1 else _OTHER_LANE
        strength = 0.4 + 0.6 * lane.confidence
        color = (red * strength, green * strength, blue * strength)
        points = np.rint(lane.points * (1 << _SHIFT)).astype(np.int32)
        # Without an edge, who cannot tell red from green does not see green on the yellow of a marking.
        for ink, width in ((_BLACK, thickness + 2 * edge), (color, thickness)):
            cv2.polylines(image, [points], False, ink, width, cv2.LINE_AA, _SHIFT)


def _name_instances(image: NDArray[np.uint8], instances: tuple[Instance, ...], labels: LabelSet, scale: float) -> None:
    """``vehicle 3  .87`` at each box, the large first; left out where it would hide another or its own thing."""
    size, thickness = _font(0.44, scale)
    pad = max(1, round(3 * scale))
    taken: list[Box] = []
    for instance in sorted(instances, key=lambda it: it.area, reverse=True):
        text = f"{instance.class_name} {_number(instance)}  {_hundredths(instance.score)}"
        (width, tall), _ = cv2.getTextSize(text, _FONT, size, thickness)
        width, tall = width + 2 * pad, tall + 2 * pad
        if instance.box.height < 1.2 * tall:
            continue
        for place in _label_places(instance.box, width, tall, image.shape[1]):
            if 0 <= place.y <= image.shape[0] - tall and not any(_overlap(place, other) for other in taken):
                taken.append(place)
                color = _color(instance, labels)
                image[_slices(place)] = color
                at = (place.x + pad, place.y + tall - pad)
                cv2.putText(image, text, at, _FONT, size, _ink(color), thickness, cv2.LINE_AA)
                break


def _label_places(box: Box, width: int, tall: int, image_width: int) -> Iterator[Box]:
    """Where a label may go: above the box, just inside a box that is tall enough, below it."""
    x = max(0, min(box.x, image_width - width))
    yield Box(x, box.y - tall, width, tall)
    if box.height > 3 * tall:
        yield Box(x, box.y, width, tall)
    yield Box(x, box.y + box.height, width, tall)


def _draw_strip(strip: NDArray[np.uint8], times: StageTimes, fps: float | None, scale: float) -> None:
    """Stages as bars to scale along the top edge, their milliseconds below; the whole and the rate at the right."""
    height, width = strip.shape[:2]
    cv2.convertScaleAbs(strip, dst=strip, alpha=0.12)  # every stage's colour can be read on it, whatever lies below
    stages = [(name, getattr(times, name)) for name in STAGE_COLORS]
    shown = [(name, ms) for name, ms in stages if ms is not None]
    total = sum(ms for _, ms in shown)
    bar = max(2, height // 5)
    per_ms = width / max(total, FRAME_BUDGET_MS)
    begin = 0.0
    for name, ms in shown:
        strip[:bar, round(begin * per_ms) : round((begin + ms) * per_ms)] = STAGE_COLORS[name]
        begin += ms

    size, thickness = _font(0.42, scale)
    gap = round(12 * scale)
    whole = ("end to end", times.end_to_end), ("processing", times.processing), ("sum", total if shown else None)
    summary = next((f"{name} {ms:.1f} ms" for name, ms in whole if ms is not None), "latency n/a")
    if fps is not None:
        summary += f"   {fps:.1f} fps"
    (text_width, text_height), _ = cv2.getTextSize(summary, _FONT, size, thickness)
    baseline = bar + (height - bar + text_height) // 2
    end = width - text_width - gap
    cv2.putText(strip, summary, (end, baseline), _FONT, size, _WHITE, thickness, cv2.LINE_AA)
    x = gap // 2
    for name, ms in shown:
        text = f"{name} {ms:.1f}"
        (text_width, _), _ = cv2.getTextSize(text, _FONT, size, thickness)
        if x + text_width > end - gap:
            break
        cv2.putText(strip, text, (x, baseline), _FONT, size, STAGE_COLORS[name], thickness, cv2.LINE_AA)
        x += text_width + gap


def _color(instance: Instance, labels: LabelSet) -> Color:
    return shade(labels[instance.class_id].color, _number(instance))


def _number(instance: Instance) -> int:
    """What tells it from others: its track, the same in every frame, or else its number in this one."""
    return instance.panoptic_id % PANOPTIC_DIVISOR if instance.track is None else instance.track


def _ink(color: Color) -> Color:
    """Black or white, whichever reads on ``color``."""
    return _BLACK if color[0] * 0.299 + color[1] * 0.587 + color[2] * 0.114 > 130 else _WHITE


def _font(size: float, scale: float) -> tuple[float, int]:
    return max(0.3, size * scale), max(1, round(scale))


def _hundredths(score: float) -> str:
    return f"{min(score, 0.99):.2f}"[1:] if score < 1 else "1"


def _slices(box: Box) -> tuple[slice, slice]:
    return slice(box.y, box.y + box.height), slice(box.x, box.x + box.width)


def _overlap(a: Box, b: Box) -> bool:
    return a.x < b.x + b.width and b.x < a.x + a.width and a.y < b.y + b.height and b.y < a.y + a.height
