# Everything runs in .venv, which is made and filled when first needed: a machine needs Python >= 3.11 and make.
#   make PYTHON=python3.12 test     with another interpreter
#   make VENV=/somewhere test       in another environment

PYTHON  ?= python3
VENV    ?= .venv
OUT     ?= results
QUICK   ?=
ARGS    ?=
TEST_WORKERS ?= 2
DOCS_WORKERS ?= 2

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

# Numerical libraries stay on one thread in tests: pytest's workers are the parallelism.
ONE_THREAD := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 NUMBA_NUM_THREADS=1

.DEFAULT_GOAL := help
.PHONY: help venv reproduce test lint format types contracts pytest docs evidence benchmarks track wheel clean
.DELETE_ON_ERROR:

help:  ## this list
	@echo 'make QUICK=1 reproduce   the main job, short form (about a minute), into $(OUT)/'
	@echo 'make reproduce           the main job (minutes), into $(OUT)/; ARGS="--seed 7" adds options'
	@echo 'make test                all that guards the project: ruff, mypy, import contracts, pytest with doctests'
	@echo 'make docs                the documentation, warnings are errors, into docs/_build/html/'
	@echo 'make evidence NAME=...   a long, resumable run from evidence/, results kept as small netCDF'
	@echo 'make benchmarks          the library against its peers, into benchmarks/results.json; ARGS="--only escape" some'
	@echo 'make track               the library against plain numpy, as ratios to be compared with those kept'
	@echo 'make wheel               dist/: sdist and wheel; the wheel runs the short main job alone in a fresh environment'
	@echo 'make format              ruff, writing'
	@echo 'make lint | types | contracts | pytest     one part of make test; ARGS="-k rates" goes to pytest'
	@echo 'make venv                only the environment; make clean removes what was made, but not $(VENV) and $(OUT)'

# ------------------------------------------------------------------ the environment

define CHECK_PYTHON
import sys
rule = "kramers_grok needs Python 3.11 or newer"
fix = "Name another interpreter: make PYTHON=python3.12 $(MAKECMDGOALS)"
if sys.version_info < (3, 11):
    sys.exit("%s is Python %s; %s.\n%s" % (sys.executable, sys.version.split()[0], rule, fix))
try:
    import ensurepip, venv
except ImportError:
    sys.exit("%s cannot make virtual environments: its modules venv and ensurepip are missing.\n"
             "Install them (on Debian and Ubuntu: apt install python3-venv), or name another interpreter: "
             "make PYTHON=python3.12 $(MAKECMDGOALS)" % sys.executable)
endef
export CHECK_PYTHON

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null 2>&1 || { \
		echo '`$(PYTHON)` was not found; kramers_grok needs Python 3.11 or newer.' >&2; \
		echo 'Install it, or name one you have: make PYTHON=python3.12 $(MAKECMDGOALS)' >&2; exit 1; }
	@$(PYTHON) -c "$$CHECK_PYTHON"
	@echo 'Making $(VENV) with '"$$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)

# One stamp per set of extras, renewed when a dependency or a pin changes. `--upgrade` is left out on purpose:
# pip then moves only what pyproject.toml and constraints.txt ask for.
EXTRAS-run  := data
EXTRAS-test := data,distributed,test
EXTRAS-docs := data,distributed,docs
EXTRAS-bench := data,bench
EXTRAS-release := data,release

$(VENV)/.installed-%: pyproject.toml constraints.txt | $(BIN)/python
	@$(BIN)/python -c "$$CHECK_PYTHON" || { echo 'or make $(VENV) anew: rm -rf $(VENV)' >&2; exit 1; }
	@echo 'Installing kramers_grok[$(EXTRAS-$*)] into $(VENV) (the first time this takes some minutes)'
	@$(PIP) install --constraint constraints.txt --editable '.[$(EXTRAS-$*)]'
	@$(BIN)/kramers-grok warm-up
	@touch $@

venv: $(VENV)/.installed-run  ## the environment of the main job

# ------------------------------------------------------------------ three tiers of proof

