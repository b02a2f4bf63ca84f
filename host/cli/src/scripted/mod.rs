//! `pi-vers scripted-agent`: a coding agent without a model, for tests and the demo.
//!
//! It speaks pi's RPC protocol as pi 0.73 does, with its order of events and its traps; what it does is said by the prompts, line by line
//! (`docs/scripted-agent.md`). Commands that it runs are real, in process groups of their own.
//!
//! The end of its input ends it with 0, and what runs is stopped; SIGTERM ends it with 143 and SIGHUP with 129, as pi does.

mod agent;
mod commands;
mod draft;
mod messages;
mod models;
mod options;
mod run;
mod script;
mod session;
mod shell;
mod steps;
mod text;
mod tool;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use self::agent::{Agent, Exit};
use self::options::Options;
use self::script::Deadly;
use self::session::Session;
use crate::failure::{Code, Failure};
use crate::terminal::Terminal;
use crate::wire::Stdio;

/// How long what runs may take to stop.
const END: Duration = Duration::from_secs(2);
/// What `--version` says.
const VERSION: &str = "0.73.1";

/// Serves until the end of the input, a signal, or a prompt that ends it.
pub(crate) async fn scripted(terminal: &Terminal, words: Vec<OsString>) -> Result<Code, Failure> {
    let words: Vec<String> = words
        .into_iter()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let options = Options::read(&words);
    if options.version {
        terminal.line(VERSION);
        return Ok(Code::Ok);
    }
    if options.mode.as_deref() != Some("rpc") {
        return Err(
            Failure::usage("the scripted agent has no mode but rpc").next("give --mode rpc")
        );
    }
    let models =
        models::available(|name| std::env::var_os(name).is_some_and(|key| !key.is_empty()));
    let meant = models::meant(
        &models,
        options.provider.as_deref(),
        options.model.as_deref(),
    );
    let Some(model) = meant.cloned() else {
        let named = options.model.or(options.provider).unwrap_or_default();
        return Err(Failure::new(
            Code::Tool,
            "model",
            format!("Model \"{named}\" not found. Use --list-models to see available models."),
        ));
    };
    let sessions = match options.no_session {
        true => None,
        false => options.session_dir.clone().or_else(usual_sessions),
    };
    let session = match options.resume {
        true => Session::resume(sessions.as_deref()),
        false => Session::new(sessions.as_deref()),
    };
    let watch = |kind| {
        signal(kind).map_err(|why| Failure::internal(format!("cannot watch for signals: {why}")))
    };
    let (mut terminate, mut hang_up) = (
        watch(SignalKind::terminate())?,
        watch(SignalKind::hangup())?,
    );

    let mut stdio = Stdio::open();
    let prompt = options.system_prompt();
    let (agent, prompts, mut exits) = Agent::new(
        models,
        model,
        prompt,
        session,
        sessions,
        stdio.outbox.clone(),
    );
    agent.tasks.spawn(run::serve(agent.clone(), prompts));
    let exit = loop {
        tokio::select! {
            biased;
            exit = exits.recv() => break exit.unwrap_or(Exit::Code(0)),
            _ = terminate.recv() => break Exit::Code(143),
            _ = hang_up.recv() => break Exit::Code(129),
            () = stdio.outbox.gone().cancelled() => break Exit::Code(0),
            next = stdio.lines.next() => match next {
                Ok(Some(line)) => commands::take(&agent, &line).await,
                Ok(None) => break Exit::Code(0),
                Err(why) => {
                    let why = format!("Failed to parse command: {why}");
                    agent.emit(messages::refused(None, "parse", &why)).await;
                    break Exit::Code(1);
                }
            },
        }
    };
    end(&agent, stdio, exit).await
}

/// Stops what runs, and ends the process.
async fn end(agent: &Agent, stdio: Stdio, exit: Exit) -> ! {
    // Nothing that ends now says so, as in pi.
    stdio.outbox.finish();
    agent.stop.cancel();
    agent.tasks.close();
    if timeout(END, agent.tasks.wait()).await.is_err() {
        tracing::warn!("a command did not end in time");
    }
    stdio.finish().await;
    match exit {
        Exit::Code(code) => std::process::exit(code),
        Exit::Signal(signal) => strike(signal),
    }
}

/// Ends this process by a signal.
fn strike(signal: Deadly) -> ! {
    let signal = match signal {
        Deadly::Kill => Signal::KILL,
        Deadly::Abort => Signal::ABORT,
        Deadly::Segv => Signal::SEGV,
    };
    // Who handles it first gives it back.
    for _ in 0..3 {
        let _ = kill_process(getpid(), signal);
    }
    std::process::abort()
}

/// Where pi keeps sessions.
fn usual_sessions() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let agent = set("PI_CODING_AGENT_DIR")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(set("HOME")?).join(".pi/agent")))?;
    Some(agent.join("sessions"))
}
