//! The policy file, read strictly: an unknown key, a wrong type or a rule without effect is an error with its place, since a
//! mistyped rule that is skipped would be a right that silently is, or is not, there.
//!
//! Walks the spanned TOML tree by hand rather than through serde: its messages then say what was expected here, in
//! the words of the policy.

use std::collections::BTreeSet;
use std::path::PathBuf;

use toml::de::{DeTable, DeValue};

use crate::argv::ArgPattern;
use crate::decision::visible;
use crate::limits::LIMITS;
use crate::paths::{Place, absolute};
use crate::policy::{Error, Pin, Policy, Section};
use crate::request::{Access, ClientVerb, FleetVerb, SessionVerb, UiVerb, VmVerb};
use crate::rules::{
    Env, FileRule, Names, Ports, ProcessRule, Rules, Scope, SecretRule, SecretTo, Shell, VmSet,
};
use crate::web::{HttpRule, Network, secret_origin};

/// Capabilities that `ask` may name; those with verbs also as `vms.delete`.
const ASKABLE: [&str; 14] = [
    "vms",
    "shell",
    "shell.files",
    "shell.ports",
    "process",
    "files",
    "http",
    "secrets",
    "fleet",
    "ui",
    "client",
    "session",
    "bus",
    "store",
];

/// A project's file also says how it is built and tested and which extensions it wants: others read that.
const PROJECT: [&str; 5] = ["extension", "project", "build", "test", "extensions"];

const KEYS: [&str; 18] = [
    "digest",
    "vms",
    "shell",
    "fleet",
    "process",
    "files",
    "http",
    "secrets",
    "environment",
    "ui",
    "client",
    "session",
    "bus",
    "events",
    "replace",
    "store",
    "ask",
    "limits",
];

mod tree;

use tree::{Fault, Node, Result, expected, items, known_keys, needed, table, text, unknown};

pub(crate) fn policy(text: &str, origin: &str, project: bool) -> Result<Policy, Error> {
    read(text, origin, project).map_err(|Fault(span, message)| {
        let before = text.get(..span.start.min(text.len())).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
        let line = before.matches('\n').count() + 1;
        Error::Syntax {
            origin: origin.to_owned(),
            line,
            column,
            message,
        }
    })
}

fn read(text: &str, origin: &str, project: bool) -> Result<Policy> {
    let whole = DeTable::parse(text).map_err(|error| {
        Fault(
            error.span().unwrap_or_default(),
            error.message().replace('\n', ", "),
        )
    })?;
    let mut policy = Policy::at_origin(origin);
    let known = if project {
        &PROJECT[..]
    } else {
        &["extension"]
    };
    known_keys(whole.get_ref(), known, "the policy")?;
    let Some(extensions) = whole.get_ref().get("extension") else {
        return Ok(policy);
    };
    for (name, node) in table(extensions, "[extension.NAME] sections")? {
        let (name, span) = (name.get_ref().to_string(), name.span());
        if name.is_empty()
            || name.len() > 128
            || name.contains(char::is_whitespace)
            || visible(&name) != name
        {
            return Err(Fault(
                span,
                "an extension's name has 1 to 128 characters, none of them blank or invisible"
                    .into(),
            ));
        }
        let body = table(node, "a section such as [extension.my-tool]")?;
        known_keys(body, &KEYS, &format!("[extension.{name}]"))?;
        let pin = match body.get("digest") {
            Some(node) => digest(node)?,
            None if project => Pin::Follows,
            None => {
                let text = format!(
                    "[extension.{name}] has no digest: add digest = \"sha256:…\" as `pi-vers inspect` shows it"
                );
                return Err(Fault(span, text));
            }
        };
        policy.sections.insert(
            name,
            Section {
                pin,
                rules: rules(body, origin)?,
            },
        );
    }
    Ok(policy)
}

