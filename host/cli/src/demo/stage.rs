//! What the demo has made so far, and how it calls tools.

use std::sync::Arc;

use pi_vers_host::{CallError, Content, Session, ToolOutput, Update};
use serde_json::{Value, json};
use tokio::sync::watch;
use uuid::Uuid;
use vers_local::Endpoint;

use super::Ground;
use super::board::Told;
use super::client::{self, Client};
use super::plan::LIMIT;
use super::swarm::{self, Swarm};
use crate::failure::{Code, Failure};
use crate::interrupt::Interrupts;
use crate::terminal::Terminal;

/// What has been made so far.
pub(super) struct Stage<'a> {
    pub(super) terminal: Arc<Terminal>,
    pub(super) ground: &'a Ground,
    pub(super) interrupts: &'a Interrupts,
    pub(super) endpoint: Option<Endpoint>,
    pub(super) session: Option<Session>,
    /// With `--mcp`: calls go to it instead.
    pub(super) client: Option<Client>,
    /// VMs that are to be deleted, the first one first.
    pub(super) vms: Vec<String>,
    pub(super) vm: String,
    pub(super) home: String,
    pub(super) commit: String,
    /// With `--swarm`.
    pub(super) swarm: Option<Swarm>,
}

/// What stays of the demo.
pub(super) struct Kept {
    pub(super) endpoint: Option<Endpoint>,
    pub(super) vm: Option<String>,
}

pub(super) fn wrong(message: impl Into<String>) -> Failure {
    Failure::new(Code::Tool, "unexpected", message)
}

impl<'a> Stage<'a> {
    pub(super) fn new(
        terminal: Arc<Terminal>,
        ground: &'a Ground,
        interrupts: &'a Interrupts,
        swarm: Option<Swarm>,
    ) -> Self {
        let (vm, home, commit) = Default::default();
        Self {
            terminal,
            ground,
            interrupts,
            endpoint: None,
            session: None,
            client: None,
            vms: Vec::new(),
            vm,
            home,
            commit,
            swarm,
        }
    }

    /// Ends the session; with `keep` the first VM stays.
    pub(super) async fn close(&mut self, keep: bool) -> Result<Kept, Failure> {
        if self.ground.stays && !keep {
            // A platform that stays shall have nothing of a demo that was cancelled or failed.
            for vm in std::mem::take(&mut self.vms) {
                if let Ok(mut call) = self.begin("vers_vm_delete", json!({ "vmId": vm })).await {
                    let _ = tokio::time::timeout(LIMIT, call.outcome()).await;
                }
            }
        }
        if let Some(session) = self.session.take() {
            session.end().await;
        }
        if let Some(client) = self.client.take() {
            client.end().await?;
        }
        Ok(Kept {
            endpoint: self.endpoint.take(),
            vm: self.vms.first().cloned(),
        })
    }

    pub(super) async fn state_of(&self, vm: &str) -> Result<String, Failure> {
        let listed = self.ask("vers_vms", json!({})).await?;
        let vms = listed
            .details
            .as_ref()
            .and_then(|details| details.get("vms"))
            .and_then(Value::as_array);
        let found = vms.into_iter().flatten().find(|entry| {
            ["vm_id", "vmId", "id"]
                .iter()
                .any(|key| entry.get(key).and_then(Value::as_str) == Some(vm))
        });
        let state = found
            .and_then(|entry| entry.get("state"))
            .and_then(Value::as_str);
        state.map(str::to_lowercase).ok_or_else(|| {
            wrong(format!(
                "vers_vms does not tell the state of VM {vm}: {}",
                listed.text()
            ))
        })
    }

    pub(super) async fn choose(&self, vm: &str) -> Result<(), Failure> {
        self.ask("vers_vm_use", json!({ "vmId": vm }))
            .await
            .map(drop)
    }

    /// Calls a tool that makes a VM, and remembers the VM.
    pub(super) async fn make(&mut self, tool: &str, arguments: Value) -> Result<String, Failure> {
        let output = self.ask(tool, arguments).await?;
        let vm = id_in(&output, &["vm_id", "vmId"])?;
        self.vms.push(vm.clone());
        Ok(vm)
    }

    pub(super) async fn bash(&self, command: &str) -> Result<String, Failure> {
        Ok(self
            .ask("bash", json!({ "command": command }))
            .await?
            .text())
    }

    pub(super) async fn ask(&self, tool: &str, arguments: Value) -> Result<ToolOutput, Failure> {
        self.watched(tool, arguments, |_| {}).await
    }

    pub(super) fn session(&self) -> Result<&Session, Failure> {
        self.session
            .as_ref()
            .ok_or_else(|| Failure::internal("there is no session"))
    }

    /// Begins a call, wherever the tools are.
    pub(super) async fn begin(&self, tool: &str, arguments: Value) -> Result<Running, Failure> {
        Ok(match &self.client {
            Some(client) => Running::Client(client.call(tool, arguments).await),
            None => Running::Session(Box::new(self.session()?.call(tool, arguments))),
        })
    }

