"""The two sheets that everything is painted on: the picture and, with the same polygons, the truth."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from drive_seg.labels import PANOPTIC_DIVISOR, PANOPTIC_UNLABELLED

from .camera import SHIFT, FixedArray, FloatArray

ByteArray = npt.NDArray[np.uint8]

BACKGROUND, ROAD, LANE_MARKING, VEHICLE, PEDESTRIAN, CYCLIST = range(6)
FIRST_THING = 6  # owners below are stuff classes; from here on they are instances
MAX_OWNERS = 256
SMALLEST_SHARE = 256 / (1280 * 720)
"""Part of the picture below which a visible thing is left unlabelled: 16x16 pixels of 720p, about where CityPersons'
"reasonable" pedestrians begin (Zhang et al., CVPR 2017). Nobody draws smaller ones by hand."""


def as_bytes(picture: npt.ArrayLike) -> ByteArray:
    """What OpenCV returned, typed as the uint8 it is; nothing is copied."""
    return np.asarray(picture, dtype=np.uint8)


class Canvas:
    """Picture (H, W, 3) uint8 RGB and owners (H, W) uint8: a stuff class, or the index of an instance."""

    def __init__(self, width: int, height: int) -> None:
        self.width = width
        self.height = height
        self.image: ByteArray = np.zeros((height, width, 3), dtype=np.uint8)
        self.owners: ByteArray = np.zeros((height, width), dtype=np.uint8)
        self.owner_class = list(range(FIRST_THING))
        self._numbers = [0] * FIRST_THING

    def new_instance(self, class_id: int, number: int = 0) -> int | None:
        """The owner index of another thing, `number` in its drive; None when the sheet is full."""
        if len(self.owner_class) >= MAX_OWNERS:
            return None
        self.owner_class.append(class_id)
        self._numbers.append(number)
        return len(self.owner_class) - 1

    def convex(self, points: FixedArray, colour: FloatArray, owner: int | None) -> None:
        """Fill a convex polygon (N, 2, fixed point); `owner` None leaves the truth as it is."""
        cv2.fillConvexPoly(
            self.image, points, (float(colour[0]), float(colour[1]), float(colour[2])), cv2.LINE_AA, SHIFT
        )
        if owner is not None:
            cv2.fillConvexPoly(self.owners, points, (owner,), cv2.LINE_8, SHIFT)

    def polygons(self, many: list[FixedArray], colour: FloatArray, owner: int | None) -> None:
        """Fill polygons of any shape."""
        tone = (float(colour[0]), float(colour[1]), float(colour[2]))
        for points in many:  # in one call, what lies in two of them would stay empty
            cv2.fillPoly(self.image, [points], tone, cv2.LINE_AA, SHIFT)
            if owner is not None:
                cv2.fillPoly(self.owners, [points], (owner,), cv2.LINE_8, SHIFT)

    def box(self, points: FixedArray) -> tuple[int, int, int, int] | None:
        """The part of the image (x0, y0, x1, y1; ends excluded) that the points span, or None."""
        low = points.min(axis=0) >> SHIFT
        high = (points.max(axis=0) >> SHIFT) + 2
        x0, y0 = max(int(low[0]) - 1, 0), max(int(low[1]) - 1, 0)
        x1, y1 = min(int(high[0]), self.width), min(int(high[1]), self.height)
        return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None

    def warp(self, texture: ByteArray, corners: FloatArray) -> None:
        """Lay a texture (h, w, 3) on a picture quadrilateral (4, 2 pixels: top left, top right, bottom right,
        bottom left of the texture). The picture only: the truth is the polygon's."""
        x0, y0 = np.maximum(np.floor(corners.min(axis=0)), 0).astype(int)
        x1, y1 = np.ceil(corners.max(axis=0)).astype(int) + 1
        x1, y1 = min(int(x1), self.width), min(int(y1), self.height)
        if x0 >= x1 or y0 >= y1:
            return
        rows, columns = texture.shape[:2]
        source = np.array([[0, 0], [columns, 0], [columns, rows], [0, rows]], dtype=np.float32) - 0.5
        target = (corners - (x0, y0)).astype(np.float32)
        matrix = cv2.getPerspectiveTransform(source.astype(np.float32), target)
        cv2.warpPerspective(
            texture,
            matrix,
            (x1 - x0, y1 - y0),
            dst=self.image[y0:y1, x0:x1],
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_TRANSPARENT,
        )

    def stamp(self, colour: ByteArray, mask: ByteArray, x: int, y: int, owner: int | None) -> None:
        """Copy a sprite (h, w, 3) where its mask (h, w) is not 0 to the image at (x, y)."""
        x0, y0 = max(x, 0), max(y, 0)
        x1, y1 = min(x + mask.shape[1], self.width), min(y + mask.shape[0], self.height)
        if x0 >= x1 or y0 >= y1:
            return
        part = np.ascontiguousarray(mask[y0 - y : y1 - y, x0 - x : x1 - x])
        cv2.copyTo(colour[y0 - y : y1 - y, x0 - x : x1 - x], part, self.image[y0:y1, x0:x1])
        if owner is not None:
            self.owners[y0:y1, x0:x1][part > 0] = owner

    def roughen(self, owner: int, box: tuple[int, int, int, int], grain: ByteArray) -> None:
        """Multiply an instance's pixels by a light map (h, w, 128 = unchanged) stretched over its box."""
        x0, y0, x1, y1 = box
        part = self.image[y0:y1, x0:x1]
        light = cv2.cvtColor(cv2.resize(grain, (x1 - x0, y1 - y0)), cv2.COLOR_GRAY2RGB)
        lit = cv2.multiply(part, light, scale=1 / 128)
        cv2.copyTo(lit, cv2.inRange(self.owners[y0:y1, x0:x1], (owner,), (owner,)), part)

    def truth(self) -> tuple[npt.NDArray[np.uint16], dict[int, int]]:
        """The truth (H, W) uint16: visible things are numbered 1.. within their class, tiny ones are unlabelled;
        and, by these values, the numbers that things have in their drive."""
        seen = cv2.calcHist([self.owners], [0], None, [MAX_OWNERS], [0, MAX_OWNERS]).ravel()
        table = np.zeros(MAX_OWNERS, dtype=np.uint16)
        table[:FIRST_THING] = np.arange(FIRST_THING)
        smallest = SMALLEST_SHARE * self.owners.size
        count: dict[int, int] = {}
        tracks: dict[int, int] = {}
        for owner in range(FIRST_THING, len(self.owner_class)):
            if seen[owner] and seen[owner] < smallest:
                table[owner] = PANOPTIC_UNLABELLED
            elif seen[owner]:
                class_id = self.owner_class[owner]
                count[class_id] = count.get(class_id, 0) + 1
                table[owner] = class_id * PANOPTIC_DIVISOR + count[class_id]
                tracks[int(table[owner])] = self._numbers[owner]
        return np.asarray(cv2.LUT(self.owners, table), dtype=np.uint16), tracks
