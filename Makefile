# The only list of commands. `make` alone prints it.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
# Which `test-pythons` is for; those that pyenv has, if none are named.
PYTHONS ?=
QUICK ?=
# Where `wheel` puts what it builds.
WHEELS ?= dist
# `release` for speed, `quick` for the same code without the long link, `dev` for debugging.
PROFILE ?= release
FUZZ_SECONDS ?= 10
HOSTILE_SECONDS ?= 10
SOAK_MINUTES ?= 30
EXAMPLES ?= 20000
TARGETS = x86_64-pc-windows-gnu aarch64-apple-darwin
# Nothing is linked for them, so what dependencies have in C need not be compiled.
NO_C = $(foreach target,$(subst -,_,$(TARGETS)),CC_$(target)=true AR_$(target)=true)
RUST_SOURCES = $(shell find src python/src -name '*.rs') Cargo.toml Cargo.lock python/Cargo.toml pyproject.toml
# What is compiled for others to use is compiled with what is known to be hot.
HOT = $(if $(filter release,$(PROFILE)),RUSTFLAGS="$$($(BIN)/python scripts/train.py --flags)")

.DEFAULT_GOAL = help
.PHONY: help serve test test-apps test-rust test-python test-pythons test-sid leaks lint cross fmt bench bench-python memory hostile soak conformance conformance-ws fuzz second-parser train wheel clean build setup doc

help:  ## print this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(VENV)/.tools: requirements-dev.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -r requirements-dev.txt
	@touch $@

$(VENV)/.built: $(VENV)/.tools $(RUST_SOURCES) $(wildcard profiles/*)
	$(HOT) VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/maturin develop -q --profile $(PROFILE)
	@touch $@

$(VENV)/.bench-tools: $(VENV)/.tools requirements-bench.txt
	$(BIN)/pip install -q --disable-pip-version-check -r requirements-bench.txt
	@touch $@

$(VENV)/.app-tools: $(VENV)/.tools requirements-apps.txt
	$(BIN)/pip install -q --disable-pip-version-check -r requirements-apps.txt
	@touch $@

setup: $(VENV)/.tools  ## make the virtual environment with the development tools
build: $(VENV)/.built  ## build the extension and install it into the virtual environment

serve: build  ## run examples/showcase.py on http://127.0.0.1:8000
	$(BIN)/python examples/showcase.py

test: test-rust test-python  ## run all tests

test-rust:  ## run the Rust tests
	cargo test -q

test-python: build  ## run the Python tests
	PYTHON=$(BIN)/python scripts/test-python.sh $(ARGUMENTS)

leaks: build  ## look for leaks in 200,000 requests of each kind (Linux, 10 minutes)
	LEAK_REQUESTS=200000 $(BIN)/python -m pytest tests_py/test_leaks.py --durations=0

test-apps: build $(VENV)/.app-tools  ## run the tests with Django, FastAPI, Flask and others, and inside of other servers
	PYTHON=$(BIN)/python scripts/test-python.sh tests_py/test_frameworks.py tests_py/test_same_as_uvicorn.py tests_py/test_guest.py tests_py/test_environ.py tests_py/test_docs.py

test-pythons: build  ## run the Python tests on PYTHONS, or every other Python found (pyenv); QUICK=1 for some of them
	BIN=$(BIN) QUICK=$(QUICK) scripts/test-pythons.sh $(PYTHONS)

test-sid: build  ## run the Python tests on the Pythons of Debian unstable (root, debootstrap)
	scripts/test-sid.sh

lint: build  ## check format, types, stubs and style, warnings are errors
	cargo fmt --all --check
	cargo clippy -q --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc -q --workspace --no-deps --document-private-items
	$(BIN)/ruff check -q python tests_py examples benches scripts fuzz
	$(BIN)/ruff format -q --check python tests_py examples benches scripts fuzz
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest httpy._httpy --allowlist tests_py/stubtest-allowlist.txt

cross:  ## check that the code compiles for Windows and macOS
	rustup target add $(TARGETS)
	$(NO_C) cargo clippy -q --workspace $(addprefix --target ,$(TARGETS)) -- -D warnings

fmt: setup  ## format everything
	cargo fmt --all
	$(BIN)/ruff check -q --fix python tests_py examples benches scripts fuzz
	$(BIN)/ruff format -q python tests_py examples benches scripts fuzz

bench: build  ## compare with other servers (needs wrk; see docs/performance.md)
	scripts/bench.sh

bench-python: build $(VENV)/.bench-tools  ## compare with Starlette on uvicorn, with pytest-benchmark
	$(BIN)/python -m pytest tests_py/bench/bench_starlette.py --benchmark-columns=median,iqr,ops,rounds $(ARGUMENTS)

memory: build  ## measure an idle worker and 10,000 idle connections (Linux)
	$(BIN)/python scripts/memory.py $(ARGUMENTS)

hostile: build  ## attack a server with slowhttptest (Debian), HOSTILE_SECONDS in each of its modes
	$(BIN)/python scripts/hostile.py --seconds $(HOSTILE_SECONDS)

soak: build  ## ask servers of everything for SOAK_MINUTES, and look for leaks and lost answers (Linux)
	$(BIN)/python scripts/soak.py --minutes $(SOAK_MINUTES)

conformance: build  ## check HTTP/2 with h2spec (built with go, unless it is there)
	$(BIN)/python scripts/conformance.py $(ARGUMENTS)

conformance-ws: build  ## check WebSocket with Autobahn, plain and by TLS (needs a Python 2.7; half an hour)
	$(BIN)/python scripts/conformance.py ws $(ARGUMENTS)

fuzz:  ## fuzz every target for FUZZ_SECONDS each
	PYTHON=$(PYTHON) scripts/fuzz.sh $(FUZZ_SECONDS)

second-parser: build  ## try EXAMPLES random requests on HTTPy, llhttp and h11, and compare
	SECOND_PARSER_EXAMPLES=$(EXAMPLES) $(BIN)/python -m pytest tests_py/test_second_parser.py -k nothing

train: setup  ## find out again which code is hot, for builds to be optimized for (5 minutes, rustup)
	rustup component add llvm-tools
	$(BIN)/python scripts/train.py

wheel: setup  ## build the abi3 wheel into dist/
	$(HOT) $(BIN)/maturin build --release -o $(WHEELS) $(ARGUMENTS)

doc:  ## build the Rust documentation
	cargo doc --no-deps --workspace

clean:  ## remove what was built
	rm -rf target $(VENV) dist
