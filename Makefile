# Two commands for everyone: `make up` and `make test`. Each installs what is missing from the distribution, builds, and runs.
#
# The build cache lies outside the clone, so that RocksDB is built once for all clones and both commands, and a clone that is made anew in
# the same place is quick. Everything is built as the user who calls; only `reckon up` with agents takes root, through sudo.

ifneq ($(shell uname -s),Linux)
$(error Reckon runs on Linux only, for its nodes are Linux containers; this is $(shell uname -s))
endif

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CACHE := $(or $(RECKON_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/reckon)
export RECKON_CACHE := $(CACHE)
# A folder for each clone: cargo takes what another clone of the same sources built for its own, with that clone's paths in it. It is
# shown in the clone as `target`, where one looks for it.
export CARGO_TARGET_DIR := $(CACHE)/target/$(shell printf %s '$(CURDIR)' | cksum | cut -d' ' -f1)
export ROCKSDB_STATIC := 1
# These would override what .cargo/config.toml sets, and build everything twice.
unexport RUSTFLAGS CC CXX

# `.ci/rocksdb` builds the library if the cache has none, and says where it is.
CARGO := ROCKSDB_LIB_DIR=$$(.ci/rocksdb) && export ROCKSDB_LIB_DIR && cargo

RECKON := $(CARGO_TARGET_DIR)/debug/reckon
# Flags for `reckon up`: make up ARGS='--agents 0 --simulated-nodes 100'
ARGS :=
AGENTLESS := $(filter --agents=0,$(subst --agents 0,--agents=0,$(ARGS)))
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

.PHONY: help up test test-release build lint exchanges release bench-log clean target packages-build packages-run packages-test packages-release sudo

help:
	@echo "make up [ARGS=…]   build, and start a cluster on this machine ('reckon up ARGS'; see 'reckon up --help')"
	@echo "make test          build, and run every test, end-to-end ones included"
	@echo "make build         build the one binary, target/debug/reckon"
	@echo "make lint          formatting, and clippy with warnings denied"
	@echo "make exchanges     replay what a real kube-apiserver answered, and count what is answered the same"
	@echo "make release       build the program for production, optimised by profiles of itself: takes half an hour"
	@echo "make test-release  run the end-to-end tests on that program"
	@echo "make bench-log     measure that program beside etcd, on a machine that does nothing else: takes long (BENCH='writes --help': parts of it)"
	@echo "make clean         remove what was built from this clone ($(CARGO_TARGET_DIR))"

up: $(if $(AGENTLESS),,packages-run) build
	$(if $(AGENTLESS),,$(SUDO)) $(RECKON) up $(ARGS)

# The tests come last: the runner's closing lines are what counts. One more at a time than there are cores, for one of them waits mostly.
test: packages-run packages-test sudo lint build exchanges
	@kubectl=$$(.ci/kubectl); echo "kubectl: $$kubectl"; export RECKON_KUBECTL=$$kubectl RECKON_MOTO=$$(.ci/moto); \
	if [ -n "$(SUDO)" ]; then (while kill -0 $$$$ 2>/dev/null; do sudo -n -v; sleep 50; done) >/dev/null 2>&1 & fi; \
	if cargo nextest --version >/dev/null 2>&1; \
	then $(CARGO) nextest run --workspace --locked --no-fail-fast --test-threads $$(($$(nproc) + 1)); \
	else $(CARGO) test --workspace --locked --no-fail-fast; fi

build: packages-build target
	@$(CARGO) build --locked

lint: packages-build
	cargo fmt --all --check
	@$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	@if cargo deny --version >/dev/null 2>&1; then cargo deny check; else echo "cargo-deny is not installed: licences and advisories are not checked"; fi

# A folder of that name is somebody's own, made by cargo without make.
target:
	@mkdir -p $(CARGO_TARGET_DIR); [ -d target ] && [ ! -L target ] || ln -sfn $(CARGO_TARGET_DIR) target

clean:
	rm -rf $(CARGO_TARGET_DIR)

exchanges: build packages-test
	@.ci/exchanges $(RECKON)

# Not what the tests run, which would wait for it: the same sources, and `.ci/release` sees that it does the same.
release: packages-build packages-release target
	@ROCKSDB_LIB_DIR=$$(.ci/rocksdb) && export ROCKSDB_LIB_DIR && .ci/release

test-release: release packages-run packages-test sudo
	@RECKON_PROGRAM=$(CARGO_TARGET_DIR)/optimized/reckon RECKON_KUBECTL=$$(.ci/kubectl) RECKON_MOTO=$$(.ci/moto); \
	export RECKON_PROGRAM RECKON_KUBECTL RECKON_MOTO; \
	$(CARGO) test --workspace --locked --test e2e -- --test-threads $$(($$(nproc) + 1))

# A benchmark and no test: it asserts nothing, and what it prints is only as good as the machine is idle.
BENCH := all
bench-log: release
	@etcd=$$(.ci/etcd) && echo "etcd: $$etcd" && $(CARGO) build --release --locked -p reckon-benchmarks && \
	RECKON_ETCD=$$etcd $(CARGO_TARGET_DIR)/release/reckon-benchmarks --reckon $(CARGO_TARGET_DIR)/optimized/reckon $(BENCH)

packages-build packages-run packages-test packages-release: packages-%:
	@.ci/packages $*

# Asked for once, at the beginning, and not in the middle of a test.
sudo:
	@[ -z "$(SUDO)" ] || sudo -n true 2>/dev/null || { echo "sudo: the end-to-end tests run containers"; sudo -v; }
