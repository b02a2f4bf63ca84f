//! What an extension asks to do: one variant for each import function or family of the contract in `wit/`.
//!
//! The host builds a request from facts it knows itself: labels as the platform tells them, paths already
//! normalised, URLs already parsed. It never passes on a guest's word for them. [`crate::REQUESTS`] says which
//! import function needs which requests.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;

use url::Url;

/// An enum of words of the policy, each with its name.
macro_rules! verbs {
    ($(#[$meta:meta])* $name:ident { $($(#[doc = $doc:literal])+ $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[doc = $doc])+ $variant,)+ }

        impl $name {
            /// Every verb.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The word of the policy file.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            /// The verb of this word.
            pub fn parse(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)+ _ => None }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(self.name()) }
        }
    };
}

verbs! {
    /// What can be done with VMs, one word for each function of `vers:platform/vms`. The first seven need a VM in scope
    /// ([`Request::Vm`]), the others name none ([`Request::Vms`]).
    VmVerb {
        /// See one VM.
        Get = "get",
        /// Delete a VM for good.
        Delete = "delete",
        /// Clone a running VM.
        Branch = "branch",
        /// Snapshot a VM.
        Commit = "commit",
        /// Pause or resume a VM.
        State = "state",
        /// Set labels. Asked by [`Request::VmLabels`].
        Labels = "labels",
        /// Grow a VM's disk.
        Resize = "resize",
        /// List VMs; the host leaves out those that [`crate::Grants::sees`] refuses.
        List = "list",
        /// Find a VM by the start of its id, among those in scope.
        Resolve = "resolve",
        /// Start a fresh VM.
        Create = "create",
        /// Start a VM from a snapshot.
        Restore = "restore",
        /// List commits.
        Commits = "commits",
        /// Delete a commit.
        DeleteCommit = "delete-commit",
        /// Make a commit public or private.
        Publish = "publish",
    }
}

impl VmVerb {
    /// Whether the verb acts on one existing VM, which then has to be in scope.
    pub const fn needs_vm(self) -> bool {
        match self {
            Self::Get
            | Self::Delete
            | Self::Branch
            | Self::Commit
            | Self::State
            | Self::Labels
            | Self::Resize => true,
            Self::List
            | Self::Resolve
            | Self::Create
            | Self::Restore
            | Self::Commits
            | Self::DeleteCommit
            | Self::Publish => false,
        }
    }
}

verbs! {
    /// Dialogs and what the user sees besides messages.
    UiVerb {
        /// Whether somebody can answer. Always allowed.
        Available = "available",
        /// A short notice. Always allowed.
        Notify = "notify",
        /// A footer entry. Always allowed.
        Status = "status",
        /// Lines near the editor. Always allowed.
        Widget = "widget",
        /// A dialog with options. On by default.
        Select = "select",
        /// A yes-or-no dialog. On by default.
        Confirm = "confirm",
        /// A dialog for one line of text: it could ask for a password.
        Input = "input",
        /// A dialog for a text.
        Edit = "edit",
    }
}

verbs! {
    /// What the client behind a call can be asked beyond the dialogs.
    ClientVerb {
        /// Whether it can be asked. Always allowed.
        Offers = "offers",
        /// Say that a list has changed. Always allowed.
        ListChanged = "list-changed",
        /// Have its user fill in a form: it could ask for a password.
        Form = "form",
        /// Have its model complete a conversation: at its user's cost.
        Sampling = "sampling",
        /// Learn which directories it works in.
        Roots = "roots",
    }
}

verbs! {
    /// The conversation and the harness around it.
    SessionVerb {
        /// Where the user works. Always allowed.
        WorkingDirectory = "working-directory",
        /// The session's id. Always allowed.
        Id = "id",
        /// The extension's own flags. Always allowed.
        Flag = "flag",
        /// Names of the offered tools. Always allowed.
        ActiveTools = "active-tools",
        /// Names of all tools. Always allowed.
        AllTools = "all-tools",
        /// Whether no turn is running. Always allowed.
        IsIdle = "is-idle",
        /// Keep an own entry with the session. On by default.
        AppendEntry = "append-entry",
        /// Read the own entries. On by default.
        Entries = "entries",
        /// Put a message into the conversation.
        SendMessage = "send-message",
        /// Speak in the user's place.
        SendUserMessage = "send-user-message",
        /// Choose the tools the model is offered.
        SetActiveTools = "set-active-tools",
        /// Run the harness's own tool: whatever that can do, with the host's rights.
        RunBuiltIn = "run-built-in",
    }
}

