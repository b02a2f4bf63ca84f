//! The seams at which a [`StandIn`](crate::StandIn) takes the world's place: behind the policy, before anything is done.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream;
use pi_vers_policy::Access as Want;
use pi_vers_system::files as local;
use pi_vers_system::http as egress;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use wasmtime::component::{Accessor, Resource};

use super::files::Place as FilePlace;
use super::process::{Child, Place, Running, adopt, argv, name};
use super::streams::{Incoming, Output};
use super::vms::facts;
use crate::bindings::vers::harness::types::Error;
use crate::bindings::vers::system::process::{
    Command, EnvValue, Exit, OutputMode, Signal, Stopped,
};
use crate::bindings::web::vers::system::http::HeaderValue;
use crate::error::Refusal;
use crate::guest::{Ask, Guest, Has};
use crate::stand_in::{
    MOST_INPUT, Refused, StandIn, StandInCommand, StandInEnd, StandInRequest, StandInRun,
    StandInValue,
};

/// Where programs are that are named without a path: the same on every machine.
const PROGRAMS: &str = "/usr/bin";

fn refused((kind, message): Refused) -> Error {
    match kind {
        Refusal::Denied => Error::Denied(message),
        Refusal::Invalid => Error::Invalid(message),
        Refusal::NotFound => Error::NotFound(message),
        Refusal::Conflict => Error::Conflict(message),
        Refusal::TimedOut => Error::TimedOut(message),
        Refusal::Cancelled => Error::Cancelled,
        Refusal::Unavailable => Error::Unavailable(message),
        Refusal::Limit => Error::Limit(message),
        Refusal::Other => Error::Other(message),
    }
}

/// What nothing stands in for.
pub(super) fn none_for(ask: &Ask, what: &str) -> Result<(), Error> {
    match ask.services.stand_in {
        Some(_) => Err(Error::Unavailable(format!(
            "nothing stands in for {what} in a test: run it against a platform"
        ))),
        None => Ok(()),
    }
}

/// A process that a script plays.
pub(super) struct Played {
    stand_in: Arc<dyn StandIn>,
    id: u64,
    end: StandInEnd,
    timeout: Option<Duration>,
    stopped: CancellationToken,
}

impl Drop for Played {
    fn drop(&mut self) {
        // As a real one, it ends with whoever held it.
        self.end_it();
    }
}

impl Played {
    /// Ends it, if it has not ended before.
    fn end_it(&self) {
        if self.end == StandInEnd::Never && !self.stopped.is_cancelled() {
            self.stopped.cancel();
            self.stand_in.stopped(self.id);
        }
    }

    /// It belongs to its call now.
    pub(super) fn begun(&self) {
        self.stand_in.started(self.id);
    }

    /// It lives on, and nobody is told of its end.
    pub(super) fn detach(self) {
        self.stopped.cancel();
    }

    pub(super) async fn wait(&self) -> Result<Exit, Error> {
        match &self.end {
            StandInEnd::Code(code) => Ok(Exit::Code(*code)),
            StandInEnd::Signal(name) => Ok(Exit::Signal(name.clone())),
            StandInEnd::Never => {
                let limit = self.timeout.unwrap_or(Duration::MAX);
                let over = tokio::time::timeout(limit, self.stopped.cancelled()).await;
                if over.is_err() {
                    self.end_it();
                    return Err(Error::TimedOut(
                        "the command ran into its time limit".into(),
                    ));
                }
                Ok(Exit::Signal("TERM".into()))
            }
        }
    }

    pub(super) fn halt(&self) -> Stopped {
        self.end_it();
        Stopped {
            escaped: 0,
            left: 0,
        }
    }

    pub(super) fn signal(&self, signal: Signal) {
        match signal {
            Signal::Interrupt | Signal::Terminate | Signal::Kill | Signal::HangUp => self.end_it(),
            Signal::User1 | Signal::User2 | Signal::Stop | Signal::Continue => {}
        }
    }
}

/// A process with its outputs.
pub(super) type Started = (Arc<Running>, Option<Output>, Option<Output>);

/// A command to play, as the extension wrote it: noted before the policy and the secrets make of it what would run.
pub(super) struct Asked {
    command: StandInCommand,
    merged: bool,
    timeout: Option<Duration>,
}

impl Asked {
    /// For this VM, or for this machine.
    pub(super) fn of(command: &Command, vm: Option<String>) -> Self {
        let env = command.env.iter().map(|variable| {
            let value = match &variable.value {
                EnvValue::Plain(value) => StandInValue::Plain(value.clone()),
                EnvValue::Secret(name) => StandInValue::Secret(name.clone()),
            };
            (variable.name.clone(), value)
        });
        Self {
            command: StandInCommand {
                vm,
                argv: argv(command.program.clone()),
                env: env.collect(),
                directory: command.working_directory.clone(),
            },
            merged: matches!(command.output, OutputMode::Merged),
            timeout: command.timeout.map(Duration::from_millis),
        }
    }
}

/// Begins to play a command that was permitted; `what` is its name for people.
pub(super) fn play(
    stand_in: &Arc<dyn StandIn>,
    asked: Asked,
    stdin: Option<Incoming>,
    what: String,
    room: OwnedSemaphorePermit,
) -> Result<Started, Error> {
    let run = stand_in.command(asked.command).map_err(refused)?;
    let StandInRun {
        mut stdout,
        mut stderr,
        end,
        id,
    } = run;
    if asked.merged {
        stdout.append(&mut stderr);
    }
    if let Some(input) = stdin {
        let stand_in = stand_in.clone();
        tokio::spawn(async move { stand_in.input(id, whole(input).await) });
    }
    let stopped = CancellationToken::new();
    let outputs = [stdout, stderr].map(|pieces| {
        let last = match end {
            StandInEnd::Never => Some(stopped.clone()),
            StandInEnd::Code(_) | StandInEnd::Signal(_) => None,
        };
        output(pieces, last)
    });
    let played = Played {
        stand_in: stand_in.clone(),
        id,
        end,
        timeout: asked.timeout,
        stopped,
    };
    let [stdout, stderr] = outputs;
    Ok((
        Running::new(what, Place::Played(played), room, None),
        Some(stdout),
        Some(stderr),
    ))
}

