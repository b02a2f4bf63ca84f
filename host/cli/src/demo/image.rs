//! What a golden VM of the demo holds: an agent called `pi`, what it is told, and the project it works on.
//!
//! The scripted agent is this program itself. A real pi is an npm package: copied are its files and those of what it depends on, found as
//! Node finds them, and nothing else of the directory they lie in.

use std::collections::{BTreeSet, VecDeque};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use vers_local::Tier;

use super::model;
use super::project::Project;
use crate::args::DemoAgent;
use crate::failure::Failure;
use crate::local;

/// An agent of this machine, to be installed on a VM.
#[derive(Debug)]
pub(super) enum Agent {
    Scripted,
    Pi(Package),
}

/// An npm package, with what it depends on.
#[derive(Debug)]
pub(super) struct Package {
    /// The directory with all of them.
    pub(super) modules: PathBuf,
    /// What of it is not copied, as in `.gitignore`.
    pub(super) exclude: Vec<String>,
    /// The program, relative to `modules`.
    program: PathBuf,
    /// Node, where it is not part of every VM.
    pub(super) node: Option<PathBuf>,
    /// Its name and version.
    pub(super) name: String,
}

/// Where on a VM programs are installed: below this, in `bin` and `lib`.
pub(super) fn prefix(tier: Tier) -> &'static str {
    match tier {
        Tier::Sandbox => "/usr/local",
        // The system is read-only there.
        Tier::UserSandbox => "/root/.local",
    }
}

impl Agent {
    pub(super) fn find(which: DemoAgent) -> Result<Self, Failure> {
        match which {
            DemoAgent::Scripted => Ok(Self::Scripted),
            DemoAgent::Pi => Package::find().map(Self::Pi),
        }
    }

    pub(super) fn name(&self) -> &str {
        match self {
            Self::Scripted => "the scripted agent",
            Self::Pi(package) => &package.name,
        }
    }

    /// The model that workers are to have.
    pub(super) fn model(&self) -> &'static str {
        match self {
            Self::Scripted => "claude-sonnet-4-5",
            Self::Pi(_) => model::MODEL,
        }
    }

    /// Puts what is copied to the VM into a directory: `lib`, `workspace`, and `agent` for its settings.
    pub(super) fn stage(
        &self,
        directory: &Path,
        prefix: &str,
        api: &str,
        project: &Project,
    ) -> Result<(), Failure> {
        let failed = |why: std::io::Error| {
            Failure::internal(format!("cannot prepare the golden image: {why}"))
        };
        let (lib, agent) = (directory.join("lib"), directory.join("agent"));
        std::fs::create_dir_all(&lib).map_err(failed)?;
        std::fs::create_dir_all(&agent).map_err(failed)?;
        project
            .write(&directory.join("workspace/project"))
            .map_err(failed)?;
        let wrapper = match self {
            Self::Scripted => {
                std::fs::copy(local::program()?, lib.join("pi-vers")).map_err(failed)?;
                format!("exec {prefix}/lib/pi-vers/pi-vers scripted-agent \"$@\"")
            }
            Self::Pi(package) => {
                let node = match &package.node {
                    Some(_) => format!("{prefix}/lib/pi-vers/node"),
                    None => "node".to_owned(),
                };
                let modules = Path::new(prefix).join("lib/pi-vers/node_modules");
                let program = local::quoted(&modules.join(&package.program));
                let settings = json!({ "defaultProvider": "vers", "defaultModel": model::MODEL, "quietStartup": true });
                let models = model::configuration(api);
                std::fs::write(agent.join("models.json"), models.to_string()).map_err(failed)?;
                std::fs::write(agent.join("settings.json"), settings.to_string())
                    .map_err(failed)?;
                // It shall ask nobody for a newer version of itself.
                format!(
                    "export PI_OFFLINE=1 PI_SKIP_VERSION_CHECK=1 PI_TELEMETRY=0\nexec {node} {program} \"$@\""
                )
            }
        };
        let pi = lib.join("pi");
        std::fs::write(&pi, format!("#!/bin/sh\n{wrapper}\n")).map_err(failed)?;
        std::fs::set_permissions(&pi, std::fs::Permissions::from_mode(0o755)).map_err(failed)
    }
}

impl Package {
    /// pi as `PI_PATH` names it, or else on the `PATH`.
    fn find() -> Result<Self, Failure> {
        let named = std::env::var_os("PI_PATH").filter(|path| !path.is_empty());
        let program = match named {
            Some(path) => PathBuf::from(path),
            None => on_path("pi").ok_or_else(|| {
                Failure::usage("there is no pi on the PATH").next(
                    "install it (`npm install -g @mariozechner/pi-coding-agent`), or name it in PI_PATH",
                )
            })?,
        };
        Self::of(&program).map_err(|why| {
            Failure::usage(format!("{} is no pi from npm: {why}", program.display()))
                .next("name the `pi` of an npm package in PI_PATH")
        })
    }

    fn of(program: &Path) -> Result<Self, String> {
        let program = program.canonicalize().map_err(|why| why.to_string())?;
        let package = program
            .ancestors()
            .skip(1)
            .find(|directory| directory.join("package.json").is_file())
            .ok_or("it lies in no package")?;
        // The outermost, so that all it depends on is below.
        let modules = package
            .ancestors()
            .filter(|directory| {
                directory
                    .file_name()
                    .is_some_and(|name| name == "node_modules")
            })
            .last()
            .ok_or("its package is not below node_modules")?
            .to_owned();
        let needed = closure(package, &modules)?;
        let manifest = manifest(package)?;
        let text = |name: &str| manifest.get(name).and_then(Value::as_str).unwrap_or("?");
        let node = on_path("node").and_then(|node| node.canonicalize().ok());
        Ok(Self {
            exclude: all_but(&needed),
            program: below(&program, &modules)?,
            // What is below /usr is on each VM of the local platform, too.
            node: node.filter(|node| !node.starts_with("/usr")),
            name: format!("{} {}", text("name"), text("version")),
            modules,
        })
    }
}

