# make demo   everything from nothing, on SoftHSM2: installs, builds, starts, shows
# make test   every test, on the strict fake and on real modules
# make help   the rest

export PATH := $(HOME)/.cargo/bin:$(PATH)
# A daemon or test that finds no memory to lock says so and goes on.
.PHONY: help setup build release demo test test-rust test-clients test-otel test-long model histories soak rewrap-million docs bench bench-tool bench-check bench-smoke instructions fuzz fmt lint deny clean

help:
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

setup: ## install what is missing (Rust toolchain, C compiler, SoftHSM2, test modules)
	@.ci/setup

build: setup ## debug build of keywrightd and keywright, under target/debug
	cargo build --locked

release: setup ## release build, under target/release
	cargo build --locked --release

demo: build ## the main job on a real file and a real PKCS#11 module
	@deploy/demo

test: build test-rust test-clients ## every test

test-rust: build
	cargo test --locked --workspace

test-clients: build ## a second client in another language, the snippets of docs/clients.md, and what others say of our certificates
	@softhsm-tests/clients/run

test-otel: build ## the optional feature otel
	cargo test --locked -p keywright-service --features otel --test traces

test-long: test histories soak rewrap-million ## every test, and those that take minutes

KEYWRIGHT_MODEL_HISTORIES ?= 2000

model: setup ## the protocols of many nodes, checked with Spin in all their states
	docs/models/check

histories: build ## random histories of eight clients against a model of the lifecycle (KEYWRIGHT_MODEL_HISTORIES)
	KEYWRIGHT_MODEL_HISTORIES=$(KEYWRIGHT_MODEL_HISTORIES) \
	  cargo test --locked --release -p keywright-service --test model -- --nocapture

KEYWRIGHT_SOAK_SECONDS ?= 300

soak: release ## 64 clients that do everything at once, for five minutes (KEYWRIGHT_SOAK_SECONDS)
	KEYWRIGHT_SOAK_SECONDS=$(KEYWRIGHT_SOAK_SECONDS) KEYWRIGHT_BINARIES=$(CURDIR)/target/release \
	  cargo test --locked -p keywright-softhsm-tests --test soak -- --nocapture

KEYWRIGHT_REWRAP_ROWS ?= 1000000

rewrap-million: release ## a table of a million rows off its old versions, killed ten times (KEYWRIGHT_REWRAP_ROWS)
	KEYWRIGHT_REWRAP_ROWS=$(KEYWRIGHT_REWRAP_ROWS) KEYWRIGHT_BINARIES=$(CURDIR)/target/release \
	  cargo test --locked -p keywright-softhsm-tests --test rewrap -- --nocapture

docs: ## the reference of docs/clients.md, from the comments of the .proto files
	@softhsm-tests/clients/run reference.py

bench: release ## throughput against an echo of the same bytes and the token itself, and the parts
	cargo bench --locked -p keywright-benches --bench end_to_end
	cargo bench --locked -p keywright-benches --bench pki --bench envelope --bench hsm

bench-tool: setup ## keywright-bench, with keywrightd beside it, under target/release
	cargo build --locked --release -p keywright-service -p keywright-benches --bins

bench-check: bench-tool ## is it as fast as it was? fails when a ratio lost more than a tenth
	target/release/keywright-bench check benches/ratios.json

# As the tests build it, and not incrementally, which would inline other things.
instructions: setup ## do the parts that ask nobody take as many instructions as they did?
	CARGO_INCREMENTAL=0 cargo test --locked --workspace --test tool --no-run
	target/debug/keywright-bench instructions benches/instructions.json

bench-smoke: build ## does every benchmark still run? no figures
	cargo test --locked --workspace --bench end_to_end --bench envelope --bench hsm --bench pki -- --test

fuzz: setup ## each fuzz target for a minute (needs nightly and cargo-fuzz)
	@for target in $$(cd fuzz && cargo +nightly fuzz list); do \
	  (cd fuzz && cargo +nightly fuzz run --sanitizer none $$target -- -max_total_time=60 -rss_limit_mb=1024) || exit 1; \
	done

fmt: ## format
	cargo fmt --all

lint: setup ## format and clippy, warnings denied
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

deny: ## licences, forbidden crates and edges, sources, advisories
	@.ci/deny

clean:
	cargo clean
	rm -rf demo-data
