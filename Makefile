# The one entry to everything: `make help` lists it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO_TARGET_DIR ?= $(CURDIR)/target
export CARGO_TARGET_DIR
BIN := $(CARGO_TARGET_DIR)/carpel
HOST := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
# The holder is copied into every pod's process: no loader, no relocations.
STATIC := -C target-feature=+crt-static -C relocation-model=static

##@ Use
.PHONY: help
help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: setup-build build ## Make pods out of examples/pod1.yaml, look at them, and clear away
	@CARPEL_BIN_DIR=$(BIN) examples/demo.sh

##@ Build
.PHONY: setup
setup: ## Install what building and testing need (Debian packages, Go tools)
	@conformance/setup.sh

.PHONY: setup-build
setup-build: ## Install what building needs
	@conformance/setup.sh build

.PHONY: build
build: ## Build daemon, holder, CLI and the demo's web server into target/carpel
	@mkdir -p $(BIN)
	cargo build --release -p carpel-shim -p carpel-cli
	RUSTFLAGS="$(STATIC)" cargo build --profile holder --target $(HOST) \
	  -p carpel-runtime --bin carpel-holder -p carpel-demo-web --bin carpel-demo-web
	@for program in carpeld carpel; do \
	  ln -f $(CARGO_TARGET_DIR)/release/$$program $(BIN)/$$program; done
	@for program in carpel-holder carpel-demo-web; do \
	  ln -f $(CARGO_TARGET_DIR)/$(HOST)/holder/$$program $(BIN)/$$program; \
	  ! ldd $(BIN)/$$program >/dev/null 2>&1 || { echo "$$program is not static" >&2; exit 1; }; done

.PHONY: man
man: build ## Write the manual pages to target/carpel/man
	@rm -rf $(BIN)/man && mkdir -p $(BIN)/man
	@$(BIN)/carpel man $(BIN)/man && $(BIN)/carpeld man $(BIN)/man && ls $(BIN)/man

.PHONY: clean
clean: ## Remove everything that was built, the cache too
	rm -rf $(CARGO_TARGET_DIR) .cache

##@ Check
.PHONY: test
test: setup build ## Run all tests: units, then the built binaries with crictl and critest
	cargo test --workspace --exclude carpel-conformance
	CARPEL_BIN_DIR=$(BIN) cargo test -p carpel-conformance
	CARPEL_BIN_DIR=$(BIN) CARPEL_TEST_HANDLER=runc \
	  cargo test -p carpel-conformance --test conformance

.PHONY: critest
critest: setup build ## Run critest alone and print every spec's outcome
	CARPEL_BIN_DIR=$(BIN) cargo test -p carpel-conformance --test critest -- --nocapture

# Not in `test`: what it measures is troubled by whatever runs beside it.
.PHONY: bench
bench: build ## Measure beside containerd in one run; writes docs/bench.md and its plot
	@conformance/setup.sh bench
	CARPEL_BIN_DIR=$(BIN) cargo bench -p carpel-conformance --bench peers

.PHONY: lint
lint: ## Check formatting, clippy and documentation
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items

.PHONY: fmt
fmt: ## Format all code
	cargo fmt --all
