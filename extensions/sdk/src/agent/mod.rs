//! Coding agents (`pi`, `punkin`) in RPC mode, on a VM or as a child here: started, spoken with, followed, ended.
//!
//! What makes it reliable is told where it is done:
//!
//! * `protocol`: three dialects, lines that are cut or no protocol at all;
//! * `tracker`: when a run is over, decided by the protocol and never by silence;
//! * `remote`: commands that arrive whole, in order and once; keys that stand nowhere; an end that is an event;
//! * `driver`: output that is read exactly once, across cut connections and restarts of the coordinator;
//! * `dialogs`: questions that reach the user.
//!
//! An extension that uses this is a [declaration](crate::declare), or calls [`background::open`] when it starts. On a VM it needs the grants `vms = ["get"]`, `shell` with
//! any command, files and environment, and `environment` and `secrets` for what the agent shall inherit.

mod dialogs;
mod driver;
mod environment;
mod failure;
mod local;
mod protocol;
mod remote;
mod said;
mod tracker;

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::rc::Rc;

use futures::StreamExt as _;
use futures::channel::mpsc;
use serde_json::json;

use crate::harness::timers;
use crate::{Error, background};

use driver::{Driver, Place};
pub use environment::{own_name, own_vm};
pub use failure::{Failure, Kind};
use local::Local;
use remote::Remote;

/// How long an agent may take to become idle when it is stopped, in milliseconds.
const STOPPING: u64 = 60_000;
/// What runs where nothing names another program.
const PROGRAM: &str = "pi";

/// Labels that every VM of an agent carries, so that a fleet is found again without any registry.
pub mod labels {
    /// `lieutenant` or `worker`.
    pub const ROLE: &str = "pi-vers.role";
    /// What the agent is called.
    pub const NAME: &str = "pi-vers.name";
    /// The harness's id of the session that made it.
    pub const SESSION: &str = "pi-vers.session";
    /// The VM its coordinator runs on, or `local`.
    pub const OWNER: &str = "pi-vers.owner";
    /// What its coordinator is called.
    pub const PARENT: &str = "pi-vers.parent";
    /// When it was made, in seconds since 1970.
    pub const CREATED: &str = "pi-vers.created";
    /// When nobody needs it any more, in seconds since 1970: `pi-vers fleet gc` deletes it then.
    pub const EXPIRES: &str = "pi-vers.expires";

    /// Those of an agent of this coordinator, made at this second since 1970; but for [`EXPIRES`].
    #[must_use]
    pub fn of(role: super::Role, name: &str, session: &str, created: u64) -> Vec<(String, String)> {
        [
            (ROLE, role.word().to_owned()),
            (NAME, name.to_owned()),
            (SESSION, session.to_owned()),
            (OWNER, super::own_vm().unwrap_or_else(|| "local".into())),
            (PARENT, super::own_name()),
            (CREATED, created.to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }
}

/// What an agent is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Lives long, keeps its conversation.
    Lieutenant,
    /// Does one thing after the other, and keeps no conversation on disk.
    Worker,
}

impl Role {
    /// The word for it, in labels, registries and the agent's environment.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Lieutenant => "lieutenant",
            Self::Worker => "worker",
        }
    }
}

/// Where an agent lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Home {
    /// On the VM with this id, which runs.
    Vm(String),
    /// As a child of this machine; its directory (made if it is missing) holds `workspace`, `sessions` and the system prompt.
    Local(String),
}

/// How an agent is started.
#[derive(Debug, Clone)]
pub struct Launch {
    /// Where.
    pub home: Home,
    /// What for.
    pub role: Role,
    /// What it is called: its `VERS_AGENT_NAME`.
    pub name: String,
    /// Its system prompt; none is the agent's own.
    pub system_prompt: Option<String>,
    /// `model` or `provider/model`; none is the agent's own choice. Without a provider it is the one that `REEF_MODEL_PROVIDER` and the keys mean.
    pub model: Option<String>,
    /// A key for the model, instead of the host's secret `LLM_PROXY_KEY`.
    pub key: Option<String>,
    /// How long it may take until it answers, in milliseconds.
    pub patience: u64,
}

