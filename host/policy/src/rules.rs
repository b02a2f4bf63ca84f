//! The rules of one section `[extension.NAME]` of one file, and the two ways to write them down again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use url::Url;

use crate::argv::ArgPattern;
use crate::decision::quoted;
use crate::paths::Place;
use crate::request::{Access, ClientVerb, FleetVerb, SessionVerb, UiVerb, Vm, VmVerb};
use crate::web::HttpRule;

mod broad;
mod write;

pub(crate) use write::{list, mode};

/// What one file says of one extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rules {
    /// The file, for messages.
    pub(crate) origin: String,
    pub(crate) vms: BTreeSet<VmVerb>,
    pub(crate) scope: Scope,
    pub(crate) shell: Option<Shell>,
    pub(crate) fleet: BTreeSet<FleetVerb>,
    pub(crate) process: Vec<ProcessRule>,
    pub(crate) files: Vec<FileRule>,
    pub(crate) http: Vec<HttpRule>,
    pub(crate) secrets: Vec<SecretRule>,
    /// Variables of the host's environment that may be read.
    pub(crate) environment: BTreeSet<String>,
    pub(crate) ui: BTreeSet<UiVerb>,
    pub(crate) client: BTreeSet<ClientVerb>,
    pub(crate) session: BTreeSet<SessionVerb>,
    pub(crate) bus: Names,
    pub(crate) events: Names,
    pub(crate) replace: Names,
    pub(crate) store: bool,
    pub(crate) log: bool,
    /// Capabilities that a human may allow case by case.
    pub(crate) ask: BTreeSet<String>,
    pub(crate) limits: BTreeMap<&'static str, u64>,
}

impl Rules {
    /// A section without a line in it: nothing but the harmless defaults.
    pub(crate) fn new(origin: &str) -> Self {
        Self {
            origin: origin.to_owned(),
            vms: BTreeSet::new(),
            scope: Scope(vec![VmSet::Any]),
            shell: None,
            fleet: BTreeSet::new(),
            process: Vec::new(),
            files: Vec::new(),
            http: Vec::new(),
            secrets: Vec::new(),
            environment: BTreeSet::new(),
            ui: BTreeSet::from([UiVerb::Select, UiVerb::Confirm]),
            client: BTreeSet::new(),
            session: BTreeSet::from([SessionVerb::AppendEntry, SessionVerb::Entries]),
            bus: Names::default(),
            events: Names(
                ["agent-start", "turn-start", "model-select"]
                    .map(str::to_owned)
                    .into(),
            ),
            replace: Names::default(),
            store: true,
            log: true,
            ask: BTreeSet::new(),
            limits: BTreeMap::new(),
        }
    }

    /// Fills in what `.` and `~` mean.
    pub(crate) fn resolve(&mut self, working_directory: &Path, home: Option<&Path>) {
        let places = self.files.iter_mut().map(|rule| &mut rule.place).chain(
            self.process
                .iter_mut()
                .flat_map(|rule| &mut rule.directories),
        );
        places.for_each(|place| place.resolve(working_directory, home));
    }
}

/// Names: exact, or the beginning of a name and `*`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Names(pub(crate) BTreeSet<String>);

impl Names {
    pub(crate) fn hold(&self, name: &str) -> bool {
        self.0
            .iter()
            .any(|granted| match granted.strip_suffix('*') {
                Some(start) => name.starts_with(start),
                None => granted == name,
            })
    }
}

/// Which VMs: those that any part holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scope(pub(crate) Vec<VmSet>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum VmSet {
    Any,
    Own,
    Label(String, String),
    Id(String),
}

impl VmSet {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "any" => return Some(Self::Any),
            "own" => return Some(Self::Own),
            _ => {}
        }
        if let Some((key, value)) = text
            .strip_prefix("label:")
            .and_then(|label| label.split_once('='))
        {
            return (!key.is_empty()).then(|| Self::Label(key.to_owned(), value.to_owned()));
        }
        let dash = |at: usize| matches!(at, 8 | 13 | 18 | 23);
        let uuid = text.len() == 36
            && text.bytes().enumerate().all(|(at, b)| {
                if dash(at) {
                    b == b'-'
                } else {
                    b.is_ascii_hexdigit()
                }
            });
        uuid.then(|| Self::Id(text.to_ascii_lowercase()))
    }

    fn text(&self) -> String {
        match self {
            Self::Any => "any".into(),
            Self::Own => "own".into(),
            Self::Label(key, value) => format!("label:{key}={value}"),
            Self::Id(id) => id.clone(),
        }
    }
}

