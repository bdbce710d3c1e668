"""What figures are said to be measured on."""

from __future__ import annotations

from pathlib import Path

import pytest

from drive_seg.machine import hardware

X86 = "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC\nflags\t\t: fpu\n"
ARM = "processor\t: 0\nBogoMIPS\t: 62.50\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\nCPU part\t: 0xd42\n"
TEGRA = f"model name\t: ARMv8 Processor rev 1 (v8l)\n{ARM}"


@pytest.mark.parametrize(
    ("cpuinfo", "board", "named"),
    [
        (X86, None, "AMD EPYC"),
        (ARM, "NVIDIA Jetson AGX Orin Developer Kit\0", "NVIDIA Jetson AGX Orin Developer Kit"),
        (TEGRA, "NVIDIA Jetson AGX Orin Developer Kit\0", "NVIDIA Jetson AGX Orin Developer Kit"),
        (ARM, None, "some-arm"),
        (None, None, "some-arm"),
    ],
    ids=["x86", "ARM", "Jetson", "ARM server", "no Linux"],
)
def test_the_processor_has_a_name(
    cpuinfo: str | None, board: str | None, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "some-arm")
    if cpuinfo is not None:
        (tmp_path / "cpuinfo").write_text(cpuinfo, encoding="utf-8")
    if board is not None:
        (tmp_path / "device-tree").mkdir()
        (tmp_path / "device-tree/model").write_text(board, encoding="utf-8")
    assert hardware(tmp_path)["cpu"] == named
