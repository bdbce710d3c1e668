"""Cyclists and motorcyclists with what they ride."""

from __future__ import annotations

import cv2
import numpy as np

from .camera import NEAR, SHIFT, Camera, FloatArray
from .canvas import Canvas
from .mesh import Light
from .people import Figure, Person, add_head


def cyclist(looks: Person, gone: float) -> Figure:
    """The rider and the frame of a bicycle after `gone` metres; its wheels are painted by `paint_wheels`."""
    figure = Figure()
    unit = looks.height / 1.75
    wide = unit * looks.stout
    frame = looks.bike
    rear, front, crank, saddle, bar = (
        (-0.52, 0, 0.34),
        (0.54, 0, 0.34),
        (-0.02, 0, 0.3),
        (-0.2, 0, 0.95),
        (0.42, 0, 1.02),
    )
    for a, b in (
        (rear, crank),
        (rear, (-0.18, 0, 0.82)),
        (crank, (-0.18, 0, 0.82)),
        (crank, (0.4, 0, 0.72)),
        ((-0.18, 0, 0.8), (0.38, 0, 0.82)),
        (front, bar),
    ):
        figure.limb(a, b, 0.024, 0.024, frame)
    figure.limb((-0.26, 0, 0.93), (-0.06, 0, 0.93), 0.05, 0.03, np.full(3, 25.0))
    figure.limb((0.42, 0.27, 1.04), (0.42, -0.27, 1.04), 0.02, 0.02, np.full(3, 40.0))
    _rider(figure, looks, unit, wide, 2 * np.pi * gone / 5.0, saddle, 0.3)
    return figure


def motorcyclist(looks: Person) -> Figure:
    """A rider on a motorcycle or scooter."""
    figure = Figure()
    unit = looks.height / 1.75
    black, body = np.full(3, 24.0), looks.bike
    for x in (-0.66, 0.7):
        figure.limb((x, 0, 0.36), (x, 0, 0.24), 0.27, 0.24, black)
        figure.limb((x, 0, 0.31), (x, 0, 0.30), 0.15, 0.15, np.full(3, 110.0))
    figure.limb((0.68, 0.05, 0.34), (0.42, 0.05, 1.0), 0.05, 0.05, np.full(3, 130.0))
    figure.limb((-0.45, 0, 0.48), (0.3, 0, 0.5), 0.2, 0.22, black * 1.6)
    figure.limb((-0.75, 0, 0.86), (-0.1, 0, 0.8), 0.1, 0.15, body * 0.8)
    figure.limb((-0.05, 0, 0.85), (0.45, 0, 0.92), 0.17, 0.15, body)
    figure.limb((0.42, 0.36, 1.06), (0.42, -0.36, 1.06), 0.03, 0.03, black)
    figure.limb((0.6, 0, 0.92), (0.62, 0, 0.88), 0.12, 0.1, np.array([245.0, 240.0, 220.0]))
    figure.limb((-0.92, 0, 0.78), (-0.93, 0, 0.76), 0.07, 0.07, np.array([215.0, 25.0, 20.0]))
    _rider(figure, looks, unit, unit * looks.stout, 0.6, (-0.25, 0, 0.9), 0.2)
    return figure


def _rider(
    figure: Figure,
    looks: Person,
    unit: float,
    wide: float,
    phase: float,
    saddle: tuple[float, float, float],
    reach: float,
) -> None:
    hip = saddle[2] + 0.06
    for side, tone in ((1.0, 0.82), (-1.0, 1.0)):
        turn = phase + (0 if side > 0 else np.pi)
        pedal = (0.0 + 0.16 * np.cos(turn), 0.11 * side, 0.32 + 0.16 * np.sin(turn))
        knee = (0.22 + 0.05 * np.cos(turn), 0.13 * side, 0.72 + 0.12 * np.sin(turn))
        figure.limb((saddle[0], 0.09 * side, hip), knee, 0.095 * wide, 0.07 * wide, looks.lower * tone)
        figure.limb(knee, pedal, 0.066 * wide, 0.05 * wide, (looks.skin if looks.shorts else looks.lower) * tone)
        figure.limb(
            (pedal[0] - 0.06, pedal[1], pedal[2] - 0.04),
            (pedal[0] + 0.14, pedal[1], pedal[2] - 0.05),
            0.05,
            0.04,
            looks.shoes * tone,
        )
    shoulder = hip + 0.5 * unit
    figure.limb((reach, 0.1 * wide, shoulder - 0.06), (saddle[0], 0.05, hip), 0.115 * wide, 0.12 * wide, looks.upper)
    figure.limb((reach, -0.1 * wide, shoulder - 0.06), (saddle[0], -0.05, hip), 0.115 * wide, 0.12 * wide, looks.upper)
    for side, tone in ((1.0, 0.85), (-1.0, 0.98)):
        elbow = (reach + 0.1, 0.26 * wide * side, shoulder - 0.26)
        hand = (0.42, 0.25 * side, 1.06)
        figure.limb(
            (reach, 0.19 * wide * side, shoulder - 0.04),
            elbow,
            0.056 * wide,
            0.048 * wide,
            looks.upper * tone,
        )
        figure.limb(elbow, hand, 0.045 * wide, 0.038, (looks.upper if looks.sleeves else looks.skin) * tone)
    if looks.bag == "back":
        figure.limb((reach - 0.25, 0, shoulder), (saddle[0] - 0.12, 0, hip + 0.22), 0.12, 0.14, looks.bag_colour)
    add_head(figure, looks, unit, reach + 0.12, shoulder + 0.2 * unit)


def paint_wheels(
    canvas: Canvas, camera: Camera, light: Light, position: FloatArray, yaw: float, owner: int | None
) -> None:
    """A bicycle's wheels: dark tyre rings; the disc of spokes is half see-through, and cyclist in truth."""
    angle = np.linspace(0, 2 * np.pi, 22, endpoint=False)
    forward = np.array([np.cos(yaw), np.sin(yaw), 0.0])
    distance = float(np.linalg.norm(position - camera.position))
    tone = light.shade(np.full((1, 3), 26.0), np.array([[0.0, 0.0, 1.0]]), distance, np.zeros(1))[0]
    colour = (float(tone[0]), float(tone[1]), float(tone[2]))
    for x in (-0.52, 0.54):
        hub = position + forward * x + np.array([0, 0, 0.34])
        ring = hub + 0.33 * (np.cos(angle)[:, None] * forward + np.sin(angle)[:, None] * np.array([0.0, 0.0, 1.0]))
        points = camera.to_camera(ring)
        if points[:, 2].min() < NEAR:
            continue
        fixed = camera.fixed(points)
        box = canvas.box(fixed)
        if box is None:
            continue
        x0, y0, x1, y1 = box
        part = canvas.image[y0:y1, x0:x1]
        veil = part.copy()
        moved = fixed - np.array([x0 << SHIFT, y0 << SHIFT], dtype=np.int32)
        cv2.fillConvexPoly(veil, moved, (70.0, 70.0, 72.0), cv2.LINE_AA, SHIFT)
        cv2.addWeighted(part, 0.62, veil, 0.38, 0, dst=part)
        thick = max(1, round(0.05 * camera.focal / distance))
        cv2.polylines(canvas.image, [fixed], True, colour, thick, cv2.LINE_AA, SHIFT)
        if owner is not None:
            cv2.fillConvexPoly(canvas.owners, fixed, (owner,), cv2.LINE_8, SHIFT)
            cv2.polylines(canvas.owners, [fixed], True, (owner,), thick, cv2.LINE_8, SHIFT)
