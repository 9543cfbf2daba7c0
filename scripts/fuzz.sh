#!/usr/bin/env bash
# Fuzzes every decoder for some seconds each: scripts/fuzz.sh [seconds] [target…]. Needs cargo-fuzz and a nightly compiler;
# without them it says so and fails. Continuous integration does not run it: there, property tests feed the same functions.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() { printf 'fuzz: %s\n' "$*" >&2; exit 1; }

cargo fuzz --version >/dev/null 2>&1 || fail "cargo-fuzz is not here: cargo install cargo-fuzz --locked"
cargo +nightly --version >/dev/null 2>&1 || fail "there is no nightly compiler: rustup toolchain install nightly"

seconds=${1:-20}
shift || true
targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(cargo +nightly fuzz list)

seeds=$PWD/fuzz/corpus/seeds
MAINSTAY_WRITE_CORPUS=$seeds cargo test --quiet --locked -p mainstay-repository --test format -- --exact \
  hostile::the_corpus_is_not_empty >/dev/null

for target in "${targets[@]}"; do
  printf 'fuzz: %s, %s s\n' "$target" "$seconds"
  mkdir -p "fuzz/corpus/$target"
  cargo +nightly fuzz run "$target" "fuzz/corpus/$target" "$seeds" -- \
    -max_total_time="$seconds" -max_len=65536 -timeout=10 -rss_limit_mb=3072 -verbosity=0 -print_funcs=0 -print_final_stats=1
done
