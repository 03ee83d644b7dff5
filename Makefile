# Everything a maintainer does, each target setting up what it needs.
# Taken for granted: Python 3.11 or later, a C++20 compiler, make and git.

VENV ?= .venv
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
PORT ?= 8000
BIN := $(VENV)/bin
UV := $(BIN)/uv
CONSTRAINTS := .ci/constraints.txt
DISTRIBUTIONS := core flowcoro-http flowcoro-db plugins/flowcoro-observability
NATIVE_SOURCES := $(shell find core/native/include core/native/cmake core/bindings core/CMakeLists.txt \
	flowcoro-http/native/include flowcoro-http/bindings flowcoro-http/CMakeLists.txt -type f 2>/dev/null)
SETUP := $(VENV)/.set-up
NATIVE_BUILD := core/native/build
# Projects of CMake with tests.
NATIVE := core/native flowcoro-http/native
BENCH_PYTHON ?= $(BIN)/python
BENCH_OPTIONS ?=
BENCH_NAMES ?= *
FUZZ_RUNS ?= 10000000
# 0: another each time.
FUZZ_SEED ?= 0
DIFFERENTIAL_CASES ?= 1000000
SOAK_OPTIONS ?=
# Among which the Python tests are shared out; 0: this one.
TEST_PROCESSES ?= 2
SANITIZE_OPTIONS ?= flowcoro-http/tests
COVERAGE_OPTIONS ?= core/tests flowcoro-http/tests
FREE_THREADED_HOME ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/flowcoro/python-free-threaded-3.13
FREE_THREADED_PYTHON ?= $(FREE_THREADED_HOME)/bin/python3.13t
FREE_THREADED_VENV := $(VENV)-free-threaded
FREE_THREADED_TESTS ?= $(wildcard $(patsubst %,core/tests/test_%*.py,lockfree memory scheduler waiter))
QUIETLY := > /dev/null

export PATH := $(abspath $(BIN)):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-python test-packaging test-free-threaded bench bench-loops bench-http soak soak-http soak-upload fuzz \
	http-differential coverage lint format types layering docs native-test native-sanitize native-bench \
	native-cross native-windows bindings-sanitize bindings-coverage stubs wheels clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

setup: $(SETUP) ## Make .venv with every distribution editable and all tools

$(UV):
	@test -n "$(PYTHON)" || { echo "make: needs Python 3.11 or later as python3" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) uv

$(SETUP): $(UV) pyproject.toml $(CONSTRAINTS) $(DISTRIBUTIONS:%=%/pyproject.toml) $(NATIVE_SOURCES)
	$(UV) pip install --quiet --python $(BIN)/python --constraint $(CONSTRAINTS) \
		--build-constraints $(CONSTRAINTS) --group dev \
		$(DISTRIBUTIONS:%=--editable %)
	@touch $@

demo: $(SETUP) ## Serve the example application on loopback (PORT=8000)
	$(BIN)/flowcoro demo --port $(PORT)

test: native-test test-python test-packaging ## Run every test

test-python: $(SETUP) ## Run the Python tests, with coverage
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -m "not packaging" -n $(TEST_PROCESSES) --dist worksteal
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

test-packaging: $(SETUP) ## Build wheels and install them as a stranger would
	$(BIN)/pytest -m packaging tests

$(FREE_THREADED_HOME)/bin/python3.13t:
	tests/free_threaded/build_python.sh $(FREE_THREADED_HOME)

# Without core's dependencies, since msgspec refuses to be built for a free-threaded 3.13 and
# watchfiles has no wheel for it: what the native-facing tests and the benchmarks need stands
# here. hypothesis is the last without an extension in Rust, which has no such wheel either.
$(FREE_THREADED_VENV)/.set-up: $(SETUP) $(FREE_THREADED_PYTHON)
	$(UV) venv --quiet --clear --python $(FREE_THREADED_PYTHON) $(FREE_THREADED_VENV)
	$(UV) pip install --quiet --python $(FREE_THREADED_VENV)/bin/python \
		--constraint $(CONSTRAINTS) \
		anyio janus numpy packaging pluggy pytest pytest-timeout
	$(UV) pip install --quiet --python $(FREE_THREADED_VENV)/bin/python --no-deps \
		--build-constraints $(CONSTRAINTS) --reinstall-package flowcoro \
		hypothesis==6.155.7 sortedcontainers --editable core
	@touch $@

