//! The command line as a harness: notices go to standard error, and whoever sits at the terminal is asked.
//!
//! It names the built-in tools that coding agents have, so that extensions can offer their own in their place, and has
//! none of them itself: a command line that runs commands on this machine is called a shell.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use pi_vers_host::{
    Answer, BuiltInCall, BuiltInError, Content, CustomMessage, Delivery, Dialog, ExtensionInfo,
    FlagValue, Harness, HarnessError, Headless, Severity, ToolOutput, visible,
};
use serde_json::Value;

use crate::failure::Failure;
use crate::person::Person;
use crate::session::Stored;
use crate::terminal::Terminal;

const BUILT_INS: [&str; 7] = ["bash", "read", "edit", "write", "grep", "find", "ls"];

/// More warnings than this during one call are noise.
const MOST_HELD: usize = 100;

/// Entries of a session: in a file, or as long as the process lives.
#[derive(Debug)]
enum Entries {
    Kept(Stored),
    Passing(Headless),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct CommandLine {
    terminal: Arc<Terminal>,
    directory: PathBuf,
    flags: BTreeMap<String, FlagValue>,
    entries: Entries,
    person: Option<Person>,
    /// Warnings that came while a call runs: shown when it is known what came of it.
    held: Mutex<Vec<String>>,
}

impl CommandLine {
    /// A harness in the working directory; with a stored session or a passing one.
    pub(crate) fn new(
        terminal: Arc<Terminal>,
        session: Option<Stored>,
        flags: BTreeMap<String, FlagValue>,
    ) -> Result<Self, Failure> {
        let directory = std::env::current_dir().map_err(|why| {
            Failure::usage(format!(
                "the working directory is not there any more ({why}): change to another"
            ))
        })?;
        let entries = match session {
            Some(stored) => Entries::Kept(stored),
            None => Entries::Passing(Headless::new(&directory)),
        };
        Ok(Self {
            terminal,
            directory,
            flags,
            entries,
            person: None,
            held: Mutex::default(),
        })
    }

    /// The same, in another working directory.
    pub(crate) fn in_directory(mut self, directory: PathBuf) -> Self {
        self.directory = directory;
        self
    }

    /// The same, with somebody to ask, where somebody is there.
    pub(crate) fn with_person(mut self) -> Self {
        self.person = Some(Person::at(self.terminal.clone()));
        self
    }

    fn hold(&self, line: String) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.len() < MOST_HELD && !held.contains(&line) {
            held.push(line);
        }
    }

    /// Shows the warnings that came, but those that a failure says already: an extension that can't reach the platform
    /// warns of it when it starts, and fails for it when it is called.
    pub(crate) fn show_held(&self, failure: Option<&Failure>) {
        let held = std::mem::take(&mut *self.held.lock().unwrap_or_else(PoisonError::into_inner));
        let said = failure.map(Failure::line).unwrap_or_default();
        for line in held {
            let gist = line.splitn(3, ": ").last().unwrap_or_default();
            if !said.contains(gist) {
                self.terminal.note(line);
            }
        }
    }
}

/// Reads `--flag NAME=VALUE` by the types that the extensions declared.
pub(crate) fn flags<'a>(
    given: &[(String, String)],
    infos: impl Iterator<Item = &'a ExtensionInfo> + Clone,
) -> Result<BTreeMap<String, FlagValue>, Failure> {
    let mut flags = BTreeMap::new();
    for (name, text) in given {
        let Some(flag) = infos
            .clone()
            .flat_map(|info| &info.flags)
            .find(|flag| flag.name == *name)
        else {
            let known: Vec<&str> = infos
                .clone()
                .flat_map(|info| &info.flags)
                .map(|flag| flag.name.as_str())
                .collect();
            return Err(Failure::usage(format!(
                "no extension has a flag {}: there are {}",
                visible(name),
                known.join(", ")
            )));
        };
        let wrong = |what: &str| {
            Failure::usage(format!("--flag {name} takes {what}, not {}", visible(text)))
        };
        let value = match flag.default {
            FlagValue::Text(_) => FlagValue::Text(text.clone()),
            FlagValue::Boolean(_) => {
                FlagValue::Boolean(text.parse().map_err(|_| wrong("true or false"))?)
            }
            FlagValue::Number(_) => FlagValue::Number(
                text.parse()
                    .ok()
                    .filter(|number: &f64| number.is_finite())
                    .ok_or_else(|| wrong("a number"))?,
            ),
        };
        flags.insert(name.clone(), value);
    }
    Ok(flags)
}

