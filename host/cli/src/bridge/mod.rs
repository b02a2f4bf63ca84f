//! `pi-vers bridge`: the host behind a harness that can't embed Rust, see `docs/bridge.md`.
//!
//! Standard output carries nothing but the protocol. The process ends when the harness says so, when its input ends, or at
//! a signal, within [`END`] and the time that writing the last answers takes, whatever extensions do: what they started
//! ends with it. A line that is none ends it, too, and with a failure.

mod dispatch;
pub(crate) mod events;
mod frames;
mod harness;
mod ready;
mod requests;
mod stage;
pub(crate) mod values;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pi_vers_host::{Harness as _, Severity};
use tokio::io::AsyncRead;
use tokio::time::timeout;

use self::dispatch::Dispatch;
use self::frames::{Hello, Incoming, Outgoing, VERSION};
use self::harness::Shim;
use self::ready::Ready;
use self::stage::Stage;
use crate::args::Bridge;
use crate::failure::{Code, Failure};
use crate::local::Local;
use crate::terminal::Terminal;
use crate::wire::{END, Lines, Outbox, Signals, Stdio};

/// How long the shim may take to say `hello`.
const HELLO: Duration = Duration::from_secs(10);

/// Serves a harness on standard input and output until it ends.
pub(crate) async fn bridge(terminal: Arc<Terminal>, options: Bridge) -> Result<Code, Failure> {
    let mut signals = Signals::watch()?;
    let mut stdio = Stdio::open();
    let outbox = stdio.outbox.clone();
    let mut place = Place {
        terminal: &terminal,
        local: None,
    };
    let served = serve(
        &options,
        &mut place,
        &outbox,
        &mut stdio.lines,
        &mut signals,
    )
    .await;
    if let Err(Ended::Fatal(why)) = &served {
        let line = why.line();
        outbox.send_small(Outgoing::Fatal { message: &line }.line());
    }
    stdio.finish().await;
    let left = match place.local {
        Some(local) => local.leave(&terminal).await,
        None => Ok(()),
    };
    match served {
        Ok(()) => left.map(|()| Code::Ok),
        Err(Ended::Fatal(why) | Ended::Broken(why)) => Err(why),
    }
}

/// Where the platform is that this harness uses.
struct Place<'a> {
    terminal: &'a Terminal,
    /// That of this machine, once it is attached.
    local: Option<Local>,
}

/// How it ends other than by being told.
enum Ended {
    /// Nothing could be served.
    Fatal(Failure),
    /// The shim broke the protocol.
    Broken(Failure),
}

impl From<Failure> for Ended {
    fn from(why: Failure) -> Self {
        Self::Fatal(why)
    }
}

fn broken(why: impl std::fmt::Display) -> Ended {
    let failure = Failure::new(
        Code::Usage,
        "protocol",
        format!("what came on standard input is not the bridge's protocol: {why}"),
    );
    Ended::Broken(failure.next("see docs/bridge.md"))
}

async fn serve(
    options: &Bridge,
    place: &mut Place<'_>,
    outbox: &Arc<Outbox>,
    lines: &mut Lines<impl AsyncRead + Unpin>,
    signals: &mut Signals,
) -> Result<(), Ended> {
    let hello = tokio::select! {
        () = signals.any() => return Ok(()),
        () = outbox.gone().cancelled() => return Ok(()),
        hello = timeout(HELLO, hello(lines)) => match hello {
            Ok(hello) => hello?,
            Err(_) => {
                let why = format!("no `hello` came within {} s", HELLO.as_secs());
                return Err(Failure::new(Code::TimedOut, "protocol", why)
                    .next("`pi-vers bridge` is started by a harness, see docs/bridge.md").into());
            }
        },
    };
    let Some(hello) = hello else {
        return Ok(());
    };
    if hello.v == 0 {
        let why = format!("this host speaks version {VERSION} of the bridge's protocol, not 0");
        return Err(Failure::usage(why).into());
    }
    tracing::debug!(
        harness = hello.harness.kind,
        version = hello.harness.version,
        "hello"
    );
    let directory = Path::new(&hello.cwd);
    if !directory.is_absolute() {
        let why = "the `cwd` of `hello` is no absolute path";
        return Err(Failure::usage(why).into());
    }
    if options.local {
        let attached = Local::attach(place.terminal, options.state.as_deref());
        place.local = Some(attached.await?);
    }
    let mut stage = tokio::select! {
        () = signals.any() => return Ok(()),
        stage = Stage::set(options.loading.clone(), directory, place.local.as_ref()) => stage?,
    };
    let shim = Arc::new(Shim::new(outbox.clone(), hello.clone()));
    let session = stage.open(&shim)?;
    let ready = Ready::new(&session, stage.infos(), &hello.built_ins);
    let line = Outgoing::Ready(Box::new(ready)).line();
    outbox.send(line).await;
    for left_out in stage.take_left_out() {
        tracing::warn!("{left_out}");
        shim.notify("pi-vers", &left_out, Severity::Warning);
    }
    let mut dispatch = Dispatch::new(shim.clone(), outbox.clone(), stage, session);
    let ended = loop {
        tokio::select! {
            biased;
            () = signals.any() => break Ok(()),
            () = outbox.gone().cancelled() => break Ok(()),
            line = lines.next() => match line {
                Ok(None) => break Ok(()),
                Ok(Some(line)) => match frames::read(&line) {
                    Ok(frame) => {
                        if !dispatch.take(frame, line.len()) {
                            break Ok(());
                        }
                    }
                    Err(why) => break Err(broken(why)),
                },
                Err(why) => break Err(broken(why)),
            },
        }
    };
    end(dispatch, &shim, lines).await;
    ended
}

/// Ends the session. Answers of the shim are still taken: an extension that keeps something at its end needs them.
async fn end(dispatch: Dispatch, shim: &Shim, lines: &mut Lines<impl AsyncRead + Unpin>) {
    let answers = async {
        while let Ok(Some(line)) = lines.next().await {
            let Ok(frame) = frames::read(&line) else {
                break;
            };
            // Whatever else it asks for comes too late.
            let _ = shim.requests.take(frame);
        }
        // Nobody is there any more.
        shim.requests.close();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        ended = timeout(END, dispatch.end()) => {
            if ended.is_err() {
                tracing::warn!("an extension did not end in time");
            }
        }
        () = answers => {}
    }
    shim.requests.close();
}

/// The first frame; `None` when the input ends before it.
async fn hello(lines: &mut Lines<impl AsyncRead + Unpin>) -> Result<Option<Hello>, Ended> {
    loop {
        let Some(line) = lines.next().await.map_err(broken)? else {
            return Ok(None);
        };
        match frames::read(&line).map_err(broken)? {
            Incoming::Hello(hello) => return Ok(Some(hello)),
            Incoming::Misfit { why, .. } => return Err(broken(why)),
            Incoming::Shutdown => return Ok(None),
            _ => tracing::warn!("a frame before `hello` is passed over"),
        }
    }
}