impl Scope {
    pub(crate) fn holds(&self, vm: &Vm<'_>) -> bool {
        self.0.iter().any(|part| match part {
            VmSet::Any => true,
            VmSet::Own => vm.own,
            VmSet::Label(key, value) => vm.labels.iter().any(|(k, v)| k == key && v == value),
            VmSet::Id(id) => vm.id.eq_ignore_ascii_case(id),
        })
    }

    pub(crate) fn has_labels(&self) -> bool {
        self.0.iter().any(|part| matches!(part, VmSet::Label(..)))
    }

    pub(crate) fn text(&self) -> String {
        self.0
            .iter()
            .map(VmSet::text)
            .collect::<Vec<_>>()
            .join(", ")
    }

    fn toml(&self) -> String {
        match self.0.as_slice() {
            [one] => quoted(&one.text()),
            parts => list(parts.iter().map(VmSet::text)),
        }
    }
}

/// What may be done on VMs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shell {
    pub(crate) scope: Scope,
    /// `None`: any command, scripts included.
    pub(crate) commands: Option<Vec<ArgPattern>>,
    pub(crate) env: Env,
    pub(crate) files: Option<Access>,
    pub(crate) ports: Ports,
}

impl Shell {
    /// No VM, no command: what a rule begins with.
    pub(crate) fn nothing() -> Self {
        let (env, files) = Self::defaults(false);
        Self {
            scope: Scope(Vec::new()),
            commands: Some(Vec::new()),
            env,
            files,
            ports: Ports::These(BTreeSet::new()),
        }
    }

    /// What `files` and `env` are when the policy does not say: whoever may run anything, can do both already.
    pub(crate) fn defaults(any_command: bool) -> (Env, Option<Access>) {
        if any_command {
            (Env::Any, Some(Access::Write))
        } else {
            (Env::default(), None)
        }
    }
}

/// Ports of VMs that may be forwarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ports {
    Any,
    These(BTreeSet<u16>),
}

/// Names of environment variables a guest may set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Env {
    Any,
    These(BTreeSet<String>),
}

impl Default for Env {
    fn default() -> Self {
        Self::These(BTreeSet::new())
    }
}

impl Env {
    /// The first name that is not granted.
    pub(crate) fn missing<'a>(&self, names: &[&'a str]) -> Option<&'a str> {
        match self {
            Self::Any => None,
            Self::These(granted) => names.iter().copied().find(|name| !granted.contains(*name)),
        }
    }

    fn toml(&self) -> String {
        match self {
            Self::Any => quoted("any"),
            Self::These(names) => list(names.iter()),
        }
    }
}

/// A program of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProcessRule {
    pub(crate) program: PathBuf,
    /// `None`: any arguments.
    pub(crate) args: Option<Vec<ArgPattern>>,
    pub(crate) env: Env,
    pub(crate) directories: Vec<Place>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileRule {
    pub(crate) place: Place,
    pub(crate) access: Access,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SecretRule {
    pub(crate) name: String,
    pub(crate) to: SecretTo,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SecretTo {
    ChildEnv(Option<PathBuf>),
    VmEnv,
    Http(Url),
}

impl SecretRule {
    pub(crate) fn text(&self) -> String {
        let name = &self.name;
        match &self.to {
            SecretTo::ChildEnv(None) => format!("{name} -> child env"),
            SecretTo::ChildEnv(Some(program)) => {
                format!("{name} -> child env {}", program.display())
            }
            SecretTo::VmEnv => format!("{name} -> vm env"),
            SecretTo::Http(url) => format!("{name} -> http {}", url.origin().ascii_serialization()),
        }
    }
}
