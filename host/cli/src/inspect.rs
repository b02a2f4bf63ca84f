//! `pi-vers inspect`: what an extension can ask for, what it says of itself, and what it may do.
//!
//! The imports are an honest statement: what a component does not import, it has no way to ask for. Shipped extensions
//! are shown exactly like anyone's.

use std::path::Path;
use std::sync::Arc;

use pi_vers_host::policy::{Grants, Lookup, diff};
use pi_vers_host::{Extension, Host, visible};
use serde_json::{Value, json};

use crate::args::Inspect;
use crate::failure::{Code, Failure};
use crate::setup;
use crate::shipped::SHIPPED;
use crate::terminal::{Style, Terminal};

/// What each import lets an extension do, and each export is for; the policy's key where there is one.
const WORDS: [(&str, &str, Option<&str>); 23] = [
    ("vers:harness/types", "words the others share", None),
    ("vers:harness/log", "write to the log", None),
    ("vers:harness/timers", "read a clock and wait", None),
    (
        "vers:harness/call",
        "show progress of its own calls and see that they are cancelled",
        None,
    ),
    (
        "vers:harness/ui",
        "show notices and status lines, ask the user",
        Some("ui"),
    ),
    (
        "vers:harness/client",
        "say that its lists have changed; with a grant: have the client's user fill in forms, use its model, learn its directories",
        Some("client"),
    ),
    (
        "vers:harness/session",
        "keep entries with the session; with a grant: speak in it, run the harness's own tools, read variables of the environment",
        Some("session"),
    ),
    (
        "vers:harness/bus",
        "send messages to other extensions",
        Some("bus"),
    ),
    (
        "vers:platform/vms",
        "list, make, copy, pause and delete Vers VMs",
        Some("vms"),
    ),
    (
        "vers:platform/shell",
        "run commands on Vers VMs, follow files there, forward ports",
        Some("shell"),
    ),
    (
        "vers:platform/fleet",
        "ask the control plane of a fleet",
        Some("fleet"),
    ),
    (
        "vers:system/process",
        "run programs of this machine (processes on VMs are used through it, too)",
        Some("process"),
    ),
    (
        "vers:system/files",
        "read and write files: of this machine, and of VMs",
        Some("files"),
    ),
    ("vers:system/http", "send HTTP requests", Some("http")),
    (
        "vers:system/store",
        "keep small values of its own",
        Some("store"),
    ),
    ("vers:harness/description", "says what it offers", None),
    ("vers:harness/tools", "tools for the model", None),
    ("vers:harness/commands", "slash commands of the user", None),
    ("vers:harness/resources", "documents and data to read", None),
    ("vers:harness/prompts", "prompts for the user to send", None),
    (
        "vers:harness/lifecycle",
        "is told when a session starts and ends",
        None,
    ),
    (
        "vers:harness/events",
        "is told of events it subscribed to",
        Some("events"),
    ),
    (
        "wasi:",
        "its language's standard library; nothing is behind it: no files, no network, no environment",
        None,
    ),
];

/// Shows an extension.
pub(crate) async fn inspect(terminal: Arc<Terminal>, options: Inspect) -> Result<Code, Failure> {
    let host = setup::host(
        setup::policy(options.policy.as_deref())?,
        setup::settings()?,
    )
    .await?;
    let extension = extension(&host, &options.what).await?;
    let lookup = host.lookup(&extension);
    if options.json {
        terminal.line(json_of(&extension, &lookup).to_string());
        return Ok(Code::Ok);
    }
    print(
        &terminal,
        &extension,
        &lookup,
        &setup::policy_file(options.policy.as_deref())?,
    );
    Ok(Code::Ok)
}

