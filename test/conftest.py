"""What several files of tests start from: the tiny network, as a file and as a pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from recordings import HEIGHT, WIDTH
from tiny_model import network, write_tiny_model

from drive_seg.engines import FunctionEngine
from drive_seg.labels import DRIVING
from drive_seg.pipeline import Pipeline


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnx", reason="onnx is not installed")
    return write_tiny_model(tmp_path_factory.mktemp("model"), size=(WIDTH, HEIGHT))


@pytest.fixture
def pipeline() -> Iterator[Pipeline]:
    with Pipeline(FunctionEngine(network, (WIDTH, HEIGHT)), DRIVING) as made:
        yield made
