//! Processes that do what a test says, here and on VMs.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;

use serde_json::json;

use super::Kit;
use super::executor;
use super::streams::{StreamReader, StreamWriter, pipe};
use super::world::{wait_for, world};
use crate::Error;
use crate::bell::Bell;
use crate::bindings::vers::system::process::{
    Command, EnvValue, Exit, OutputMode, Program, Signal, Stopped,
};

/// What was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// The argument vector; of a shell script `sh`, `-c` and the script.
    pub argv: Vec<String>,
    /// The environment; a secret is `secret:NAME`.
    pub env: Vec<(String, String)>,
    /// Where, if that was said.
    pub working_directory: Option<String>,
    /// The VM it runs on; none is this machine.
    pub vm: Option<String>,
}

/// What a program does: prints, takes its time, ends.
#[derive(Debug, Clone, Default)]
pub struct Script(Vec<Step>);

#[derive(Debug, Clone)]
enum Step {
    Print(Vec<u8>),
    Complain(Vec<u8>),
    Wait(u64),
    Read,
    End(Exit),
}

impl Script {
    /// Does nothing, and runs until it is stopped.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn step(mut self, step: Step) -> Self {
        self.0.push(step);
        self
    }

    /// Writes this to its standard output.
    #[must_use]
    pub fn print(self, bytes: impl Into<Vec<u8>>) -> Self {
        self.step(Step::Print(bytes.into()))
    }

    /// Writes this to its standard error.
    #[must_use]
    pub fn complain(self, bytes: impl Into<Vec<u8>>) -> Self {
        self.step(Step::Complain(bytes.into()))
    }

    /// Takes so many milliseconds.
    #[must_use]
    pub fn wait(self, millis: u64) -> Self {
        self.step(Step::Wait(millis))
    }

    /// Reads its standard input to the end.
    #[must_use]
    pub fn read(self) -> Self {
        self.step(Step::Read)
    }

    /// Ends with this code.
    #[must_use]
    pub fn exit(self, code: i32) -> Self {
        self.step(Step::End(Exit::Code(code)))
    }

    /// Ends by this signal, for example `KILL`.
    #[must_use]
    pub fn killed(self, signal: &str) -> Self {
        self.step(Step::End(Exit::Signal(signal.into())))
    }
}

struct Running {
    id: u32,
    started: Started,
    input: RefCell<Vec<u8>>,
    input_ended: Cell<bool>,
    stdout: RefCell<Option<StreamWriter<u8>>>,
    stderr: RefCell<Option<StreamWriter<u8>>>,
    readers: RefCell<[Option<StreamReader<u8>>; 2]>,
    signals: RefCell<Vec<String>>,
    is_stubborn: Cell<bool>,
    is_detached: Cell<bool>,
    end: RefCell<Option<Result<Exit, Error>>>,
    bell: Bell,
}

impl Running {
    fn end(&self, end: Result<Exit, Error>) {
        if self.end.borrow().is_some() {
            return;
        }
        self.end.replace(Some(end));
        self.stdout.take();
        self.stderr.take();
        self.bell.ring();
    }

    fn is_running(&self) -> bool {
        self.end.borrow().is_none()
    }

    fn write(&self, to: &RefCell<Option<StreamWriter<u8>>>, bytes: Vec<u8>) {
        if let Some(writer) = &*to.borrow() {
            writer.push(bytes);
        }
    }

    async fn ended(&self) -> Result<Exit, Error> {
        loop {
            let ring = self.bell.next();
            if let Some(end) = &*self.end.borrow() {
                return end.clone();
            }
            ring.await;
        }
    }

    async fn play(self: Rc<Self>, script: Script) {
        for step in script.0 {
            if !self.is_running() {
                return;
            }
            match step {
                Step::Print(bytes) => self.write(&self.stdout, bytes),
                Step::Complain(bytes) => self.write(&self.stderr, bytes),
                Step::Wait(millis) => executor::until(executor::ticks() + millis).await,
                Step::Read => loop {
                    let ring = self.bell.next();
                    if self.input_ended.get() || !self.is_running() {
                        break;
                    }
                    ring.await;
                },
                Step::End(exit) => return self.end(Ok(exit)),
            }
        }
    }
}

type Programs = Rc<dyn Fn(&Started) -> Option<Script>>;

#[derive(Default)]
pub(crate) struct Processes {
    all: Vec<Rc<Running>>,
    programs: Vec<Programs>,
}

/// A running process. Dropping the handle ends it.
pub struct Child(Rc<Running>);

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Child").field(&self.0.started.argv).finish()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.0.is_detached.get() {
            self.0.end(Ok(Exit::Signal("TERM".into())));
        }
    }
}

