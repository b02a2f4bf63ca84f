//! What is saved of an agent before its VM goes: what it said, files, and a git bundle.
//!
//! A bundle holds commits, and work that was not committed would be lost with the VM. So changes and new files that are there go in
//! as a commit of their own, under `refs/pi-vers/uncommitted`, made with an index of its own: the repository is left as it was.

use pi_vers_sdk::declare::{JsonSchema, schemars};
use pi_vers_sdk::platform::shell;
use pi_vers_sdk::system::files::{self, CopyOptions, Location, WriteOptions};
use pi_vers_sdk::system::process::{Command, Exit, OutputMode, Program};
use pi_vers_sdk::{Error, outcome, stream};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::bound::end;
use crate::state::State;
use crate::words;

/// Where results go unless the call says otherwise, below the working directory.
const DEFAULT: &str = "swarm-results";
/// How long a bundle may take, in milliseconds.
const BUNDLING: u64 = 600_000;
/// The most that git may say, in bytes.
const MOST_SAID: usize = 64 * 1024;
/// Paths in one call.
const MOST_PATHS: usize = 100;
/// The exit code of the script for a repository without anything in it.
const EMPTY: i32 = 3;

/// Writes a bundle of the repository `$1` into a new file and prints its name, alone on the last line.
const BUNDLE: &str = r#"set -eu
export GIT_CONFIG_COUNT=3 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*' GIT_CONFIG_KEY_1=user.name GIT_CONFIG_VALUE_1=pi-vers \
  GIT_CONFIG_KEY_2=user.email GIT_CONFIG_VALUE_2=pi-vers@localhost
cd -- "$1"
cd -- "$(git rev-parse --show-toplevel)"
out=$(mktemp -d)
if [ -n "$(git status --porcelain)" ]; then
  index=$out/index
  parent=$(git rev-parse --verify --quiet HEAD || true)
  if [ -n "$parent" ]; then GIT_INDEX_FILE=$index git read-tree HEAD; fi
  GIT_INDEX_FILE=$index git add --all
  tree=$(GIT_INDEX_FILE=$index git write-tree)
  commit=$(git commit-tree "$tree" ${parent:+-p "$parent"} -m 'Uncommitted work of a swarm agent')
  git update-ref refs/pi-vers/uncommitted "$commit"
  rm -f "$index"
fi
if [ -z "$(git for-each-ref --count=1)" ] && ! git rev-parse --verify --quiet HEAD >/dev/null; then exit 3; fi
head=
if git rev-parse --verify --quiet HEAD >/dev/null; then head=HEAD; fi
git bundle create -q "$out/bundle" $head --all
printf '%s\n' "$out/bundle"
"#;

/// What a call asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct Collect {
    /// Files or directories on each VM (absolute, or below the home directory)
    #[schemars(inner(length(min = 1)))]
    pub files: Option<Vec<String>>,
    /// Directory of a git repository on each VM: all its branches, and what is not committed, as <name>.bundle
    #[schemars(length(min = 1))]
    pub bundle: Option<String>,
    /// Directory here, below the working directory (default: swarm-results); each agent gets one in it
    #[schemars(length(min = 1))]
    pub to: Option<String>,
}

impl Collect {
    /// The files and directories that are asked for.
    #[must_use]
    pub fn files(&self) -> &[String] {
        self.files.as_deref().unwrap_or_default()
    }

    /// Whether it can be done.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        let climbs = |path: &str| path.split('/').any(|part| part == "..");
        let to = self.to();
        if to.starts_with('/') || to.starts_with('~') || climbs(to) || to.trim().is_empty() {
            return Err(format!(
                "collect.to is {to:?}: write a directory below the working directory, without '..'."
            ));
        }
        if self.files().len() > MOST_PATHS {
            return Err(format!(
                "collect.files has {} paths, and {MOST_PATHS} are the most. Name the directory they are in.",
                self.files().len()
            ));
        }
        for path in self.files().iter().chain(&self.bundle) {
            if path.trim_matches(['/', '.', '~']).is_empty() || climbs(path) || path.contains('\0')
            {
                return Err(format!(
                    "collect names {path:?}: write a path on the VMs, without '..', that is not the whole of it."
                ));
            }
        }
        Ok(())
    }

    fn to(&self) -> &str {
        self.to.as_deref().unwrap_or(DEFAULT)
    }
}

/// A path on a VM, as the host takes it: absolute, or relative to the home directory.
#[must_use]
pub fn on_vm(path: &str) -> &str {
    path.strip_prefix("~/").unwrap_or(path)
}

/// The same path below a directory here.
#[must_use]
pub fn below(directory: &str, path: &str) -> String {
    let parts = on_vm(path)
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".");
    format!("{directory}/files/{}", parts.collect::<Vec<_>>().join("/"))
}

