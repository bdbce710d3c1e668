"""Noise and patterns: the small pictures that keep every surface from being flat."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from .canvas import ByteArray, as_bytes
from .chance import chance, pick

TILE = 256  # pixels of a ground texture
TILE_METRES = 8.0


def noise(
    rng: np.random.Generator, height: int, width: int, cells: tuple[int, ...], weights: tuple[float, ...]
) -> npt.NDArray[np.float32]:
    """A sum of smooth random fields (height, width) that tiles; `cells` = cells across each field."""
    total = np.zeros((height, width), dtype=np.float32)
    for count, weight in zip(cells, weights, strict=False):
        rows = max(2, round(count * height / width))
        field = np.pad(rng.standard_normal((rows, count)).astype(np.float32), 2, mode="wrap")
        high, wide = round(height / rows * (rows + 4)), round(width / count * (count + 4))
        grown = cv2.resize(field, (wide, high), interpolation=cv2.INTER_CUBIC)
        top, left = (high - height) // 2, (wide - width) // 2
        total += weight * grown[top : top + height, left : left + width]
    return total


def to_bytes(values: npt.NDArray[np.float32]) -> ByteArray:
    """Clip to 0..255 and round."""
    out: ByteArray = np.clip(values + 0.5, 0, 255).astype(np.uint8)
    return out


def halves(picture: ByteArray) -> tuple[ByteArray, ...]:
    """The picture and its 1/2, 1/4 and 1/8, for surfaces that are seen from further away."""
    high, wide = picture.shape[:2]
    return (
        picture,
        *(as_bytes(cv2.resize(picture, (wide >> n, high >> n), interpolation=cv2.INTER_AREA)) for n in (1, 2, 3)),
    )


def ground_tile(seed: int) -> ByteArray:
    """Light maps (TILE, TILE, 3), 128 = unchanged: asphalt, verge, pavement; columns along the road."""
    rng = chance(seed, 201)
    grain = rng.standard_normal((TILE, TILE)).astype(np.float32)
    asphalt = 128 + noise(rng, TILE, TILE, (4, 16, 64), tuple(rng.uniform(2, 6, 3))) + grain * rng.uniform(3, 13)
    verge = 128 + noise(rng, TILE, TILE, (5, 24, 96), tuple(rng.uniform(7, 20, 3))) + grain * rng.uniform(6, 16)
    paving = 128 + noise(rng, TILE, TILE, (4, 16, 64), tuple(rng.uniform(2, 7, 3))) + grain * rng.uniform(2, 8)
    slab = pick(rng, (0, 16, 21, 32, 64))
    if slab:
        depth = float(rng.uniform(12, 45))
        paving[::slab] -= depth
        paving[:, :: pick(rng, (slab, 2 * slab))] -= depth
        shades = rng.uniform(-9, 9, (TILE // slab + 1, TILE // slab + 1)).astype(np.float32)
        paving += np.kron(shades, np.ones((slab, slab), dtype=np.float32))[:TILE, :TILE]
    return np.dstack([to_bytes(asphalt), to_bytes(verge), to_bytes(paving)])


def grain_tile(rng: np.random.Generator) -> ByteArray:
    """A light map (32, 32), 128 = unchanged, for an actor's surface: reflections above, dirt below."""
    field = noise(rng, 32, 32, (3, 8, 16), (9.0, 7.0, 6.0))
    fall = np.linspace(9, -9, 32, dtype=np.float32)[:, None]
    return to_bytes(128 + field + fall)


_WALLS = (
    (150, 85, 65),
    (176, 120, 88),
    (205, 190, 160),
    (220, 215, 205),
    (160, 155, 150),
    (120, 120, 125),
    (190, 160, 120),
    (95, 85, 80),
    (230, 220, 190),
    (140, 100, 85),
    (170, 180, 185),
    (110, 70, 55),
)


# House fronts and crowns come from pools that all drives share: a process draws each at most once.
FACADES, CROWNS = 72, 40


