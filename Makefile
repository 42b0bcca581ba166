# irons: `make` lists what can be made. Everything runs in a virtual environment of this repository (.venv).

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# What the local backend runs with, and what the tests need besides.
SYSTEM_PACKAGES := crun nftables iproute2 uidmap mmdebstrap openssh-client ca-certificates
TEST_PACKAGES := python3 openssh-server sudo tmux zsh fish git curl procps busybox-static musl btrfs-progs e2fsprogs skopeo docker-registry apache2-utils postgresql-client rsync sshfs qemu-system-x86
# What the gateway's benchmark measures beside irons; without them their rows are left out.
BENCH_PACKAGES := haproxy nginx-light libnginx-mod-stream

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
export DEBIAN_FRONTEND := noninteractive
# Without bytecode every process of the tests compiles all modules again, and pytest rewrites its own: 10 s a process.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help: ## List the targets.
	@sed -n 's/^\([a-z0-9-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

.PHONY: quickstart
quickstart: venv system ## Set everything up, then create, enter, lock, audit and destroy a real sandbox.
	@exec $(BIN)/python docs/quickstart.py

.PHONY: tour
tour: venv system ## Follow one connection of a real sandbox through the code: file and line at each step.
	@exec $(BIN)/python docs/quickstart.py --tour

.PHONY: test
test: lint check ## Everything: lint, types, import contracts, all tests with coverage; REQUIRE=all skips nothing.

.PHONY: lint
lint: venv ## ruff, mypy, pyright, import-linter, class names, and the words that users read.
	@export NO_COLOR=1
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy --no-color-output
	$(BIN)/pyright
	$(BIN)/lint-imports --no-logo
	$(BIN)/python tools/check_words.py
	$(BIN)/python tools/check_names.py

# Coverage of the tests and of every process they start, whoever they run as, is gathered outside of anyone's home.
.PHONY: check
check: venv ## Unit and end-to-end tests with combined branch coverage, subprocesses included.
	@data=$$(mktemp -d --tmpdir irons-coverage.XXXXXX)
	trap '$(BIN)/python tests/covered.py remove || true; rm -rf "$$data"' EXIT
	chmod 755 "$$data"
	mkdir -m 1777 "$$data/pieces"
	$(BIN)/python tests/covered.py install
	$(call make_image,$$data)
	status=0
	COVERAGE_PIECES="$$data/pieces" $(BIN)/pytest --color=no $(WORKERS) --require=$(REQUIRE) --order-seed=$(ORDER) --untested="$$data/untested" $(ARGS) || status=$$?
	export COVERAGE_FILE="$$data/data"
	$(BIN)/python tests/covered.py combine "$$data/pieces" || status=$$((status ? status : 3))
	# What this machine refuses to test cannot be covered on it.
	floor=$(COVERAGE)
	! grep -q 'this machine refuses' "$$data/untested" || floor=0
	$(BIN)/coverage report --skip-covered --fail-under=$$floor || status=$$((status ? status : 2))
	cat "$$data/untested" 2>/dev/null || true
	exit $$status
COVERAGE ?= 90
REQUIRE ?= none
# The order of the whole run: as written, so that two runs differ by the change alone. `make quick` and `make unit` draw theirs.
ORDER ?= 0
# How many tests run at once; PARALLEL=1 runs them one after the other, in one process.
PARALLEL ?= $(shell n=$$(nproc 2>/dev/null || echo 2); echo $$((n < 2 ? 2 : n)))
WORKERS = $(if $(filter-out 1,$(PARALLEL)),--numprocesses=$(PARALLEL) --dist=loadgroup)

# The image that all tests with real sandboxes start from, built once; without it each suite builds its own.
# Where doctor says that this machine runs no sandboxes, no test needs one.
define make_image
builder=(env HOME="$(1)/builder" XDG_STATE_HOME= XDG_RUNTIME_DIR= XDG_CACHE_HOME= IRONS_CONFIG=/nonexistent $(BIN)/irons)
	if [ -z "$${IRONS_TEST_IMAGE:-}" ] && [ "$$(id -u)" = 0 ] && "$${builder[@]}" doctor >/dev/null; then
		"$${builder[@]}" local image build --include git >/dev/null
		"$${builder[@]}" local image export "$(1)/image.tar"
		"$${builder[@]}" local uninstall --purge --yes >/dev/null
		chmod 644 "$(1)/image.tar"
		export IRONS_TEST_IMAGE="$(1)/image.tar"
	fi
endef

# Its directories are in memory where they can be: a disk that others use is what it would wait for most.
# hypothesis' plugin would read the constants of all modules for cases that are not drawn, in each worker.
# Half of what these tests take is waiting for threads and timers of their own: half as many again run at once.
.PHONY: quick
ifeq ($(origin PARALLEL),file)
# Not where the environment says it: a target's variable would go before that.
quick: PARALLEL = $(shell n=$$(nproc 2>/dev/null || echo 2); echo $$((n < 2 ? 3 : n + n / 2)))
endif
quick: venv ## What starts no process, is not slow and draws no cases, without coverage.
	@! [ -d /dev/shm ] || ! [ -w /dev/shm ] || export TMPDIR=/dev/shm
	room=$$(mktemp -d --tmpdir irons-quick.XXXXXX)
	trap 'rm -rf "$$room"' EXIT
	$(BIN)/pytest -q -p no:hypothesispytest $(WORKERS) --basetemp="$$room/tests" -m 'pure and not slow and not hypothesis' tests/core tests/local tests/plugins tests/repl $(ARGS)