/// What is written of what an agent said; none if it never said anything.
#[must_use]
pub fn output(state: &State, live: Option<&str>) -> Option<String> {
    let mut parts: Vec<(String, &str)> = Vec::new();
    for report in state.earlier.iter().chain(&state.report) {
        let missing = match report.left_out {
            0 => String::new(),
            bytes => format!(", {bytes} bytes before this are missing"),
        };
        parts.push((
            format!(
                "=== [{}{missing}] {} ===",
                words::outcome(report),
                report.task
            ),
            &report.text,
        ));
    }
    if let Some(text) = live.filter(|text| !text.is_empty()) {
        let task = state.task.as_deref().unwrap_or_default();
        parts.push((format!("=== [not ended] {task} ==="), text));
    }
    match parts.as_slice() {
        [] => None,
        [(_, text)] if live.is_none() => Some((*text).to_owned()),
        parts => Some(
            parts
                .iter()
                .map(|(heading, text)| format!("{heading}\n{text}\n"))
                .collect::<Vec<_>>()
                .join("\n"),
        ),
    }
}

/// What there is of an agent.
pub(crate) struct Source<'a> {
    pub(crate) label: &'a str,
    pub(crate) vm: &'a str,
    pub(crate) output: Option<String>,
    /// Whether its VM can be reached: otherwise only what is known here can be saved.
    pub(crate) is_there: bool,
}

/// Saves it. What was saved, and what was not and why.
pub(crate) async fn save(
    collect: &Collect,
    source: Source<'_>,
) -> Result<(Map<String, Value>, Vec<String>), Error> {
    let directory = place(collect.to(), source.label, source.vm).await?;
    let mut saved = Map::new();
    let mut missing = Vec::new();
    if let Some(text) = source.output {
        let path = format!("{directory}/output.txt");
        match write(&path, text).await {
            Ok(()) => drop(saved.insert("output".into(), path.into())),
            Err(error) => missing.push(why("its output", error)?),
        }
    }
    let mut copied = Vec::new();
    for path in collect.files() {
        let target = below(&directory, path);
        match copy(source.vm, on_vm(path), &target, source.is_there).await {
            Ok(()) => copied.push(Value::from(target)),
            Err(error) => missing.push(why(path, error)?),
        }
    }
    if !copied.is_empty() {
        saved.insert("files".into(), copied.into());
    }
    if let Some(repository) = &collect.bundle {
        let target = format!("{directory}/{}.bundle", base(repository));
        match bundle(source.vm, repository, &target, source.is_there).await {
            Ok(true) => drop(saved.insert("bundle".into(), target.into())),
            Ok(false) => {}
            Err(error) => missing.push(why(repository, error)?),
        }
    }
    Ok((saved, missing))
}

fn why(what: &str, error: Error) -> Result<String, Error> {
    match error {
        Error::Cancelled | Error::Denied(_) => Err(error),
        error => Ok(format!(
            "{what} ({})",
            outcome::explain(&error).trim_end_matches('.')
        )),
    }
}

fn base(path: &str) -> &str {
    let name = path.trim_end_matches('/').rsplit('/').next();
    name.filter(|name| !name.is_empty() && *name != "~")
        .unwrap_or("repository")
}

/// A directory for an agent. One that an earlier agent of the same name left behind is not touched.
async fn place(to: &str, label: &str, vm: &str) -> Result<String, Error> {
    let directory = format!("{to}/{label}");
    match files::stat(Location::Local(directory.clone())).await {
        Err(Error::NotFound(_)) => Ok(directory),
        Ok(_) => Ok(format!("{directory}-{vm}")),
        Err(error) => Err(error),
    }
}

async fn write(path: &str, text: String) -> Result<(), Error> {
    let at = Location::Local(path.to_owned());
    let options = WriteOptions {
        parents: true,
        mode: None,
        expect: None,
    };
    stream::feed(text.into_bytes(), |data| files::write(at, data, options))
        .await
        .map(drop)
}

async fn copy(vm: &str, from: &str, to: &str, is_there: bool) -> Result<(), Error> {
    if !is_there {
        return Err(Error::Unavailable("the VM cannot be reached".into()));
    }
    let source = Location::Vm((vm.to_owned(), from.to_owned()));
    let target = Location::Local(to.to_owned());
    let options = CopyOptions {
        recursive: None,
        exclude: Vec::new(),
    };
    let (progress, done) = files::copy(&source, &target, &options);
    drop(progress);
    done.await.map(drop)
}

