# Two commands are all the set-up there is: make demo, make test.
VENV ?= .venv
BIN := $(VENV)/bin
UV := $(shell command -v uv 2>/dev/null)
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	&& echo $$p && break; done)
DEMO ?= demo

ifneq ($(UV),)
CREATE = uv venv --quiet --allow-existing --python '>=3.11' $(VENV)
INSTALL = uv pip install --quiet --python $(BIN)/python
else
CREATE = $(PYTHON) -m venv $(VENV)
INSTALL = $(BIN)/python -m pip install --quiet
endif

.PHONY: demo test check soak tools clean

demo: $(VENV)/.installed
	$(BIN)/napari-pixseg demo $(DEMO)

test: check
	$(BIN)/python -m pytest

soak: $(VENV)/.test-installed tools
	PIXSEG_SOAK=1 $(BIN)/python -m pytest

check: $(VENV)/.test-installed tools
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

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

# The programs that the tests compare with; without them those tests are skipped, and say so.
tools:
	@sh tests/install_tools.sh

clean:
	rm -rf $(VENV) $(DEMO) build dist
