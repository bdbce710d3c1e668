"""The measurements as a page of documentation: every number in it is one that was measured, on the machine it names."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

_NONE = "–"
_PRECISIONS = ("fp32", "fp16", "int8")
_COLUMNS = (
    *("network", "precision", "cameras", "torch eager fp16", "torch max-autotune fp16", "usual sample"),
    *("bare", "ours", "fps", "GPU MiB", "roofline", "PCIe"),
)
_STAGES = (
    *("engine", "copy up", "letterbox", "network", "fusion", "copy down"),
    *("GFLOP", "MB", "built in s", "equal labels"),
)


def markdown(results: dict[str, Any]) -> str:
    """The page; a column that was not measured says so with its reason."""
    machine, torch = results["machine"], results["torch"]
    cases = dict(sorted(results["cases"].items(), key=_place))  # a run in parts measures them in any order
    gpu = machine["gpu"]
    width, height = machine["input"]
    measured = {name: case for name, case in cases.items() if "error" not in case}
    lines = [
        "# TensorRT, measured",
        "",
        f"{gpu['name']} (sm_{gpu['capability'][0]}{gpu['capability'][1]}, driver for CUDA {gpu['driver']}), "
        f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}. "
        f"TensorRT {machine['tensorrt']}, model {machine['model']}. Input {width}x{height}, "
        f"{machine['frames']} frames each after a warm-up.",
        "",
        *(f"    {command}" for command in results["commands"]),
        "",
        "Milliseconds host to host, from the camera's pixels to finished maps at its size: p50 / p99. Bare: copies and "
        "network alone, of frames that are letterboxed already. fps: every slot busy. Roofline: the time that the "
        "layers' operations and bytes take at the measured peaks, over the measured time. PCIe: so for the copy up.",
        "",
        *_table(_COLUMNS, (_timings(name, case, torch) for name, case in measured.items())),
    ]
    kinds = ("note", "uncounted")
    notes = [f"* {name}: {case[kind]}" for name, case in cases.items() for kind in kinds if kind in case]
    if notes:
        lines += ["", "To be known:", "", *notes]
    missing = [f"* {name}: {case['error']}" for name, case in cases.items() if "error" in case]
    missing += [f"* torch at {name[4:]}: {torch[name]}" for name in torch if name.startswith("why ")]
    if missing:
        lines += ["", "Not, or not fully, measured:", "", *missing]
    lines += ["", "What the GPU spends on one batch, ms (CUDA events, medians):", ""]
    lines += _table(_STAGES, (_stages(name, case) for name, case in measured.items()))
    if "peaks" in torch:
        peaks = torch["peaks"]
        products = ", ".join(f"{precision} {value / 1e12:.0f}" for precision, value in peaks["flops"].items())
        lines += [
            "",
            f"Peaks, measured with torch {torch['torch']}: matrix products {products} TFLOP/s (int8: TOP/s), memory "
            f"{peaks['memory'] / 1e9:.0f} GB/s, up {peaks['h2d'] / 1e9:.1f} GB/s, down {peaks['d2h'] / 1e9:.1f} GB/s.",
        ]
    return "\n".join([*lines, ""])


def _place(case: tuple[str, Any]) -> tuple[int, int, int]:
    """By pixels, precision, cameras."""
    size, precision, batch = case[0].split()
    return math.prod(map(int, size.split("x"))), _PRECISIONS.index(precision), int(batch[1:])


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}", *(f"| {' | '.join(row)} |" for row in rows)]


def _timings(name: str, case: dict[str, Any], torch: dict[str, Any]) -> list[str]:
    size, precision, batch = name.split()
    alone = batch == "x1" and precision == "fp16"
    return [
        size,
        precision,
        batch.removeprefix("x"),
        _pair(torch.get(f"eager {size}")) if alone else _NONE,
        _pair(torch.get(f"compiled {size}")) if alone else _NONE,
        _pair(case.get("sample")),
        _pair(case["bare"]),
        _pair(case["ours"]),
        f"{case['fps']:.0f}",
        f"{case['memory_mb']:.0f}",
        _share(case.get("roofline_share")),
        _share(case.get("pcie_share")),
    ]


def _stages(name: str, case: dict[str, Any]) -> list[str]:
    stages = (f"gpu_{stage}" for stage in ("h2d", "preprocess", "inference", "fusion", "d2h"))
    times = [f"{case['gpu_ms'][stage]:.3f}" if stage in case["gpu_ms"] else _NONE for stage in stages]
    work = [f"{case['gflop']:.2f}", f"{case['mb']:.0f}"] if "gflop" in case else [_NONE, _NONE]
    return [name, *times, *work, f"{case['seconds']:.0f}", f"{case['agreement']['labels_equal']:.3%}"]


def _pair(figures: dict[str, float] | None) -> str:
    return _NONE if not figures else f"{figures['p50']:.2f} / {figures['p99']:.2f}"


def _share(value: float | None) -> str:
    return _NONE if value is None else f"{value:.0%}"
