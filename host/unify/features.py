#!/usr/bin/env python3
"""Keeps host/unify/Cargo.toml complete.

Without arguments: says which dependencies would be compiled more than once because cargo chooses other
features for them when another package is built, and exits with 1 if there are any. With --write: adds them
to the manifest with the union of the features. Uses nothing but `cargo tree`.
"""

import collections
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
MANIFEST = pathlib.Path(__file__).with_name("Cargo.toml")
LINE = re.compile(r'^(?P<key>[\w-]+) = \{ (?:package = "(?P<package>[\w-]+)", )?version = "(?P<version>[\d.]+)".*features = \[(?P<features>[^\]]*)\]')


def tree(selection, edges):
    command = ["cargo", "tree", *selection, "-e", edges, "-f", "{p}\t{f}", "--prefix", "none", "--locked"]
    text = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for line in text.splitlines():
        name, _, features = line.replace(" (*)", "").replace(" (proc-macro)", "").partition("\t")
        if "(" not in name:  # packages of this workspace have a path
            yield name, frozenset(filter(None, features.strip().split(",")))


def track(version):
    """What cargo takes as compatible: 1 for 1.2.3, 0.4 for 0.4.19."""
    parts = version.split(".")
    return parts[0] if parts[0] != "0" else ".".join(parts[:2])


def members():
    text = (ROOT / "Cargo.toml").read_text()
    for path in re.findall(r'"([\w/]+)"', re.search(r"^members = \[(.*)\]", text, re.M).group(1)):
        yield re.search(r'^name = "([\w-]+)"', (ROOT / path / "Cargo.toml").read_text(), re.M).group(1)


def main():
    found = collections.defaultdict(set)
    for selection in [["--workspace"], *(["-p", name] for name in members() if name != "pi-vers-unify")]:
        for edges in ["normal,build,dev", "normal,build"]:
            for package, features in tree(selection, edges):
                found[package].add(features)
    split = {package: frozenset.union(*all) for package, all in found.items() if len(all) > 1}
    if "--write" not in sys.argv:
        for package in sorted(split):
            print(f"{package} is built with {len(found[package])} sets of features; run host/unify/features.py --write")
        sys.exit(1 if split else 0)
    known = {}
    for match in filter(None, map(LINE.match, MANIFEST.read_text().splitlines())):
        key = (match["package"] or match["key"], match["version"])
        known[key] = set(re.findall(r'"([\w-]+)"', match["features"]))
    for package, features in split.items():
        name, version = package.split(" v")
        known.setdefault((name, track(version)), set()).update(features)
    twice = collections.Counter(name for name, _ in known)
    lines = []
    for (name, version), features in sorted(known.items()):
        alias = name if twice[name] == 1 else f"{name}-{version.replace('.', '-')}"
        package = "" if twice[name] == 1 else f'package = "{name}", '
        listed = ", ".join(f'"{feature}"' for feature in sorted(features))
        lines.append(f'{alias} = {{ {package}version = "{version}", default-features = false, features = [{listed}] }}')
    head = MANIFEST.read_text().split("[dependencies]")[0]
    body = "\n".join(lines)
    MANIFEST.write_text(f"{head}[dependencies]\n{body}\n\n[build-dependencies]\n{body}\n")


main()