/// Where in an agent's output one is: kept in `store`, it makes [`attach`] go on exactly there.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Bookmark {
    /// Which start of the agent this is of.
    pub start: String,
    /// The byte offset in its output after the last line that was dealt with.
    pub offset: u64,
}

/// How an agent is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// It was started, or is being reached again, and has not said yet how it is.
    Starting,
    /// It waits for something to do.
    Idle,
    /// A run is under way: the agent thinks, acts, tries again, or makes room for more.
    Working,
    /// Its process has ended; in words how, with the last lines of its standard error.
    Ended(String),
    /// It cannot be reached any more: what is wrong ([`Kind::Gone`]: its VM does not exist; [`Kind::Paused`]; or [`Kind::Unreachable`]), and in words.
    Lost(Kind, String),
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The agent has done what it wanted.
    Done,
    /// The model or the agent failed, in words; also a prompt that was refused.
    Failed(String),
    /// Somebody stopped it.
    Aborted,
}

/// A run that has ended: from a prompt until the agent has settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// How.
    pub outcome: Outcome,
    /// What the agent said: the text of its messages, at most the last 256 KiB.
    pub text: String,
    /// Bytes that were left out at its beginning.
    pub left_out: u64,
    /// Everything up to here has been dealt with.
    pub bookmark: Bookmark,
}

/// What an agent's consumer is told, in order, each once.
#[derive(Debug, Clone, PartialEq)]
pub enum News {
    /// A run began.
    Started,
    /// A run ended.
    Ended(Run),
    /// The agent, or an extension of it, says something to the user.
    Notice(String),
    /// The status changed otherwise: [`Status::Ended`] and [`Status::Lost`] are the last news there is.
    Status(Status),
}

/// What a message is to a running agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// A new task; while a run is under way it is queued after it.
    Prompt,
    /// Now: after the running tool calls.
    Steer,
    /// After the run.
    FollowUp,
}

/// An agent. Clones are the same agent. Dropping all of them lets go of it ([`Agent::let_go`]) and does not end it; but a local one
/// ends.
#[derive(Clone)]
pub struct Agent(Rc<Handle>);

struct Handle(Rc<Driver>);

/// Where an agent's [`News`] come out: at most 1,024 wait here, more make the agent's output wait. It ends after the last news there is.
pub struct Inbox(mpsc::Receiver<News>);

/// Starts an agent, and returns when it has answered and has the model that was asked for. `tell` hears what is being done.
///
/// Started on a VM, it runs in tmux sessions `pi-rpc` and `pi-keeper` with `/tmp/pi-rpc/{in,out,err}`; what was there before is ended first.
/// A local one ends with the session; its directory has to be absolute.
///
/// # Errors
/// In words; nothing of it is left running then, except where the VM cannot be reached any more.
pub async fn start(launch: Launch, tell: impl Fn(&str)) -> Result<(Agent, Inbox), Failure> {
    let model = launch
        .model
        .as_deref()
        .map(environment::model)
        .transpose()
        .map_err(|error| Failure::of(format!("Cannot start agent {}", launch.name), &error))?;
    tell("starting the agent");
    let (agent, inbox) = spawn(&launch).await?;
    let begun = ready(&agent, model, launch.patience, tell).await;
    if let Err(failure) = begun {
        let driver = agent.0.0.clone();
        let ended = async move {
            // It did not come up, and nobody hears of it if it does not go down either.
            let _ = driver.end().await;
            driver.close();
        };
        if failure.kind == Kind::Cancelled {
            background::spawn(ended);
        } else {
            ended.await;
        }
        return Err(failure);
    }
    Ok((agent, inbox))
}