@lru_cache(maxsize=2 * FACADES)
def facade(index: int, dark: bool) -> tuple[ByteArray, ...]:
    """A house front: storeys, windows, a ground floor, stains; (256, 256, 3) and its halves."""
    rng = chance(index, 202)
    size = 256
    wall = np.array(pick(rng, _WALLS), dtype=np.float32) * rng.uniform(0.7, 1.15) + rng.uniform(-12, 12, 3)
    picture = np.empty((size, size, 3), dtype=np.float32)
    picture[:] = wall
    courses = int(rng.integers(0, 3))
    if courses:
        picture[:: 3 + courses] *= 0.9
    storeys, bays = int(rng.integers(2, 7)), int(rng.integers(2, 7))
    high, wide = size / storeys, size / bays
    glass = np.array([60, 70, 85], dtype=np.float32) * rng.uniform(0.5, 1.7)
    frame = wall * rng.uniform(0.5, 0.8) if rng.random() < 0.4 else np.full(3, float(rng.uniform(150, 240)))
    share_x, share_y = rng.uniform(0.35, 0.85), rng.uniform(0.4, 0.75)
    shop = rng.random() < 0.5
    band = rng.random() < 0.4
    for storey in range(storeys):
        top = storey * high
        if band:
            picture[int(top) : int(top) + 3] *= 1.18
        ground = storey == storeys - 1
        for bay in range(bays):
            left = bay * wide
            if ground and not shop and bay == bays // 2:
                _rectangle(
                    picture,
                    left + wide * 0.3,
                    top + high * 0.25,
                    wide * 0.4,
                    high * 0.75,
                    rng.uniform(30, 150, 3),
                )
                continue
            share_w, share_h = (0.88, 0.72) if ground and shop else (share_x, share_y)
            w, h = wide * share_w, high * share_h
            x, y = left + (wide - w) / 2, top + (high - h) * (0.85 if ground and shop else 0.45)
            _rectangle(picture, x - 2, y - 2, w + 4, h + 4, frame)
            if dark:
                lit = np.array([255, 205, 130]) * rng.uniform(0.8, 2.4)
                pane = lit if rng.random() < (0.6 if ground and shop else 0.3) else glass * 0.4
            else:
                pane = glass * rng.uniform(0.5, 1.5) + rng.uniform(0, 45)
            _rectangle(picture, x, y, w, h, pane)
            _rectangle(picture, x, y, w, h * rng.uniform(0.2, 0.6), pane * rng.uniform(0.8, 1.3))
            if share_w < 0.8:
                _rectangle(picture, x + w / 2 - 1, y, 2, h, frame)
        if ground and shop:
            _rectangle(picture, 0, top, size, high * 0.18, rng.uniform(20, 230, 3))
    stain = noise(rng, size, size, (4, 12, 48), (0.05, 0.04, 0.03))
    picture *= (1 + stain + rng.standard_normal((size, size)).astype(np.float32) * 0.03)[:, :, None]
    full = to_bytes(picture)
    return halves(full)


def _rectangle(
    picture: npt.NDArray[np.float32], x: float, y: float, w: float, h: float, colour: npt.NDArray[np.floating]
) -> None:
    picture[max(int(y), 0) : max(int(y + h), 0), max(int(x), 0) : max(int(x + w), 0)] = colour


@lru_cache(maxsize=CROWNS)
def foliage(index: int) -> tuple[tuple[ByteArray, ...], tuple[ByteArray, ...]]:
    """A tree or bush crown: colour (128, 128, 3) and mask (128, 128; 255 = leaf), and their halves."""
    rng = chance(index, 203)
    size = 128
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j].astype(np.float32)
    bare = rng.random() < 0.2
    wavy = noise(rng, size, size, (4, 10, 26), (0.16, 0.12, 0.10 if not bare else 0.3))
    cone = rng.random() < 0.2
    radius = np.abs(x) * 1.9 / (0.25 + (y + 1) * 0.85) if cone else np.sqrt(x * x + (y * rng.uniform(0.9, 1.1)) ** 2)
    mask = (radius + wavy < 0.86) & (np.abs(x) < 0.98) & (np.abs(y) < 0.98)
    if bare:
        mask &= np.abs(noise(rng, size, size, (10, 22, 44), (0.5, 0.5, 0.5))) < 0.22
    tint = np.array([rng.uniform(48, 105), rng.uniform(66, 108), rng.uniform(32, 62)])
    if bare:
        tint = np.full(3, rng.uniform(45, 85)) * (1.08, 1.0, 0.92)
    clumps = noise(rng, size, size, (6, 14, 32), (0.16, 0.18, 0.18)) - 0.22 * y
    light = 0.9 + clumps + rng.standard_normal((size, size)).astype(np.float32) * 0.16
    colour = to_bytes(light[:, :, None] * tint.astype(np.float32))
    return halves(colour), halves(mask.astype(np.uint8) * 255)
