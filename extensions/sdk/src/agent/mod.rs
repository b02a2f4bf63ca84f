//! Coding agents (`pi`, `punkin`) in RPC mode, on a VM or as a child here: started, spoken with, followed, ended.

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

/// What kind of failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// There is no such VM, or no agent on it.
    Gone,
    /// The VM is paused.
    Paused,
    /// The VM cannot be reached now.
    Unreachable,
    /// The agent said no, or could not be started.
    Refused,
    /// The agent's process has ended.
    Ended,
    /// No answer in time: nobody knows whether it was done.
    TimedOut,
    /// The call that waits was given up.
    Cancelled,
    /// The policy does not grant it.
    Denied,
}

/// Why something with an agent failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What was being done: `starting pi on VM …`.
    pub doing: String,
    /// Why, and what to do about it.
    pub why: String,
    /// What kind of failure it is.
    pub kind: Kind,
}

/// An agent. Clones are the same agent. Dropping all of them lets go of it ([`Agent::let_go`]) and does not end it; but a local one
/// ends.
#[derive(Clone)]
pub struct Agent(std::rc::Rc<()>);

/// Where an agent's [`News`] come out: at most 1,024 wait here, more make the agent's output wait. It ends after the last news there is.
pub struct Inbox(());

/// Starts an agent, and returns when it has answered and has the model that was asked for. `tell` hears what is being done.
///
/// Started on a VM, it runs in tmux sessions `pi-rpc` and `pi-keeper` with `/tmp/pi-rpc/{in,out,err}`; what was there before is ended first.
///
/// # Errors
/// In words; nothing of it is left running then, except where the VM cannot be reached any more.
pub async fn start(launch: Launch, tell: impl Fn(&str)) -> Result<(Agent, Inbox), Failure> {
    let _ = (launch, tell);
    unimplemented!()
}

/// Finds the agent on a VM again, and reads on where the bookmark says (none: only what comes from now on, and how the agent is now). What it said
/// meanwhile comes as news.
///
/// # Errors
/// [`Kind::Gone`] when no agent runs there.
pub async fn attach(vm: &str, name: &str, bookmark: Option<Bookmark>) -> Result<(Agent, Inbox), Failure> {
    let _ = (vm, name, bookmark);
    unimplemented!()
}

impl Agent {
    /// Gives it a message; returns when it has taken it, `true` if it waits for a running one. After that the agent is `Working` until the run is told as ended:
    /// each prompt that was taken is followed by exactly one [`News::Ended`] (queued ones: one for all that are worked off in a run).
    ///
    /// # Errors
    /// It refused, it has ended, it cannot be reached, or it has not answered in time: then nobody knows.
    pub async fn send(&self, message: &str, delivery: Delivery) -> Result<bool, Failure> {
        let _ = (message, delivery);
        unimplemented!()
    }
    /// Stops the running run; returns when the agent is idle.
    ///
    /// # Errors
    /// As [`Agent::send`].
    pub async fn abort(&self) -> Result<(), Failure> {
        unimplemented!()
    }
    /// How it is.
    pub fn status(&self) -> Status {
        unimplemented!()
    }
    /// The text of the current or last run so far: at most the last 256 KiB.
    pub fn output(&self) -> String {
        unimplemented!()
    }
    /// Its bytes in all.
    pub fn output_bytes(&self) -> u64 {
        unimplemented!()
    }
    /// What it does now, for a widget: the name of the running tool, for example.
    pub fn activity(&self) -> Option<String> {
        unimplemented!()
    }
    /// When it last gave a sign of life, in milliseconds since 1970.
    pub fn last_activity(&self) -> u64 {
        unimplemented!()
    }
    /// Where in its output we are.
    pub fn bookmark(&self) -> Bookmark {
        unimplemented!()
    }
    /// Waits until the status is another one than this. Cancel-safe.
    pub async fn changed(&self, from: &Status) -> Status {
        let _ = from;
        unimplemented!()
    }
    /// Reads and waits no more; the agent goes on (a local one ends). For a session that ends, and a VM that is about to be paused.
    pub fn let_go(&self) {
        unimplemented!()
    }
    /// Ends it and waits until its process is gone.
    ///
    /// # Errors
    /// The VM cannot be reached.
    pub async fn end(&self) -> Result<(), Failure> {
        unimplemented!()
    }
}

impl Inbox {
    /// The next news; none after the last one. Cancel-safe.
    pub async fn next(&mut self) -> Option<News> {
        unimplemented!()
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.doing, self.why)
    }
}