# -p no:flowcoro: our own pytest plugin needs msgspec.
test-free-threaded: $(FREE_THREADED_VENV)/.set-up ## Test core without the GIL (first builds a Python)
	PYTHONPATH=tests/free_threaded $(FREE_THREADED_VENV)/bin/python -m pytest \
		-p gil_guard -p no:flowcoro $(FREE_THREADED_TESTS)

bench: $(SETUP) ## Compare with peers (BENCH_OPTIONS=--quick)
	for each in tests/benchmarks/bench_$(BENCH_NAMES).py; do \
		$(BENCH_PYTHON) $$each $(BENCH_OPTIONS) || exit 1; \
	done

soak: $(SETUP) ## Ten million echoes on each kind of transport (half an hour; SOAK_OPTIONS=--help)
	$(BIN)/python tests/soak/run_soak.py $(SOAK_OPTIONS)

soak-http: $(SETUP) ## Ten million HTTP requests to each kind of server (needs wrk; SOAK_OPTIONS=--help)
	$(BIN)/python tests/soak/run_http_soak.py $(SOAK_OPTIONS)

bench-http: $(SETUP) ## Compare HTTP servers and clients with peers (installs them; needs wrk and nginx)
	$(UV) pip install --quiet --python $(BIN)/python --constraint $(CONSTRAINTS) --group bench
	$(MAKE) bench BENCH_NAMES='http_*'

soak-upload: $(SETUP) ## Ten gigabytes in one HTTP request, allowed and not (SOAK_OPTIONS=--help)
	$(BIN)/python tests/soak/run_http_upload.py $(SOAK_OPTIONS)

bench-loops: BENCH_NAMES := loops_*
bench-loops: bench ## Compare event loops only

lint: $(SETUP) ## Check style of Python and C++
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	git ls-files '*.hpp' '*.cpp' | xargs $(BIN)/clang-format --dry-run --Werror

format: $(SETUP) ## Rewrite Python and C++ in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	git ls-files '*.hpp' '*.cpp' | xargs $(BIN)/clang-format -i

types: $(SETUP) stubs ## Check types (mypy, strict)
	$(BIN)/mypy
	for folder in docs/examples/live docs/examples/log docs/examples/files docs/examples/http tests/benchmarks tests/free_threaded; do \
		MYPYPATH=$$folder $(BIN)/mypy $$folder || exit 1; \
	done
	MYPYPATH=tests $(BIN)/mypy tests/libraries
	MYPYPATH=tests/soak:tests/benchmarks $(BIN)/mypy tests/soak

native-test: $(SETUP) ## Test the native core (ctest)
	for project in $(NATIVE); do \
		cmake -S $$project -B $$project/build/plain -G Ninja $(QUIETLY) && \
		cmake --build $$project/build/plain $(QUIETLY) && \
		ctest --test-dir $$project/build/plain --output-on-failure || exit 1; \
	done

# Wine's folder is made once. Its server and services stay up until the tests are over: otherwise
# each test would wait for a start of them, and ctest for the end of what a test has started.
native-windows: export WINEDEBUG := -all
native-windows: export WINEDLLOVERRIDES := mscoree,mshtml=
native-windows: export WINEPREFIX := $(abspath $(NATIVE_BUILD))/windows/wine
native-windows: $(SETUP) ## Test the native core for Windows, under Wine (needs mingw-w64)
	@for tool in x86_64-w64-mingw32-g++-posix wine wineserver; do \
		command -v $$tool > /dev/null && continue; \
		echo "make: SKIPPED native-windows: there is no $$tool; Debian has it in" \
			"g++-mingw-w64-x86-64-posix, wine and wine64" >&2; \
		test "$$CI" != true; exit; \
	done; \
	set -e; \
	cmake -S core/native -B $(NATIVE_BUILD)/windows -G Ninja \
		--toolchain $(abspath core/native/cmake/mingw-w64.cmake) | \
		sed -n 's/^-- SKIPPED/SKIPPED/p'; \
	cmake --build $(NATIVE_BUILD)/windows $(QUIETLY); \
	test -d $$WINEPREFIX || { wineboot --init $(QUIETLY) 2>&1; wineserver -w; }; \
	wineserver -p || true; \
	trap 'wineserver -k || true' EXIT; \
	wine cmd /c exit < /dev/null $(QUIETLY) 2>&1; \
	ctest --test-dir $(NATIVE_BUILD)/windows --output-on-failure