verbs! {
    /// The control plane of a fleet.
    FleetVerb {
        /// Whether there is one. Always allowed.
        Available = "available",
        /// Which commit agents start from.
        Golden = "golden",
        /// The same, building one if there is none: takes minutes and makes VMs.
        BuildGolden = "build-golden",
        /// Add or replace a member.
        Register = "register",
        /// Remove a member.
        Deregister = "deregister",
        /// List the members.
        Members = "members",
    }
}

/// What the host knows of a VM.
#[derive(Debug, Clone, Copy)]
pub struct Vm<'a> {
    /// The whole UUID.
    pub id: &'a str,
    /// Its labels, as the platform tells them.
    pub labels: &'a [(String, String)],
    /// Whether this extension created, branched or restored it in this session.
    pub own: bool,
}

/// Reading or writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// stat, list, read; the source of a copy.
    Read,
    /// write; the target of a copy.
    Write,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
        })
    }
}

/// What to run on a VM.
#[derive(Debug, Clone, Copy)]
pub enum Command<'a> {
    /// The whole argument vector, the program first.
    Argv(&'a [String]),
    /// A script for the VM's shell.
    Shell(&'a str),
}

/// Where a secret's value is to go.
#[derive(Debug, Clone, Copy)]
pub enum SecretUse<'a> {
    /// The environment of a program on this machine, by its resolved path.
    ChildEnv {
        /// The program.
        program: &'a Path,
    },
    /// The environment of a command on a VM. Whether the VM is in scope is asked by [`Request::ShellSpawn`].
    VmEnv,
    /// A header of a request to this URL. Ask again at every hop.
    HttpHeader {
        /// The URL of this hop.
        url: &'a Url,
    },
}

