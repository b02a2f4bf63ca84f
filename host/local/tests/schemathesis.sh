#!/bin/sh
# Fuzzes the REST API of a local platform from its own OpenAPI document: no 5xx, no violation of the schema.
#
#   tests/schemathesis.sh [EXAMPLES]      examples per operation and phase, default 20
#
# Installs a pinned schemathesis into a virtual environment under the target directory (needs python3 and the package
# index once), starts a platform in a temporary directory, fuzzes it, and removes it. Needs what a sandbox needs (root or
# user namespaces).
set -eu
version=4.32.5
examples=${1:-20}
here=$(cd "$(dirname "$0")/.." && pwd)
root=$(cd "$here/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
venv=$target/schemathesis-$version
helper=$target/release/vers-local-helper

(cd "$root" && cargo build --release -p vers-local --bin vers-local-helper)
if ! [ -x "$venv/bin/schemathesis" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check "schemathesis==$version"
fi

work=$(mktemp -d)
server=
finish() {
    status=$?
    trap - EXIT INT TERM
    if [ -n "$server" ]; then
        "$venv/bin/python" "$here/tests/schemathesis/stop.py" "$work/state" || status=1
        wait "$server" || status=1
    fi
    rm -rf "$work"
    exit $status
}
trap finish EXIT INT TERM

# Options as `up` hands them over; one line on standard output says that it is ready.
mkfifo "$work/ready"
printf '{"state_dir":"%s","api_listen":"127.0.0.1:0","ssh_listen":"127.0.0.1:0","tier":null,"network":"none","helper":"%s","limits":{"max_vms":24,"max_commits":64,"default_vcpu":1,"default_mem_mib":512,"default_fs_mib":1024,"max_vcpu":64,"max_mem_mib":1048576,"max_fs_mib":16777216},"auto_verify":false}' \
    "$work/state" "$helper" | "$helper" >"$work/ready" &
server=$!
read -r ready <"$work/ready"
echo "server: $ready"

# What it caches goes with the directory.
cd "$work"
ENDPOINT="$work/state/endpoint.json" EXAMPLES=$examples "$venv/bin/python" "$here/tests/schemathesis/run.py"
