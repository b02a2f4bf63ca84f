//! Asks a component what it offers, on an instance that is denied everything and then thrown away,
//! and judges the answer: names that a model or a shell could misread are refused.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use pi_vers_policy::{Grants, Limits};
use tokio_util::sync::CancellationToken;
use wasmtime::Store;
use wasmtime::component::InstancePre;

use crate::actor::{ABORTED_SAYING, crash};
use crate::bindings::exports::vers::harness::description;
use crate::engine::{Engine, Overdue, Pulse, watch};
use crate::error::Error;
use crate::extension::Script;
use crate::guest::Guest;
use crate::owner::Owner;
use crate::types::{ExtensionInfo, fits_name as name, visible};

/// A description takes microseconds; a guest that computes for longer than this is looping.
const COMPUTES: Duration = Duration::from_secs(2);

/// How long it may take by the clock on the wall. On a busy machine a guest gets a small part of a core, and one that
/// describes itself at its first turn is not to be refused for that.
const DEADLINE: Duration = Duration::from_secs(60);

/// More tools than this help no model.
const MOST: usize = 256;

/// The longest description, and the longest schema, in bytes: both are put before a model at each of its turns.
const LONGEST_DESCRIPTION: usize = 32 << 10;
const LONGEST_SCHEMA: usize = 256 << 10;

/// The longest text of one line.
const LONGEST_LINE: usize = 1_000;

/// All texts together.
const LONGEST: usize = 4 << 20;

pub(super) async fn describe(
    engine: &Engine,
    pre: &InstancePre<Guest>,
    origin: &str,
    script: Option<&Script>,
) -> Result<ExtensionInfo, Error> {
    let wrong = |why: String| match script {
        // The runner gives up with what is wrong with the script.
        Some(_) => Error::Script {
            origin: origin.into(),
            why: why.strip_prefix(ABORTED_SAYING).unwrap_or(&why).to_owned(),
        },
        None => Error::Description {
            origin: origin.into(),
            why,
        },
    };
    let limits = Limits::default();
    let root = Owner::new("describe".into(), &CancellationToken::new(), None, None);
    let guest = Guest::new(
        "describing".into(),
        Arc::new(Grants::describing("describing")),
        limits,
        None,
        None,
        root,
        script,
    );
    let mut store = Store::new(engine.wasm(), guest);
    store.limiter(|guest| &mut guest.limiter);
    store.set_hostcall_fuel(4 * LONGEST);
    store.set_max_component_handles(usize::try_from(limits.handles).unwrap_or(usize::MAX));
    watch(
        &mut store,
        COMPUTES,
        Arc::new(Pulse::default()),
        Arc::new(Overdue::new()),
    );

    let run = async {
        let _running = engine.ticker().enter();
        let instance = pre.instantiate_async(&mut store).await?;
        let indices = description::GuestIndices::new(pre)?;
        let guest = indices.load(&mut store, &instance)?;
        store
            .run_concurrent(async move |accessor| guest.call_describe(accessor).await)
            .await?
    };
    let answer = tokio::time::timeout(DEADLINE, run).await;
    let info = match answer {
        Ok(Ok(info)) => info,
        Ok(Err(why)) => return Err(wrong(crash(&why, store.data()))),
        Err(_) => return Err(wrong("it did not answer in time".into())),
    };
    let info = ExtensionInfo::try_from(info).map_err(wrong)?;
    check(&info).map_err(wrong)?;
    Ok(info)
}

fn check(info: &ExtensionInfo) -> Result<(), String> {
    name("the extension's name", &info.name)?;
    texts(info)?;
    let mut seen = HashSet::new();
    for tool in &info.tools {
        name("a tool's name", &tool.name)?;
        if !seen.insert(&tool.name) {
            return Err(format!("it offers the tool {} twice", tool.name));
        }
    }
    seen.clear();
    for command in &info.commands {
        name("a command's name", &command.name)?;
        if !seen.insert(&command.name) {
            return Err(format!("it offers the command {} twice", command.name));
        }
    }
    for flag in &info.flags {
        name("a flag's name", &flag.name)?;
    }
    for shortcut in &info.shortcuts {
        if !info
            .commands
            .iter()
            .any(|command| command.name == shortcut.command)
        {
            return Err(format!(
                "the shortcut {} runs {}, which is no command of it",
                shortcut.key, shortcut.command
            ));
        }
    }
    match info
        .tools
        .len()
        .max(info.commands.len())
        .max(info.flags.len())
        .max(info.subscriptions.len())
        .max(info.topics.len())
    {
        count if count > MOST => Err(format!(
            "it offers {count} of one kind; {MOST} are the most"
        )),
        _ => Ok(()),
    }
}

