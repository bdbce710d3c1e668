# drive_seg: `make help` says what there is. Needs nothing but Python; ROS 2 is found or installed into .venv.

PYTHON ?=
SOURCE ?= sim
SECONDS ?= 20
OUT ?= out/demo
PYTEST_ARGS ?=

BIN := .venv/bin
# One word of the shell, whatever characters the file's name has.
quoted = '$(subst ','\'',$(1))'

# Set by the ROS 2 wheels for their own interpreter; inherited, they would break the one in .venv.
ifdef _ROS_WHEELS_BOOTSTRAP_COMPLETE
unexport _ROS_WHEELS_BOOTSTRAP_COMPLETE LD_LIBRARY_PATH
endif

# The library of another Python, with which the one in .venv does not start.
unexport PYTHONHOME

.DEFAULT_GOAL := help
.PHONY: help venv demo check test gpu model clean

help:
	@echo 'make demo    the main job: camera, node and a live table for SECONDS=$(SECONDS) (SOURCE=$(SOURCE) OUT=$(OUT))'
	@echo '             SOURCE may be sim, a video, a folder of images, a bag, a camera device or a URL'
	@echo 'make test    lint, types and all tests (PYTEST_ARGS="-k lifecycle -x" picks some)'
	@echo 'make check   lint and types only'
	@echo 'make gpu     what needs an NVIDIA GPU: engines, parity, memory, benchmark (docs/tensorrt.md; PYTHON=... with TensorRT)'
	@echo 'make model   train the shipped model again from DATA=FOLDER (docs/training.md), about fifteen hours on two cores'
	@echo 'make venv    make or update .venv, which the others do by themselves (PYTHON=python3.12 picks the Python)'
	@echo 'make clean   remove .venv and everything built; results in out/ stay'

venv:
	@PYTHON=$(call quoted,$(PYTHON)) tools/venv.sh

demo: venv
	@echo '==> drive_seg demo:' $(call quoted,$(SOURCE)) for $(call quoted,$(SECONDS)) s, results in $(call quoted,$(OUT))
	@$(BIN)/drive_seg demo --source $(call quoted,$(SOURCE)) --seconds $(call quoted,$(SECONDS)) --out $(call quoted,$(OUT))

check: venv
	@echo '==> ruff: lint'
	@$(BIN)/ruff check .
	@echo '==> mypy: types'
	@if $(BIN)/python -c 'import numpy; exit(numpy.__version__.startswith(("1.", "2.0", "2.1", "2.2")))'; then \
		$(BIN)/mypy; \
	else \
		echo 'skipped: needs the stubs of NumPy 2.3 or newer, so Python 3.11 or newer and no system ROS 2'; \
	fi

test: check
	@echo '==> pytest: tests'
	@$(BIN)/python -m pytest $(PYTEST_ARGS)
	@echo '==> lint, types and tests passed'

gpu:
	@$(if $(PYTHON),PYTHON=$(call quoted,$(PYTHON))) tools/gpu_check.sh

model: venv
	@tools/train_model.sh $(call quoted,$(DATA))

clean:
	@echo '==> removing .venv, build/ and caches'
	@rm -rf .venv build dist install log *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find drive_seg test tools launch benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