reproduce: $(VENV)/.installed-run
	@$(BIN)/kramers-grok reproduce --out $(OUT) $(if $(filter-out 0,$(QUICK)),--quick) $(ARGS)

test: lint types contracts pytest

lint: $(VENV)/.installed-test
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet . || { echo 'run `make format`' >&2; exit 1; }

types: $(VENV)/.installed-test
	@$(BIN)/mypy --strict kramers_grok

contracts: $(VENV)/.installed-test
	@$(BIN)/lint-imports --no-logo

pytest: $(VENV)/.installed-test
	@$(ONE_THREAD) $(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

evidence: $(VENV)/.installed-run
	@test -f 'evidence/$(NAME).py' || { \
		echo 'make evidence NAME=...: `$(NAME)` is none of: '$(patsubst evidence/%.py,%,$(wildcard evidence/*.py)) >&2; exit 1; }
	@$(BIN)/python 'evidence/$(NAME).py' --out 'evidence/$(NAME)' $(ARGS)

benchmarks: $(VENV)/.installed-bench
	@$(BIN)/python -m benchmarks $(ARGS)

# Ratios of one run; `cp $(OUT)/tracked.json benchmarks/` keeps new ones.
track: $(VENV)/.installed-test
	@mkdir -p '$(OUT)'
	@$(ONE_THREAD) $(BIN)/python -m pytest -q tests/test_against_numpy.py --benchmark-enable --benchmark-min-rounds=40 \
		--benchmark-max-time=2 --benchmark-json='$(OUT)/times.json' $(ARGS) >/dev/null
	@$(BIN)/python -m benchmarks.tracked '$(OUT)/times.json' --keep '$(OUT)/tracked.json' --against benchmarks/tracked.json

# ------------------------------------------------------------------ products

format: $(VENV)/.installed-test
	@$(BIN)/ruff check --fix --quiet .
	@$(BIN)/ruff format --quiet .

docs: $(VENV)/.installed-docs
	@$(ONE_THREAD) $(BIN)/python -m sphinx -W --keep-going -q -j $(DOCS_WORKERS) -b html docs docs/_build/html
	@echo 'docs/_build/html/index.html'

# What a user gets: the wheel that comes out of the source distribution, alone with what it declares, away from this folder.
define CHECK_WHEEL
import importlib.metadata, pathlib
import kramers_grok
here, aside = pathlib.Path(kramers_grok.__file__).resolve().parent, pathlib.Path.cwd().resolve()
assert here.is_relative_to(aside), "%s is not the installed package" % here
assert (here / "py.typed").exists(), "py.typed is not in the wheel"
assert importlib.metadata.version("kramers-grok") == kramers_grok.__version__
for name in ("summary.md", "report.html", "arrhenius.nc", "arrhenius.png"):
    assert (aside / "results" / name).stat().st_size > 0, name
print("the wheel works alone: kramers_grok", kramers_grok.__version__)
endef
export CHECK_WHEEL

wheel: $(VENV)/.installed-release
	@rm -rf build dist
	@$(BIN)/pyproject-build --quiet --dependency-constraints-txt constraints.txt --outdir dist .
	@aside=$$(mktemp -d) && trap 'rm -rf "$$aside"' EXIT && \
	$(BIN)/python -m venv "$$aside/venv" && \
	"$$aside/venv/bin/python" -m pip --quiet --disable-pip-version-check install --no-compile \
		--constraint constraints.txt "$$(ls '$(CURDIR)'/dist/*.whl)[data]" && \
	"$$aside/venv/bin/python" -m pip --disable-pip-version-check check && \
	cd "$$aside" && venv/bin/kramers-grok reproduce --quick --quiet --out results && \
	venv/bin/python -W error -c "$$CHECK_WHEEL"

clean:
	@rm -rf build dist docs/_build docs/_generated docs/api docs/theory .pytest_cache .mypy_cache .ruff_cache \
		.import_linter_cache .hypothesis .benchmarks
	@find kramers_grok tests -name __pycache__ -type d -exec rm -rf {} +
