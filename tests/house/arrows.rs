//! Arrows point down: which package of the workspace may know which.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use pi_vers_tests::built;
use serde_json::Value;

/// No code; makes all packages build their dependencies alike. It reaches every package, and what it names it does not use.
const UNIFY: &str = "pi-vers-unify";

struct Graph {
    names: BTreeMap<String, String>,
    /// What each package is built from, by id.
    edges: BTreeMap<String, BTreeSet<String>>,
    members: BTreeSet<String>,
}

impl Graph {
    /// What the build of each package needs: not what its tests need besides.
    fn read() -> Self {
        let mut cargo = built::cargo(&built::root());
        cargo.args(["metadata", "--format-version", "1", "--locked", "--offline"]);
        let output = cargo.output().expect("cargo starts");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let metadata: Value =
            serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
        let list = |value: &Value| value.as_array().expect("a list").clone();
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let names = list(&metadata["packages"])
            .iter()
            .map(|package| (text(&package["id"]), text(&package["name"])))
            .collect();
        let edges = list(&metadata["resolve"]["nodes"])
            .iter()
            .map(|node| {
                let used = |dependency: &&Value| {
                    list(&dependency["dep_kinds"])
                        .iter()
                        .any(|kind| kind["kind"] != "dev")
                };
                let to = list(&node["deps"])
                    .iter()
                    .filter(used)
                    .map(|dependency| text(&dependency["pkg"]))
                    .collect();
                (text(&node["id"]), to)
            })
            .collect();
        let members = list(&metadata["workspace_members"])
            .iter()
            .map(text)
            .collect();
        Self {
            names,
            edges,
            members,
        }
    }

    fn name(&self, id: &str) -> &str {
        &self.names[id]
    }

    /// All that a package of the workspace is built from, by name, but what is there by way of `UNIFY` alone.
    fn below(&self, name: &str) -> BTreeSet<&str> {
        let root = self
            .members
            .iter()
            .find(|id| self.name(id) == name)
            .unwrap_or_else(|| panic!("{name} is no package of the workspace"));
        let mut seen: BTreeSet<&str> = BTreeSet::new();
        let mut open = vec![root.as_str()];
        while let Some(id) = open.pop() {
            for to in &self.edges[id] {
                if self.name(to) != UNIFY && seen.insert(to) {
                    open.push(to);
                }
            }
        }
        seen.into_iter().map(|id| self.name(id)).collect()
    }

    /// The packages of the workspace among them.
    fn ours_below(&self, name: &str) -> BTreeSet<&str> {
        let ours: BTreeSet<&str> = self.members.iter().map(|id| self.name(id)).collect();
        self.below(name)
            .into_iter()
            .filter(|name| ours.contains(name))
            .collect()
    }
}

#[test]
fn each_package_knows_only_those_below_it() {
    let graph = Graph::read();
    let rows: [(&str, &[&str]); 6] = [
        ("vers-client", &["pi-vers-system"]),
        ("vers-local", &[]),
        ("pi-vers-policy", &[]),
        ("pi-vers-system", &[]),
        (
            "pi-vers-host",
            &["pi-vers-policy", "pi-vers-system", "vers-client"],
        ),
        (
            "pi-vers",
            &[
                "pi-vers-host",
                "pi-vers-policy",
                "pi-vers-system",
                "vers-client",
                "vers-local",
            ],
        ),
    ];
    for (name, may) in rows {
        assert_eq!(
            graph.ours_below(name),
            may.iter().copied().collect(),
            "what {name} is built from"
        );
    }
    let known: BTreeSet<&str> = rows
        .iter()
        .map(|(name, _)| *name)
        .chain([
            UNIFY,
            "pi-vers-tests",
            "pi-vers-bench",
            "pi-vers-samples",
            "pi-vers-fuzz",
        ])
        .collect();
    let all: BTreeSet<&str> = graph.members.iter().map(|id| graph.name(id)).collect();
    assert_eq!(all, known, "a new package needs a row here");
}

#[test]
fn wasm_is_the_hosts_business_alone() {
    let graph = Graph::read();
    for name in [
        "vers-client",
        "vers-local",
        "pi-vers-policy",
        "pi-vers-system",
    ] {
        let runtime = ["wasmtime", "cranelift"];
        let wasm: Vec<&str> = graph
            .below(name)
            .into_iter()
            .filter(|below| runtime.iter().any(|part| below.starts_with(part)))
            .collect();
        assert_eq!(wasm, Vec::<&str>::new(), "{name}");
    }
    assert!(
        graph.below("pi-vers-host").contains("wasmtime"),
        "the graph was not read"
    );
}

/// Every text in double quotes in these sources, comments left out.
fn literals(directory: &Path, found: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(directory).expect("sources").flatten() {
        let path = entry.path();
        if path.is_dir() {
            literals(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = std::fs::read_to_string(&path).expect("a source file");
            // Tests of a module come last in it and may use any name.
            let code = source.split("#[cfg(test)]").next().unwrap_or_default();
            for line in code
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"))
            {
                found.extend(
                    line.split('"')
                        .skip(1)
                        .step_by(2)
                        .map(|literal| (path.display().to_string(), literal.to_owned())),
                );
            }
        }
    }
}

#[test]
fn the_host_knows_no_tool_by_name() {
    let mut all = Vec::new();
    literals(&built::root().join("host/runtime/src"), &mut all);
    assert!(all.len() > 100, "the sources were not read");
    let tools = ["bash", "read", "edit", "write", "grep", "find", "ls"];
    // Names of the contract: events, modes and methods that are called the same.
    let contract = ["read", "write"];
    for (file, literal) in all {
        assert!(
            !literal.contains("vers_vm"),
            "{file} names a tool: {literal:?}"
        );
        assert!(
            !tools.contains(&&*literal) || contract.contains(&&*literal),
            "{file} names a tool: {literal:?}"
        );
    }
}
