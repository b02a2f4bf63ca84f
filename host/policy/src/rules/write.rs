//! Rules written down again: as TOML that reads back the same, and as one line of text for each right.

use std::collections::BTreeSet;
use std::fmt::Display;

use super::{Env, Ports, ProcessRule, Rules, SecretRule, Shell};
use crate::argv::ArgPattern;
use crate::decision::quoted;
use crate::limits::LIMITS;
use crate::request::{Access, VmVerb};

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
        put("environment", !self.environment.is_empty(), &|| {
            list(&self.environment)
        });
        put("ui", self.ui != plain.ui, &|| list(&self.ui));
        put("client", !self.client.is_empty(), &|| list(&self.client));
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
        put("log", !self.log, &|| "false".into());
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
        lines.extend(
            self.environment
                .iter()
                .map(|name| format!("environment: {name}")),
        );
        lines.extend(self.fleet.iter().map(|verb| format!("fleet: {verb}")));
        lines.extend(self.ui.iter().map(|verb| format!("ui: {verb}")));
        lines.extend(self.client.iter().map(|verb| format!("client: {verb}")));
        lines.extend(self.session.iter().map(|verb| format!("session: {verb}")));
        lines.extend(self.bus.0.iter().map(|name| format!("bus: {name}")));
        lines.extend(self.events.0.iter().map(|name| format!("events: {name}")));
        lines.extend(self.replace.0.iter().map(|name| format!("replace: {name}")));
        lines.extend(self.store.then(|| "store".to_owned()));
        lines.extend(self.log.then(|| "log".to_owned()));
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
