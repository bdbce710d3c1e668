#!/usr/bin/env bash
# Everything that needs an NVIDIA GPU, in one command: engines, parity, memory, teardown, and the table of benchmarks.
#
#   tools/gpu_check.sh                      all of it, results in out/gpu
#   tools/gpu_check.sh tests [ARGUMENTS]    only the tests; ARGUMENTS are pytest's
#   tools/gpu_check.sh benchmark            only the table; goes on where a former run was cut
#
# In parts, where a command may not take long. Each adds to what the former ones left in out/gpu:
#   tools/gpu_check.sh tests -k Parity
#   SIZES=640x384 PRECISIONS=fp32,fp16 tools/gpu_check.sh benchmark
#
# TensorRT and torch or ONNX Runtime need not live in the same Python:
#   PYTHON             has tensorrt, pycuda, numpy, cv2, yaml, pytest; typer, rich and onnx for the table and int8;
#                      hypothesis for the kernels' tests, which are left out without it     (default: python3)
#   REFERENCE_PYTHON   has onnxruntime: what the fp32 network says      (default: PYTHON)
#   TORCH_PYTHON       has torch with CUDA, onnx and onnxruntime, for the table (default: REFERENCE_PYTHON)
#   DRIVE_SEG_DATA     folder with camvid32/val/images: real frames; simulated ones without it
#   FRAMES=100 SIZES=960x544 PRECISIONS=fp16                               smaller
#   OUT=FOLDER         results elsewhere (from the root of the sources, or absolute); out/gpu is kept up to date too
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PYTHON=${PYTHON:-python3}
REFERENCE_PYTHON=${REFERENCE_PYTHON:-$PYTHON}
TORCH_PYTHON=${TORCH_PYTHON:-$REFERENCE_PYTHON}
OTHER=
if [ "$TORCH_PYTHON" != "$PYTHON" ]; then  # its place: PYTHON may be a wrapper that finds another on its own PATH
    OTHER=$(command -v "$TORCH_PYTHON" || printf '%s' "$TORCH_PYTHON")
fi
FRAMES=${FRAMES:-100}
WHAT=${1:-all}
shift $(($# > 0))
case "$WHAT:$#" in
    all:0 | tests:* | benchmark:0) ;;
    *)  # before it runs for an hour
        sed -n '/^#   tools/p' "$0" >&2
        exit 2
        ;;
esac
ROOT=$PWD
KEPT=$ROOT/out/gpu
OUT=${OUT:-$KEPT}
case "$OUT" in /*) ;; *) OUT=$ROOT/$OUT ;; esac
mkdir -p "$OUT" "$KEPT" || exit 1

step() { printf '==> %s\n' "$*"; }
# Each Python with the paths that are its own: those of another release would break it.
ours() { env TRT_ADD="$ROOT:$ROOT/test" PYTHONPATH="$ROOT:$ROOT/test${PYTHONPATH:+:$PYTHONPATH}" "$PYTHON" "$@"; }
reference() { env -u PYTHONHOME PYTHONPATH="$ROOT" "$REFERENCE_PYTHON" "$@"; }
results() {
    for file in tests.log benchmark.log tensorrt.json tensorrt.md; do
        if [ -f "$1/$file" ]; then printf '%s\n' "$file"; fi
    done
}

for file in $(results "$KEPT"); do  # later ones win; of what was there there is a copy
    if [ "$KEPT/$file" -nt "$OUT/$file" ]; then cp -pb "$KEPT/$file" "$OUT/$file"; fi
done
keep() {
    for file in $(results "$OUT"); do
        if [ "$OUT/$file" -nt "$KEPT/$file" ]; then cp -p "$OUT/$file" "$KEPT/$file"; fi
    done
}
trap keep EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

step "the GPU, as $PYTHON sees it"
ours -c '
import sys
from drive_seg.engines import availability
row = availability()[0]
print(row.backend, row.reason)
sys.exit(not row.available)' || exit 1

answers() {
    local images=() kind=simulated folder
    if [ -n "${DRIVE_SEG_DATA:-}" ] && [ -d "$DRIVE_SEG_DATA/camvid32/val/images" ]; then
        images=(--frames "$DRIVE_SEG_DATA/camvid32/val/images")
        kind=camvid
    fi
    # 150 MB that are of no use to who wants the results.
    folder=${TMPDIR:-/tmp}/drive_seg-$UID/$kind-$FRAMES-$(cat models/*.yaml | cksum | cut -d' ' -f1)
    mkdir -p "$folder"
    export DRIVE_SEG_GPU_REFERENCE=$folder/reference_default.npz
    if [ ! -f "$DRIVE_SEG_GPU_REFERENCE" ]; then
        step "what the fp32 network says on $FRAMES frames, by $REFERENCE_PYTHON"
        reference -m drive_seg.engines.reference "${images[@]}" --count "$FRAMES" --out "$DRIVE_SEG_GPU_REFERENCE" || return
    fi
    if [ ! -f "$folder/reference_simulator.npz" ]; then
        reference -m drive_seg.engines.reference --model simulator --count 4 --out "$folder/reference_simulator.npz"
    fi
}

status=0
if [ "$WHAT" != benchmark ]; then
    if answers; then
        step 'tests'
        ours -m pytest -m gpu -rA -v --log-cli-level=INFO -p no:cacheprovider "$@" test/test_gpu.py test/test_kernels_gpu.py 2>&1 |
            tee -ia "$OUT/tests.log" || status=1
    else
        step 'no tests without what the fp32 network says'
        status=1
    fi
fi
if [ "$WHAT" != tests ]; then
    step 'benchmark'
    ours -m drive_seg benchmark --backend tensorrt --full --frames "${BENCHMARK_FRAMES:-500}" --torch-python "$OTHER" \
        --sizes "${SIZES:-}" --precisions "${PRECISIONS:-}" --out "$OUT" 2>&1 | tee -ia "$OUT/benchmark.log" || status=1
fi
step "results in $OUT"
exit $status