/// The shipped extension of this name, or the one in this file.
pub(crate) async fn extension(host: &Host, what: &str) -> Result<Extension, Failure> {
    let path = Path::new(what);
    let shipped = SHIPPED.iter().find(|shipped| shipped.name == what);
    match shipped {
        // A file of that name in this directory can be had as ./NAME.
        Some(shipped) => Ok(host
            .load(&setup::origin(shipped.name), shipped.wasm)
            .await?),
        None if path.exists() || what.contains('/') || path.extension().is_some() => {
            Ok(host.load_file(path).await?)
        }
        None => {
            let names: Vec<&str> = SHIPPED.iter().map(|shipped| shipped.name).collect();
            Err(Failure::usage(format!(
                "there is no file and no shipped extension {}",
                visible(what)
            ))
            .next(format!(
                "give a .wasm or .js file, or one of {}",
                names.join(", ")
            )))
        }
    }
}

fn words(interface: &str) -> (&'static str, Option<&'static str>) {
    let name = interface.split('@').next().unwrap_or(interface);
    let found = WORDS
        .iter()
        .find(|(known, ..)| name == *known || (known.ends_with(':') && name.starts_with(known)));
    found.map_or(("unknown to this host", None), |(_, words, key)| {
        (words, *key)
    })
}

/// Interfaces with their words; those of WASI as one line.
fn summarised(interfaces: &[String]) -> Vec<(String, &'static str)> {
    let wasi = interfaces
        .iter()
        .filter(|name| name.starts_with("wasi:"))
        .count();
    let own = interfaces.iter().filter(|name| !name.starts_with("wasi:"));
    let mut lines: Vec<(String, &'static str)> =
        own.map(|name| (visible(name), words(name).0)).collect();
    if wasi > 0 {
        lines.push((format!("wasi:* ({wasi} interfaces)"), words("wasi:").0));
    }
    lines
}

fn print(terminal: &Terminal, extension: &Extension, lookup: &Lookup, policy: &Path) {
    let (info, anatomy) = (extension.info(), extension.anatomy());
    let heading = |text: &str| terminal.line(terminal.styled(Style::Bold, text));
    heading(&format!("{} {}", info.name, info.version));
    terminal.line(&info.summary);
    terminal.line(format!("from    {}", visible(extension.origin())));
    terminal.line(format!("size    {} KiB", anatomy.size.div_ceil(1024)));
    terminal.line(format!("digest  {}", extension.digest()));
    if let Some(runner) = extension.runner() {
        terminal.line(format!(
            "runs in the script runner {runner}: the digest above is of both"
        ));
    }
    for (title, interfaces) in [
        ("Imports: what it can ask for", &anatomy.imports),
        ("Exports: what it has", &anatomy.exports),
    ] {
        heading(title);
        let lines = summarised(interfaces);
        let width = lines
            .iter()
            .map(|(name, _)| name.chars().count())
            .max()
            .unwrap_or_default();
        for (name, words) in lines {
            terminal.line(format!("  {name:width$}  {words}"));
        }
    }
    heading("Offers");
    let offers = [
        (
            "tools",
            names(info.tools.iter().map(|tool| tool.name.as_str())),
        ),
        (
            "commands",
            names(info.commands.iter().map(|command| command.name.as_str())),
        ),
        (
            "shortcuts",
            names(info.shortcuts.iter().map(|shortcut| shortcut.key.as_str())),
        ),
        (
            "flags",
            names(info.flags.iter().map(|flag| flag.name.as_str())),
        ),
        (
            "events",
            names(info.subscriptions.iter().map(String::as_str)),
        ),
        ("topics", names(info.topics.iter().map(String::as_str))),
    ];
    for (what, names) in offers {
        if !names.is_empty() {
            terminal.line(format!("  {what:9}  {names}"));
        }
    }
    heading("May do");
    for line in grant_lines(extension, lookup, policy) {
        terminal.line(format!("  {line}"));
    }
}

fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(visible).collect::<Vec<_>>().join(", ")
}

