#!/usr/bin/env bash
# Builds the sample extension in each language from the published wit/ with that language's public toolchain, and runs them against one
# list through the binary that PI_VERS_BIN names. With arguments only those languages: rust, script, python, c, zig. With `--build` as the first argument it
# builds only, and prints LANGUAGE=COMPONENT for each. Toolchains are pinned and kept beside the target directory's other things; fetching them is the only
# traffic that is not on loopback.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "$0")/../.."
only_build=
[ "${1:-}" != --build ] || { only_build=1; shift; }
languages=("$@")
[ "$#" != 0 ] || languages=(rust script python c zig)
[ -n "$only_build" ] || PI_VERS_BIN=$(realpath "${PI_VERS_BIN:?name the pi-vers binary to test}")

target=${CARGO_TARGET_DIR:-target}
mkdir -p "$target/samples"
target=$(realpath "$target")
kept=$target/samples
guests=${PI_VERS_GUESTS_TARGET_DIR:-$target/guests}
mkdir -p "$guests"
guests=$(realpath "$guests")
samples=$PWD/extensions/samples
here=$PWD/tests/samples
say() { echo "$*" >&2; }

# What an author has: the published packages, and a world of their own beside them.
wit=$kept/wit
rm -rf "$wit"
mkdir -p "$wit"
cp -r wit/deps "$wit/deps"
cp "$samples/world.wit" "$wit/"

python_packages() {
  local digest
  digest=$(sha256sum "$here/requirements.txt" | cut -c 1-12)
  python=$kept/python-$digest
  [ ! -e "$python/complete" ] || return 0
  say "fetching componentize-py and zig"
  rm -rf "$python"
  python3 -m venv "$python"
  "$python/bin/pip" install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r "$here/requirements.txt" >&2
  touch "$python/complete"
}

# A tool of the Rust registry, compiled once with what is needed of it.
tool() { # crate, version, features
  local root=$kept/$1-$2
  if ! [ -e "$root/complete" ]; then
    say "compiling $1 $2"
    rm -rf "$root"
    (cd "$kept" && cargo install --quiet --locked --no-default-features --features "$3" --root "$root" --target-dir "$kept/tools" "$1@$2") >&2
    touch "$root/complete"
  fi
  echo "$root/bin/${1%-cli}"
}

build_rust() {
  (cd "$samples/rust" && cargo fmt --check && CARGO_TARGET_DIR=$guests cargo build --quiet --release --locked --target wasm32-wasip2) >&2
  echo "$guests/wasm32-wasip2/release/build_watch.wasm"
}

build_script() {
  echo "$samples/script/build-watch.js"
}

build_python() {
  python_packages
  local digest
  digest=$(cat "$samples/python/app.py" "$here/requirements.txt" <(find "$wit" -type f | sort | xargs cat) | sha256sum | cut -c 1-12)
  local built=$kept/python-app-$digest.wasm
  if ! [ -e "$built" ]; then
    rm -f "$kept"/python-app-*.wasm
    "$python/bin/componentize-py" -d "$wit" -w build-watch componentize -p "$samples/python" app -o "$built.new" >&2
    mv "$built.new" "$built"
  fi
  echo "$built"
}

# A component of C's bindings, and of a sample that is compiled with them by a function that makes core.wasm in the present directory.
of_bindings() { # name, function
  python_packages
  local out=$kept/$1 bindgen tools zig=$python/bin/python-zig
  bindgen=$(tool wit-bindgen-cli 0.63.0 c)
  tools=$(tool wasm-tools 1.263.0 component)
  rm -rf "$out"
  mkdir -p "$out"
  (
    cd "$out"
    "$bindgen" c "$wit" -w build-watch --sync all
    "$2"
    "$tools" component new core.wasm -o build-watch.wasm
  ) >&2
  echo "$out/build-watch.wasm"
}

compile_c() {
  "$zig" cc --target=wasm32-wasi -mexec-model=reactor -Oz -flto -Wall -Wextra -Werror -I. \
    "$samples/c/build-watch.c" build_watch.c build_watch_component_type.o -o core.wasm
}

compile_zig() {
  "$zig" fmt --check "$samples/zig/build-watch.zig"
  "$zig" translate-c -target wasm32-wasi -lc build_watch.h > bindings.zig
  "$zig" build-obj -target wasm32-wasi -OReleaseSmall -lc --name build-watch --dep bindings "-Mroot=$samples/zig/build-watch.zig" -Mbindings=bindings.zig
  "$zig" cc --target=wasm32-wasi -mexec-model=reactor -Oz -flto build-watch.o build_watch.c build_watch_component_type.o -o core.wasm
}

build_c() { of_bindings c compile_c; }
build_zig() { of_bindings zig compile_zig; }

built=()
for language in "${languages[@]}"; do
  begun=$SECONDS
  declare -F "build_$language" >/dev/null || { say "there is no sample in $language"; exit 1; }
  component=$("build_$language")
  built+=("$language=$component")
  say "$language: built in $((SECONDS - begun)) s, $(stat -c %s "$component") bytes"
done
if [ -n "$only_build" ]; then
  printf '%s\n' "${built[@]}"
  exit
fi

# What was built for earlier versions of the contract, and is not built again.
if [ "$#" = 0 ]; then
  for component in tests/kept/*/*.*; do
    language=$(basename "${component%.*}")
    built+=("$language=$component")
  done
fi

export PI_VERS_BIN PI_VERS_TEST_CACHE=$kept/cache
cargo build --quiet --release --locked -p pi-vers-samples --target-dir "$target"
exec timeout --kill-after=10 600 "$target/release/pi-vers-samples" "${built[@]}"
