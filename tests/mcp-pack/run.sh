#!/usr/bin/env bash
# Makes a bundle and asks the official tool what it thinks of it: its manifest is valid, it unpacks to this very program, and that serves.
# PI_VERS_BIN names the binary. npm's traffic is the only one.
set -euo pipefail
: "${PI_VERS_BIN:?name the pi-vers binary to test}"
binary=$(realpath "$PI_VERS_BIN")
cd "$(dirname "$0")"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export HOME=$scratch/home
mkdir "$HOME"
fail() { echo "mcp-pack: $*" >&2; exit 1; }

npm ci --ignore-scripts --loglevel=error
mcpb() { timeout 120 node node_modules/@anthropic-ai/mcpb/dist/cli/cli.js "$@"; }

"$binary" mcp bundle --output "$scratch/vers.mcpb" --url https://example.com/vers.mcpb
mcpb unpack "$scratch/vers.mcpb" "$scratch/unpacked"
mcpb validate "$scratch/unpacked/manifest.json"
mcpb info "$scratch/vers.mcpb"
cmp "$binary" "$scratch/unpacked/server/pi-vers" || fail "another program is in the bundle"
[ -x "$scratch/unpacked/server/pi-vers" ] || fail "the program in the bundle can't be run"
# Another zip program agrees with ours.
python3 -m zipfile --test "$scratch/vers.mcpb" | grep -qx "Done testing" || fail "the zip file is damaged"
grep -q "$(sha256sum "$scratch/vers.mcpb" | cut -d' ' -f1)" "$scratch/server.json" || fail "server.json has another digest"

hello='{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"0"}}}'
answer=$(printf '%s\n' "$hello" | env -i HOME="$HOME" PATH=/usr/bin:/bin VERS_API_KEY= timeout 30 "$scratch/unpacked/server/pi-vers" mcp)
grep -q '"protocolVersion":"2025-11-25"' <<<"$answer" || fail "the server in the bundle says: $answer"
echo "mcp-pack: done"
