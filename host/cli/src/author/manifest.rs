//! `pi-vers.toml` as an author reads it: `[project]`, `[build]` and `[test]`.
//!
//! The same file may hold a project's policy (`[extension.NAME]`) and its list of extensions (`[extensions]`), which others read.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::failure::{Code, Failure};
use crate::setup::PROJECT;

/// A manifest is never larger.
const LARGEST: u64 = 1 << 20;

#[derive(Debug, Deserialize)]
struct File {
    project: Option<Project>,
    build: Option<Command>,
    #[serde(default)]
    test: Test,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Project {
    name: String,
    /// What is written is what runs: the file, where there is no build.
    extension: Option<PathBuf>,
}

/// How a component is built.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Command {
    /// An argument vector, run in the project's directory.
    pub(super) command: Vec<String>,
    /// What it makes, relative to the project; cargo says that itself.
    pub(super) output: Option<PathBuf>,
}

/// How it is tested.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Test {
    /// The directory of the scripts; `tests` unless it says otherwise.
    pub(super) scripts: Option<PathBuf>,
    /// What the extension is granted in tests; `policy.toml` where there is one.
    pub(super) policy: Option<PathBuf>,
}

/// A project.
#[derive(Debug, Clone)]
pub(super) struct Manifest {
    pub(super) directory: PathBuf,
    pub(super) name: String,
    /// The file that is the extension, where nothing is built.
    pub(super) extension: Option<PathBuf>,
    pub(super) build: Option<Command>,
    pub(super) test: Test,
}

impl Manifest {
    /// The project in this directory.
    pub(super) fn read(directory: &Path) -> Result<Self, Failure> {
        let file = directory.join(PROJECT);
        let shown = file.display();
        let wrong = |why: String| Failure::new(Code::Usage, "manifest", format!("{shown}: {why}"));
        let size = match std::fs::metadata(&file) {
            Ok(data) => data.len(),
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => {
                return Err(wrong("there is no such file, so this is no project".into())
                    .next("`pi-vers new NAME` makes one"));
            }
            Err(why) => return Err(wrong(why.to_string())),
        };
        if size > LARGEST {
            return Err(wrong("it has more than 1 MiB".into()));
        }
        let text = std::fs::read_to_string(&file).map_err(|why| wrong(why.to_string()))?;
        let read = Self::parse(&text, directory).map_err(wrong)?;
        // The rest of the file is the policy's: what is wrong there is told now and not by the first run.
        pi_vers_host::policy::Policy::load_project(&file)?;
        Ok(read)
    }

    fn parse(text: &str, directory: &Path) -> Result<Self, String> {
        let file: File = toml::from_str(text).map_err(|why| {
            let line = why.span().map(|span| {
                text.get(..span.start)
                    .map_or(0, |before| before.matches('\n').count())
                    + 1
            });
            match line {
                Some(line) => format!("line {line}: {}", why.message()),
                None => why.message().to_owned(),
            }
        })?;
        let project = file.project.ok_or(
            "it has no [project] with a name, so it says nothing of how to build an extension",
        )?;
        let inside = |path: &Path| {
            path.is_relative()
                && path
                    .components()
                    .all(|part| matches!(part, std::path::Component::Normal(_)))
        };
        let outputs = file.build.iter().filter_map(|build| build.output.as_ref());
        if file.build.is_some() && project.extension.is_some() {
            return Err(
                "project.extension is for what is not built: leave it or [build] out".into(),
            );
        }
        let outputs = outputs.chain(&project.extension);
        for path in outputs.chain(&file.test.scripts).chain(&file.test.policy) {
            if !inside(path) {
                return Err(format!("{} is no path inside the project", path.display()));
            }
        }
        if let Some(build) = &file.build {
            if build.command.first().is_none_or(String::is_empty) {
                return Err("build.command is empty: write an argument vector such as [\"cargo\", \"build\"]".into());
            }
            if build.output.is_none() && !build.is_cargo() {
                return Err(
                    "build.output is missing: name the component that build.command makes".into(),
                );
            }
        }
        if !named(&project.name) {
            return Err(format!(
                "project.name is {}: use letters, digits, - and _",
                pi_vers_host::visible(&project.name)
            ));
        }
        Ok(Self {
            directory: directory.to_owned(),
            name: project.name,
            extension: project.extension,
            build: file.build,
            test: file.test,
        })
    }
}

fn named(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        && !name.starts_with('-')
}

impl Command {
    /// Cargo says in its messages what it made.
    pub(super) fn is_cargo(&self) -> bool {
        matches!(self.command.as_slice(), [program, verb, ..] if program == "cargo" && verb == "build")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse(text: &str) -> Result<Manifest, String> {
        Manifest::parse(text, Path::new("/p"))
    }

    #[test]
    fn what_is_wrong_is_told_in_words() {
        let good = parse("[project]\nname = \"a\"\n[build]\ncommand = [\"make\"]\noutput = \"o/a.wasm\"\n[extension.a]\nvms = []\n").unwrap();
        assert_eq!(good.name, "a");
        for (text, says) in [
            ("", "[project]"),
            ("[project]\nname = 7\n", "line 2"),
            ("[project]\nname = \"../a\"\n", "project.name"),
            ("[project]\nname = \"a\"\n[build]\ncommand = []\n", "empty"),
            (
                "[project]\nname = \"a\"\n[build]\ncommand = [\"make\"]\n",
                "build.output",
            ),
            (
                "[project]\nname = \"a\"\n[build]\ncommand = [\"make\"]\noutput = \"../x\"\n",
                "inside",
            ),
            (
                "[project]\nname = \"a\"\n[build]\ncommand = [\"cargo\", \"build\"]\nshell = true\n",
                "shell",
            ),
        ] {
            let why = parse(text).unwrap_err();
            assert!(why.contains(says), "{text}: {why}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_manifest_panics(text in "\\PC{0,200}") {
            let _ = parse(&text);
        }
    }
}