fn grant_lines(extension: &Extension, lookup: &Lookup, policy: &Path) -> Vec<String> {
    let name = visible(extension.name());
    match lookup {
        Lookup::Granted(grants) => grants.explain(),
        Lookup::Changed { granted_to, grants } => {
            let mut lines = vec![format!(
                "its bytes changed: {granted_to} was granted this, it is {} now, so none of it holds:",
                extension.digest()
            )];
            lines.extend(
                diff(grants, &Grants::nothing(extension.name()))
                    .into_iter()
                    .map(|line| format!("  {line}")),
            );
            lines.push(format!(
                "if you trust the new bytes, say so in [extension.{name}] of {}:",
                policy.display()
            ));
            lines.push(format!("  digest = \"{}\"", extension.digest()));
            lines
        }
        Lookup::Unknown => {
            let mut lines = Grants::nothing(extension.name()).explain();
            lines.push(format!(
                "nobody granted it more; to do so, write to {}:",
                policy.display()
            ));
            lines.push(format!("  [extension.{name}]"));
            lines.push(format!("  digest = \"{}\"", extension.digest()));
            let keys = keys(extension);
            if !keys.is_empty() {
                lines.push(format!(
                    "and what it shall have; by its imports it may ask for: {}",
                    keys.join(", ")
                ));
            }
            lines
        }
    }
}

/// The policy's keys that matter for what it imports and offers.
pub(crate) fn keys(extension: &Extension) -> Vec<&'static str> {
    let mut keys: Vec<&'static str> = extension
        .anatomy()
        .imports
        .iter()
        .filter_map(|import| words(import).1)
        .collect();
    if keys.contains(&"session") {
        keys.push("environment");
    }
    if !extension.info().subscriptions.is_empty() {
        keys.push("events");
    }
    keys
}

fn json_of(extension: &Extension, lookup: &Lookup) -> Value {
    let anatomy = extension.anatomy();
    let told = |interfaces: &[String]| -> Vec<Value> {
        interfaces.iter().map(|name| json!({ "interface": name, "meaning": words(name).0, "policy_key": words(name).1 })).collect()
    };
    let policy = match lookup {
        Lookup::Granted(grants) => json!({ "status": "granted", "explain": grants.explain() }),
        Lookup::Changed { granted_to, grants } => json!({
            "status": "changed",
            "granted_to": granted_to.to_string(),
            "lost": diff(grants, &Grants::nothing(extension.name())),
        }),
        Lookup::Unknown => {
            json!({ "status": "unknown", "explain": Grants::nothing(extension.name()).explain() })
        }
    };
    json!({
        "name": extension.name(),
        "origin": extension.origin(),
        "size": anatomy.size,
        "digest": extension.digest().to_string(),
        "runner": extension.runner().map(|runner| runner.to_string()),
        "imports": told(&anatomy.imports),
        "exports": told(&anatomy.exports),
        "offers": extension.info(),
        "policy": policy,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_interface_of_the_contract_has_words() {
        let interfaces = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../wit/deps"));
        let mut seen = 0;
        for package in interfaces.into_iter().flatten().flatten() {
            let name = package.file_name().to_string_lossy().into_owned();
            for file in std::fs::read_dir(package.path())
                .into_iter()
                .flatten()
                .flatten()
            {
                let text = std::fs::read_to_string(file.path()).unwrap_or_default();
                for interface in text
                    .lines()
                    .filter_map(|line| line.strip_prefix("interface ")?.strip_suffix(" {"))
                {
                    seen += 1;
                    let full = format!("vers:{name}/{interface}@0.1.0");
                    assert_ne!(words(&full).0, "unknown to this host", "{full}");
                }
            }
        }
        assert!(seen > 10, "{seen}");
    }

    #[test]
    fn wasi_is_one_line_and_strangers_are_named_as_such() {
        let interfaces = [
            "wasi:io/poll@0.2.6",
            "wasi:cli/exit@0.2.6",
            "vers:platform/vms@0.1.0",
            "vers:platform/vms-extra@0.1.0",
        ];
        let lines = summarised(&interfaces.map(String::from));
        assert_eq!(lines.len(), 3);
        assert!(
            lines
                .iter()
                .any(|(name, _)| name == "wasi:* (2 interfaces)")
        );
        assert_eq!(
            words("vers:platform/vms-extra@0.1.0").0,
            "unknown to this host"
        );
    }
}
