#!/usr/bin/env bash
# Everything that needs an NVIDIA GPU, in one command: engines, parity, memory, teardown, and the table of benchmarks.
#
#   tools/gpu_check.sh                      all of it, results in out/gpu
#   tools/gpu_check.sh tests                only the tests
#   tools/gpu_check.sh benchmark            only the table; goes on where a former run was cut
#
# TensorRT and torch or ONNX Runtime need not live in the same Python:
#   PYTHON             has tensorrt, pycuda, numpy, cv2, yaml, pytest; typer, rich and onnx for the table and int8
#                                                                       (default: python3)
#   REFERENCE_PYTHON   has onnxruntime: what the fp32 network says      (default: PYTHON)
#   TORCH_PYTHON       has torch with CUDA and onnxruntime, for the table (default: REFERENCE_PYTHON)
#   DRIVE_SEG_DATA     folder with camvid32/val/images: real frames; simulated ones without it
#   FRAMES=100 SIZES=960x544 PRECISIONS=fp16 OUT=out/gpu               smaller or elsewhere
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PYTHON=${PYTHON:-python3}
REFERENCE_PYTHON=${REFERENCE_PYTHON:-$PYTHON}
TORCH_PYTHON=${TORCH_PYTHON:-$REFERENCE_PYTHON}
OTHER=$TORCH_PYTHON
if [ "$OTHER" = "$PYTHON" ]; then OTHER=; fi
OUT=${OUT:-out/gpu}
FRAMES=${FRAMES:-100}
WHAT=${1:-all}
ROOT=$PWD
mkdir -p "$OUT"

step() { printf '==> %s\n' "$*"; }
# Each Python with the paths that are its own: those of another release would break it.
ours() { env TRT_ADD="$ROOT:$ROOT/test" PYTHONPATH="$ROOT:$ROOT/test${PYTHONPATH:+:$PYTHONPATH}" "$PYTHON" "$@"; }
reference() { env -u PYTHONHOME PYTHONPATH="$ROOT" "$REFERENCE_PYTHON" "$@"; }

step "the GPU, as $PYTHON sees it"
ours -c '
import sys
from drive_seg.engines import availability
row = availability()[0]
print(row.backend, row.reason)
sys.exit(not row.available)' || exit 1

status=0
if [ "$WHAT" != benchmark ]; then
    export DRIVE_SEG_GPU_REFERENCE=$ROOT/$OUT/reference_default.npz
    images=()
    if [ -n "${DRIVE_SEG_DATA:-}" ] && [ -d "$DRIVE_SEG_DATA/camvid32/val/images" ]; then
        images=(--frames "$DRIVE_SEG_DATA/camvid32/val/images")
    fi
    if [ ! -f "$DRIVE_SEG_GPU_REFERENCE" ]; then
        step "what the fp32 network says on $FRAMES frames, by $REFERENCE_PYTHON"
        reference -m drive_seg.engines.reference "${images[@]}" --count "$FRAMES" --out "$DRIVE_SEG_GPU_REFERENCE" || exit 1
    fi
    if [ ! -f "$OUT/reference_simulator.npz" ]; then
        reference -m drive_seg.engines.reference --model simulator --count 4 --out "$OUT/reference_simulator.npz" || exit 1
    fi
    step 'tests'
    ours -m pytest -m gpu -rA -q -p no:cacheprovider test/test_gpu.py 2>&1 | tee "$OUT/tests.log" || status=1
fi
if [ "$WHAT" != tests ]; then
    step 'benchmark'
    ours -m drive_seg benchmark --backend tensorrt --full --frames "${BENCHMARK_FRAMES:-500}" --torch-python "$OTHER" \
        --sizes "${SIZES:-}" --precisions "${PRECISIONS:-}" --out "$OUT" 2>&1 | tee "$OUT/benchmark.log" || status=1
fi
step "results in $OUT"
exit $status
