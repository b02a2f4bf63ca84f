//! The rules of one section `[extension.NAME]` of one file, and the two ways to write them down again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::path::{Path, PathBuf};

use url::Url;

use crate::argv::ArgPattern;
use crate::decision::quoted;
use crate::limits::LIMITS;
use crate::paths::Place;
use crate::request::{Access, FleetVerb, SessionVerb, UiVerb, Vm, VmVerb};
use crate::web::HttpRule;

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
    pub(crate) ui: BTreeSet<UiVerb>,
    pub(crate) session: BTreeSet<SessionVerb>,
    pub(crate) bus: Names,
    pub(crate) events: Names,
    pub(crate) replace: Names,
    pub(crate) store: bool,
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
            ui: BTreeSet::from([UiVerb::Select, UiVerb::Confirm]),
            session: BTreeSet::from([SessionVerb::AppendEntry, SessionVerb::Entries]),
            bus: Names::default(),
            events: Names(
                ["agent-start", "turn-start", "model-select"]
                    .map(str::to_owned)
                    .into(),
            ),
            replace: Names::default(),
            store: true,
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

/// `ro` or `rw`.
pub(crate) fn mode(access: Access) -> &'static str {
    match access {
        Access::Read => "ro",
        Access::Write => "rw",
    }
}

/// `["a", "b"]`
pub(crate) fn list<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    array(items.into_iter().map(|item| quoted(&item.to_string())))
}

fn array(items: impl IntoIterator<Item = String>) -> String {
    format!("[{}]", items.into_iter().collect::<Vec<_>>().join(", "))
}

