# make run    install what is missing, get the images, run configs/quick.yaml, print the table
# make test   the whole test suite
# make check  lint, format and types
# make fresh  make run, pip install and doctor on a Debian with nothing installed (SUITE=trixie)
# make soak   runs under fault injection (SOAK_ARGS='--minutes 60 --cases 2000')
# make bench  the benchmarks
# make fuzz-readers  more than a million texts for the readers of what something else wrote

VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST_ARGS ?=
SOAK_ARGS ?= --minutes 10 --cases 2000
SUITE ?= bookworm
FRESH := PYTHONPATH=.ci $(PYTHON) -m fresh

.PHONY: run test check fresh soak bench fuzz-readers clean system

run: $(STAMP)
	$(BIN)/irqmatrix images build
	$(BIN)/irqmatrix run configs/quick.yaml

# The chips are compared with more than one Linux and QEMU, so those are fetched first.
test: $(STAMP) check
	@PYTHON=$(PYTHON) sh .ci/system-packages --tests
	$(FRESH) --or-skip
	$(BIN)/irqmatrix images build --kernel default --qemu system --lane stable --lane newest
	$(BIN)/pytest --durations 10 $(PYTEST_ARGS)

check: $(STAMP)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

fresh: system
	$(FRESH) --suite $(SUITE)

soak: $(STAMP)
	cd tests && $(abspath $(BIN))/python -m soak $(SOAK_ARGS)

bench: $(STAMP)
	$(BIN)/pytest tests/bench --benchmark-only

# For each of 23 readers; FOREIGN_SEED begins elsewhere, so that another night tries other texts.
fuzz-readers: export FOREIGN_INPUTS ?= 55000
fuzz-readers: export FOREIGN_SEED ?= $(shell date +%Y%j)000
fuzz-readers: $(STAMP)
	$(BIN)/pytest tests/property/test_foreign_readers.py -p no:cacheprovider

system:
	@PYTHON=$(PYTHON) sh .ci/system-packages

$(STAMP): pyproject.toml .ci/system-packages | system
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $(STAMP)

clean:
	rm -rf $(VENV) runs .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
