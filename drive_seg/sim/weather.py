"""Light and air: what each kind of weather does to colours, distances and the lens."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from .camera import FloatArray

WEATHERS = ("clear", "overcast", "dusk", "night", "rain", "fog")


@dataclass(frozen=True)
class Weather:
    """One drawn state of light and air; colours are RGB 0..255 or gains around 1."""

    name: str
    sun_azimuth: float
    sun_elevation: float
    sun: FloatArray
    ambient: FloatArray
    shadow: float  # 0..1, how much light a cast shadow takes
    haze: FloatArray
    sight: float  # metres after which 63 % of a colour is haze
    sky_top: FloatArray
    sky_low: FloatArray
    cloud: float
    lamps: float = 0.0  # 0..1, how bright head and tail lamps are
    wet: float = 0.0  # 0..1, reflection of the road
    rain: float = 0.0  # 0..1, streaks

    @property
    def dark(self) -> bool:
        return self.name == "night"


def draw_weather(rng: np.random.Generator, name: str) -> Weather:
    """A state of the named weather (one of WEATHERS)."""
    uniform = rng.uniform
    warm = np.array([1.0, 0.95, 0.86])
    state = partial(Weather, name=name, sun_azimuth=float(uniform(-np.pi, np.pi)))
    if name == "clear":
        top = np.array([uniform(40, 130), uniform(100, 175), uniform(190, 250)])
        low = np.array([uniform(170, 245), uniform(205, 245), uniform(230, 255)])
        strength = uniform(0.55, 0.95)
        return state(
            sun_elevation=float(uniform(0.3, 1.15)),
            sun=warm * strength,
            ambient=np.array([0.42, 0.46, 0.52]) * uniform(0.75, 1.25),
            shadow=float(uniform(0.35, 0.72)),
            haze=low * 0.95,
            sight=float(uniform(350, 1600)),
            sky_top=top,
            sky_low=low,
            cloud=float(uniform(0, 0.7)),
        )
    if name == "overcast":
        grey = np.array([1.0, 1.0, 1.02]) * uniform(170, 252)
        return state(
            sun_elevation=1.2,
            sun=warm * 0.12,
            ambient=np.array([0.72, 0.74, 0.78]) * uniform(0.75, 1.15),
            shadow=0.12,
            haze=np.minimum(grey, 250),
            sight=float(uniform(180, 800)),
            sky_top=grey * uniform(0.75, 0.98),
            sky_low=grey,
            cloud=float(uniform(0.5, 1.0)),
            lamps=float(rng.random() < 0.3) * 0.4,
            wet=float(uniform(0, 0.12)),
        )
    if name == "dusk":
        glow = np.array([uniform(200, 255), uniform(130, 190), uniform(80, 150)])
        top = np.array([uniform(40, 90), uniform(60, 110), uniform(110, 170)])
        return state(
            sun_azimuth=float(uniform(-0.9, 0.9)),
            sun_elevation=float(uniform(0.06, 0.25)),
            sun=np.array([0.75, 0.5, 0.3]) * uniform(0.4, 0.9),
            ambient=np.array([0.40, 0.40, 0.48]) * uniform(0.7, 1.1),
            shadow=float(uniform(0.2, 0.5)),
            haze=glow * 0.75,
            sight=float(uniform(200, 700)),
            sky_top=top,
            sky_low=glow,
            cloud=float(uniform(0.2, 0.9)),
            lamps=0.7,
        )
    if name == "night":
        low = np.array([uniform(14, 44), uniform(12, 34), uniform(14, 40)])
        lamp = np.array([1.0, uniform(0.72, 0.95), uniform(0.4, 0.85)])
        return state(
            sun_elevation=0.8,
            sun=lamp * 0.05,
            ambient=lamp * uniform(0.12, 0.30),
            shadow=0.0,
            haze=low,
            sight=float(uniform(120, 400)),
            sky_top=low * 0.4,
            sky_low=low,
            cloud=float(uniform(0, 0.6)),
            lamps=1.0,
            wet=float(rng.random() < 0.35) * float(uniform(0.1, 0.5)),
        )
    if name == "rain":
        grey = np.array([0.97, 1.0, 1.04]) * uniform(120, 215)
        return state(
            sun_elevation=1.2,
            sun=warm * 0.05,
            ambient=np.array([0.58, 0.61, 0.66]) * uniform(0.7, 1.1),
            shadow=0.05,
            haze=grey,
            sight=float(uniform(90, 260)),
            sky_top=grey * 0.85,
            sky_low=grey,
            cloud=float(uniform(0.5, 1.0)),
            lamps=0.6,
            wet=float(uniform(0.3, 0.8)),
            rain=float(uniform(0.3, 1.0)),
        )
    grey = np.array([1.0, 1.0, 1.01]) * uniform(150, 235)
    return state(
        sun_elevation=1.2,
        sun=warm * 0.05,
        ambient=np.array([0.66, 0.68, 0.7]) * uniform(0.8, 1.1),
        shadow=0.05,
        haze=grey,
        sight=float(uniform(28, 85)),
        sky_top=grey,
        sky_low=grey,
        cloud=0.15,
        lamps=0.5,
        wet=float(uniform(0, 0.25)),
    )
