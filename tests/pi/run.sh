#!/usr/bin/env bash
# Builds the package for pi and tests it: its own tests, then scenarios with two real pis, the real host and the local
# platform; with the argument `startup`, it measures how long they take to start instead. PI_VERS_BIN names the binary. All traffic of the tests is on loopback; npm's is not.
set -euo pipefail
cd "$(dirname "$0")/../.."
: "${PI_VERS_BIN:?name the pi-vers binary to test}"
PI_VERS_BIN=$(realpath "$PI_VERS_BIN")
export PI_VERS_BIN
node -e 'process.exit(Number(process.versions.node.split(".")[0]) >= 20 ? 0 : 1)' || {
  echo "Node 20 or newer is needed, this is $(node --version)" >&2
  exit 1
}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# Fails when a test failed, and also when one did not run: nothing that was left out may look green.
tests() { # name, deadline in seconds, files
  local name=$1 deadline=$2 log=$scratch/$1.tap
  shift 2
  if ! timeout --kill-after=10 "$deadline" node --test --test-reporter=tap "$@" >"$log"; then
    cat "$log"
    echo "$name: failed, or not done within $deadline s" >&2
    exit 1
  fi
  grep -E '^# (pass|duration_ms)|^ {0,4}ok ' "$log"
  for kind in skipped todo cancelled fail; do
    grep -qx "# $kind 0" "$log" || { echo "$name: there are tests that were $kind" >&2; exit 1; }
  done
  ! grep -qx "# pass 0" "$log" || { echo "$name: there are no tests" >&2; exit 1; }
}

npm ci --ignore-scripts --loglevel=error
npm run --silent build
npx --no-install tsc -p host/bridge/test
tests unit 60 host/bridge/build/test/*.test.mjs

(cd tests/pi && npm ci --ignore-scripts --omit=optional --loglevel=error)
guests=${PI_VERS_GUESTS_TARGET_DIR:-${CARGO_TARGET_DIR:-target}/guests}
mkdir -p "$guests"
guests=$(realpath "$guests")
(cd extensions && CARGO_TARGET_DIR=$guests cargo build --release --locked --target wasm32-wasip2 -p alarm)
export PI_VERS_TEST_ALARM=$guests/wasm32-wasip2/release/alarm.wasm

# Components are compiled once for both pis.
export PI_VERS_TEST_CACHE=$scratch/cache
XDG_CACHE_HOME=$PI_VERS_TEST_CACHE HOME=$scratch "$PI_VERS_BIN" tools >/dev/null
rm -rf tests/pi/build
npx --no-install tsc -p tests/pi
if [ "${1:-}" = startup ]; then
  node tests/pi/build/startup.mjs
  exit
fi
tests scenarios 300 tests/pi/build/*.test.mjs
# A real pi has many files, and each of its VMs has them all.
tests swarm 600 tests/pi/build/swarm.pi.mjs