impl Child {
    /// The process id where it runs.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        Some(self.0.id)
    }

    fn reader(&self, at: usize) -> Result<StreamReader<u8>, Error> {
        let reader = self
            .0
            .readers
            .borrow_mut()
            .get_mut(at)
            .and_then(Option::take);
        reader.ok_or_else(|| Error::Conflict("this output was taken before".into()))
    }

    /// Bytes as they come; may be taken once.
    ///
    /// # Errors
    /// `Error::Conflict`: it was taken before.
    pub fn stdout(&self) -> Result<StreamReader<u8>, Error> {
        self.reader(0)
    }

    /// See [`Child::stdout`].
    ///
    /// # Errors
    /// `Error::Conflict`: it was taken before.
    pub fn stderr(&self) -> Result<StreamReader<u8>, Error> {
        self.reader(1)
    }

    /// How it ended.
    pub async fn wait(&self) -> Result<Exit, Error> {
        executor::waiting(self.0.ended()).await?
    }

    /// To the whole process group.
    pub async fn signal(&self, signal: Signal) -> Result<(), Error> {
        let name = match signal {
            Signal::Interrupt => "INT",
            Signal::Terminate => "TERM",
            Signal::Kill => "KILL",
            Signal::HangUp => "HUP",
            Signal::User1 => "USR1",
            Signal::User2 => "USR2",
            Signal::Stop => "STOP",
            Signal::Continue => "CONT",
        };
        executor::waiting(executor::yield_now()).await?;
        if !self.0.is_running() {
            return Ok(());
        }
        self.0.signals.borrow_mut().push(name.into());
        let heeds = !self.0.is_stubborn.get() && !matches!(signal, Signal::Stop | Signal::Continue);
        if heeds || signal == Signal::Kill {
            self.0.end(Ok(Exit::Signal(name.into())));
        }
        Ok(())
    }

    /// Ends the whole process group.
    pub async fn stop(&self, grace: Option<u64>) -> Result<Stopped, Error> {
        executor::yield_now().await;
        if self.0.is_running() {
            let signal = if self.0.is_stubborn.get() {
                executor::until(executor::ticks() + grace.unwrap_or(500)).await;
                "KILL"
            } else {
                "TERM"
            };
            self.0.signals.borrow_mut().push(signal.into());
            self.0.end(Ok(Exit::Signal(signal.into())));
        }
        Ok(Stopped {
            escaped: 0,
            left: 0,
        })
    }

    /// Lets the process outlive this handle.
    pub fn detach(&self) {
        self.0.is_detached.set(true);
    }
}

/// Starts a process on this machine.
pub async fn spawn(command: Command, stdin: Option<StreamReader<u8>>) -> Result<Child, Error> {
    start("process.spawn", None, command, stdin).await
}

pub(crate) async fn start(
    what: &str,
    vm: Option<String>,
    command: Command,
    stdin: Option<StreamReader<u8>>,
) -> Result<Child, Error> {
    let argv = match command.program {
        Program::Argv(argv) => argv,
        Program::Shell(script) => vec!["sh".into(), "-c".into(), script],
    };
    wait_for(what, json!({ "argv": argv, "vm": vm })).await?;
    if let Some(vm) = &vm {
        world(|world| world.vms.awake(vm))?;
    }
    let env = command.env.into_iter().map(|variable| {
        let value = match variable.value {
            EnvValue::Plain(value) => value,
            EnvValue::Secret(name) => format!("secret:{name}"),
        };
        (variable.name, value)
    });
    let started = Started {
        argv,
        env: env.collect(),
        working_directory: command.working_directory,
        vm,
    };
    let ((stdout, out), (stderr, err)) = (pipe(), pipe());
    let is_merged = command.output == OutputMode::Merged;
    let process = Rc::new(Running {
        id: world(|world| 1000 + u32::try_from(world.processes.all.len()).unwrap_or(0)),
        started,
        input: RefCell::default(),
        input_ended: Cell::new(stdin.is_none()),
        stdout: RefCell::new(Some(stdout)),
        stderr: RefCell::new(Some(stderr).filter(|_| !is_merged)),
        readers: RefCell::new([Some(out), Some(err)]),
        signals: RefCell::default(),
        is_stubborn: Cell::new(false),
        is_detached: Cell::new(false),
        end: RefCell::default(),
        bell: Bell::new(),
    });
    world(|world| world.processes.all.push(process.clone()));
    watch(&process, stdin, command.timeout);
    let programs = world(|world| world.processes.programs.clone());
    // The one that was said last counts.
    if let Some(script) = programs
        .iter()
        .rev()
        .find_map(|program| program(&process.started))
    {
        executor::spawn_for(Rc::default(), process.clone().play(script));
    }
    Ok(Child(process))
}

