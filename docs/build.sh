#!/usr/bin/env bash
# Builds the book into the target directory, with a mdBook of one version that is compiled there once, and checks the links of what it built.
set -euo pipefail
cd "$(dirname "$0")"
version=0.5.4

target=${CARGO_TARGET_DIR:-../target}
mkdir -p "$target"
target=$(realpath "$target")
tool=$target/mdbook-$version
if ! [ -e "$tool/complete" ]; then
  echo "compiling mdBook $version" >&2
  rm -rf "$tool"
  # Without its server, its watcher and its search index: half of what it would compile.
  cargo install --quiet --locked --no-default-features --root "$tool" --target-dir "$tool/build" "mdbook@$version"
  rm -rf "$tool/build"
  touch "$tool/complete"
fi

book=$target/book
rm -rf "$book"
"$tool/bin/mdbook" build --dest-dir "$book" .
# mdBook takes along whatever lies beside the pages.
rm -f "$book/book.toml" "$book/build.sh" "$book/links.py"
python3 links.py check "$book"
echo "$book/index.html"
