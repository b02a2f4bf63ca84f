//! `pi-vers dev`: builds and tests a project each time one of its files changes.
//!
//! A front end that was started with `--watch` loads what was built by itself. But a grant is bound to bytes, and each build makes
//! others: so beside the component stands the policy that the project proposes, bound to the bytes just built. Nobody takes
//! it but who names it (`--policy build/NAME.policy.toml`): what an author's own machine grants an author's own build.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use pi_vers_host::{Extension, visible};
use tokio::signal::unix::{SignalKind, signal};

use super::build;
use super::manifest::Manifest;
use super::test::{Test, test};
use super::tree::Tree;
use crate::failure::{Code, Failure};
use crate::terminal::{Style, Terminal};

#[derive(Debug, Args)]
pub(crate) struct Dev {
    /// The project (default: the working directory)
    pub(crate) project: Option<PathBuf>,
    /// Only build
    #[arg(long)]
    pub(crate) no_test: bool,
}

/// What an extension offered and imported after the last build.
#[derive(Default)]
struct Known(Option<[BTreeSet<String>; 2]>);

/// Goes on until it is interrupted.
pub(crate) async fn dev(terminal: Arc<Terminal>, options: Dev) -> Result<Code, Failure> {
    let directory = options
        .project
        .clone()
        .unwrap_or_else(|| PathBuf::from("."));
    // One that is none says so at once, and not at the first change.
    Manifest::read(&directory)?;
    let no_signals = |why| Failure::internal(format!("signals can't be heard: {why}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
    let mut tree = Tree::watch(&directory)?;
    let mut known = Known::default();
    loop {
        let round = round(&terminal, &directory, options.no_test, &mut known);
        let over = async {
            // What is wrong is mended in an editor: then comes the next round.
            if let Err(why) = round.await {
                terminal.note(format!("pi-vers: {}", why.line()));
            }
            terminal.note(terminal.styled(
                Style::Dim,
                "pi-vers: waiting for a change; Ctrl-C ends this",
            ));
            tree.changed().await;
        };
        tokio::select! {
            biased;
            _ = interrupt.recv() => return Ok(Code::Ok),
            _ = terminate.recv() => return Ok(Code::Ok),
            () = over => {}
        }
    }
}

/// Builds and tests once.
async fn round(
    terminal: &Arc<Terminal>,
    directory: &Path,
    no_test: bool,
    known: &mut Known,
) -> Result<(), Failure> {
    let begun = Instant::now();
    let manifest = Manifest::read(directory)?;
    let component = build::component(terminal, &manifest).await?;
    let extension = build::load(&manifest, &component).await?;
    let built = format!(
        "built {}, {} KiB, in {:.1} s",
        component.display(),
        extension.anatomy().size.div_ceil(1024),
        begun.elapsed().as_secs_f64()
    );
    terminal.line(terminal.styled(Style::Bold, &built));
    for line in known.take(&extension) {
        terminal.line(line);
    }
    if let Some(file) = proposed(&manifest, &component, &extension)? {
        terminal.line(format!(
            "  with grants for these bytes in {}",
            file.display()
        ));
    }
    if no_test {
        return Ok(());
    }
    let options = Test {
        what: Some(directory.to_owned()),
        scripts: Vec::new(),
        policy: None,
        no_build: true,
        local: false,
        json: false,
    };
    // What failed is on the terminal.
    Box::pin(test(terminal.clone(), options)).await.map(drop)
}

/// Writes down what the project proposes to grant, bound to what was built.
fn proposed(
    manifest: &Manifest,
    component: &Path,
    extension: &Extension,
) -> Result<Option<PathBuf>, Failure> {
    let from = match &manifest.test.policy {
        Some(policy) => manifest.directory.join(policy),
        None => manifest.directory.join("policy.toml"),
    };
    let text = match std::fs::read_to_string(&from) {
        Ok(text) => text,
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(why) => return Err(Failure::usage(format!("{}: {why}", from.display()))),
    };
    let text = crate::policy::section::bound(&text, &extension.digest())
        .map_err(|why| Failure::usage(format!("{}: {why}", from.display())))?;
    let build = manifest.directory.join("build");
    let file = match component.starts_with(&build) {
        true => component.with_extension("policy.toml"),
        // A script is its own component: its directory stays as its author has it.
        false => build.join(format!("{}.policy.toml", manifest.name)),
    };
    let failed = |why: std::io::Error| Failure::usage(format!("{}: {why}", file.display()));
    std::fs::create_dir_all(&build).map_err(failed)?;
    let mut draft = tempfile::NamedTempFile::new_in(&build).map_err(failed)?;
    std::io::Write::write_all(&mut draft, text.as_bytes()).map_err(failed)?;
    draft.persist(&file).map_err(|why| failed(why.error))?;
    Ok(Some(file))
}

impl Known {
    /// What is new since the last build, a line each; all of it after the first.
    fn take(&mut self, extension: &Extension) -> Vec<String> {
        let tools = extension.info().tools.iter();
        let now = [
            tools.map(|tool| visible(&tool.name)).collect(),
            extension
                .anatomy()
                .imports
                .iter()
                .map(|name| visible(name))
                .collect(),
        ];
        let before = self.0.replace(now.clone()).unwrap_or_default();
        let mut lines = Vec::new();
        for ((what, now), before) in ["tool", "import"].iter().zip(&now).zip(&before) {
            lines.extend(
                now.difference(before)
                    .map(|name| format!("  + {what} {name}")),
            );
            lines.extend(
                before
                    .difference(now)
                    .map(|name| format!("  - {what} {name}")),
            );
        }
        lines
    }
}
