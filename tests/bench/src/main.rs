//! Measures this project against OpenSSH's own programs and against a bare SSH channel, interleaved in one run.
//!
//! `cargo run --release -p pi-vers-bench -- [--quick] [--only exec,bulk,…]` prints the tables of `docs/benchmarks.md`.
//! Figures are printed, never judged by an exit code. Nothing is installed; what is missing is told.

#![allow(
    clippy::print_stderr,
    reason = "tables go to standard output, all else beside it"
)]

mod bare;
mod cases;
mod cpu;
mod lab;
mod original;
mod ours;
mod report;
mod rounds;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use crate::cases::{Context, bulk, end, exec, languages, mcp, swarm, tree};
use crate::lab::Lab;
use crate::original::Route;

/// What can fail here is told to whoever runs it, and nobody decides by its kind.
type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Measures pi-vers against OpenSSH's own programs. Needs root, for sshd.
#[derive(Debug, Parser)]
struct Arguments {
    /// Fewer rounds and less data: to see that it works, not what it is worth.
    #[arg(long)]
    quick: bool,
    /// Only these jobs.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Job>,
    /// Only methods whose names contain one of these, for example `ours,bare`: to profile them.
    #[arg(long, value_delimiter = ',')]
    methods: Vec<String>,
    /// Where files go, the VM's too. /dev/shm unless given: disks are not what is measured.
    #[arg(long)]
    scratch: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Job {
    /// One command behind the other.
    Exec,
    /// The same, 20 ms away.
    Distance,
    /// 32 commands at once.
    Many,
    /// A stream in each direction.
    Bulk,
    /// A large file in each direction.
    File,
    /// 2,000 small files in each direction.
    Tree,
    /// Back after a cut connection.
    Cut,
    /// From cancelling to the last process' end.
    Cancel,
    /// Workers of a swarm, until all are ready.
    Swarm,
    /// A tool that does nothing, by the Model Context Protocol.
    Mcp,
    /// The same extension in each language.
    Languages,
}

fn main() -> ExitCode {
    let be_the_vm = std::env::args_os()
        .nth(1)
        .is_some_and(|first| first == lab::ARGUMENT);
    let arguments = (!be_the_vm).then(Arguments::parse);
    let done = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Into::into)
        .and_then(|runtime| {
            runtime.block_on(async {
                match arguments {
                    None => lab::serve().await,
                    Some(arguments) => measure(arguments).await,
                }
            })
        });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

/// The job that needs no VM, and so no root and no sshd.
fn measure_mcp(below: PathBuf, quick: bool) -> Outcome<Vec<report::Bar>> {
    let scratch = tempfile::Builder::new()
        .prefix("pv-bench-")
        .tempdir_in(below)?;
    mcp::measure(scratch.path(), quick)
}

/// The other one.
async fn measure_languages(below: &Path, quick: bool) -> Outcome<()> {
    let scratch = tempfile::Builder::new()
        .prefix("pv-bench-")
        .tempdir_in(below)?;
    languages::measure(scratch.path(), quick).await
}

async fn measure(arguments: Arguments) -> Outcome<()> {
    let shared = Path::new("/dev/shm");
    let below = match arguments.scratch {
        Some(given) => given,
        None if shared.is_dir() => shared.to_owned(),
        None => std::env::temp_dir(),
    };
    if arguments.only == [Job::Mcp] {
        report::processor();
        let quick = arguments.quick;
        let bars = tokio::task::spawn_blocking(move || measure_mcp(below, quick)).await??;
        report::bars(&bars);
        return Ok(());
    }
    if arguments.only == [Job::Languages] {
        report::processor();
        return measure_languages(&below, arguments.quick).await;
    }
    if !rustix::process::geteuid().is_root() {
        return Err("sshd lets nobody but root log in as root: run this as root".into());
    }
    let wanted = |job| arguments.only.is_empty() || arguments.only.contains(&job);
    for (program, package) in [
        ("sshd", "openssh-server"),
        ("ssh", "openssh-client"),
        ("scp", "openssh-client"),
        ("openssl", "openssl"),
        ("tar", "tar"),
    ] {
        if !is_there(program) {
            return Err(format!("{program} is missing: apt-get install {package}").into());
        }
    }
    for (program, what) in [
        (
            "node",
            "the original's own way of calling ssh is not measured (ssh from here is)",
        ),
        ("rsync", "no comparison with it"),
    ] {
        if !is_there(program) {
            eprintln!(
                "{program} is missing: {what}; apt-get install {program}{}",
                if program == "node" { "js" } else { "" }
            );
        }
    }
    let scratch = tempfile::Builder::new()
        .prefix("pv-bench-")
        .tempdir_in(&below)?;

    let wasm = ours::component()?;
    let lab = Lab::start(scratch.path()).await?;
    let node = if is_there("node") {
        Some(original::Node::start()?)
    } else {
        None
    };
    let meter = cpu::Meter::new(lab.id())?;
    meter.keep_all();
    let agreed = bare::Bare::connect(&lab.places, lab.places.near)
        .await?
        .agreed;
    let route = Route::new(&lab.places, lab.places.near);
    let theirs = original::agreed(&route).await?;
    report::machine(scratch.path(), &agreed, &theirs);
    let context = Context {
        lab,
        meter,
        here: scratch.path().to_owned(),
        wasm,
        node,
        rsync: is_there("rsync"),
        quick: arguments.quick,
        methods: arguments.methods,
    };

    let mut bars = Vec::new();
    for job in Job::value_variants() {
        if !wanted(*job) {
            continue;
        }
        bars.extend(match job {
            Job::Exec => exec::near(&context).await?,
            Job::Distance => exec::far(&context).await?,
            Job::Many => exec::many(&context).await?,
            Job::Bulk => bulk::streams(&context).await?,
            Job::File => bulk::file(&context).await?,
            Job::Tree => tree::trees(&context).await?,
            Job::Cut => end::cut(&context).await?,
            Job::Cancel => end::cancel(&context).await?,
            Job::Swarm => swarm::spawn(&context).await?,
            Job::Mcp => {
                let (below, quick) = (below.clone(), context.quick);
                tokio::task::spawn_blocking(move || measure_mcp(below, quick)).await??
            }
            Job::Languages => {
                measure_languages(&below, context.quick).await?;
                Vec::new()
            }
        });
    }
    report::bars(&bars);
    context.lab.end().await
}

fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    let mut directories = std::env::split_paths(&path).chain(sbin);
    directories.any(|directory| directory.join(program).is_file())
}