# UndefinedBehaviorSanitizer makes an optimising compiler take four times as long, and what it
# builds without can count lines as well. No test of flowcoro-http's native part has a second
# thread, so ThreadSanitizer has nothing to see there.
native-sanitize: $(SETUP) ## The same under AddressSanitizer+UBSan, with a gate on line coverage, and under ThreadSanitizer
	for project in $(NATIVE); do \
		build=$$project/build/address; \
		cmake -S $$project -B $$build -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo \
			-DFLOWCORO_SANITIZE=address,undefined -DFLOWCORO_COVERAGE=ON \
			-DCMAKE_CXX_FLAGS_RELWITHDEBINFO="-O0 -g1 -DNDEBUG" $(QUIETLY) && \
		cmake --build $$build $(QUIETLY) && \
		ctest --test-dir $$build --output-on-failure && \
		(cd $$project && gcovr --root . --filter include/ --merge-lines --print-summary \
			--fail-under-line 90 build/address) || exit 1; \
	done
	build=core/native/build/thread; \
	cmake -S core/native -B $$build -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo \
		-DFLOWCORO_SANITIZE=thread -DCMAKE_CXX_FLAGS_RELWITHDEBINFO="-O1 -g1 -DNDEBUG" $(QUIETLY) && \
	cmake --build $$build $(QUIETLY) && \
	ctest --test-dir $$build --output-on-failure

# The two extensions, built into BUILD/core and BUILD/flowcoro-http by FLAGS; what has Python take
# them for the usual ones.
INSTRUMENT = for each in core flowcoro-http; do \
		cmake -S $$each -B $(BUILD)/$$each -G Ninja -DSKBUILD_PROJECT_VERSION=0 \
			-DPython_EXECUTABLE=$(abspath $(BIN))/python -DCMAKE_BUILD_TYPE=RelWithDebInfo \
			-DCMAKE_CXX_FLAGS="$(FLAGS)" -DCMAKE_CXX_FLAGS_RELWITHDEBINFO="$(LEVEL)" $(QUIETLY) && \
		cmake --build $(BUILD)/$$each --target _native $(QUIETLY) || exit 1; \
	done
INSTRUMENTED = INSTRUMENTED="flowcoro._native=$$(ls $(abspath $(BUILD))/core/_native.*.so) \
		flowcoro_http._native=$$(ls $(abspath $(BUILD))/flowcoro-http/_native.*.so)" \
		PYTHONPATH=$(abspath tests/instrumented)

# With Python's own allocator, AddressSanitizer would not see what is freed too early. Leaks are
# Python's own; that nothing grows the soak shows.
bindings-sanitize: BUILD := build/bindings-sanitize
bindings-sanitize: FLAGS := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
bindings-sanitize: LEVEL := -O1 -g1
bindings-sanitize: $(SETUP) ## Test flowcoro-http with the extensions under AddressSanitizer+UBSan
	$(INSTRUMENT)
	$(INSTRUMENTED) PYTHONMALLOC=malloc \
		ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
		LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libubsan.so) $$($(CXX) -print-file-name=libstdc++.so)" \
		$(BIN)/python -m pytest -p no:cacheprovider $(SANITIZE_OPTIONS)

# Some tests count what an optimised build does; they are not what is asked here.
bindings-coverage: BUILD := build/bindings-coverage
bindings-coverage: FLAGS := --coverage -fprofile-update=atomic -fprofile-abs-path
bindings-coverage: LEVEL := -O0 -g1
bindings-coverage: $(SETUP) ## Line coverage of the extensions' bindings by the Python tests (half an hour)
	$(INSTRUMENT)
	find $(BUILD) -name '*.gcda' -delete
	-$(INSTRUMENTED) $(BIN)/python -m pytest -q -p no:cacheprovider $(COVERAGE_OPTIONS)
	$(BIN)/gcovr --root . --filter core/bindings/ --filter flowcoro-http/bindings/ --merge-lines \
		--print-summary --fail-under-line 90 $(BUILD)

