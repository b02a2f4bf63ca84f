//! `vers:system/process`: processes of this machine, and the `child` that VMs share.
//!
//! A child belongs to the call that started it: when that call is given up, the child's group is
//! stopped and seen to be gone before the call returns. It also belongs to the guest's handle: when
//! that is dropped, or the whole instance, the group is stopped in the background. Only `detach`
//! lets it live on.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use pi_vers_policy::{Request, SecretUse};
use pi_vers_system::process as local;
use tokio::io::AsyncWriteExt;
use tokio::sync::OwnedSemaphorePermit;
use wasmtime::component::{Access, Accessor, HasSelf, Resource, StreamReader};

use super::stand_in::{self, Asked, Played, Started};
use super::streams::{self, Output};
use crate::bindings::vers::harness::types::Error;
use crate::bindings::vers::system::process::{
    Command, EnvValue, Exit, Host, HostChild, HostChildWithStore, HostWithStore, OutputMode,
    Program, Signal, Stopped,
};
use crate::budget;
use crate::connections::Lease;
use crate::guest::{Ask, Guest, Has};
use crate::owner::Stoppable;

/// How long a group has between the polite signal and the other one.
const GRACE: Duration = Duration::from_millis(500);

/// How long stopping may take altogether before the host reports that it could not.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// The resource behind `child`.
#[allow(unreachable_pub, reason = "the bindings re-export it")]
pub struct Child {
    running: Option<Arc<Running>>,
    stdout: Option<Output>,
    stderr: Option<Output>,
    /// By which a tape knows it.
    number: u64,
}

impl Child {
    /// A process of a tape: nothing runs.
    pub(crate) fn replayed(number: u64) -> Self {
        Self {
            running: None,
            stdout: None,
            stderr: None,
            number,
        }
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn set_number(&mut self, number: u64) {
        self.number = number;
    }

    /// Whether an output can be taken still.
    pub(crate) fn has_output(&self, stdout: bool) -> Result<(), Error> {
        let (output, name) = match stdout {
            true => (&self.stdout, "stdout"),
            false => (&self.stderr, "stderr"),
        };
        match output {
            Some(_) => Ok(()),
            None => Err(taken(name)),
        }
    }
}

/// A process somewhere.
pub(super) struct Running {
    what: String,
    place: Place,
    over: OnceLock<()>,
    _room: OwnedSemaphorePermit,
    /// To the VM it runs on.
    _lease: Option<Lease>,
}

pub(super) enum Place {
    Here(local::Child),
    OnVm(vers_client::Child),
    Played(Played),
}

impl Running {
    pub(super) fn new(
        what: String,
        place: Place,
        room: OwnedSemaphorePermit,
        lease: Option<Lease>,
    ) -> Arc<Self> {
        Arc::new(Self {
            what,
            place,
            over: OnceLock::new(),
            _room: room,
            _lease: lease,
        })
    }

    async fn wait(&self) -> Result<Exit, Error> {
        let exit = match &self.place {
            Place::Here(child) => child
                .wait()
                .await
                .map_err(Error::from)
                .map(|exit| match exit {
                    local::Exit::Code(code) => Exit::Code(code),
                    local::Exit::Signal(name) => Exit::Signal(name),
                }),
            Place::OnVm(child) => child
                .wait()
                .await
                .map_err(Error::from)
                .map(|exit| match exit {
                    vers_client::Exit::Code(code) => Exit::Code(code),
                    vers_client::Exit::Signal(name) => Exit::Signal(name),
                }),
            Place::Played(played) => played.wait().await,
        };
        let _ = self.over.set(());
        exit
    }

    async fn halt(&self, grace: Duration) -> Result<Stopped, Error> {
        match &self.place {
            Place::Here(child) => {
                child.stop(grace).await?;
                Ok(Stopped {
                    escaped: 0,
                    left: 0,
                })
            }
            Place::OnVm(child) => {
                let report = child.stop(grace).await?;
                Ok(Stopped {
                    escaped: report.escaped,
                    left: report.left,
                })
            }
            Place::Played(played) => Ok(played.halt()),
        }
    }
}

impl Stoppable for Running {
    fn what(&self) -> String {
        self.what.clone()
    }