/// Makes a bundle there and brings it here. `false`: there is nothing in the repository.
async fn bundle(vm: &str, repository: &str, target: &str, is_there: bool) -> Result<bool, Error> {
    if !is_there {
        return Err(Error::Unavailable("the VM cannot be reached".into()));
    }
    let argv = ["sh", "-c", BUNDLE, "pi-vers", on_vm(repository)];
    let command = Command {
        program: Program::Argv(argv.map(str::to_owned).into()),
        env: Vec::new(),
        working_directory: None,
        timeout: Some(BUNDLING),
        output: OutputMode::Merged,
    };
    let child = shell::spawn(vm.to_owned(), command, None).await?;
    let said = stream::read_to_end(child.stdout()?, MOST_SAID).await?;
    let said = String::from_utf8_lossy(&said).into_owned();
    match child.wait().await? {
        Exit::Code(0) => {}
        Exit::Code(EMPTY) => return Ok(false),
        Exit::Code(_) | Exit::Signal(_) => {
            let last = end(said.trim(), 500).trim();
            return Err(Error::Other(format!("git made no bundle of it: {last}")));
        }
    }
    let Some(made) = said.lines().last().filter(|path| path.starts_with('/')) else {
        return Err(Error::Other("git did not say where its bundle is".into()));
    };
    copy(vm, made, target, true).await?;
    // The VM may live on.
    let _ = files::remove(Location::Vm((vm.to_owned(), made.to_owned()))).await;
    Ok(true)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::state::Report;
    use pi_vers_sdk::agent::Outcome;

    fn wanted(files: &[&str], to: Option<&str>) -> Collect {
        Collect {
            files: Some(files.iter().map(|path| (*path).to_owned()).collect()),
            bundle: None,
            to: to.map(str::to_owned),
        }
    }

    #[test]
    fn nothing_leads_out_of_the_working_directory() {
        for to in ["/tmp", "~/x", "..", "a/../../b", "", " "] {
            assert!(wanted(&[], Some(to)).check().is_err(), "{to}");
        }
        for path in ["", "/", ".", "~", "../x", "/a/../b", "a\0b"] {
            assert!(wanted(&[path], None).check().is_err(), "{path:?}");
        }
        assert_eq!(wanted(&["/a/b", "~/c", "d"], Some("out/x")).check(), Ok(()));
        assert_eq!(below("out/a", "/root//x/./y/"), "out/a/files/root/x/y");
        assert_eq!(below("out/a", "~/x"), "out/a/files/x");
        assert_eq!(
            (base("/root/workspace/"), base("~")),
            ("workspace", "repository")
        );
    }

    #[test]
    fn one_answer_is_written_as_it_is_and_several_with_headings() {
        let report = |text: &str, left_out| Report {
            task: "task".into(),
            outcome: Outcome::Done,
            text: text.into(),
            left_out,
            read: true,
        };
        let mut state = State::default();
        assert_eq!(output(&state, None), None);
        state.report = Some(report("answer", 0));
        assert_eq!(output(&state, None).unwrap(), "answer");
        state.earlier.push(report("before", 7));
        assert_eq!(
            output(&state, Some("so far")).unwrap(),
            "=== [done, 7 bytes before this are missing] task ===\nbefore\n\n=== [done] task ===\nanswer\n\n=== [not ended]  ===\nso far\n"
        );
    }

    /// The script with a real git.
    #[test]
    fn a_bundle_holds_what_was_not_committed_too() {
        let run = |directory: &std::path::Path, argv: &[&str]| {
            let (program, arguments) = argv.split_first().unwrap();
            let done = std::process::Command::new(program)
                .args(arguments)
                .current_dir(directory)
                .env("GIT_CONFIG_GLOBAL", "/dev/null")
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&done.stdout).trim().to_owned();
            (done.status.code(), said)
        };
        let root =
            std::env::temp_dir().join(format!("pi-vers-swarm-bundle-{}", std::process::id()));
        let repository = root.join("a repository");
        std::fs::create_dir_all(&repository).unwrap();
        let bundle = || {
            run(
                &root,
                &["sh", "-c", BUNDLE, "x", repository.to_str().unwrap()],
            )
        };
        assert_eq!(run(&repository, &["git", "init", "-q"]).0, Some(0));
        assert_eq!(bundle().0, Some(EMPTY));
        std::fs::write(repository.join("new"), "not committed").unwrap();
        let (code, path) = bundle();
        assert_eq!(code, Some(0));
        let identity = ["-c", "user.name=a", "-c", "user.email=a@b"];
        let commit: Vec<&str> = ["git"]
            .into_iter()
            .chain(identity)
            .chain(["commit", "-qam", "one", "--allow-empty"])
            .collect();
        assert_eq!(run(&repository, &commit).0, Some(0));
        std::fs::write(repository.join("new"), "changed").unwrap();
        let status = run(&repository, &["git", "status", "--porcelain"]).1;
        let (code, second) = bundle();
        assert_eq!(code, Some(0));
        // It is as it was.
        assert_eq!(
            run(&repository, &["git", "status", "--porcelain"]).1,
            status
        );
        let shown = |bundle: &str, directory: &str| {
            let clone = root.join(directory);
            assert_eq!(run(&root, &["git", "init", "-q", directory]).0, Some(0));
            assert_eq!(
                run(&clone, &["git", "fetch", "-q", bundle, "refs/*:refs/got/*"]).0,
                Some(0)
            );
            run(&clone, &["git", "show", "refs/got/pi-vers/uncommitted:new"]).1
        };
        assert_eq!(shown(&path, "first"), "not committed");
        assert_eq!(shown(&second, "second"), "changed");
        assert!(
            bundle().0 == Some(0)
                && run(&root, &["sh", "-c", BUNDLE, "x", "/nowhere"]).0 != Some(0)
        );
        std::fs::remove_dir_all(&root).unwrap();
    }
}