async fn spawn(launch: &Launch) -> Result<(Agent, Inbox), Failure> {
    let start = random();
    let program = environment::program();
    let keeps_sessions = launch.role == Role::Lieutenant;
    let prompt = launch.system_prompt.as_deref();
    let vm = match &launch.home {
        Home::Vm(vm) => Some(vm.as_str()),
        Home::Local(_) => None,
    };
    let identity = json!({
        "vmId": vm,
        "agentId": launch.name,
        "rootVmId": environment::variable("REEF_ROOT_VM_ID"),
        "parentVmId": own_vm().unwrap_or_else(|| "local".into()),
        "depth": environment::depth(),
        "createdAt": timers::now(),
    })
    .to_string();
    let env = environment::environment(launch, vm);
    let (driver, inbox) = match &launch.home {
        Home::Vm(vm) => {
            let remote = Remote { vm: vm.clone() };
            let program = program.unwrap_or_default();
            remote
                .start(&start, &program, keeps_sessions, prompt, identity, env)
                .await?;
            let bookmark = Bookmark {
                start: start.clone(),
                offset: 0,
            };
            let place = Place::Vm(remote);
            let (driver, inbox) = Driver::new(launch.name.clone(), place, bookmark, 0, start);
            driver.read_vm();
            (driver, inbox)
        }
        Home::Local(directory) => {
            let program = program.unwrap_or_else(|| PROGRAM.into());
            let (local, outputs) =
                Local::start(directory, &program, keeps_sessions, prompt, identity, env).await?;
            let bookmark = Bookmark::default();
            let place = Place::Local(local);
            let (driver, inbox) = Driver::new(launch.name.clone(), place, bookmark, 0, start);
            driver.read_child(outputs);
            (driver, inbox)
        }
    };
    Ok((Agent(Rc::new(Handle(driver))), Inbox(inbox)))
}

/// Waits until it answers, and gives it its model.
async fn ready(
    agent: &Agent,
    model: Option<(String, String)>,
    patience: u64,
    tell: impl Fn(&str),
) -> Result<(), Failure> {
    let driver = &agent.0.0;
    tell("waiting for the agent's first answer");
    driver.command("get_state", json!({}), patience).await?;
    if let Some((provider, id)) = model {
        let fields = json!({"provider": provider, "modelId": id});
        driver.ask_it("set_model", fields).await?;
    }
    Ok(())
}

/// Finds the agent on a VM again, and reads on where the bookmark says (none: only what comes from now on, and how the agent is now). What it said
/// meanwhile comes as news. Its status is [`Status::Starting`] until that has been read.
///
/// # Errors
/// [`Kind::Gone`] when no agent runs there, and there is nothing to read of one that did.
pub async fn attach(
    vm: &str,
    name: &str,
    bookmark: Option<Bookmark>,
) -> Result<(Agent, Inbox), Failure> {
    let remote = Remote { vm: vm.to_owned() };
    let doing = || format!("Cannot reach agent {name} on VM {vm}");
    let found = match remote.look().await {
        Ok(found) => found,
        Err(error) => return Err(remote.failure(doing(), &error).await),
    };
    let gone = || Failure::new(Kind::Gone, doing(), "no agent runs there");
    let found = found.ok_or_else(gone)?;
    let bookmark = match bookmark {
        Some(known) if known.start == found.start => known,
        // Another start: all of it is new.
        Some(_) => Bookmark {
            start: found.start,
            offset: 0,
        },
        None if found.is_alive => Bookmark {
            start: found.start,
            offset: found.size,
        },
        None => return Err(gone()),
    };
    if !found.is_alive && bookmark.offset >= found.size {
        return Err(gone());
    }
    let known_until = if bookmark.offset < found.size {
        found.size
    } else {
        0
    };
    let place = Place::Vm(remote);
    let (driver, inbox) = Driver::new(name.to_owned(), place, bookmark, known_until, random());
    driver.read_vm();
    driver.find_out();
    Ok((Agent(Rc::new(Handle(driver))), Inbox(inbox)))
}

/// What nobody else would come up with.
fn random() -> String {
    let number = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", number(), number())
}