    /// Calls a tool, within the limit and until Ctrl-C.
    pub(super) async fn watched(
        &self,
        tool: &str,
        arguments: Value,
        mut see: impl FnMut(&Update),
    ) -> Result<ToolOutput, Failure> {
        let mut call = self.begin(tool, arguments).await?;
        let mut updates = call.updates();
        let limit = match self.swarm {
            Some(_) => swarm::LIMIT,
            None => LIMIT,
        };
        let late = tokio::time::sleep(limit);
        tokio::pin!(late);
        let (mut live, mut timed_out, mut given_up) = (true, false, false);
        let outcome = loop {
            tokio::select! {
                biased;
                outcome = call.outcome() => break outcome,
                () = &mut late, if !timed_out => {
                    timed_out = true;
                    call.cancel();
                }
                () = self.interrupts.wait(), if !given_up => {
                    given_up = true;
                    call.cancel();
                }
                changed = updates.changed(), if live => match changed {
                    Ok(()) => see(&updates.borrow_and_update()),
                    Err(_) => live = false,
                },
            }
        };
        match outcome {
            Err(CallError::Cancelled { .. }) if timed_out => Err(Failure::new(
                Code::TimedOut,
                "timed-out",
                format!("{tool} did not end within {limit:?} and was stopped"),
            )),
            outcome => outcome.map_err(|error| {
                let mut failure = Failure::from(error);
                failure.message = format!("{tool}: {}", failure.message);
                failure
            }),
        }
    }
}

/// A call under way.
pub(super) enum Running {
    Session(Box<pi_vers_host::Call>),
    Client(client::Call),
}

impl Running {
    pub(super) fn updates(&self) -> watch::Receiver<Update> {
        match self {
            Self::Session(call) => call.updates(),
            Self::Client(call) => call.updates(),
        }
    }

    pub(super) fn cancel(&mut self) {
        match self {
            Self::Session(call) => call.canceller().cancel(),
            Self::Client(call) => call.cancel(),
        }
    }

    /// Cancel-safe.
    pub(super) async fn outcome(&mut self) -> Result<ToolOutput, CallError> {
        match self {
            Self::Session(call) => call.outcome().await,
            Self::Client(call) => call.outcome().await,
        }
    }
}

impl Kept {
    pub(super) fn lines(&self) -> Told {
        self.vm
            .iter()
            .map(|vm| format!("VM {vm} is yours"))
            .collect()
    }

    /// What the user can do now.
    pub(super) fn how_to_go_on(&self, flag: &str) -> Vec<String> {
        let Some(vm) = &self.vm else {
            return Vec::new();
        };
        let run = format!("pi-vers run --local{flag} --session demo");
        vec![
            String::new(),
            "Go on with it:".to_owned(),
            format!("  {run} vers_vm_use '{{\"vmId\":\"{vm}\"}}'"),
            format!(
                "  {run} bash '{{\"command\":\"cd ~/pi-vers-demo && ls -l && ./primes 1000\"}}'"
            ),
            format!("  pi-vers local status{flag}    what runs"),
            format!("  pi-vers local down{flag}      end it; VMs and commits stay on disk"),
            format!("  pi-vers local reset{flag}     end it and remove everything"),
        ]
    }
}

pub(super) fn text_of(update: &Update) -> String {
    let texts: Vec<&str> = update.content.iter().filter_map(Content::as_text).collect();
    texts.join("\n")
}

/// The beginning of an id, for people.
pub(super) fn brief(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

/// The id of what was made: in the details, or else the last one in the text.
pub(super) fn id_in(output: &ToolOutput, keys: &[&str]) -> Result<String, Failure> {
    let told = output
        .details
        .as_ref()
        .and_then(|details| keys.iter().find_map(|key| details.get(key)?.as_str()));
    if let Some(id) = told {
        return Ok(id.to_owned());
    }
    let text = output.text();
    let mut words = text.split(|c: char| !c.is_ascii_hexdigit() && c != '-');
    let last = words.rfind(|word| word.len() == 36 && Uuid::try_parse(word).is_ok());
    last.map(str::to_owned)
        .ok_or_else(|| wrong(format!("no id in the answer: {text}")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_new_id_is_the_last_one() {
        let (old, new) = (Uuid::new_v4().to_string(), Uuid::new_v4().to_string());
        let mut output = ToolOutput {
            content: vec![Content::text(format!("Branched VM {old} -> {new}."))],
            ..ToolOutput::default()
        };
        assert_eq!(id_in(&output, &["vm_id"]).unwrap(), new);
        output.details = Some(json!({ "vm_id": "x" }));
        assert_eq!(id_in(&output, &["vm_id"]).unwrap(), "x");
        assert!(id_in(&ToolOutput::default(), &["vm_id"]).is_err());
    }
}
