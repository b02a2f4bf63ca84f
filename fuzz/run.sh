#!/usr/bin/env bash
# Fuzzes what reads foreign bytes: fuzz/run.sh TARGET [SECONDS], or fuzz/run.sh all [SECONDS], two targets at a time.
#
# The stable compiler's own coverage, and only for the packages of this workspace: the flags come by a wrapper that cargo uses for workspace
# members alone, so dependencies are those of every other build and wasmtime is not compiled again.
set -euo pipefail
cd "$(dirname "$0")/.."
targets="component policy arguments frames rest sftp tar"
target="${1:?usage: fuzz/run.sh TARGET|all [SECONDS]; targets: $targets}" seconds="${2:-60}"
build="${CARGO_TARGET_DIR:-target}"

export RUSTC_WORKSPACE_WRAPPER="$PWD/fuzz/rustc.sh"
cargo build --release --locked --quiet -p pi-vers-fuzz --features engine
unset RUSTC_WORKSPACE_WRAPPER
# Where the next ordinary build does not take them for its own.
mkdir -p "$build/fuzz"
for name in $targets; do cp "$build/release/fuzz-$name" "$build/fuzz/$name"; done

one() {
  local name="$1" found="$build/fuzz/found/$1"
  mkdir -p "$found" "$build/fuzz/grown/$name"
  # What is new goes to the grown corpus; the seeds are read. A crash is kept, said, and ends in failure.
  if "$build/fuzz/$name" "$build/fuzz/grown/$name" "fuzz/corpus/$name" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -max_len=16384 \
      -artifact_prefix="$found/" -print_final_stats=1 >"$build/fuzz/$name.log" 2>&1; then
    echo "fuzz: $name: $(grep -o 'stat::number_of_executed_units: .*' "$build/fuzz/$name.log" | tr -s ' ')"
  else
    tail -30 "$build/fuzz/$name.log" >&2
    echo "fuzz: $name failed; put the file below $found into fuzz/corpus/$name once it is mended" >&2
    return 1
  fi
}
export -f one
export build seconds
[ "$target" = all ] || targets="$target"
# shellcheck disable=SC2086
printf '%s\n' $targets | xargs -P 2 -I{} bash -c 'set -euo pipefail; one {}'