/// What a process writes; it ends with the process.
fn output(pieces: Vec<Vec<u8>>, until: Option<CancellationToken>) -> Output {
    let pieces = stream::iter(pieces.into_iter().map(Bytes::from));
    match until {
        None => pieces.boxed(),
        Some(until) => {
            let rest = stream::once(async move { until.cancelled_owned().await });
            pieces
                .chain(rest.filter_map(|()| std::future::ready(None)))
                .boxed()
        }
    }
}

/// All of an input, as far as it is kept.
async fn whole(mut input: Incoming) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(chunk) = input.recv().await {
        let room = MOST_INPUT.saturating_sub(all.len()).min(chunk.len());
        all.extend_from_slice(chunk.get(..room).unwrap_or_default());
    }
    all
}

/// A header's value, as it is told.
pub(super) fn value(of: &HeaderValue) -> StandInValue {
    match of {
        HeaderValue::Plain(value) => StandInValue::Plain(value.clone()),
        HeaderValue::Secret(name) => StandInValue::Secret(name.clone()),
    }
}

/// `shell.spawn`, played.
pub(super) async fn spawn_on_vm(
    accessor: &Accessor<Guest, Has>,
    ask: &Ask,
    stand_in: &Arc<dyn StandIn>,
    vm: &str,
    command: Command,
    stdin: Option<Incoming>,
) -> wasmtime::Result<Result<Resource<Child>, Error>> {
    let started = async {
        let facts = facts(ask, vm).await?;
        let room = ask.room_for_process()?;
        let what = format!("{} on VM {}", name(&command.program), facts.id);
        let asked = Asked::of(&command, Some(facts.id.to_string()));
        // The policy, and whether each secret is there.
        super::shell::translate(ask, &facts, command, stdin.is_some()).await?;
        // A VM that is not there or does not run starts nothing.
        running(ask, facts.id).await?;
        play(stand_in, asked, stdin, what, room)
    }
    .await;
    match started {
        Err(why) => Ok(Err(why)),
        Ok((running, stdout, stderr)) => adopt(accessor, ask, running, stdout, stderr).map(Ok),
    }
}

/// Whether a VM can be used, as connecting to it would find.
pub(super) async fn running(ask: &Ask, id: vers_client::VmId) -> Result<(), Error> {
    let vm = ask.race(ask.services.api.vm(id)).await?;
    if vm.state == vers_client::api::VmState::Running {
        return Ok(());
    }
    Err(Error::Unavailable(format!("VM {id} is {}", vm.state)))
}

/// The program that a name means in a test: where it would be on most machines, whether or not it is on this one.
pub(super) fn program(name: &str) -> Result<PathBuf, Error> {
    if name.is_empty() || name.contains('\0') {
        return Err(Error::Invalid("the program has no name".into()));
    }
    if name.starts_with('/') {
        return Ok(PathBuf::from(name));
    }
    if name.contains('/') {
        return Err(Error::Invalid(format!(
            "the program {} is a relative path; write an absolute one, or a bare name",
            crate::types::visible(name)
        )));
    }
    Ok(PathBuf::from(PROGRAMS).join(name))
}

/// A file of a VM, in the directory that stands for it.
pub(super) fn file(
    stand_in: &Arc<dyn StandIn>,
    vm: &str,
    path: &str,
    access: Want,
) -> Result<FilePlace, Error> {
    let root = stand_in.vm_files(vm).map_err(refused)?;
    let mode = match access {
        Want::Read => local::Access::ReadOnly,
        Want::Write => local::Access::ReadWrite,
    };
    let root = local::Root::open(&root, mode)?;
    // A relative path begins in root's home directory.
    let path = match path.strip_prefix('/') {
        Some(path) => path.trim_start_matches('/').to_owned(),
        None => format!("root/{path}"),
    };
    let path = match path.is_empty() {
        true => ".".to_owned(),
        false => path,
    };
    Ok(FilePlace::Here { root, path })
}

/// `http.send`, answered.
pub(super) async fn send(
    stand_in: &Arc<dyn StandIn>,
    request: &egress::Request,
    headers: Vec<(String, StandInValue)>,
    body: Option<Incoming>,
) -> Result<egress::Response, Error> {
    let mut all = Vec::new();
    if let Some(body) = body {
        let mut body = body;
        while let Some(chunk) = body.recv().await {
            if all.len() + chunk.len() > MOST_INPUT {
                return Err(Error::Limit(format!(
                    "a body in a test has at most {MOST_INPUT} bytes"
                )));
            }
            all.extend_from_slice(&chunk);
        }
    }
    let url = request
        .url
        .parse()
        .map_err(|why| Error::Invalid(format!("the URL is not valid: {why}")))?;
    let answer = stand_in
        .request(StandInRequest {
            method: request.method.clone(),
            url: request.url.clone(),
            headers,
            body: all,
        })
        .map_err(refused)?;
    let pieces = answer.body.into_iter().map(|piece| Ok(Bytes::from(piece)));
    Ok(egress::Response {
        status: answer.status,
        headers: answer.headers,
        url,
        body: stream::iter(pieces).boxed(),
    })
}
