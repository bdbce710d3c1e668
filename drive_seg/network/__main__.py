"""``python -m drive_seg.network CONFIG``: training where only torch, numpy, OpenCV and PyYAML are installed."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drive_seg.network.tool import run

if TYPE_CHECKING:
    from drive_seg.network.train import Progress


def main() -> None:
    """``drive_seg train`` without its progress bar and its packages."""
    parser = argparse.ArgumentParser(description="Train the network, or go on where the checkpoint stopped.")
    parser.add_argument("config", type=Path, help="training configuration")
    parser.add_argument("--data", default="", help="folder of the data sets, packed or not")
    parser.add_argument("--out", default="", help="folder of the checkpoint")
    parser.add_argument("--steps", type=int, default=0, help="optimiser steps; 0: as in the configuration")
    arguments = parser.parse_args()
    from drive_seg.network.train import train
    from drive_seg.network.train_config import load_train_config

    overrides: dict[str, Any] = {"data_root": arguments.data, "out_dir": arguments.out, "steps": arguments.steps}
    config = load_train_config(arguments.config, **{name: value for name, value in overrides.items() if value})

    def show(state: Progress) -> None:
        losses = f"semantic {state.semantic:.3f} centers {state.centers:.3f} offsets {state.offsets:.3f}"
        sys.stderr.write(f"{state.step}/{state.steps} {losses} {state.images_per_second:.0f} images/s\n")

    sys.stdout.write(f"{train(config, show)}\n")


if __name__ == "__main__":
    run(main)