impl Agent {
    /// Gives it a message; returns when it has taken it, `true` if it waits for a run that is under way. After that the agent is [`Status::Working`] until the
    /// run is told as ended: each message that was taken is followed by exactly one [`News::Ended`] (queued ones: one for all that are worked
    /// off in a run).
    ///
    /// # Errors
    /// It refused, it has ended, it cannot be reached, or it has not answered in time: then nobody knows.
    pub async fn send(&self, message: &str, delivery: Delivery) -> Result<bool, Failure> {
        let driver = &self.0.0;
        driver.until_decided().await?;
        let is_working = driver.status() == Status::Working;
        // With a behaviour for the case that it works: whether it does can change before it hears this.
        let behaviour = match delivery {
            Delivery::Prompt | Delivery::FollowUp => "followUp",
            Delivery::Steer => "steer",
        };
        let fields = json!({"message": message, "streamingBehavior": behaviour});
        driver.ask_it("prompt", fields).await?;
        Ok(is_working)
    }

    /// Stops the running run; returns when the agent is idle.
    ///
    /// # Errors
    /// As [`Agent::send`].
    pub async fn abort(&self) -> Result<(), Failure> {
        let driver = &self.0.0;
        driver.ask_it("abort", json!({})).await?;
        let idle = std::pin::pin!(driver.until(|driver| driver.status() != Status::Working));
        let late = std::pin::pin!(timers::sleep(STOPPING));
        match futures::future::select(idle, late).await {
            futures::future::Either::Left(_) => Ok(()),
            futures::future::Either::Right((passed, _)) => {
                let error = passed
                    .err()
                    .unwrap_or_else(|| Error::TimedOut("it works on".into()));
                Err(Failure::of(
                    format!("Cannot stop agent {}", driver.name),
                    &error,
                ))
            }
        }
    }

    /// How it is.
    #[must_use]
    pub fn status(&self) -> Status {
        self.0.0.status()
    }

    /// The text of the current or last run so far: at most the last 256 KiB.
    #[must_use]
    pub fn output(&self) -> String {
        self.0.0.output().0
    }

    /// Its bytes in all.
    #[must_use]
    pub fn output_bytes(&self) -> u64 {
        self.0.0.output().1
    }

    /// What it does now, for a widget: the name of the running tool, for example.
    #[must_use]
    pub fn activity(&self) -> Option<String> {
        self.0.0.activity()
    }

    /// When it last gave a sign of life, in milliseconds since 1970.
    #[must_use]
    pub fn last_activity(&self) -> u64 {
        self.0.0.active_at()
    }

    /// Where in its output we are.
    #[must_use]
    pub fn bookmark(&self) -> Bookmark {
        self.0.0.bookmark()
    }

    /// Waits until the status is another one than this. Cancel-safe. Ends with the agent's tasks, too: after [`Agent::let_go`] at once.
    pub async fn changed(&self, from: &Status) -> Status {
        self.0.0.until(|driver| driver.status() != *from).await;
        self.status()
    }

    /// Reads and waits no more; the agent goes on (a local one ends). For a session that ends, and a VM that is about to be paused.
    pub fn let_go(&self) {
        self.0.let_go();
    }

    /// Ends it and waits until its process is gone.
    ///
    /// # Errors
    /// The VM cannot be reached.
    pub async fn end(&self) -> Result<(), Failure> {
        let ended = self.0.0.end().await;
        if ended.is_ok() {
            self.0.0.close();
        }
        ended
    }
}

impl Handle {
    fn let_go(&self) {
        self.0.close();
        if matches!(self.0.place, Place::Local(_)) {
            let driver = self.0.clone();
            background::spawn(async move {
                // The host ends its group at the latest with the session.
                let _ = driver.end().await;
            });
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.let_go();
    }
}

impl Inbox {
    /// The next news; none after the last one. Cancel-safe.
    pub async fn next(&mut self) -> Option<News> {
        self.0.next().await
    }
}
