# Every target builds .venv by itself where it is missing or older than pyproject.toml.
# ARGS reaches the command behind a target: make test ARGS="tests/model -x"

export MUJOCO_GL ?= egl
PYTHONS := python3.12 python3.13 python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: help demo test test-slow soak lint bench setup
help:
	@echo "make demo | test | test-slow | soak | lint | bench | setup   (ARGS=... is passed on)"

demo: $(READY)
	$(BIN)/lerobot-wam demo $(ARGS)

# One thread a process: on a few shared cores two OpenMP pools cost ten times the time of one. The tests of a file stay
# together, for they share what is slow to make; each process needs about 2 GB.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n auto --maxprocesses 4 --dist loadfile $(ARGS)

test-slow: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow $(ARGS)

# Ten thousand damaged messages and two hours of control, accelerated: minutes on an idle core.
soak: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.soak $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python -m benchmarks.step_cost $(ARGS)
	$(BIN)/python -m benchmarks.long_episode $(ARGS)

setup: $(READY)

# A name on PATH may be a version manager's stub without a Python behind it, so each one is run, not just found.
# uv installs fast; pip, which reads other settings (pip.conf), is the second try.
$(READY): pyproject.toml
	@for python in $(PYTHONS); do \
	    $$python -c 'import sys; sys.exit(sys.version_info < (3, 12))' >/dev/null 2>&1 && break; python=; \
	done; \
	if [ -x $(BIN)/python ]; then :; \
	elif [ -n "$$python" ]; then echo "creating .venv with $$python"; $$python -m venv .venv || { rm -rf .venv; exit 1; }; \
	elif command -v uv >/dev/null; then uv venv --quiet --seed --python 3.12 .venv; \
	else echo "no Python 3.12 or newer found (tried: $(PYTHONS)); install one, for example" \
	    "'apt install python3.12 python3.12-venv' or 'pyenv install 3.12', and run make again" >&2; exit 1; \
	fi
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv pip install --quiet --python $(BIN)/python -e '.[sim,dev]' \
	    || $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[sim,dev]'
	@touch $@
