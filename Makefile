# Two commands are all the set-up there is: make demo, make test.
VENV ?= .venv
BIN := $(VENV)/bin
UV := $(shell command -v uv 2>/dev/null)
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$p && break; done)
DEMO ?= demo
# Such as --full, or --folder /somewhere/with/space.
BENCH ?=
# Processes that run tests at the same time: one more than cores, as many tests wait for others.
JOBS ?= 3
# Seconds after which `make quick` starts no further test.
BUDGET ?= 55

ifneq ($(UV),)
CREATE = uv venv --quiet --allow-existing --python '>=3.11' $(VENV)
INSTALL = uv pip install --quiet --python $(BIN)/python
else
CREATE = $(PYTHON) -m venv $(VENV)
INSTALL = $(BIN)/python -m pip install --quiet
endif

# Tests with windows load napari's own fixtures, and bring a screen where there is none.
GUI = $(shell command -v xvfb-run >/dev/null 2>&1 && [ -z "$$DISPLAY" ] && \
	echo xvfb-run -a -s '"-screen 0 1600x1000x24"')
GUI_OPTIONS = -ra --strict-markers --import-mode=importlib

CORE = --ignore=tests/gui --ignore=tests/notebooks

.PHONY: demo test after-core quick quick-tests types gui notebooks docs check soak bench release-check tools clean

demo: $(VENV)/.installed
	$(BIN)/napari-pixseg demo $(DEMO)

# First the tests that keep all cores busy. Then come those that mostly wait, for a window or for
# servers and workers of their own (tests/conftest.py says which): two at a time.
test: check
	$(BIN)/python -m pytest $(CORE) -n $(JOBS) -m "not alone"
	$(MAKE) --no-print-directory -j2 --output-sync=target gui after-core

# One after the other, beside the tests with windows.
after-core: $(VENV)/.test-installed tools
	$(BIN)/python -m pytest $(CORE) -m alone
	$(MAKE) --no-print-directory -j1 notebooks
	$(MAKE) --no-print-directory -j1 docs

# At most 90 seconds: the linter, then types beside the tests that are nearest to what changed.
quick: $(VENV)/.test-installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(MAKE) --no-print-directory -j2 --output-sync=target types quick-tests

quick-tests: $(VENV)/.test-installed
	$(BIN)/python -m pytest -q -r fE -n $(JOBS) -m "not alone" --budget $(BUDGET) --maxfail 5 \
		$$($(BIN)/python .ci/touched_tests.py)

types: $(VENV)/.test-installed
	$(BIN)/mypy

gui: $(VENV)/.test-installed tools
	$(GUI) $(BIN)/python -m pytest tests/gui -o addopts="$(GUI_OPTIONS)"

# Sources are staged, so that notebooks stand among the pages and the build beside them.
docs: $(VENV)/.test-installed
	@rm -rf build/docs && mkdir -p build/docs
	@cp -r docs build/docs/source
	@if [ -d notebooks ]; then cp -r notebooks build/docs/source/notebooks; fi
	$(BIN)/sphinx-build -q -W --keep-going -b html build/docs/source build/docs/html

# Runs copies, so that no output gets into the repository, then reads what they put out.
# Matplotlib's first import makes a list of fonts, and says so: not in a notebook.
notebooks: $(VENV)/.test-installed tools
	rm -rf build/notebooks && mkdir -p build/notebooks && cp notebooks/*.ipynb build/notebooks
	$(BIN)/python -c "import matplotlib.font_manager"
	PATH="$(abspath $(BIN)):$$PATH" PIXSEG_NOTEBOOK_SIZE=small $(BIN)/python -m pytest \
		--nbmake --nbmake-timeout=300 --overwrite --durations=0 build/notebooks
	$(BIN)/python -m pytest tests/notebooks

soak: $(VENV)/.test-installed tools
	PIXSEG_SOAK=1 $(BIN)/python -m pytest --ignore=tests/gui --ignore=tests/notebooks

bench: $(VENV)/.bench-installed
	$(BIN)/python -m benchmarks $(BENCH)

# Vulture looks for dead code, deptry for dependencies that are missing or not used.
check: $(VENV)/.test-installed tools types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/vulture
	$(BIN)/deptry src

# What a release must have: one version everywhere, files that PyPI accepts, a complete wheel.
release-check: $(VENV)/.test-installed
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	$(BIN)/twine check --strict dist/*
	$(BIN)/python -m pytest -q tests/test_release.py --built dist

$(VENV)/.created:
	@test -n "$(UV)$(PYTHON)" || { echo "Python 3.11 or newer is needed, or uv."; exit 1; }
	$(CREATE)
	@touch $@

$(VENV)/.installed: $(VENV)/.created pyproject.toml
	$(INSTALL) -e .
	@touch $@

$(VENV)/.test-installed: $(VENV)/.installed
	$(INSTALL) -e '.[test]'
	@touch $@

$(VENV)/.bench-installed: $(VENV)/.installed
	$(INSTALL) -e '.[bench]'
	@touch $@

# The programs that the tests compare with; without them those tests are skipped, and say so.
tools:
	@sh tests/install_tools.sh

clean:
	rm -rf $(VENV) $(DEMO) build dist
