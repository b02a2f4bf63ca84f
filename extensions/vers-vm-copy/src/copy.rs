//! One copy: the arguments, the VMs, the progress, the end.
//!
//! The bytes never come here: the host moves them. What is left to this extension is what a model reads.

use pi_vers_sdk::declare::JsonSchema;
use pi_vers_sdk::system::files::{self, CopyOptions, CopyProgress, CopySummary, Kind, Location};
use pi_vers_sdk::{Content, Error, ToolCall, ToolError, ToolResult, call, outcome, vm};
use serde::Deserialize;
use serde_json::json;

use crate::place::{Place, below_home};
use crate::report::{self, Copied, End};

/// What a call is given.
#[derive(Deserialize, JsonSchema)]
#[schemars(crate = "pi_vers_sdk::declare::schemars")]
pub(crate) struct Args {
    /// What to copy. Prefix with 'vm:<vm_id>:' for VM paths, otherwise local.
    src: String,
    /// The exact name of the copy. Prefix with 'vm:<vm_id>:' for VM paths, otherwise local.
    dst: String,
    /// Whether a directory may be copied (default: if src is one)
    recursive: Option<bool>,
    /// What to leave out of a directory: patterns relative to src, as in .gitignore (for example node_modules, *.o, /target)
    #[schemars(inner(length(min = 1)))]
    exclude: Option<Vec<String>>,
}

/// Runs one call.
pub(crate) async fn run(call: &ToolCall, args: Args) -> Result<ToolResult, ToolError> {
    let source = Place::parse("src", &args.src).map_err(outcome::failed)?;
    let target = Place::parse("dst", &args.dst).map_err(outcome::failed)?;
    if let (Place::Local(_), Place::Local(_)) = (&source, &target) {
        return Err(outcome::failed(
            "Both paths are local. Use bash with cp instead.",
        ));
    }
    let (source, target) = (end(source).await?, end(target).await?);
    if args.recursive == Some(false) {
        refuse_directory(&source).await?;
    }
    let options = CopyOptions {
        recursive: args.recursive,
        exclude: args.exclude.unwrap_or_default(),
    };
    match call::until_cancelled(call, copy(call, &source, &target, &options)).await {
        Ok(done) => {
            let copied = copied(&done);
            Ok(outcome::text_with(
                report::text(&source, &target, &copied),
                &report::details(&source, &target, &copied),
            ))
        }
        Err(error) => Err(failed(&source, &target, error).await),
    }
}

/// The place with its VM's whole id.
async fn end(place: Place) -> Result<End, ToolError> {
    Ok(match place {
        Place::Local(path) => End { vm: None, path },
        Place::Vm { id, path } => End {
            vm: Some(vm::resolve(&id).await?),
            path,
        },
    })
}

fn location(end: &End) -> Location {
    match &end.vm {
        Some(vm) => Location::Vm((vm.clone(), below_home(&end.path))),
        None => Location::Local(end.path.clone()),
    }
}

/// Says no before anything is copied. Whatever else is wrong with the source, the copy itself says.
async fn refuse_directory(source: &End) -> Result<(), ToolError> {
    match files::stat(location(source)).await {
        Ok(found) if found.kind == Kind::Directory => Err(outcome::failed(format!(
            "{source} is a directory, and recursive is false. Leave recursive away to copy it with all it holds."
        ))),
        Err(Error::Cancelled) => Err(ToolError::Cancelled),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Copies, and shows how far it has come. Dropped, it is given up, and leaves nothing half-made.
async fn copy(
    call: &ToolCall,
    source: &End,
    target: &End,
    options: &CopyOptions,
) -> Result<CopySummary, Error> {
    let (mut progress, done) = files::copy(&location(source), &location(target), options);
    while let Some(news) = progress.next().await {
        show(call, &news);
    }
    done.await
}

#[allow(
    clippy::cast_precision_loss,
    reason = "a progress bar has no 2^53 steps"
)]
fn show(call: &ToolCall, news: &CopyProgress) {
    let line = report::progress(
        news.files,
        news.bytes,
        news.total_files,
        news.total_bytes,
        &news.current,
    );
    let details = json!({ "files": news.files, "bytes": news.bytes, "current": news.current });
    call.update(&[Content::Text(line.clone())], Some(&details.to_string()));
    call.progress(
        news.bytes as f64,
        news.total_bytes.map(|total| total as f64),
        &line,
    );
}

fn copied(done: &CopySummary) -> Copied {
    Copied {
        files: done.files,
        directories: done.directories,
        links: done.links,
        bytes: done.bytes,
        left_out: done.left_out,
        was_directory: done.was_directory,
    }
}

/// What to tell the model of a copy that failed: what, where, why, and what to do next.
async fn failed(source: &End, target: &End, error: Error) -> ToolError {
    if matches!(error, Error::Cancelled | Error::Denied(_)) {
        return outcome::ended("", error);
    }
    // The VM itself may be the reason, and then it says more than the copy can.
    if matches!(
        error,
        Error::NotFound(_) | Error::Unavailable(_) | Error::Conflict(_) | Error::TimedOut(_)
    ) {
        for id in [&source.vm, &target.vm].into_iter().flatten() {
            if let Some(why) = vm::not_ready(id).await {
                return outcome::failed(why);
            }
        }
    }
    let why = outcome::explain(&error);
    let why = why.trim_end_matches('.');
    match (&error, &source.vm) {
        (Error::NotFound(_), Some(vm)) => outcome::failed(format!(
            "No files found at {} on VM {vm} ({why}). Check the path: it is absolute, or begins at the home directory.",
            source.path
        )),
        (Error::NotFound(_), None) => outcome::failed(format!(
            "File not found: {} ({why}). Check the path: it is absolute, or begins at the working directory.",
            source.path
        )),
        (Error::Conflict(_), _) => outcome::failed(format!(
            "Cannot copy {source} to {target}: {why}. dst is the exact name of the copy, not the directory to put it into."
        )),
        _ => outcome::ended(&format!("Cannot copy {source} to {target}"), error),
    }
}
