//! `grep`, `find` and `ls` on the active VM.

use futures::future::{Either, select};
use pi_vers_sdk::declare::{JsonSchema, schemars};
use pi_vers_sdk::platform::shell;
use pi_vers_sdk::system::files::{self, Kind, Metadata};
use pi_vers_sdk::system::process::{Command, EnvValue, EnvVar, Exit, OutputMode, Program};
use pi_vers_sdk::{Error, ToolCall, ToolError, ToolResult, outcome, stream};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::file_tools::resolve;
use crate::glob::Glob;
use crate::limits::MAX_MATCH;
use crate::remote::{self, Notices, at, attempt};
use crate::search::{self, Dialect, Line, Listing, Matches, Query};
use crate::{paths, session};

const GREP_LIMIT: u64 = 100;
const FIND_LIMIT: u64 = 1000;
const LS_LIMIT: u64 = 500;
/// How long a search may take, in milliseconds.
const PATIENCE: u64 = 120_000;
/// How much of a program's complaints is kept, in bytes.
const MOST_COMPLAINTS: usize = 4096;
/// Longest path that `find` takes from a program, in bytes.
const LONGEST_PATH: usize = 16 * 1024;

#[derive(Deserialize, JsonSchema)]
pub(crate) struct Find {
    /// Glob pattern to match files, e.g. '*.ts', '**/*.json', or 'src/**/*.spec.ts'
    pattern: String,
    /// Directory to search in (default: current directory)
    path: Option<String>,
    /// Maximum number of results (default: 1000)
    #[schemars(range(min = 1))]
    limit: Option<u64>,
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct Ls {
    /// Directory to list (default: current directory)
    path: Option<String>,
    /// Maximum number of entries to return (default: 500)
    #[schemars(range(min = 1))]
    limit: Option<u64>,
}

/// How a program ended.
enum Ran {
    /// It is not there.
    Missing,
    /// Stopped, because there was enough.
    Enough,
    /// By itself; with what it complained of.
    Ended(Exit, String),
}

/// Runs a program on a VM and hands on what it prints, until `take` says that it is enough.
async fn run(
    vm: &str,
    argv: Vec<String>,
    mut take: impl FnMut(&[u8]) -> bool,
) -> Result<Ran, Error> {
    let utf8 = EnvVar {
        name: "LC_ALL".into(),
        value: EnvValue::Plain("C.UTF-8".into()),
    };
    let command = Command {
        program: Program::Argv(argv),
        env: vec![utf8],
        working_directory: None,
        timeout: Some(PATIENCE),
        output: OutputMode::Separate,
    };
    let child = match shell::spawn(vm.into(), command, None).await {
        Ok(child) => child,
        Err(error) => return Err(error),
    };
    let (mut stdout, mut stderr) = (child.stdout()?, child.stderr()?);
    let out = async {
        let mut buffer = Vec::new();
        while let Some(bytes) = stream::next(&mut stdout, buffer).await {
            if !take(&bytes) {
                return true;
            }
            buffer = bytes;
        }
        false
    };
    let complaints = async {
        let mut kept = Vec::new();
        let mut buffer = Vec::new();
        while let Some(bytes) = stream::next(&mut stderr, buffer).await {
            let room = MOST_COMPLAINTS.saturating_sub(kept.len()).min(bytes.len());
            kept.extend_from_slice(bytes.get(..room).unwrap_or_default());
            buffer = bytes;
        }
        String::from_utf8_lossy(&kept).trim().to_owned()
    };
    futures::pin_mut!(out, complaints);
    let (enough, complaints) = match select(out, complaints).await {
        Either::Left((true, _)) => (true, String::new()),
        Either::Left((false, complaints)) => (false, complaints.await),
        Either::Right((complaints, out)) => (out.await, complaints),
    };
    if enough {
        // Dropping the handle ends the program.
        return Ok(Ran::Enough);
    }
    match child.wait().await? {
        Exit::Code(126 | 127) => Ok(Ran::Missing),
        exit => Ok(Ran::Ended(exit, complaints)),
    }
}

/// What a search that found nothing ended with: nothing to find, or a reason.
fn nothing(ran: Ran, program: &str, path: &str) -> Result<(), ToolError> {
    let (how, complaints) = match ran {
        Ran::Enough => return Ok(()),
        Ran::Missing => {
            return Err(outcome::failed(format!(
                "{program} is not installed on the VM. Use bash instead."
            )));
        }
        Ran::Ended(Exit::Code(0 | 1), complaints) if complaints.is_empty() => return Ok(()),
        Ran::Ended(Exit::Code(code), complaints) => (format!("ended with code {code}"), complaints),
        Ran::Ended(Exit::Signal(name), complaints) => {
            (format!("was ended by signal {name}"), complaints)
        }
    };
    if complaints.contains("No such file or directory") {
        return Err(outcome::failed(format!("Path not found: {path}")));
    }
    let why = if complaints.is_empty() {
        how
    } else {
        complaints
    };
    Err(outcome::failed(format!("{program} on the VM: {why}")))
}

fn ended(tool: &str, vm: &str, error: Error) -> ToolError {
    match error {
        Error::TimedOut(_) => outcome::failed(format!(
            "{tool} on VM {vm} took longer than {} s. Search a smaller directory.",
            PATIENCE / 1000
        )),
        error => remote::failed(&format!("Cannot run {tool}"), vm, error),
    }
}

/// `grep`
pub(crate) async fn grep(
    _call: &ToolCall,
    vm: &str,
    query: Query,
    notices: &mut Notices,
) -> Result<ToolResult, ToolError> {
    grep_at(&query, vm, notices).await
}

/// Matches as they are collected.
#[derive(Default)]
struct Found {
    listing: Listing,
    matches: u64,
    more: bool,
    shortened: bool,
}

async fn grep_at(query: &Query, vm: &str, notices: &mut Notices) -> Result<ToolResult, ToolError> {
    let shown = query.path.as_deref().unwrap_or(".");
    if query.pattern.contains('\0')
        || query
            .glob
            .as_deref()
            .is_some_and(|glob| glob.contains('\0'))
    {
        return Err(outcome::failed("The pattern contains a NUL character."));
    }
    let limit = query.limit.unwrap_or(GREP_LIMIT).max(1);
    let glob = parse_glob(query.glob.as_deref())?;
    let path = resolve(vm, shown, notices).await?;
    let mut dialect = session::dialect(vm);
    loop {
        let argv = search::grep(dialect, query, &path);
        let mut found = Found::default();
        let ran = attempt(vm, notices, async || {
            found = Found::default();
            let mut matches = Matches::default();
            run(vm, argv.clone(), |bytes| {
                matches.push(bytes, |line| {
                    found.add(
                        line,
                        &path,
                        limit,
                        glob.as_ref().filter(|_| dialect != Dialect::Ripgrep),
                    )
                })
            })
            .await
        })
        .await;
        let ran = match ran {
            Ok(ran) => ran,
            Err(Error::NotFound(_)) => Ran::Missing,
            Err(error) => return Err(ended("grep", vm, error)),
        };
        let unsupported = match &ran {
            Ran::Missing => true,
            Ran::Ended(Exit::Code(2), why) => {
                dialect == Dialect::Perl && (why.contains("-P") || why.contains("invalid option"))
            }
            _ => false,
        };
        if unsupported && let Some(next) = dialect.next() {
            dialect = next;
            continue;
        }
        session::set_dialect(vm, dialect);
        if found.listing.is_empty() {
            let program = if dialect == Dialect::Ripgrep {
                "rg"
            } else {
                "grep"
            };
            nothing(ran, program, shown)?;
            return Ok(outcome::text_with("No matches found", &json!({})));
        }
        return Ok(found.finish(limit));
    }
}

impl Found {
    /// Adds a line; false when there is enough.
    fn add(&mut self, line: Line, root: &str, limit: u64, glob: Option<&Glob>) -> bool {
        let path = search::below(root, &line.path);
        if glob.is_some_and(|glob| !glob.matches(path)) {
            return true;
        }
        if line.is_match && self.matches >= limit {
            self.more = true;
            return false;
        }
        self.matches += u64::from(line.is_match);
        self.shortened |= line.shortened;
        let Line { number, text, .. } = &line;
        self.listing.push(&if line.is_match {
            format!("{path}:{number}: {text}")
        } else {
            format!("{path}-{number}- {text}")
        })
    }

