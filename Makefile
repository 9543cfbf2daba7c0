# What people type. Each target stands alone: it sets up what it needs.

.PHONY: help setup demo test test-all fuzz bench lint format

help:
	@echo 'make setup     install what tests and the demo need (packages, PostgreSQL 14-18, Python)'
	@echo 'make demo      back up, destroy and restore a small company, and prove that it came back'
	@echo 'make test      every test'
	@echo 'make test-all  what continuous integration runs (format, lints, every test), with more rounds of fuzzing and of load'
	@echo 'make fuzz      fuzz every decoder for 20 seconds (needs cargo-fuzz and a nightly compiler)'
	@echo 'make bench     side by side with restic, borg and pg_dump (they must be installed; 15 GB, an hour)'
	@echo 'make lint      clippy, warnings are errors'
	@echo 'make format    cargo fmt'

setup:
	@scripts/setup.sh

demo: setup
	cargo run --release --locked --quiet --bin mainstay -- demo

# NEXTEST: further options for the runner.
test: setup
	cargo nextest run --workspace --locked $(NEXTEST)

# Every decoder is fuzzed thirty times as long as in `make test`, and twenty moments under load are returned to.
test-all:
	@MAINSTAY_FUZZ_ROUNDS=90 MAINSTAY_MOMENTS=20 .ci/run

fuzz:
	@scripts/fuzz.sh

# BENCH_CASES="files database" runs some only; see benches/bench.py.
bench: setup
	cargo build --release --locked --bin mainstay
	benches/bench.py $(BENCH_CASES)

lint:
	cargo clippy --workspace --all-targets --locked -- -D warnings

format:
	cargo fmt --all
