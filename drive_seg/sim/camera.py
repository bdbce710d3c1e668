"""The pinhole camera: from metres in the local road frame to 1/16 pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
FixedArray = npt.NDArray[np.int32]

NEAR = 0.5  # metres in front of the lens; nothing nearer is drawn
SHIFT = 4  # OpenCV's fixed point coordinates: 4 fractional bits
_LIMIT = 16000.0  # pixels; keeps OpenCV's 16.16 arithmetic from overflowing


@dataclass(frozen=True)
class Camera:
    """Position and attitude of a pinhole camera in the local road frame.

    The local frame is right-handed: x along the road at the camera, y to the left, z up, metres.
    `rotation` (3, 3) has the camera's right, down and forward axes as rows.
    """

    width: int
    height: int
    focal: float
    position: FloatArray
    rotation: FloatArray

    @property
    def intrinsics(self) -> FloatArray:
        """K (3, 3), pixels; pixel (0, 0) has its middle at coordinate (0, 0)."""
        return intrinsics(self.width, self.height, self.focal)

    def to_camera(self, points: FloatArray) -> FloatArray:
        """Local points (N, 3) to camera points (N, 3): right, down, forward, metres."""
        moved: FloatArray = (points - self.position) @ self.rotation.T
        return moved

    def pixels(self, points: FloatArray) -> FloatArray:
        """Camera points (N, 3) with forward > 0 to pixels (N, 2): x, y."""
        out: FloatArray = points[:, :2] * (self.focal / points[:, 2:3])
        out[:, 0] += (self.width - 1) / 2
        out[:, 1] += (self.height - 1) / 2
        return out

    def fixed(self, points: FloatArray) -> FixedArray:
        """Camera points (N, 3) with forward > 0 to OpenCV fixed point pixels (N, 2)."""
        return fixed_point(self.pixels(points))

    def polygon(self, points: FloatArray) -> FixedArray | None:
        """A local polygon (N, 3), cut at the near plane, in fixed point pixels; None when nothing is left."""
        moved = self.to_camera(points)
        if moved[:, 2].min() < NEAR:
            cut = clip_near(moved)
            if cut is None:
                return None
            moved = cut
        return self.fixed(moved)

    def horizon(self) -> float:
        """The row of the level direction straight ahead, pixels; may lie outside the image."""
        _, down, forward = self.rotation
        return float((self.height - 1) / 2 - self.focal * forward[2] / down[2])


def intrinsics(width: int, height: int, focal: float) -> FloatArray:
    """K (3, 3) of a pinhole camera whose optical axis meets the middle of the image."""
    return np.array([[focal, 0.0, (width - 1) / 2], [0.0, focal, (height - 1) / 2], [0.0, 0.0, 1.0]])


def fixed_point(pixels: FloatArray) -> FixedArray:
    """Pixels (N, 2) to OpenCV fixed point with SHIFT fractional bits."""
    bounded = np.minimum(np.maximum(pixels, -_LIMIT), _LIMIT)
    out: FixedArray = np.rint(bounded * (1 << SHIFT)).astype(np.int32)
    return out


def clip_near(points: FloatArray) -> FloatArray | None:
    """A polygon (N, 3) in camera coordinates cut at forward = NEAR (Sutherland-Hodgman)."""
    after = np.concatenate([points[1:], points[:1]])
    inside, inside_after = points[:, 2] >= NEAR, after[:, 2] >= NEAR
    crossing = inside != inside_after
    step = after - points
    part = (NEAR - points[:, 2]) / np.where(crossing, step[:, 2], 1.0)
    # Every corner is followed by the point where its edge meets the plane; keep those that exist.
    both = np.stack([points, points + step * part[:, None]], axis=1).reshape(-1, 3)
    kept: FloatArray = both[np.stack([inside, crossing], axis=1).ravel()]
    return kept if len(kept) >= 3 else None


def rotation(yaw: float, pitch: float, roll: float) -> FloatArray:
    """Camera axes as rows for a yaw to the left, a pitch upwards and a clockwise roll, radians."""
    forward = np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)])
    right = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
    down = np.cross(forward, right)
    return np.stack(
        [
            np.cos(roll) * right + np.sin(roll) * down,
            np.cos(roll) * down - np.sin(roll) * right,
            forward,
        ]
    )