native-bench: $(SETUP) ## Measure the native core (release build)
	cmake -S core/native -B $(NATIVE_BUILD)/plain -G Ninja -DFLOWCORO_BENCH=ON $(QUIETLY)
	cmake --build $(NATIVE_BUILD)/plain $(QUIETLY)
	for bench in containers memory scheduler; do $(NATIVE_BUILD)/plain/bench/$${bench}_bench; done
	for bench in $(NATIVE_BUILD)/plain/bench/reactor*_bench; do \
		if [ -x $$bench ]; then $$bench $(BENCH_OPTIONS) || exit 1; fi; \
	done
	cmake -S flowcoro-http/native -B flowcoro-http/native/build/plain -G Ninja -DFLOWCORO_BENCH=ON $(QUIETLY)
	cmake --build flowcoro-http/native/build/plain $(QUIETLY)
	bench=flowcoro-http/native/build/plain/bench/route_table_bench; \
		if [ -x $$bench ]; then $$bench $(BENCH_OPTIONS); fi

fuzz: ## Fuzz what reads the network's bytes (needs clang; FUZZ_RUNS=10000000)
	for found in '' -responses -connection -routes; do mkdir -p build/fuzz/found$$found; done
	for subject in requests responses connection routes; do \
		clang++ -std=c++20 -O1 -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all \
			-I flowcoro-http/native/include -I flowcoro-http/native/tests \
			flowcoro-http/native/fuzz/$${subject}_fuzz.cpp \
			-o build/fuzz/$${subject}_fuzz || exit 1; \
	done
	cd build/fuzz && ./requests_fuzz -runs=$(FUZZ_RUNS) -seed=$(FUZZ_SEED) -max_len=4096 -print_final_stats=1 \
		-dict=$(CURDIR)/flowcoro-http/native/fuzz/http.dict found \
		$(CURDIR)/flowcoro-http/native/fuzz/corpus
	cd build/fuzz && ./responses_fuzz -runs=$(FUZZ_RUNS) -seed=$(FUZZ_SEED) -max_len=4096 -print_final_stats=1 \
		-dict=$(CURDIR)/flowcoro-http/native/fuzz/http.dict found-responses \
		$(CURDIR)/flowcoro-http/native/fuzz/corpus-responses
	cd build/fuzz && ./connection_fuzz -runs=$(FUZZ_RUNS) -seed=$(FUZZ_SEED) -max_len=512 -print_final_stats=1 \
		-dict=$(CURDIR)/flowcoro-http/native/fuzz/http.dict found-connection
	cd build/fuzz && ./routes_fuzz -runs=$(FUZZ_RUNS) -seed=$(FUZZ_SEED) -max_len=128 -print_final_stats=1 found-routes

http-differential: $(SETUP) ## Compare what the HTTP engine, h11 and httptools read (DIFFERENTIAL_CASES=1000000)
	DIFFERENTIAL_CASES=$(DIFFERENTIAL_CASES) DIFFERENTIAL_SEED=$${DIFFERENTIAL_SEED:-$$RANDOM$$$$} \
		$(BIN)/pytest -q --timeout 0 flowcoro-http/tests/test_http_differential.py

native-cross: $(SETUP) ## Compile the native core for macOS and FreeBSD (by zig's clang)
	$(BIN)/python -m ziglang version $(QUIETLY) 2>&1 || $(UV) pip install --quiet \
		--python $(BIN)/python --constraint $(CONSTRAINTS) ziglang
	$(BIN)/python core/native/cross/compile.py

wheels: $(SETUP) ## Build every wheel and source distribution into dist/
	for each in $(DISTRIBUTIONS); do \
		$(UV) build --quiet --python $(BIN)/python --build-constraints $(CONSTRAINTS) \
			--out-dir dist $$each || exit 1; \
	done

layering: $(SETUP) ## Check who imports whom
	$(BIN)/pytest -q tests/test_layering.py

# Core's stub is generated, flowcoro-http's is written: of plain C-API types nothing tells the types
# of arguments. It does have to know every name and parameter.
stubs: $(SETUP) ## Check that the committed stubs match the extensions
	$(BIN)/python core/bindings/check_stubs.py
	$(BIN)/python -m mypy.stubtest --concise --ignore-disjoint-bases flowcoro_http._native

docs: $(SETUP) ## Build the documentation into site/ (strict)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --config-file .mkdocs.yml

clean: ## Remove what the targets made
	rm -rf $(VENV) $(FREE_THREADED_VENV) build dist site core/build $(NATIVE:%=%/build) .coverage* htmlcov