fn rules(body: &DeTable<'_>, origin: &str) -> Result<Rules> {
    let mut rules = Rules::new(origin);
    for (key, node) in body {
        match key.get_ref().as_ref() {
            "vms" => (rules.vms, rules.scope) = vms(node)?,
            "shell" => rules.shell = Some(shell(node)?),
            "fleet" => {
                rules.fleet = verbs(
                    node,
                    FleetVerb::ALL,
                    FleetVerb::name,
                    &[FleetVerb::Available],
                )?
            }
            "process" => {
                rules.process = items(
                    node,
                    "a list such as [{ program = \"/usr/bin/git\", args = [\"status\"] }]",
                    process,
                )?
            }
            "files" => rules.files = files(node)?,
            "http" => rules.http = items(node, "a list of URL patterns", http)?,
            "secrets" => {
                rules.secrets = items(
                    node,
                    "a list such as [\"LLM_PROXY_KEY -> child env\"]",
                    secret,
                )?
            }
            "environment" => {
                rules.environment =
                    variables(node, "a list of variable names such as [\"PI_PATH\"]")?
            }
            "ui" => {
                rules.ui = verbs(
                    node,
                    UiVerb::ALL,
                    UiVerb::name,
                    &[
                        UiVerb::Available,
                        UiVerb::Notify,
                        UiVerb::Status,
                        UiVerb::Widget,
                    ],
                )?
            }
            "client" => {
                let always = [ClientVerb::Offers, ClientVerb::ListChanged];
                rules.client = verbs(node, ClientVerb::ALL, ClientVerb::name, &always)?;
            }
            "session" => {
                let always = SessionVerb::ALL.get(..6).unwrap_or_default();
                rules.session = verbs(node, SessionVerb::ALL, SessionVerb::name, always)?;
            }
            "bus" => rules.bus = names(node)?,
            "events" => rules.events = names(node)?,
            "replace" => rules.replace = names(node)?,
            "store" => {
                rules.store = node
                    .get_ref()
                    .as_bool()
                    .ok_or_else(|| expected(node, "true or false"))?
            }
            "ask" => {
                rules.ask = items(
                    node,
                    "a list of capabilities such as [\"process\", \"vms.delete\"]",
                    askable,
                )?
                .into_iter()
                .collect()
            }
            "limits" => limits(node, &mut rules)?,
            // `known_keys` has refused every other key; the digest is read with the section.
            _ => {}
        }
    }
    if let Some(node) = body.get("environment") {
        let secret = |name: &&String| rules.secrets.iter().any(|rule| rule.name == **name);
        if let Some(name) = rules.environment.iter().find(secret) {
            let text = format!(
                "{name} is in secrets, and a secret is never read: leave it out of environment"
            );
            return Err(Fault(node.span(), text));
        }
    }
    Ok(rules)
}

fn digest(node: &Node<'_>) -> Result<Pin> {
    match text(node, "a digest such as \"sha256:…\"")? {
        "shipped" => Ok(Pin::Shipped),
        text => text.parse().map(Pin::Digest).map_err(|error| {
            Fault(
                node.span(),
                format!("{error}, or \"shipped\" for the one inside pi-vers"),
            )
        }),
    }
}

fn vms(node: &Node<'_>) -> Result<(BTreeSet<VmVerb>, Scope)> {
    let read = |node: &Node<'_>| verbs(node, VmVerb::ALL, VmVerb::name, &[]);
    let DeValue::Table(body) = node.get_ref() else {
        return Ok((read(node)?, Scope(vec![VmSet::Any])));
    };
    known_keys(body, &["verbs", "scope"], "vms")?;
    Ok((
        read(needed(node, body, "verbs")?)?,
        scope(needed(node, body, "scope")?)?,
    ))
}

fn scope(node: &Node<'_>) -> Result<Scope> {
    const WHAT: &str = "\"any\", \"own\", \"label:KEY=VALUE\", a VM's whole id, or a list of them";
    let part =
        |node: &Node<'_>| VmSet::parse(text(node, WHAT)?).ok_or_else(|| expected(node, WHAT));
    match node.get_ref() {
        DeValue::Array(_) => Ok(Scope(items(node, WHAT, part)?)),
        _ => Ok(Scope(vec![part(node)?])),
    }
}

