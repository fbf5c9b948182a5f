# Everything happens in a virtual environment of its own; nothing is installed elsewhere.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# `make demo PHOTO=me.jpg` for a photo of yours.
PHOTO ?=
OUT ?= demo-out

.PHONY: demo test lint wheel sanitize fuzz soak gpu clean

demo: $(VENV)/.built
	$(BIN)/pipnet-fast demo $(if $(PHOTO),"$(PHOTO)") --out "$(OUT)"

# Two processes where there are two cores; each takes up to 2.5 GB.
test: $(VENV)/.test
	$(BIN)/pytest --numprocesses auto --maxprocesses 2 --dist loadfile

# Types are read from the package as it will be installed; the extension's stub on its own, or all that the package
# imports would be read again.
lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build/typecheck && mkdir -p build/typecheck/stub/pipnet_fast
	cp -r pipnet_fast build/typecheck && cp -r kernels build/typecheck/pipnet_fast
	MYPYPATH=build/typecheck $(BIN)/mypy -p pipnet_fast -p bench
	cp pipnet_fast/_C.pyi build/typecheck/stub/pipnet_fast && touch build/typecheck/stub/pipnet_fast/__init__.pyi
	MYPYPATH=build/typecheck/stub $(BIN)/stubtest --allowlist .stubtest-allowlist pipnet_fast._C

# The wheel and the C library on their own, outside the tree.
WHEEL ?= build/wheel
wheel: $(VENV)/.built
	.ci/wheel $(BIN)/python $(WHEEL)

# The C++ core under AddressSanitizer with UndefinedBehaviorSanitizer, then under ThreadSanitizer; CI runs the tests
# beside them, which take longer and go first.
sanitize:
	nice $(MAKE) --jobs 2 --file tests/csrc/Makefile OUT=build/sanitize

# Files that try to break the C++ engine, damaged files for all readers, `make fuzz SECONDS=600` for each; then other
# examples of all properties than those that the tests take every time.
SECONDS ?= 60
fuzz: $(VENV)/.test
	$(MAKE) --file tests/csrc/Makefile OUT=build/sanitize SECONDS=$(SECONDS) fuzz
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS)
	grep -l hypothesis tests/test_*.py | xargs $(BIN)/pytest --quiet --hypothesis-profile search

# A busy hour's calls to one landmarker: memory stays, answers too.
soak: $(VENV)/.test
	$(BIN)/python -m tests.soak

# On a CUDA machine, with the torch, Triton and build tools that it has: nothing is fetched. Within eight minutes.
RESULTS ?= bench/results
gpu:
	$(PYTHON) -m pip install --quiet --no-index --no-deps --no-build-isolation --editable .
	PIPNET_REQUIRE_CUDA=1 PYTHONSAFEPATH=1 $(PYTHON) -m pytest -m cuda
	$(PYTHON) -m bench head --device cuda --sweep base batch --rounds 10 --json $(RESULTS)
	$(PYTHON) -m bench head --device cuda --dtype float16 --sweep base batch --rounds 10 --json $(RESULTS)
	$(PYTHON) -m bench e2e --device cuda --dtype float16 --backbone resnet18 --rounds 5 --json $(RESULTS)
	$(PYTHON) -m bench throughput --device cuda --dtype float16 --batch 1 32 256 --rounds 3 \
		--engines ours-cudagraph ours-inductor --json $(RESULTS)
	$(PYTHON) -m bench fps --device cuda --dtype float16 --engine cudagraph --rounds 5 --json $(RESULTS)
	$(PYTHON) -m bench train --device cuda --rounds 5 --network-rounds 3 --json $(RESULTS)

clean:
	rm -rf $(VENV) build dist $(OUT)

# Modules are compiled when they are first imported, not all of them now: that would take longer than to fetch them.
INSTALL := $(BIN)/pip install --quiet --no-compile

# torch comes first and by its exact version: an open range takes gigabytes of CUDA packages.
$(VENV)/.built: pyproject.toml CMakeLists.txt $(wildcard csrc/*.* csrc/isa/* csrc/engine/*)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(INSTALL) torch==2.13.0
	$(INSTALL) --editable '.[demo]'
	touch $@

$(VENV)/.test: $(VENV)/.built
	$(INSTALL) --group test
	touch $@

$(VENV)/.lint: $(VENV)/.test
	$(INSTALL) --group lint
	touch $@