/// `{ a = 1, b = 2 }`
fn table(pairs: impl IntoIterator<Item = (&'static str, String)>) -> String {
    format!(
        "{{ {} }}",
        pairs
            .into_iter()
            .map(|(key, value)| format!("{key} = {value}"))
            .collect::<Vec<_>>()
            .join(", ")
    )
}

fn patterns(patterns: Option<&Vec<ArgPattern>>) -> String {
    patterns.map_or_else(|| quoted("any"), list)
}

impl Rules {
    /// The lines of the section that differ from the defaults, as TOML.
    pub(crate) fn toml(&self) -> Vec<String> {
        let plain = Self::new(&self.origin);
        let mut lines = Vec::new();
        let mut put = |key: &str, said: bool, value: &dyn Fn() -> String| {
            if said {
                lines.push(format!("{key} = {}", value()));
            }
        };
        let any = self.scope == plain.scope;
        put("vms", !self.vms.is_empty() || !any, &|| match any {
            true => list(&self.vms),
            false => table([("verbs", list(&self.vms)), ("scope", self.scope.toml())]),
        });
        put("shell", self.shell.is_some(), &|| {
            self.shell.as_ref().map(Shell::toml).unwrap_or_default()
        });
        put("fleet", !self.fleet.is_empty(), &|| list(&self.fleet));
        put("process", !self.process.is_empty(), &|| {
            array(self.process.iter().map(ProcessRule::toml))
        });
        put("files", !self.files.is_empty(), &|| {
            array(self.files.iter().map(|rule| {
                table([
                    ("path", quoted(&rule.place.source)),
                    ("mode", quoted(mode(rule.access))),
                ])
            }))
        });
        put("http", !self.http.is_empty(), &|| {
            array(
                self.http
                    .iter()
                    .map(|rule| match rule.addresses.is_empty() {
                        true => quoted(&rule.source),
                        false => table([
                            ("url", quoted(&rule.source)),
                            ("addresses", list(&rule.addresses)),
                        ]),
                    }),
            )
        });
        put("secrets", !self.secrets.is_empty(), &|| {
            list(self.secrets.iter().map(SecretRule::text))
        });
        put("ui", self.ui != plain.ui, &|| list(&self.ui));
        put("session", self.session != plain.session, &|| {
            list(&self.session)
        });
        put("bus", self.bus != plain.bus, &|| list(&self.bus.0));
        put("events", self.events != plain.events, &|| {
            list(&self.events.0)
        });
        put("replace", self.replace != plain.replace, &|| {
            list(&self.replace.0)
        });
        put("store", !self.store, &|| "false".into());
        put("ask", !self.ask.is_empty(), &|| list(&self.ask));
        put("limits", !self.limits.is_empty(), &|| {
            table(LIMITS.iter().filter_map(|limit| {
                let value = self.limits.get(limit.name)?;
                Some((limit.name, quoted(&limit.unit.format(*value))))
            }))
        });
        lines
    }

    /// One line for each right, for people; stable, so that two sets of rights can be compared.
    pub(crate) fn rights(&self) -> Vec<String> {
        let mut lines = Vec::new();
        lines.extend(self.vms.iter().map(|verb| {
            match verb.needs_vm() || matches!(verb, VmVerb::List | VmVerb::Resolve) {
                true => format!("vms: {verb}, of {}", self.scope.text()),
                false => format!("vms: {verb}"),
            }
        }));
        if let Some(shell) = &self.shell {
            let on = format!("shell on {}", shell.scope.text());
            match &shell.commands {
                None => lines.push(format!("{on}: any command")),
                Some(commands) => {
                    lines.extend(commands.iter().map(|command| format!("{on}: {command}")))
                }
            }
            lines.push(format!("{on}: files {}", shell.files.map_or("none", mode)));
            lines.push(format!("{on}: environment {}", shell.env.toml()));
            lines.push(format!("{on}: ports {}", shell.ports.toml()));
        }
        for rule in &self.process {
            let program = rule.program.display();
            match &rule.args {
                None => lines.push(format!("process: {program}, any arguments")),
                Some(args) => lines.extend(args.iter().map(|pattern| {
                    format!("process: {program} {pattern}")
                        .trim_end()
                        .to_owned()
                })),
            }
            lines.push(format!(
                "process: {program}, environment {}",
                rule.env.toml()
            ));
            lines.extend(
                rule.directories
                    .iter()
                    .map(|place| format!("process: {program}, in {}", place.source)),
            );
        }
        lines.extend(
            self.files
                .iter()
                .map(|rule| format!("files: {} {}", mode(rule.access), rule.place.source)),
        );
        for rule in &self.http {
            lines.push(format!("http: {}", rule.source));
            lines.extend(
                rule.addresses
                    .iter()
                    .map(|network| format!("http: {} at {network}", rule.source)),
            );
        }
        lines.extend(
            self.secrets
                .iter()
                .map(|rule| format!("secrets: {}", rule.text())),
        );
        lines.extend(self.fleet.iter().map(|verb| format!("fleet: {verb}")));
        lines.extend(self.ui.iter().map(|verb| format!("ui: {verb}")));
        lines.extend(self.session.iter().map(|verb| format!("session: {verb}")));
        lines.extend(self.bus.0.iter().map(|name| format!("bus: {name}")));
        lines.extend(self.events.0.iter().map(|name| format!("events: {name}")));
        lines.extend(self.replace.0.iter().map(|name| format!("replace: {name}")));
        lines.extend(self.store.then(|| "store".to_owned()));
        lines.extend(self.ask.iter().map(|name| format!("ask: {name}")));
        lines
    }
}

impl Shell {
    pub(crate) fn toml(&self) -> String {
        let (env, files) = Self::defaults(self.commands.is_none());
        let mut pairs = vec![
            ("vms", self.scope.toml()),
            ("commands", patterns(self.commands.as_ref())),
        ];
        pairs.extend((self.env != env).then(|| ("env", self.env.toml())));
        pairs.extend(
            (self.files != files).then(|| ("files", quoted(self.files.map_or("none", mode)))),
        );
        pairs.extend(
            (self.ports != Ports::These(BTreeSet::new())).then(|| ("ports", self.ports.toml())),
        );
        table(pairs)
    }
}

impl Ports {
    fn toml(&self) -> String {
        match self {
            Self::Any => quoted("any"),
            Self::These(ports) => array(ports.iter().map(u16::to_string)),
        }
    }
}

impl ProcessRule {
    fn toml(&self) -> String {
        let mut pairs = vec![
            ("program", quoted(&self.program.to_string_lossy())),
            ("args", patterns(self.args.as_ref())),
        ];
        pairs.extend((self.env != Env::default()).then(|| ("env", self.env.toml())));
        let here = matches!(self.directories.as_slice(), [place] if place.source == ".");
        pairs.extend((!here).then(|| {
            (
                "directories",
                list(self.directories.iter().map(|place| &place.source)),
            )
        }));
        table(pairs)
    }
}