/// Names, choices and patterns of a schema are not to be read as others than they are: they cannot be made visible, for then they would be
/// others. What is prose in it has been made visible before.
fn plain(schema: &serde_json::Value) -> Result<(), String> {
    use serde_json::Value;
    let same = |text: &String| {
        let shown = visible(text);
        match shown == *text {
            true => Ok(()),
            false => Err(shown.chars().take(80).collect()),
        }
    };
    match schema {
        Value::String(text) => same(text),
        Value::Array(items) => items.iter().try_for_each(plain),
        Value::Object(members) => members.iter().try_for_each(|(name, value)| {
            same(name)?;
            plain(value)
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}

/// What people and models read: bounded, and one line where a list has room for one.
fn texts(info: &ExtensionInfo) -> Result<(), String> {
    let mut all = 0;
    let mut fits = |what: String, text: &str, most: usize, one_line: bool| {
        all += text.len();
        if text.len() > most {
            return Err(format!(
                "{what} has {} bytes; {most} are the most",
                text.len()
            ));
        }
        if one_line && text.contains(['\n', '\t']) {
            return Err(format!("{what} has more than one line, or a tab"));
        }
        Ok(())
    };
    fits("its version".into(), &info.version, LONGEST_LINE, true)?;
    fits(
        "its summary".into(),
        &info.summary,
        LONGEST_DESCRIPTION,
        false,
    )?;
    for tool in &info.tools {
        let of = |what: &str| format!("the {what} of tool {}", tool.name);
        fits(of("label"), &tool.label, LONGEST_LINE, true)?;
        fits(
            of("description"),
            &tool.description,
            LONGEST_DESCRIPTION,
            false,
        )?;
        for schema in [Some(&tool.parameters), tool.output.as_ref()]
            .into_iter()
            .flatten()
        {
            fits(of("schema"), &schema.to_string(), LONGEST_SCHEMA, false)?;
            plain(schema).map_err(|shown| {
                format!(
                    "{} has {shown:?} in it, which shows as something else",
                    of("schema")
                )
            })?;
        }
    }
    for command in &info.commands {
        let of = |what: &str| format!("the {what} of command {}", command.name);
        fits(
            of("description"),
            &command.description,
            LONGEST_DESCRIPTION,
            false,
        )?;
        let arguments = command.arguments.as_deref().unwrap_or_default();
        fits(of("arguments"), arguments, LONGEST_LINE, true)?;
    }
    for flag in &info.flags {
        let what = format!("the description of flag {}", flag.name);
        fits(what, &flag.description, LONGEST_DESCRIPTION, false)?;
    }
    for shortcut in &info.shortcuts {
        fits(
            "a shortcut's description".into(),
            &shortcut.description,
            LONGEST_DESCRIPTION,
            false,
        )?;
        let key = &shortcut.key;
        if key.is_empty() || key.len() > 64 || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            let shown: String = visible(key).chars().take(80).collect();
            return Err(format!("{shown:?} is no key for a shortcut"));
        }
    }
    for (what, names) in [("an event", &info.subscriptions), ("a topic", &info.topics)] {
        for name in names {
            if name.is_empty() || name.len() > 200 || pi_vers_policy::visible(name) != *name {
                let shown: String = visible(name).chars().take(80).collect();
                return Err(format!("{shown:?} is no name for {what}"));
            }
        }
    }
    match all > LONGEST {
        true => Err(format!(
            "its texts have {all} bytes together; {LONGEST} are the most"
        )),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_be_misread_are_refused() {
        for bad in ["", "a b", "a\u{1b}[2J", "-rf", "ä", "a/b", &"x".repeat(65)] {
            assert!(name("a tool's name", bad).is_err(), "{bad:?}");
        }
        for good in ["bash", "vers_vm_use", "my-tool", "X9"] {
            assert!(name("a tool's name", good).is_ok(), "{good:?}");
        }
    }
}
