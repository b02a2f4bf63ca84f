//! `pi-vers mcp`: the extensions behind the Model Context Protocol, see `docs/mcp.md`.
//!
//! Standard output carries nothing but the protocol. Clients end a server by closing its input or by a signal, and kill it
//! soon after: so both end it within [`END`], with calls under way, after what they started was told to stop.
//!
//! Clients are served by a thread of its own, with a runtime of its own, on which no extension runs: it answers whatever those do.
//! The protocol itself is the SDK's; [`transport`] and [`http`] bring it in, [`server`] answers.

#![allow(
    deprecated,
    reason = "log messages, sampling and roots are deprecated since 2026-07-28, and served for as long as clients have them"
)]

mod asking;
mod calls;
mod catalogue;
mod client;
mod content;
mod desk;
mod front;
mod home;
mod http;
mod listing;
mod parking;
mod published;
mod question;
mod running;
mod server;
mod site;
mod skills;
mod stdio;
mod tasks;
mod transport;
mod watch;
mod words;

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use rmcp::ServiceExt as _;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use self::http::{Door, Lodging, Token};
use self::server::{Homes, Server};
use self::site::{Place, Site};
use self::skills::Skills;
use crate::args::Mcp;
use crate::failure::{Code, Failure};
use crate::local::{self, Local};
use crate::setup;
use crate::terminal::Terminal;
use crate::wire::{Outbox, Signals};

/// How long the end of what was under way may take.
const END: Duration = Duration::from_millis(120);
/// How much longer it may take while a VM is being made or deleted that would be left otherwise. Clients send SIGKILL four
/// seconds after they closed the input.
const VMS: Duration = Duration::from_secs(3);
/// How long the last lines may take.
const FLUSH: Duration = Duration::from_millis(20);

/// Serves clients: one on standard input and output until it ends, or many over HTTP until a signal.
pub(crate) async fn mcp(terminal: Arc<Terminal>, options: Mcp) -> Result<Code, Failure> {
    let place = Place::default();
    let served = Box::pin(serve(terminal, options, place.clone())).await;
    leave(&place);
    served.map(|()| Code::Ok)
}

async fn serve(terminal: Arc<Terminal>, options: Mcp, place: Place) -> Result<(), Failure> {
    let door = match options.http {
        Some(address) => Some(Door {
            address,
            token: options.token_file.as_deref().map(Token::read).transpose()?,
            hosts: options.allow_host.clone(),
            origins: options.allow_origin.clone(),
        }),
        None => None,
    };
    let skills = Skills::load(options.skills.as_deref())?;
    let site = Site::new(terminal.clone(), options, skills, place);
    let watched = watched(&site)?;
    apart(async move {
        let mut signals = Signals::watch()?;
        let _watching = match watched {
            Some(files) => {
                let watching = tokio::spawn(watch::watch(site.clone(), files)?);
                Some(AbortOnDropHandle::new(watching))
            }
            None => None,
        };
        match door {
            None => stdio(site, &mut signals).await,
            Some(door) => over_http(&terminal, site, door, &mut signals).await,
        }
    })
    .await
}

/// The files that are to be watched, if any are.
fn watched(site: &Site) -> Result<Option<Vec<PathBuf>>, Failure> {
    let loading = &site.options.loading;
    if !site.options.watch {
        return Ok(None);
    }
    let mut files = loading.extension.clone();
    files.push(setup::policy_file(loading.policy.as_deref())?);
    files.extend(crate::registry::locks());
    // A directory that is not there has no file that could change.
    files.retain(|file| {
        file.parent()
            .is_some_and(|directory| directory.as_os_str().is_empty() || directory.is_dir())
    });
    Ok(Some(files))
}

/// Runs this on a thread of its own.
async fn apart(
    work: impl Future<Output = Result<(), Failure>> + Send + 'static,
) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|why| Failure::internal(format!("cannot start: {why}")))?;
    let (sender, done) = oneshot::channel();
    let thread = std::thread::Builder::new().name("mcp".into());
    let spawned = thread.spawn(move || {
        let _ = sender.send(runtime.block_on(Box::pin(work)));
        runtime.shutdown_background();
    });
    spawned.map_err(|why| Failure::internal(format!("cannot start: {why}")))?;
    let done = done.await;
    done.unwrap_or_else(|_| Err(Failure::internal("the server crashed")))
}

async fn stdio(site: Arc<Site>, signals: &mut Signals) -> Result<(), Failure> {
    let home = site.open(site.stored(), None);
    // The client's hooks ask here while this process runs.
    let _hooks = crate::hook::listen(home.active.clone());
    let outbox = Outbox::new();
    let ended = CancellationToken::new();
    let transport = transport::Stdio::new(stdio::input(), outbox.clone(), ended.clone());
    let service = CancellationToken::new();
    let server = Server::new(Homes::One(home.clone()));
    let serving = tokio::spawn({
        let service = service.clone();
        async move {
            match server.serve_with_ct(transport, service).await {
                Ok(running) => drop(running.waiting().await),
                Err(why) => tracing::debug!("no client: {why}"),
            }
        }
    });
    // Fused: it may have ended before it is waited for once more.
    let writing = outbox.write(stdio::output()).fuse();
    tokio::pin!(writing, serving);
    tokio::select! {
        biased;
        () = signals.any() => {}
        () = ended.cancelled() => {}
        // The client reads no more.
        () = &mut writing => {}
        _ = &mut serving => {}
    }
    let over = CancellationToken::new();
    let ending = async {
        let end = home.end();
        tokio::pin!(end);
        let mut ended = timeout(END, &mut end).await;
        if ended.is_err() && home.changes_vms() {
            ended = timeout(VMS, &mut end).await;
        }
        if ended.is_err() {
            tracing::warn!("an extension did not end in time");
        }
        service.cancel();
        outbox.finish();
        over.cancel();
    };
    let no_longer = async {
        over.cancelled().await;
        tokio::time::sleep(FLUSH).await;
    };
    tokio::select! {
        biased;
        // The answers that the end brings are written meanwhile.
        _ = async { tokio::join!(ending, &mut writing) } => {}
        () = no_longer => tracing::debug!("the client did not read the last lines"),
    }
    Ok(())
}

async fn over_http(
    terminal: &Terminal,
    site: Arc<Site>,
    door: Door,
    signals: &mut Signals,
) -> Result<(), Failure> {
    let listener = http::listen(&door).await?;
    let address = listener.local_addr();
    let address = address.map_err(|why| Failure::internal(format!("no address: {why}")))?;
    terminal.note(format!("listening on http://{address}/mcp"));
    let end = site.end.clone();
    let serving = http::serve(listener, door, Lodging::new(site));
    tokio::pin!(serving);
    tokio::select! {
        biased;
        () = signals.any() => {}
        served = &mut serving => return served,
    }
    end.cancel();
    if timeout(END, serving).await.is_err() {
        tracing::warn!("an extension did not end in time");
    }
    Ok(())
}

/// A lock, also one that somebody held who panicked: nothing here is left half changed.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends a local platform that was started for this process. That takes longer than a client gives us, so it is left to a
/// process of its own.
fn leave(place: &Place) {
    let local = locked(place).take();
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
