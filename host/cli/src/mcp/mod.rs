//! `pi-vers mcp`: the extensions behind the Model Context Protocol, see `docs/mcp.md`.
//!
//! Standard output carries nothing but the protocol. Clients end a server by closing its input or by a signal, and kill it
//! soon after: so both end it within [`END`], with calls under way, after what they started was told to stop.
//!
//! The protocol itself is in [`rpc`], [`era`] and [`server`]; nothing else knows its messages.

mod catalogue;
mod desk;
mod dialog;
mod era;
mod front;
mod house;
mod listing;
mod parking;
mod rpc;
mod running;
mod server;
mod stdio;

use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::timeout;

use self::desk::Desk;
use self::house::Place;
use self::listing::Listing;
use self::rpc::{Line, Lines};
use self::server::Server;
use crate::args::Mcp;
use crate::failure::{Code, Failure};
use crate::local::{self, Local};
use crate::terminal::Terminal;
use crate::wire::{Outbox, Signals};

/// How long the end of what was under way may take.
const END: Duration = Duration::from_millis(150);
/// How long the last lines may take.
const FLUSH: Duration = Duration::from_millis(20);

/// Serves a client on standard input and output until it ends.
pub(crate) async fn mcp(terminal: Arc<Terminal>, options: Mcp) -> Result<Code, Failure> {
    let mut signals = Signals::watch()?;
    let outbox = Outbox::new();
    let (desk, board) = (Desk::new(outbox.clone()), Arc::new(Mutex::default()));
    let place = Place::default();
    let kept = listing::file(&options.loading);
    let early = kept.as_deref().and_then(Listing::read);
    let opening = house::open(
        terminal,
        options,
        (kept, early.clone()),
        desk.clone(),
        board.clone(),
        place.clone(),
    );
    let mut server = Server::new(outbox.clone(), desk, board, opening, early);
    let mut lines = Lines::new(stdio::input(), rpc::LONGEST);
    // Here and not in a task: this thread runs no extension, and answers whatever those do.
    let writing = outbox.write(stdio::output());
    tokio::pin!(writing);
    let serving = async {
        loop {
            match lines.next().await {
                Ok(Some(Line::Whole(line))) => server.take(&line).await,
                Ok(Some(Line::TooLong)) => server.take_too_long().await,
                Ok(None) => break,
                Err(why) => {
                    tracing::debug!("standard input: {why}");
                    break;
                }
            }
        }
    };
    tokio::select! {
        biased;
        () = signals.any() => {}
        () = serving => {}
        // The client reads no more.
        () = &mut writing => {}
    }
    let ending = async {
        if timeout(END, server.end()).await.is_err() {
            tracing::warn!("an extension did not end in time");
        }
        outbox.finish();
    };
    let ended = async {
        let ((), written) = tokio::join!(ending, timeout(END + FLUSH, &mut writing));
        if written.is_err() {
            tracing::debug!("the client did not read the last lines");
        }
    };
    ended.await;
    leave(&place);
    Ok(Code::Ok)
}

/// Ends a local platform that was started for this client. That takes longer than the client gives us, so it is left to a
/// process of its own.
fn leave(place: &Place) {
    let local = place.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(state) = local.as_ref().and_then(Local::to_end) else {
        return;
    };
    let Ok(program) = local::program() else {
        return;
    };
    use std::os::unix::process::CommandExt as _;
    let mut down = Command::new(program);
    down.args(["--quiet", "local", "down", "--state"])
        .arg(state)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // A signal for the client's group is not for it.
        .process_group(0);
    if let Err(why) = down.spawn() {
        tracing::warn!("the local platform still runs: {why}");
    }
}