    fn stop(&self) -> BoxFuture<'_, bool> {
        Box::pin(async {
            if self.over.get().is_some() {
                return false;
            }
            match tokio::time::timeout(STOP_DEADLINE, self.halt(GRACE)).await {
                Ok(Ok(_)) => {}
                Ok(Err(why)) => tracing::warn!("{} could not be stopped: {why:?}", self.what),
                Err(_) => tracing::warn!("{} did not stop within {STOP_DEADLINE:?}", self.what),
            }
            true
        })
    }
}

/// Puts a started process into the guest's hands, and its input on its way.
pub(super) fn adopt(
    accessor: &Accessor<Guest, Has>,
    ask: &Ask,
    running: Arc<Running>,
    stdout: Option<Output>,
    stderr: Option<Output>,
) -> wasmtime::Result<Resource<Child>> {
    ask.owner.started(&running);
    if let Place::Played(played) = &running.place {
        played.begun();
    }
    accessor.with(|mut access| {
        Ok(access.get().table.push(Child {
            running: Some(running),
            stdout,
            stderr,
            number: 0,
        })?)
    })
}

/// Pumps what the guest writes into a process until either ends.
pub(super) fn feed(
    mut from: streams::Incoming,
    mut to: impl tokio::io::AsyncWrite + Send + Unpin + 'static,
) {
    tokio::spawn(async move {
        while let Some(chunk) = from.recv().await {
            if to.write_all(&chunk).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    });
}

/// What people are told runs: the program and the number of arguments, never the arguments' text.
pub(super) fn name(program: &Program) -> String {
    match program {
        Program::Argv(argv) => {
            let program = argv.first().map_or("", String::as_str);
            crate::types::visible(
                Path::new(program)
                    .file_name()
                    .map_or(program, |name| name.to_str().unwrap_or(program)),
            )
        }
        Program::Shell(_) => "a shell script".into(),
    }
}

impl Host for Guest {}

impl HostChild for Guest {
    fn id(&mut self, child: Resource<Child>) -> wasmtime::Result<Option<u32>> {
        Ok(self
            .table
            .get(&child)?
            .running
            .as_ref()
            .and_then(|running| match &running.place {
                Place::Here(child) => Some(child.id()),
                Place::OnVm(child) => child.id(),
                Place::Played(_) => None,
            }))
    }

    fn detach(&mut self, child: Resource<Child>) -> wasmtime::Result<()> {
        // Whoever still waits for it holds it too; then it stays attached to that wait.
        if let Some(running) = self
            .table
            .get_mut(&child)?
            .running
            .take()
            .and_then(Arc::into_inner)
        {
            match running.place {
                Place::Here(child) => child.detach(),
                Place::OnVm(child) => child.detach(),
                Place::Played(played) => played.detach(),
            }
        }
        Ok(())
    }

    fn drop(&mut self, child: Resource<Child>) -> wasmtime::Result<()> {
        // The last reference stops the group in the background.
        self.table.delete(child)?;
        Ok(())
    }
}

/// Who asks, and the process that a handle stands for.
fn attached(
    accessor: &Accessor<Guest, Has>,
    child: &Resource<Child>,
) -> wasmtime::Result<Result<(Ask, Arc<Running>), Error>> {
    let running = accessor.with(|mut access| {
        access
            .get()
            .table
            .get(child)
            .map(|child| child.running.clone())
    })?;
    Ok(match (Ask::of(accessor), running) {
        (Ok(ask), Some(running)) => Ok((ask, running)),
        (Err(denied), _) => Err(denied),
        (_, None) => Err(Error::Conflict("the process was detached".into())),
    })
}

fn taken(which: &str) -> Error {
    Error::Conflict(format!("{which} of this process was taken before"))
}

impl HostChildWithStore<Guest> for HasSelf<Guest> {
    fn stdout(
        mut access: Access<'_, Guest, Has>,
        child: Resource<Child>,
    ) -> wasmtime::Result<Result<StreamReader<u8>, Error>> {
        match access.get().table.get_mut(&child)?.stdout.take() {
            Some(output) => streams::outgoing(access, output).map(Ok),
            None => Ok(Err(taken("stdout"))),
        }
    }

    fn stderr(
        mut access: Access<'_, Guest, Has>,
        child: Resource<Child>,
    ) -> wasmtime::Result<Result<StreamReader<u8>, Error>> {
        match access.get().table.get_mut(&child)?.stderr.take() {
            Some(output) => streams::outgoing(access, output).map(Ok),
            None => Ok(Err(taken("stderr"))),
        }
    }

    async fn wait(
        accessor: &Accessor<Guest, Has>,
        child: Resource<Child>,
    ) -> wasmtime::Result<Result<Exit, Error>> {
        let (ask, running) = match attached(accessor, &child)? {
            Ok(both) => both,
            Err(why) => return Ok(Err(why)),
        };
        Ok(ask.race(running.wait()).await)
    }

    async fn stop(
        accessor: &Accessor<Guest, Has>,
        child: Resource<Child>,
        grace: Option<u64>,
    ) -> wasmtime::Result<Result<Stopped, Error>> {
        let (ask, running) = match attached(accessor, &child)? {
            Ok(both) => both,
            Err(why) => return Ok(Err(why)),
        };
        let grace = grace.map_or(GRACE, Duration::from_millis);
        Ok(ask.race(running.halt(grace)).await)
    }

    async fn signal(
        accessor: &Accessor<Guest, Has>,
        child: Resource<Child>,
        signal: Signal,
    ) -> wasmtime::Result<Result<(), Error>> {
        let (ask, running) = match attached(accessor, &child)? {
            Ok(both) => both,
            Err(why) => return Ok(Err(why)),
        };
        Ok(ask
            .race(async {
                match &running.place {
                    Place::Here(child) => child.signal(here(signal)).map_err(Error::from),
                    Place::OnVm(child) => child.signal(on_vm(signal)).await.map_err(Error::from),
                    Place::Played(played) => {
                        played.signal(signal);
                        Ok(())
                    }
                }
            })
            .await)
    }
}

fn here(signal: Signal) -> local::Signal {
    match signal {
        Signal::Interrupt => local::Signal::Interrupt,
        Signal::Terminate => local::Signal::Terminate,
        Signal::Kill => local::Signal::Kill,
        Signal::HangUp => local::Signal::HangUp,
        Signal::User1 => local::Signal::User1,
        Signal::User2 => local::Signal::User2,
        Signal::Stop => local::Signal::Stop,
        Signal::Continue => local::Signal::Continue,
    }
}

fn on_vm(signal: Signal) -> vers_client::Signal {
    use vers_client::Signal as S;
    match signal {
        Signal::Interrupt => S::Interrupt,
        Signal::Terminate => S::Terminate,
        Signal::Kill => S::Kill,
        Signal::HangUp => S::HangUp,
        Signal::User1 => S::User1,
        Signal::User2 => S::User2,
        Signal::Stop => S::Stop,
        Signal::Continue => S::Continue,
    }
}

impl HostWithStore<Guest> for HasSelf<Guest> {
    async fn spawn(
        accessor: &Accessor<Guest, Has>,
        command: Command,
        stdin: Option<StreamReader<u8>>,
    ) -> wasmtime::Result<Result<Resource<Child>, Error>> {
        let stdin = stdin
            .map(|reader| accessor.with(|access| streams::incoming(access, reader)))
            .transpose()?;
        let ask = match Ask::of(accessor) {
            Ok(ask) => ask,
            Err(denied) => return Ok(Err(denied)),
        };
        let (running, stdout, stderr) = match start(&ask, command, stdin).await {
            Ok(started) => started,
            Err(why) => return Ok(Err(why)),
        };
        adopt(accessor, &ask, running, stdout, stderr).map(Ok)
    }
}

/// A script runs as what it is, for the policy and for the kernel: a shell with arguments.
pub(super) fn argv(program: Program) -> Vec<String> {
    match program {
        Program::Argv(argv) => argv,
        Program::Shell(script) => vec!["/bin/sh".into(), "-c".into(), script],
    }
}

async fn start(
    ask: &Ask,
    command: Command,
    stdin: Option<streams::Incoming>,
) -> Result<Started, Error> {
    let room = ask.room_for_process()?;
    let what = name(&command.program);
    let directory = directory(ask, command.working_directory.as_deref())?;
    let asked = ask
        .services
        .stand_in
        .as_ref()
        .map(|stand_in| (stand_in, Asked::of(&command, None)));
    let argv = argv(command.program);
    let (program, arguments) = argv
        .split_first()
        .ok_or_else(|| Error::Invalid("the argument vector is empty: name a program".into()))?;
    let names: Vec<&str> = command
        .env
        .iter()
        .map(|variable| variable.name.as_str())
        .collect();
    let (args, working_directory, variables) = (arguments, &*directory, &*names);
    let found = match asked {
        Some(_) => stand_in::program(program),
        None => local::resolve_program(program, &ask.services.path()).map_err(Error::from),
    };
    let program = match found {
        Ok(program) => program,
        Err(why) => {
            // Which programs are there is not for those to know that may start none of them.
            let named = Path::new("/usr/bin").join(program);
            ask.permit_unasked(&Request::Process {
                program: &named,
                args,
                working_directory,
                env: variables,
            })?;
            return Err(why);
        }
    };
    ask.permit(&Request::Process {
        program: &program,
        args,
        working_directory,
        env: variables,
    })
    .await?;
    let mut env = ask.services.basic_environment();
    for variable in &command.env {
        let value = match &variable.value {
            EnvValue::Plain(value) => {
                let known = budget::known(&ask.services, &variable.name);
                known.unwrap_or_else(|| value.clone())
            }
            EnvValue::Secret(name) => {
                ask.permit(&Request::Secret {
                    name,
                    to: SecretUse::ChildEnv { program: &program },
                })
                .await?;
                ask.services.secret(name).await?
            }
        };
        env.retain(|(name, _)| *name != variable.name);
        env.push((variable.name.clone(), value));
    }
    if let Some((stand_in, asked)) = asked {
        return stand_in::play(stand_in, asked, stdin, what, room);
    }
    let mut full = vec![program.to_string_lossy().into_owned()];
    full.extend(arguments.iter().cloned());
    let child = local::spawn(local::Command {
        program: local::Program::Argv(full),
        env,
        cwd: directory,
        timeout: command.timeout.map(Duration::from_millis),
        merge_output: matches!(command.output, OutputMode::Merged),
        stdin: stdin.is_some(),
    })?;
    if let (Some(from), Some(to)) = (stdin, child.take_stdin()) {
        feed(from, to);
    }
    let (stdout, stderr) = (
        child.take_stdout().map(bytes),
        child.take_stderr().map(bytes),
    );
    Ok((
        Running::new(what, Place::Here(child), room, None),
        stdout,
        stderr,
    ))
}

/// The bytes of an output; an error ends it, and `wait` tells of it.
fn bytes(output: pi_vers_system::ByteStream) -> Output {
    output
        .take_while(|chunk| std::future::ready(chunk.is_ok()))
        .filter_map(|chunk| std::future::ready(chunk.ok()))
        .boxed()
}

fn directory(ask: &Ask, given: Option<&str>) -> Result<PathBuf, Error> {
    let base = ask.services.directory();
    pi_vers_policy::normalise(&base, given.unwrap_or("."))
        .map_err(|why| Error::Invalid(why.to_string()))
}