/// A program on the `PATH`.
fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join(name))
        .find(|program| program.is_file())
}

fn below(path: &Path, directory: &Path) -> Result<PathBuf, String> {
    let below = path
        .strip_prefix(directory)
        .map_err(|why| why.to_string())?;
    Ok(below.to_owned())
}

fn manifest(package: &Path) -> Result<Value, String> {
    let file = package.join("package.json");
    let failed = |why: String| format!("{}: {why}", file.display());
    let text = std::fs::read(&file).map_err(|why| failed(why.to_string()))?;
    serde_json::from_slice(&text).map_err(|why| failed(why.to_string()))
}

/// A package and all it depends on, as paths below `modules`. What is not installed was optional.
fn closure(package: &Path, modules: &Path) -> Result<BTreeSet<PathBuf>, String> {
    let mut found = BTreeSet::new();
    let mut open = VecDeque::from([package.to_owned()]);
    while let Some(package) = open.pop_front() {
        if !found.insert(below(&package, modules)?) {
            continue;
        }
        let manifest = manifest(&package)?;
        for kind in ["dependencies", "optionalDependencies", "peerDependencies"] {
            let names = manifest.get(kind).and_then(Value::as_object);
            for name in names.into_iter().flat_map(|names| names.keys()) {
                let places = package.ancestors().map(|place| match place.file_name() {
                    Some(last) if last == "node_modules" => place.join(name),
                    _ => place.join("node_modules").join(name),
                });
                let mut places = places.take_while(|place| place.starts_with(modules));
                open.extend(places.find(|place| place.join("package.json").is_file()));
            }
        }
    }
    Ok(found)
}

/// What of a package no program reads: more than half of its files, and each VM has them all.
const UNREAD: [&str; 4] = ["*.map", "*.d.ts", "*.d.mts", "*.d.cts"];

/// Patterns that leave out everything but these directories and what programs read of them.
fn all_but(needed: &BTreeSet<PathBuf>) -> Vec<String> {
    let mut patterns = vec!["/*".to_owned()];
    let mut scopes = BTreeSet::new();
    for path in needed {
        let parts: Vec<String> = path
            .iter()
            .map(|part| part.to_string_lossy().into_owned())
            .collect();
        match parts.as_slice() {
            [scope, name, ..] if scope.starts_with('@') => {
                if scopes.insert(scope.clone()) {
                    patterns.push(format!("!/{scope}"));
                    patterns.push(format!("/{scope}/*"));
                }
                patterns.push(format!("!/{scope}/{name}"));
            }
            [name, ..] => patterns.push(format!("!/{name}")),
            [] => {}
        }
    }
    patterns.extend(UNREAD.map(str::to_owned));
    patterns
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn package(root: &Path, path: &str, dependencies: &[&str]) {
        let directory = root.join(path);
        std::fs::create_dir_all(&directory).unwrap();
        let names: serde_json::Map<String, Value> = dependencies
            .iter()
            .map(|name| ((*name).to_owned(), json!("1")))
            .collect();
        let manifest = json!({ "name": path, "version": "1.2.3", "dependencies": names });
        std::fs::write(directory.join("package.json"), manifest.to_string()).unwrap();
    }

    #[test]
    fn only_what_pi_depends_on_is_copied() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let modules = root.join("node_modules");
        package(&modules, "@a/pi", &["b", "@a/core", "missing"]);
        package(&modules, "@a/pi/node_modules/b", &["c"]);
        package(&modules, "@a/core", &["b"]);
        package(&modules, "@a/other", &[]);
        package(&modules, "b", &["@a/pi"]);
        package(&modules, "c", &[]);
        package(&modules, "d", &[]);
        let cli = modules.join("@a/pi/dist/cli.js");
        std::fs::create_dir_all(cli.parent().unwrap()).unwrap();
        std::fs::write(&cli, "").unwrap();
        std::os::unix::fs::symlink(&cli, root.join("pi")).unwrap();
        let found = Package::of(&root.join("pi")).unwrap();
        assert_eq!(found.modules, modules);
        assert_eq!(found.program, Path::new("@a/pi/dist/cli.js"));
        assert_eq!(found.name, "@a/pi 1.2.3");
        assert_eq!(
            found.exclude,
            [
                "/*",
                "!/@a",
                "/@a/*",
                "!/@a/core",
                "!/@a/pi",
                "!/@a/pi",
                "!/b",
                "!/c",
                "*.map",
                "*.d.ts",
                "*.d.mts",
                "*.d.cts"
            ]
        );
        std::fs::write(root.join("plain"), "").unwrap();
        assert!(Package::of(&root.join("plain")).is_err());
    }

    #[test]
    fn the_staged_agent_is_a_program() {
        let directory = tempfile::tempdir().unwrap();
        Agent::Scripted
            .stage(
                directory.path(),
                "/usr/local",
                "http://127.0.0.1:1/v1",
                &Project::new(2),
            )
            .unwrap();
        let pi = directory.path().join("lib/pi");
        let text = std::fs::read_to_string(&pi).unwrap();
        assert_eq!(
            text,
            "#!/bin/sh\nexec /usr/local/lib/pi-vers/pi-vers scripted-agent \"$@\"\n"
        );
        assert_eq!(pi.metadata().unwrap().permissions().mode() & 0o777, 0o755);
        assert!(
            directory
                .path()
                .join("workspace/project/run-tests.sh")
                .is_file()
        );
    }
}
