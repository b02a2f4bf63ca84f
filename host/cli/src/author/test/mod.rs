//! `pi-vers test`: an author's scripts against fakes, or against the local platform.
//!
//! The component is the one that will be shipped, under the policy that the project proposes; each script is a session of its own with a
//! world of its own. With fakes nothing is run, nothing is sent and no VM is made: whatever a script has no answer for fails the test.

mod fakes;
mod harness;
mod lines;
mod matching;
mod platform;
mod report;
mod run;
mod script;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use pi_vers_host::policy::Policy;
use serde_json::json;

use super::build;
use super::manifest::Manifest;
use crate::failure::{Code, Failure};
use crate::local::Local;
use crate::setup;
use crate::terminal::{Style, Terminal};

#[derive(Debug, Args)]
pub(crate) struct Test {
    /// The project or a component (default: the project in the working directory)
    pub(crate) what: Option<PathBuf>,
    /// The scripts (default: every .jsonl in the project's tests/)
    pub(crate) scripts: Vec<PathBuf>,
    /// What the extension is granted: [extension.NAME] without a digest (default: the project's policy.toml; nothing for a component)
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// Take the component as it is
    #[arg(long)]
    pub(crate) no_build: bool,
    /// Against a local platform of its own instead of fakes
    #[arg(long)]
    pub(crate) local: bool,
    /// One JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
}

/// What is tested.
struct Target {
    component: PathBuf,
    /// The rules it gets.
    policy: Option<PathBuf>,
    scripts: Vec<PathBuf>,
}

/// Runs the scripts; ends with 1 if one fails.
pub(crate) async fn test(terminal: Arc<Terminal>, options: Test) -> Result<Code, Failure> {
    let target = target(&terminal, &options).await?;
    let policy = granted(&target).await?;
    let platform = match options.local {
        true => Some(tempfile::tempdir().map_err(|why| Failure::internal(why.to_string()))?),
        false => None,
    };
    let local = match &platform {
        Some(state) => Some(Local::attach(&terminal, Some(state.path())).await?),
        None => None,
    };
    let subject = run::Tested {
        component: &target.component,
        policy: &policy,
        local: local.as_ref(),
    };
    let result = all(&terminal, &subject, &target.scripts, options.json).await;
    // Its disks are of no use to anybody else.
    let ended = match &platform {
        Some(state) => vers_local::reset(state.path()).await.map(drop),
        None => Ok(()),
    };
    let failed = result?;
    ended?;
    let count = target.scripts.len();
    if options.json {
        terminal.line(json!({ "scripts": count, "failed": failed }).to_string());
    } else if failed > 0 {
        let line = format!("{failed} of {count} scripts failed");
        terminal.line(terminal.styled(Style::Bad, &line));
    } else {
        terminal.line(format!("{count} scripts passed"));
    }
    Ok(match failed {
        0 => Code::Ok,
        _ => Code::Tool,
    })
}

async fn all(
    terminal: &Terminal,
    subject: &run::Tested<'_>,
    scripts: &[PathBuf],
    json: bool,
) -> Result<usize, Failure> {
    let mut failed = 0;
    for path in scripts {
        match script::Script::read(path) {
            Ok(script) => {
                let report = Box::pin(run::run(subject, &script)).await?;
                failed += usize::from(!report.failures.is_empty());
                report::script(terminal, path, &report, json);
            }
            Err(why) => {
                failed += 1;
                report::unreadable(terminal, path, &why, json);
            }
        }
    }
    Ok(failed)
}

async fn target(terminal: &Arc<Terminal>, options: &Test) -> Result<Target, Failure> {
    let what = options.what.clone().unwrap_or_else(|| PathBuf::from("."));
    // A lone script is one of the project here.
    let (what, mut scripts) = match what.extension().is_some_and(|kind| kind == "jsonl") {
        true => (PathBuf::from("."), vec![what]),
        false => (what, Vec::new()),
    };
    scripts.extend(options.scripts.clone());
    let target = if what.is_dir() {
        let manifest = Manifest::read(&what)?;
        let component = match options.no_build {
            false => build::component(terminal, &manifest).await?,
            true => build::place_of(&manifest),
        };
        if scripts.is_empty() {
            let tests = manifest.test.scripts.clone();
            scripts = found(&what.join(tests.unwrap_or_else(|| "tests".into())))?;
        }
        let own = manifest.test.policy.clone();
        let policy = match own {
            Some(own) => Some(what.join(own)),
            None => Some(what.join("policy.toml")).filter(|file| file.exists()),
        };
        Target {
            component,
            policy,
            scripts,
        }
    } else {
        Target {
            component: what,
            policy: None,
            scripts,
        }
    };
    if target.scripts.is_empty() {
        return Err(Failure::usage("there is no script to run")
            .next("name one, or put a .jsonl into the project's tests/"));
    }
    Ok(Target {
        policy: options.policy.clone().or(target.policy),
        ..target
    })
}

/// The scripts of a directory, by name.
fn found(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(why) => {
            return Err(Failure::usage(format!("{}: {why}", directory.display())));
        }
    };
    let mut scripts: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "jsonl"))
        .collect();
    scripts.sort();
    Ok(scripts)
}

/// The rules of a file that names no digest, for the bytes that are tested.
async fn granted(target: &Target) -> Result<Policy, Failure> {
    let Some(file) = &target.policy else {
        return Ok(Policy::empty());
    };
    let origin = file.display().to_string();
    let text = std::fs::read_to_string(file)
        .map_err(|why| Failure::new(Code::Usage, "file", format!("{origin}: {why}")))?;
    let host = setup::host(Policy::empty(), setup::settings()?).await?;
    let extension = host.load_file(&target.component).await?;
    let bound = crate::policy::section::bound(&text, &extension.digest())
        .map_err(|why| Failure::usage(format!("{origin}: {why}")))?;
    Ok(Policy::parse(&bound, &origin)?)
}
