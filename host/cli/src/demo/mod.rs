//! `pi-vers demo`: the main job, for real, on this machine.
//!
//! The local platform, the shipped components and the real SSH path; every step goes through `Session::call`, as a
//! harness would, or with `--mcp` through a server for clients of the Model Context Protocol. With `--swarm` the job is one for many agents, see `swarm`. A step that fails says why; steps that need it are skipped; the end always runs.

mod board;
mod bytes;
mod client;
mod image;
mod leftovers;
mod model;
mod plan;
mod project;
mod relay;
mod stage;
mod steps;
mod swarm;
mod tree;
mod watcher;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use vers_local::Endpoint;

use crate::args::Demo;
use crate::failure::{Code, Failure};
use crate::interrupt::Interrupts;
use crate::terminal::Terminal;
use crate::{dirs, local};
use board::Board;
use plan::{STEPS, SWARM, Step};
use stage::Stage;
use swarm::Swarm;

/// Where the demo keeps everything, and whether that stays.
struct Ground {
    state: PathBuf,
    /// For the host's own files, where these are not the user's.
    host: Option<PathBuf>,
    /// The tools' working directory on this machine.
    work: PathBuf,
    /// Removed at the end.
    temporary: tempfile::TempDir,
    /// Somebody else's platform, or one to keep: it is not ended.
    stays: bool,
    /// The tools are a server's of the Model Context Protocol.
    mcp: bool,
}

impl Ground {
    fn choose(options: &Demo) -> Result<Self, Failure> {
        let failed = |why: std::io::Error| {
            Failure::internal(format!("cannot make a temporary directory: {why}"))
                .next("set TMPDIR, or give --state DIR")
        };
        let temporary = tempfile::Builder::new()
            .prefix("pi-vers-demo-")
            .tempdir()
            .map_err(failed)?;
        let root = temporary.path().canonicalize().map_err(failed)?;
        std::fs::create_dir(root.join("work")).map_err(failed)?;
        if options.keep {
            return Ok(Self {
                state: dirs::local(options.state.as_deref())?,
                host: None,
                work: root.join("work"),
                temporary,
                stays: true,
                mcp: options.mcp,
            });
        }
        let state = match &options.state {
            Some(given) => dirs::local(Some(given))?,
            None => root.join("platform"),
        };
        if state.exists() {
            return Err(Failure::usage(format!(
                "{} is there already, and the demo removes what it made",
                state.display()
            ))
            .next("give a directory that is not there, or --keep"));
        }
        Ok(Self {
            state,
            host: Some(root.join("host")),
            work: root.join("work"),
            temporary,
            stays: false,
            mcp: options.mcp,
        })
    }
}

/// Runs the demo.
pub(crate) async fn demo(terminal: Arc<Terminal>, options: Demo) -> Result<Code, Failure> {
    // Before anything is made: there may be no such agent.
    let swarm = match options.swarm {
        Some(workers) => Some(Swarm::new(workers.into(), options.agent)?),
        None => None,
    };
    let steps: &[Step] = match swarm {
        Some(_) => &SWARM,
        None => &STEPS,
    };
    let ground = Ground::choose(&options)?;
    let flag = local::state_flag(&ground.state);
    let clean = if ground.stays {
        format!("`pi-vers local down{flag}`")
    } else {
        format!("`pi-vers local reset{flag}`")
    };
    let interrupts = Interrupts::watch(
        terminal.clone(),
        Some(format!("the demo's platform may be left: {clean} ends it")),
    )?;
    let mut board = Board::new(terminal.clone(), options.json);

    let mut stage = Stage::new(terminal.clone(), &ground, &interrupts, swarm);
    let mut done: Vec<&'static str> = Vec::new();
    for step in steps {
        if interrupts.happened() {
            board.skipped(step.title, "cancelled");
            continue;
        }
        if let Some(missing) = step.needs.iter().find(|needed| !done.contains(needed)) {
            board.skipped(step.title, &format!("it needs the step \"{missing}\""));
            continue;
        }
        let begun = Instant::now();
        let result = Box::pin(stage.run(step.name)).await;
        terminal.end_show();
        if result.is_ok() {
            done.push(step.name);
        }
        board.ran(step.title, begun.elapsed(), &result);
        terminal.panel_again();
    }
    terminal.end_show();

    let begun = Instant::now();
    let kept = stage.close(options.keep && !interrupts.happened()).await;
    if let Ok(kept) = &kept
        && ground.stays
    {
        board.ran(
            "End the session; the platform stays",
            begun.elapsed(),
            &Ok(kept.lines()),
        );
    } else {
        let endpoint = kept.as_ref().ok().and_then(|kept| kept.endpoint.clone());
        let result = Box::pin(end(ground, endpoint)).await;
        board.ran(
            "Shut the platform down: nothing is left",
            begun.elapsed(),
            &result,
        );
    }
    let code = board.end(interrupts.happened());
    if let (true, Ok(kept)) = (options.keep && !options.json, &kept) {
        for line in kept.how_to_go_on(&flag) {
            terminal.line(line);
        }
    }
    Ok(code)
}

/// Ends and removes the platform, and looks for what should not be there any more.
async fn end(ground: Ground, endpoint: Option<Endpoint>) -> Result<board::Told, Failure> {
    let report = vers_local::reset(&ground.state).await?;
    let path = ground.temporary.path().to_owned();
    ground.temporary.close().map_err(|why| {
        Failure::internal(format!("{} can't be removed: {why}", path.display()))
            .next("remove it by hand")
    })?;
    if let Some(endpoint) = &endpoint {
        leftovers::server_gone(endpoint).await;
    }
    let left = leftovers::of(&ground.state, endpoint.as_ref());
    if !left.is_empty() {
        return Err(
            Failure::internal(format!("left behind: {}", left.join("; ")))
                .next("this is a bug: please report it"),
        );
    }
    Ok(vec![format!(
        "server {}, {} VM(s) still had processes and were ended; no process, cgroup, mount or file of it is left",
        if report.was_running {
            "ended"
        } else {
            "was not running"
        },
        report.vms_put_to_sleep
    )])
}