/// What an extension asks to do.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, reason = "the fields repeat the contract's parameters")]
pub enum Request<'a> {
    /// `log.write`: the one thing allowed even while an extension describes itself.
    Log,
    /// `timers`.
    Timers,
    /// A method of a handle that was granted when it was made: `tool-call`, `child`.
    OwnHandle,
    /// A function of `vms` that names no existing VM.
    Vms { verb: VmVerb },
    /// A function of `vms` on one VM. `get`, and `delete`, `branch`, `commit`, `set-state`, `resize-disk`.
    Vm { verb: VmVerb, vm: Vm<'a> },
    /// `vms.set-labels`.
    VmLabels {
        vm: Vm<'a>,
        labels: &'a [(String, String)],
    },
    /// `shell.connect` and `disconnect`.
    ShellConnect { vm: Vm<'a> },
    /// `shell.spawn`; `env` are the names of the variables. Secrets among them are asked for one by one besides.
    ShellSpawn {
        vm: Vm<'a>,
        command: Command<'a>,
        working_directory: Option<&'a str>,
        env: &'a [&'a str],
    },
    /// `shell.follow`.
    ShellFollow { vm: Vm<'a>, path: &'a str },
    /// `shell.forward-port`.
    ForwardPort {
        vm: Vm<'a>,
        remote: u16,
        local: Option<u16>,
    },
    /// `files` on a VM.
    VmFile {
        vm: Vm<'a>,
        path: &'a str,
        access: Access,
    },
    /// `process.spawn`. `program` is resolved and absolute, `args` without it, `working_directory` absolute and normalised.
    /// A `shell(script)` is asked for as what runs: `/bin/sh` with `-c` and the script.
    Process {
        program: &'a Path,
        args: &'a [String],
        working_directory: &'a Path,
        env: &'a [&'a str],
    },
    /// `files` on this machine; absolute and normalised, see [`crate::normalise`].
    LocalFile { path: &'a Path, access: Access },
    /// `http.send`, at every hop, before its name is resolved.
    Http { method: &'a str, url: &'a Url },
    /// `http.send`, at every hop, for the address about to be dialled.
    HttpAddress {
        method: &'a str,
        url: &'a Url,
        address: IpAddr,
    },
    /// `session.variable`: reads one environment variable of the host.
    Variable { name: &'a str },
    /// A secret's way out.
    Secret { name: &'a str, to: SecretUse<'a> },
    /// `store`.
    Store,
    /// `ui`.
    Ui { verb: UiVerb },
    /// `client`; one request for each kind among the questions.
    Client { verb: ClientVerb },
    /// `session`.
    Session { verb: SessionVerb },
    /// `bus.emit`, and delivering a topic that `describe` names.
    Bus { topic: &'a str },
    /// Delivering an event that `describe` subscribes to, and obeying the answer.
    Event { name: &'a str },
    /// Offering a tool by the name of a built-in of the harness, which it then replaces.
    ReplaceTool { name: &'a str },
    /// `fleet`.
    Fleet { verb: FleetVerb },
}

/// The variants of [`Request`], without their fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "see Request")]
pub enum Kind {
    Log,
    Timers,
    OwnHandle,
    Vms,
    Vm,
    VmLabels,
    ShellConnect,
    ShellSpawn,
    ShellFollow,
    ForwardPort,
    VmFile,
    Process,
    LocalFile,
    Http,
    HttpAddress,
    Variable,
    Secret,
    Store,
    Ui,
    Client,
    Session,
    Bus,
    Event,
    ReplaceTool,
    Fleet,
}

impl Request<'_> {
    /// Which variant this is.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Log => Kind::Log,
            Self::Timers => Kind::Timers,
            Self::OwnHandle => Kind::OwnHandle,
            Self::Vms { .. } => Kind::Vms,
            Self::Vm { .. } => Kind::Vm,
            Self::VmLabels { .. } => Kind::VmLabels,
            Self::ShellConnect { .. } => Kind::ShellConnect,
            Self::ShellSpawn { .. } => Kind::ShellSpawn,
            Self::ShellFollow { .. } => Kind::ShellFollow,
            Self::ForwardPort { .. } => Kind::ForwardPort,
            Self::VmFile { .. } => Kind::VmFile,
            Self::Process { .. } => Kind::Process,
            Self::LocalFile { .. } => Kind::LocalFile,
            Self::Http { .. } => Kind::Http,
            Self::HttpAddress { .. } => Kind::HttpAddress,
            Self::Variable { .. } => Kind::Variable,
            Self::Secret { .. } => Kind::Secret,
            Self::Store => Kind::Store,
            Self::Ui { .. } => Kind::Ui,
            Self::Client { .. } => Kind::Client,
            Self::Session { .. } => Kind::Session,
            Self::Bus { .. } => Kind::Bus,
            Self::Event { .. } => Kind::Event,
            Self::ReplaceTool { .. } => Kind::ReplaceTool,
            Self::Fleet { .. } => Kind::Fleet,
        }
    }
    /// The capability as denials and `ask` name it: `vms.delete`, `process`, `shell.files`.
    pub fn capability(&self) -> String {
        match self {
            Self::Log => "log".into(),
            Self::Timers => "timers".into(),
            Self::OwnHandle => "handle".into(),
            Self::Vms { verb } | Self::Vm { verb, .. } => format!("vms.{verb}"),
            Self::VmLabels { .. } => "vms.labels".into(),
            Self::ShellConnect { .. } | Self::ShellSpawn { .. } => "shell".into(),
            Self::ShellFollow { .. } | Self::VmFile { .. } => "shell.files".into(),
            Self::ForwardPort { .. } => "shell.ports".into(),
            Self::Process { .. } => "process".into(),
            Self::LocalFile { .. } => "files".into(),
            Self::Http { .. } => "http".into(),
            Self::HttpAddress { .. } => "http.address".into(),
            Self::Variable { .. } => "environment".into(),
            Self::Secret { .. } => "secrets".into(),
            Self::Store => "store".into(),
            Self::Ui { verb } => format!("ui.{verb}"),
            Self::Client { verb } => format!("client.{verb}"),
            Self::Session { verb } => format!("session.{verb}"),
            Self::Bus { .. } => "bus".into(),
            Self::Event { .. } => "events".into(),
            Self::ReplaceTool { .. } => "replace".into(),
            Self::Fleet { verb } => format!("fleet.{verb}"),
        }
    }

    /// Whether this is allowed whatever the policy says, so that nothing is judged.
    pub fn is_always_allowed(&self) -> bool {
        match self {
            Self::Log | Self::Timers | Self::OwnHandle => true,
            Self::Ui { verb } => matches!(
                verb,
                UiVerb::Available | UiVerb::Notify | UiVerb::Status | UiVerb::Widget
            ),
            Self::Client { verb } => matches!(verb, ClientVerb::Offers | ClientVerb::ListChanged),
            Self::Session { verb } => matches!(
                verb,
                SessionVerb::WorkingDirectory
                    | SessionVerb::Id
                    | SessionVerb::Flag
                    | SessionVerb::ActiveTools
                    | SessionVerb::AllTools
                    | SessionVerb::IsIdle
            ),
            Self::Fleet { verb } => *verb == FleetVerb::Available,
            _ => false,
        }
    }
}