fn shell(node: &Node<'_>) -> Result<Shell> {
    let body = table(
        node,
        "a table such as { vms = \"own\", commands = \"any\" }",
    )?;
    known_keys(body, &["vms", "commands", "env", "files", "ports"], "shell")?;
    let commands = needed(node, body, "commands")?;
    let commands = arguments(
        commands,
        "\"any\", or a list of commands such as [\"git status\", \"ls *\"]",
        |pattern, node| {
            if pattern.names_program() {
                Ok(())
            } else {
                Err(expected(
                    node,
                    "a command that begins with the program's name",
                ))
            }
        },
    )?;
    let (env_default, files_default) = Shell::defaults(commands.is_none());
    Ok(Shell {
        scope: scope(needed(node, body, "vms")?)?,
        commands,
        env: body.get("env").map_or(Ok(env_default), env)?,
        files: match body.get("files") {
            None => files_default,
            Some(node) => match text(node, "\"none\", \"ro\" or \"rw\"")? {
                "none" => None,
                _ => Some(access(node, "\"none\", \"ro\" or \"rw\"")?),
            },
        },
        ports: body
            .get("ports")
            .map_or(Ok(Ports::These(BTreeSet::new())), ports)?,
    })
}

fn ports(node: &Node<'_>) -> Result<Ports> {
    const WHAT: &str = "\"any\", or a list of ports of the VM such as [8080]";
    if node.get_ref().as_str() == Some("any") {
        return Ok(Ports::Any);
    }
    let port = |node: &Node<'_>| {
        let number = node
            .get_ref()
            .as_integer()
            .filter(|number| number.radix() == 10);
        number
            .and_then(|number| number.as_str().parse().ok())
            .filter(|port| *port > 0)
            .ok_or_else(|| expected(node, WHAT))
    };
    Ok(Ports::These(items(node, WHAT, port)?.into_iter().collect()))
}

fn env(node: &Node<'_>) -> Result<Env> {
    const WHAT: &str = "\"any\", or a list of variable names such as [\"LANG\"]";
    if node.get_ref().as_str() == Some("any") {
        return Ok(Env::Any);
    }
    variables(node, WHAT).map(Env::These)
}

/// Whole names of variables, no pattern.
fn variables(node: &Node<'_>, what: &str) -> Result<BTreeSet<String>> {
    let name = |node: &Node<'_>| {
        Some(text(node, what)?)
            .filter(|name| is_name(name))
            .map(str::to_owned)
            .ok_or_else(|| expected(node, what))
    };
    Ok(items(node, what, name)?.into_iter().collect())
}

fn process(node: &Node<'_>) -> Result<ProcessRule> {
    let body = table(
        node,
        "a table such as { program = \"/usr/bin/git\", args = [\"status\"] }",
    )?;
    known_keys(body, &["program", "args", "env", "directories"], "process")?;
    let directories = match body.get("directories") {
        Some(node) => items(node, "a list of directories", place)?,
        None => Place::parse(".").into_iter().collect(),
    };
    Ok(ProcessRule {
        program: program(needed(node, body, "program")?)?,
        args: match body.get("args") {
            Some(node) => arguments(
                node,
                "\"any\", or a list of argument patterns such as [\"log --oneline *\"]",
                |_, _| Ok(()),
            )?,
            None => Some(ArgPattern::parse("").into_iter().collect()),
        },
        env: body.get("env").map_or(Ok(Env::default()), env)?,
        directories,
    })
}

fn program(node: &Node<'_>) -> Result<PathBuf> {
    const WHAT: &str =
        "a program's absolute path such as \"/usr/bin/git\" (names are not looked up)";
    absolute_program(text(node, WHAT)?).ok_or_else(|| expected(node, WHAT))
}

fn absolute_program(text: &str) -> Option<PathBuf> {
    let path = PathBuf::from(text);
    absolute(&path)
        .is_ok_and(|normal| normal.as_os_str() == path.as_os_str() && normal.file_name().is_some())
        .then_some(path)
}