.PHONY: unit
unit: venv ## The tests that need no sandbox and are not slow, without coverage.
	@$(BIN)/pytest $(WORKERS) -m 'not sandbox and not slow' $(ARGS)

.PHONY: e2e
e2e: venv ## The tests that drive real sandboxes, without coverage.
	@$(BIN)/pytest $(WORKERS) -m sandbox $(ARGS)

.PHONY: test-vm
test-vm: venv ## The tests that boot virtual machines, as root and as an ordinary user.
	@IRONS_TEST_VM=all $(BIN)/pytest -m vm tests/local tests/e2e $(ARGS)

.PHONY: test-fleet
test-fleet: venv ## The tests with an Incus of their own, as root; a minute of them makes its root directory.
	@IRONS_TEST_FLEET=all $(BIN)/pytest -m fleet tests/e2e $(ARGS)

.PHONY: bench
bench: venv ## Benchmarks, each beside a named other: all of them, or those in BENCH="gateway follow".
	@missed=
	for name in $(or $(BENCH),$(basename $(notdir $(wildcard bench/*.py)))); do $(BIN)/python -m "bench.$$name" || missed+=" $$name"; done
	[ -z "$$missed" ] || { echo "Missed a bar:$$missed"; exit 1; }

.PHONY: format
format: venv ## Let ruff mend and format the code.
	@$(BIN)/ruff check --fix
	$(BIN)/ruff format

.PHONY: build
build: venv ## The wheel and the sdist, in dist/.
	@$(BIN)/python -m build --no-isolation --outdir dist

.PHONY: venv
venv: $(VENV)/made ## The virtual environment, with irons and its tools.

$(VENV)/made: pyproject.toml core/irons/version.py
	@if ! $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
		echo "irons needs Python 3.11 or newer; name it: make PYTHON=python3.12 $(MAKECMDGOALS)"
		exit 1
	fi
	echo "Installing irons and its tools into $(VENV), with packages of PyPI. The first time this takes a minute or more."
	if command -v uv >/dev/null; then
		[ -x $(BIN)/python ] || uv venv --quiet --seed --python "$$(command -v $(PYTHON))" $(VENV)
		uv pip install --quiet --python $(BIN)/python --editable . --group dev
	else
		[ -x $(BIN)/pip ] || $(PYTHON) -m venv $(VENV)
		$(BIN)/pip install -qq --upgrade 'pip>=25.1'
		$(BIN)/pip install -qq --editable . --group dev
	fi
	touch $@

.PHONY: system
system: ## The system packages: installed by apt-get when root, else the line to run.
	@$(call install,$(SYSTEM_PACKAGES))

.PHONY: test-system
test-system: ## The system packages, and those that only the tests need.
	@$(call install,$(SYSTEM_PACKAGES) $(TEST_PACKAGES))

.PHONY: bench-system
bench-system: ## The system packages, and the proxies that the benchmarks measure beside irons.
	@$(call install,$(SYSTEM_PACKAGES) $(BENCH_PACKAGES))

define install
	if ! command -v dpkg-query >/dev/null; then
		echo "This is no Debian: irons doctor tells what is missing; its packages there are $(1)"
		exit 0
	fi
	missing=
	for package in $(1); do
		status=$$(dpkg-query -W -f '$${db:Status-Status}' "$$package" 2>/dev/null || true)
		[ "$$status" = installed ] || missing+=" $$package"
	done
	[ -n "$$missing" ] || exit 0
	if [ "$$(id -u)" != 0 ]; then
		echo "System packages are missing. Run this, then again what you ran:"
		echo "  sudo apt-get update && sudo apt-get install --no-install-recommends --yes$$missing"
		exit 1
	fi
	log=$$(mktemp)
	trap 'rm -f "$$log"' EXIT
	if ! { apt-get -qq update && apt-get -qq --no-install-recommends --yes -o Dpkg::Use-Pty=0 install $$missing; } >"$$log" 2>&1 </dev/null; then
		tail -n 40 "$$log" >&2
		exit 1
	fi
	echo "Installed the system packages:$$missing"
endef

.PHONY: clean
clean: ## Remove what was made here, the virtual environment and what the quickstart keeps included.
	@[ ! -x $(BIN)/irons ] || $(BIN)/python docs/quickstart.py --remove
	rm -rf $(VENV) dist build .coverage* htmlcov .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache

.PHONY: docs
docs: venv ## Write what is made from the code: docs/cli.md, docs/api.md, tables in docs/architecture.md.
	@$(BIN)/python tests/core/test_help.py
	$(BIN)/python tools/render_api.py
	$(BIN)/python tools/render_packages.py
	$(BIN)/python tools/render_lifecycle.py