    fn finish(self, limit: u64) -> ToolResult {
        let mut notices = Vec::new();
        let mut details = Map::new();
        if self.more {
            let more = limit.saturating_mul(2);
            notices.push(format!(
                "{limit} matches limit reached. Use limit={more} for more, or refine pattern"
            ));
            details.insert("matchLimitReached".into(), limit.into());
        }
        if self.shortened {
            notices.push(format!(
                "Some lines truncated to {MAX_MATCH} chars. Use read tool to see full lines"
            ));
            details.insert("linesTruncated".into(), true.into());
        }
        outcome::text_with(self.listing.finish(notices), &Value::Object(details))
    }
}

fn parse_glob(glob: Option<&str>) -> Result<Option<Glob>, ToolError> {
    let Some(glob) = glob else { return Ok(None) };
    match Glob::parse(glob) {
        Some(parsed) => Ok(Some(parsed)),
        None => Err(outcome::failed(
            "The glob is too long, or its braces stand for too many alternatives. Use a simpler one.",
        )),
    }
}

/// `find`
pub(crate) async fn find(
    _call: &ToolCall,
    vm: &str,
    args: Find,
    notices: &mut Notices,
) -> Result<ToolResult, ToolError> {
    find_at(&args, vm, notices).await
}

async fn find_at(args: &Find, vm: &str, notices: &mut Notices) -> Result<ToolResult, ToolError> {
    let shown = args.path.as_deref().unwrap_or(".");
    if args.pattern.contains('\0') {
        return Err(outcome::failed("The pattern contains a NUL character."));
    }
    let limit = args.limit.unwrap_or(FIND_LIMIT).max(1);
    let Some(glob) = parse_glob(Some(&args.pattern))? else {
        return Err(outcome::failed("Give a pattern."));
    };
    let path = resolve(vm, shown, notices).await?;
    let root = paths::argument(&path);
    loop {
        let ripgrep = session::dialect(vm) == Dialect::Ripgrep;
        let argv = search::list(ripgrep, &args.pattern, &path);
        let mut names: Vec<String> = Vec::new();
        let ran = attempt(vm, notices, async || {
            names.clear();
            let mut open: Vec<u8> = Vec::new();
            run(vm, argv.clone(), |bytes| {
                each_name(bytes, &mut open, |name| {
                    let name = search::below(&root, name);
                    if glob.matches(name) {
                        names.push(name.to_owned());
                    }
                    // One more than asked for tells whether there is more.
                    names.len() as u64 <= limit
                })
            })
            .await
        })
        .await;
        let ran = match ran {
            Ok(ran) => ran,
            Err(Error::NotFound(_)) => Ran::Missing,
            Err(error) => return Err(ended("find", vm, error)),
        };
        if ripgrep && matches!(ran, Ran::Missing) {
            session::set_dialect(vm, Dialect::Perl);
            continue;
        }
        if names.is_empty() {
            nothing(ran, if ripgrep { "rg" } else { "find" }, shown)?;
            return Ok(outcome::text_with(
                "No files found matching pattern",
                &json!({}),
            ));
        }
        return Ok(listed(names, limit));
    }
}

/// Calls `found` for each name before a NUL, until it says no.
fn each_name(bytes: &[u8], open: &mut Vec<u8>, mut found: impl FnMut(&str) -> bool) -> bool {
    for piece in bytes.split_inclusive(|byte| *byte == 0) {
        let (text, whole) = piece
            .strip_suffix(&[0])
            .map_or((piece, false), |text| (text, true));
        let room = LONGEST_PATH.saturating_sub(open.len()).min(text.len());
        open.extend_from_slice(text.get(..room).unwrap_or_default());
        if whole && !found(&String::from_utf8_lossy(&std::mem::take(open))) {
            return false;
        }
    }
    true
}

fn listed(mut names: Vec<String>, limit: u64) -> ToolResult {
    let mut notices = Vec::new();
    let mut details = Map::new();
    if names.len() as u64 > limit {
        names.pop();
        let more = limit.saturating_mul(2);
        notices.push(format!(
            "{limit} results limit reached. Use limit={more} for more, or refine pattern"
        ));
        details.insert("resultLimitReached".into(), limit.into());
    }
    names.sort_unstable();
    let mut listing = Listing::default();
    for name in &names {
        if !listing.push(name) {
            break;
        }
    }
    outcome::text_with(listing.finish(notices), &Value::Object(details))
}

/// `ls`
pub(crate) async fn ls(
    _call: &ToolCall,
    vm: &str,
    args: Ls,
    notices: &mut Notices,
) -> Result<ToolResult, ToolError> {
    ls_at(&args, vm, notices).await
}

async fn ls_at(args: &Ls, vm: &str, notices: &mut Notices) -> Result<ToolResult, ToolError> {
    let shown = args.path.as_deref().unwrap_or(".");
    let path = resolve(vm, shown, notices).await?;
    let mut entries = match attempt(vm, notices, async || files::list(at(vm, &path)).await).await {
        Ok(entries) => entries,
        Err(Error::NotFound(_)) => return Err(outcome::failed(format!("Path not found: {shown}"))),
        Err(error) => {
            if let Ok(Metadata {
                kind: Kind::File | Kind::Other,
                ..
            }) = files::stat(at(vm, &path)).await
            {
                return Err(outcome::failed(format!("Not a directory: {shown}")));
            }
            return Err(remote::failed(&format!("Cannot list {shown}"), vm, error));
        }
    };
    if entries.is_empty() {
        return Ok(outcome::text_with("(empty directory)", &json!({})));
    }
    entries.sort_by_cached_key(|entry| (entry.name.to_lowercase(), entry.name.clone()));
    let limit = usize::try_from(args.limit.unwrap_or(LS_LIMIT).max(1)).unwrap_or(usize::MAX);
    let mut listing = Listing::default();
    for entry in entries.iter().take(limit) {
        let mark = match entry.kind {
            Kind::Directory => "/",
            Kind::Link => "@",
            Kind::File | Kind::Other => "",
        };
        if !listing.push(&format!("{}{mark}", entry.name)) {
            break;
        }
    }
    let mut notices = Vec::new();
    let mut details = Map::new();
    if entries.len() > limit {
        notices.push(format!(
            "{limit} entries limit reached. Use limit={} for more",
            limit.saturating_mul(2)
        ));
        details.insert("entryLimitReached".into(), limit.into());
    }
    Ok(outcome::text_with(
        listing.finish(notices),
        &Value::Object(details),
    ))
}