/// Takes its input in, and ends it at its time or with whoever started it.
fn watch(process: &Rc<Running>, stdin: Option<StreamReader<u8>>, timeout: Option<u64>) {
    if let Some(mut stdin) = stdin {
        let process = process.clone();
        executor::spawn_for(Rc::default(), async move {
            let mut buffer = Vec::new();
            while let Some(bytes) =
                crate::stream::next(&mut stdin, std::mem::take(&mut buffer)).await
            {
                process.input.borrow_mut().extend_from_slice(&bytes);
                process.bell.ring();
                if !process.is_running() {
                    return;
                }
            }
            process.input_ended.set(true);
            process.bell.ring();
        });
    }
    if let Some(timeout) = timeout {
        let (process, due) = (process.clone(), executor::ticks() + timeout);
        executor::spawn_for(Rc::default(), async move {
            let late = executor::until(due);
            futures::pin_mut!(late);
            let ended = process.ended();
            futures::pin_mut!(ended);
            if let futures::future::Either::Left(_) = futures::future::select(late, ended).await {
                process.end(Err(Error::TimedOut(format!(
                    "it ran for more than {timeout} ms and was stopped"
                ))));
            }
        });
    }
    let (process, owner) = (process.clone(), executor::owner());
    executor::spawn_for(Rc::default(), async move {
        owner.given_up().await;
        process.end(Err(Error::Cancelled));
    });
}

/// What runs on a VM that is gone.
pub(crate) fn end_on(vm: &str) {
    let all = world(|world| world.processes.all.clone());
    for process in all
        .iter()
        .filter(|process| process.started.vm.as_deref() == Some(vm))
    {
        process.end(Err(Error::Unavailable(format!(
            "the connection to VM {vm} broke"
        ))));
    }
}

/// A process as a test sees it.
#[derive(Clone)]
pub struct Process(Rc<Running>);

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Process").field(&self.0.started).finish()
    }
}

impl Process {
    /// What was started.
    #[must_use]
    pub fn started(&self) -> &Started {
        &self.0.started
    }

    /// The argument vector.
    #[must_use]
    pub fn argv(&self) -> Vec<String> {
        self.0.started.argv.clone()
    }

    /// Whether it still runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.0.is_running()
    }

    /// What it was given on its standard input so far.
    #[must_use]
    pub fn input(&self) -> Vec<u8> {
        self.0.input.borrow().clone()
    }

    /// The signals it was sent, by name.
    #[must_use]
    pub fn signals(&self) -> Vec<String> {
        self.0.signals.borrow().clone()
    }

    /// It heeds no signal but `KILL` from now on.
    pub fn ignore_signals(&self) {
        self.0.is_stubborn.set(true);
    }

    /// Writes this to its standard output, and runs until everything waits.
    pub fn print(&self, bytes: impl Into<Vec<u8>>) {
        self.0.write(&self.0.stdout, bytes.into());
        executor::settle();
    }

    /// Writes this to its standard error, and runs until everything waits.
    pub fn complain(&self, bytes: impl Into<Vec<u8>>) {
        self.0.write(&self.0.stderr, bytes.into());
        executor::settle();
    }

    /// Ends it with this code, and runs until everything waits.
    pub fn exit(&self, code: i32) {
        self.0.end(Ok(Exit::Code(code)));
        executor::settle();
    }

    /// Lets the connection to it break: nobody knows how it ended.
    pub fn lose(&self) {
        self.0
            .end(Err(Error::Unavailable("the connection broke".into())));
        executor::settle();
    }
}

impl Kit {
    /// Says what a program does whose argument vector begins so, here and on VMs. What nothing is said of runs until the test or the
    /// extension ends it.
    pub fn program(&self, argv: &[&str], script: Script) {
        let argv: Vec<String> = argv.iter().map(|&one| one.to_owned()).collect();
        self.programs(move |started| started.argv.starts_with(&argv).then(|| script.clone()));
    }

    /// The same by a function that looks at what is started; `None`: it says nothing of that. What was said last counts.
    pub fn programs(&self, programs: impl Fn(&Started) -> Option<Script> + 'static) {
        world(|world| world.processes.programs.push(Rc::new(programs)));
    }

    /// The processes that were started so far, in that order.
    #[must_use]
    pub fn processes(&self) -> Vec<Process> {
        world(|world| world.processes.all.iter().cloned().map(Process).collect())
    }

    /// The process that was started last.
    ///
    /// # Panics
    /// When none was.
    #[must_use]
    pub fn process(&self) -> Process {
        match self.processes().pop() {
            Some(process) => process,
            None => panic!("no process was started"),
        }
    }
}