/// `"any"` is `None`.
fn arguments(
    node: &Node<'_>,
    what: &str,
    check: impl Fn(&ArgPattern, &Node<'_>) -> Result<()>,
) -> Result<Option<Vec<ArgPattern>>> {
    if node.get_ref().as_str() == Some("any") {
        return Ok(None);
    }
    let pattern = |node: &Node<'_>| {
        let pattern =
            ArgPattern::parse(text(node, what)?).map_err(|message| Fault(node.span(), message))?;
        check(&pattern, node).map(|()| pattern)
    };
    items(node, what, pattern).map(Some)
}

fn files(node: &Node<'_>) -> Result<Vec<FileRule>> {
    let mut rules: Vec<FileRule> = Vec::new();
    let nodes = items(
        node,
        "a list such as [{ path = \".\", mode = \"ro\" }]",
        |node| {
            let body = table(node, "a table such as { path = \"out\", mode = \"rw\" }")?;
            known_keys(body, &["path", "mode"], "files")?;
            let rule = FileRule {
                place: place(needed(node, body, "path")?)?,
                access: access(needed(node, body, "mode")?, "\"ro\" or \"rw\"")?,
            };
            Ok((rule, node.span()))
        },
    )?;
    for (rule, _) in &nodes {
        rules.push(rule.clone());
    }
    // Reads like an exception, but grants add up.
    for (rule, span) in nodes
        .into_iter()
        .filter(|(rule, _)| rule.access == Access::Read)
    {
        if let Some(wider) = rules
            .iter()
            .find(|other| other.access == Access::Write && other.place.contains(&rule.place))
        {
            let text = format!(
                "has no effect: {:?} is inside {:?}, which may be written; a grant has no exceptions",
                rule.place.source, wider.place.source
            );
            return Err(Fault(span, text));
        }
    }
    Ok(rules)
}

fn place(node: &Node<'_>) -> Result<Place> {
    Place::parse(text(node, "a path")?).map_err(|error| Fault(node.span(), error.to_string()))
}

fn access(node: &Node<'_>, what: &str) -> Result<Access> {
    match text(node, what)? {
        "ro" => Ok(Access::Read),
        "rw" => Ok(Access::Write),
        _ => Err(expected(node, what)),
    }
}

fn http(node: &Node<'_>) -> Result<HttpRule> {
    let rule = |node: &Node<'_>, addresses| {
        let pattern = text(
            node,
            "a URL pattern such as \"https://api.example.com/v1/*\"",
        )?;
        HttpRule::parse(pattern, addresses).map_err(|message| Fault(node.span(), message))
    };
    let DeValue::Table(body) = node.get_ref() else {
        return rule(node, Vec::new());
    };
    known_keys(body, &["url", "addresses"], "http")?;
    let network = |node: &Node<'_>| {
        const WHAT: &str = "an address or a block such as \"10.1.0.0/16\"";
        Network::parse(text(node, WHAT)?).ok_or_else(|| expected(node, WHAT))
    };
    let addresses = items(
        needed(node, body, "addresses")?,
        "a list of addresses",
        network,
    )?;
    rule(needed(node, body, "url")?, addresses)
}

fn secret(node: &Node<'_>) -> Result<SecretRule> {
    const WHAT: &str = "\"NAME -> child env\", \"NAME -> child env /path/of/program\", \"NAME -> vm env\" or \"NAME -> http https://host\"";
    let wrong = || expected(node, WHAT);
    let (name, to) = text(node, WHAT)?.split_once(" -> ").ok_or_else(wrong)?;
    if !is_name(name) {
        return Err(wrong());
    }
    let to = match to.split_once(' ') {
        Some(("child", "env")) => SecretTo::ChildEnv(None),
        Some(("vm", "env")) => SecretTo::VmEnv,
        Some(("child", rest)) => {
            let path = rest
                .strip_prefix("env ")
                .and_then(absolute_program)
                .ok_or_else(wrong)?;
            SecretTo::ChildEnv(Some(path))
        }
        Some(("http", url)) => {
            SecretTo::Http(secret_origin(url).map_err(|message| Fault(node.span(), message))?)
        }
        _ => return Err(wrong()),
    };
    Ok(SecretRule {
        name: name.to_owned(),
        to,
    })
}