impl Harness for CommandLine {
    fn interactive(&self) -> bool {
        self.person.as_ref().is_some_and(Person::is_there)
    }

    fn notify(&self, from: &str, message: &str, severity: Severity) {
        let line = format!("{from}: {}", visible(message).replace('\n', " "));
        match severity {
            Severity::Info => self.terminal.remark(line),
            Severity::Warning | Severity::Error => self.hold(line),
        }
    }

    fn ask(
        &self,
        from: &str,
        _call: Option<&str>,
        title: &str,
        dialog: Dialog,
        timeout: Option<Duration>,
    ) -> BoxFuture<'_, Option<Answer>> {
        let (from, title) = (from.to_owned(), title.to_owned());
        Box::pin(async move {
            let person = self.person.as_ref()?;
            person.answers(&from, &title, dialog, timeout).await
        })
    }

    fn approve(&self, from: &str, question: &str) -> BoxFuture<'_, bool> {
        let (from, question) = (from.to_owned(), question.to_owned());
        Box::pin(async move {
            match &self.person {
                Some(person) => person.approves(&from, &question).await,
                None => false,
            }
        })
    }

    fn working_directory(&self) -> PathBuf {
        self.directory.clone()
    }

    fn session_id(&self) -> String {
        match &self.entries {
            Entries::Kept(stored) => stored.id().to_owned(),
            Entries::Passing(headless) => headless.session_id(),
        }
    }

    fn flag(&self, name: &str) -> Option<FlagValue> {
        self.flags.get(name).cloned()
    }

    /// The conversation is what the user reads here.
    fn send_message(
        &self,
        from: &str,
        message: CustomMessage,
        _delivery: Delivery,
        _trigger_turn: bool,
    ) -> BoxFuture<'_, Result<(), HarnessError>> {
        let texts: Vec<&str> = message
            .content
            .iter()
            .filter_map(Content::as_text)
            .collect();
        if message.display {
            self.hold(format!(
                "{from}: {}",
                visible(&texts.join(" ")).replace('\n', " ")
            ));
        }
        Box::pin(async { Ok(()) })
    }

    fn append_entry(
        &self,
        from: &str,
        kind: &str,
        data: Value,
    ) -> BoxFuture<'_, Result<(), HarnessError>> {
        let (from, kind) = (from.to_owned(), kind.to_owned());
        Box::pin(async move {
            match &self.entries {
                Entries::Kept(stored) => stored
                    .append(&from, &kind, data)
                    .await
                    .map_err(HarnessError::Failed),
                Entries::Passing(headless) => headless.append_entry(&from, &kind, data).await,
            }
        })
    }

    fn entries(
        &self,
        from: &str,
        kind: Option<&str>,
    ) -> BoxFuture<'_, Result<Vec<Value>, HarnessError>> {
        let (from, kind) = (from.to_owned(), kind.map(str::to_owned));
        Box::pin(async move {
            match &self.entries {
                Entries::Kept(stored) => stored
                    .entries(&from, kind.as_deref())
                    .await
                    .map_err(HarnessError::Failed),
                Entries::Passing(headless) => headless.entries(&from, kind.as_deref()).await,
            }
        })
    }

    fn built_ins(&self) -> Vec<String> {
        BUILT_INS.map(str::to_owned).into()
    }

    fn run_built_in(&self, call: BuiltInCall) -> BoxFuture<'_, Result<ToolOutput, BuiltInError>> {
        let text = format!(
            "No VM is active, and pi-vers has no {} of its own: choose a VM with vers_vm_use in the same session (--session NAME, or a script)",
            visible(&call.tool)
        );
        Box::pin(async move {
            Err(BuiltInError::Failed(ToolOutput {
                content: vec![Content::Text(text)],
                ..ToolOutput::default()
            }))
        })
    }
}