/// A name of an environment variable or secret.
pub(crate) fn is_name(name: &str) -> bool {
    let first = name
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    first && name.len() <= 128 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn names(node: &Node<'_>) -> Result<Names> {
    const WHAT: &str = "a list of names; one may end with `*`";
    let name = |node: &Node<'_>| {
        let name = text(node, WHAT)?;
        let stem = name.strip_suffix('*').unwrap_or(name);
        let fine = !name.is_empty()
            && !stem.contains('*')
            && !stem.chars().any(|c| c.is_control() || c.is_whitespace());
        fine.then(|| name.to_owned())
            .ok_or_else(|| expected(node, WHAT))
    };
    Ok(Names(items(node, WHAT, name)?.into_iter().collect()))
}

fn askable(node: &Node<'_>) -> Result<String> {
    let word = text(node, "a capability such as \"process\" or \"vms.delete\"")?;
    let verb = |name: &str, all: &[&str]| {
        word.strip_prefix(name)
            .is_some_and(|verb| all.contains(&verb))
    };
    let known = ASKABLE.contains(&word)
        || verb(
            "vms.",
            &VmVerb::ALL
                .iter()
                .map(|verb| verb.name())
                .collect::<Vec<_>>(),
        )
        || verb(
            "fleet.",
            &FleetVerb::ALL
                .iter()
                .map(|verb| verb.name())
                .collect::<Vec<_>>(),
        )
        || verb(
            "ui.",
            &UiVerb::ALL
                .iter()
                .map(|verb| verb.name())
                .collect::<Vec<_>>(),
        )
        || verb(
            "client.",
            &ClientVerb::ALL
                .iter()
                .map(|verb| verb.name())
                .collect::<Vec<_>>(),
        )
        || verb(
            "session.",
            &SessionVerb::ALL
                .iter()
                .map(|verb| verb.name())
                .collect::<Vec<_>>(),
        );
    if known {
        Ok(word.to_owned())
    } else {
        Err(Fault(
            node.span(),
            unknown("capability", word, &ASKABLE, "ask"),
        ))
    }
}

fn limits(node: &Node<'_>, rules: &mut Rules) -> Result<()> {
    let body = table(
        node,
        "a table such as { memory = \"64 MiB\", call = \"10 min\" }",
    )?;
    let all: Vec<_> = LIMITS.iter().map(|limit| limit.name).collect();
    known_keys(body, &all, "limits")?;
    for limit in LIMITS {
        let Some(node) = body.get(limit.name) else {
            continue;
        };
        let value = match node.get_ref() {
            DeValue::String(text) => limit.unit.parse(text),
            DeValue::Integer(number)
                if number.radix() == 10 && limit.unit == crate::Unit::Count =>
            {
                limit.unit.parse(number.as_str())
            }
            _ => None,
        };
        rules.limits.insert(
            limit.name,
            value.ok_or_else(|| expected(node, limit.unit.expected()))?,
        );
    }
    Ok(())
}

/// A list of verbs. `always` need no grant, so naming one is a misunderstanding.
fn verbs<T: Copy + Ord>(
    node: &Node<'_>,
    all: &[T],
    name: fn(T) -> &'static str,
    always: &[T],
) -> Result<BTreeSet<T>> {
    let words: Vec<_> = all
        .iter()
        .filter(|verb| !always.contains(verb))
        .map(|verb| name(*verb))
        .collect();
    let what = format!("a list of {}", words.join(", "));
    let verb = |node: &Node<'_>| {
        let word = text(node, &what)?;
        let Some(verb) = all.iter().copied().find(|verb| name(*verb) == word) else {
            return Err(Fault(
                node.span(),
                unknown("verb", word, &words, &words.join(", ")),
            ));
        };
        match always.contains(&verb) {
            true => Err(Fault(
                node.span(),
                format!("\"{word}\" is always allowed: leave it out"),
            )),
            false => Ok(verb),
        }
    };
    Ok(items(node, &what, verb)?.into_iter().collect())
}
