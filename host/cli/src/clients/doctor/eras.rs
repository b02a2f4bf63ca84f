//! What a client does first, in the words of each era.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::deaf::Deaf;
use super::peer::{Peer, wrong};
use crate::args::Loading;
use crate::doctor::Checks;
use crate::failure::Failure;

/// What needs no extension is answered by then, on a slow machine, too.
const SOON: Duration = Duration::from_secs(5);
/// The very first time, extensions are compiled.
const FIRST: Duration = Duration::from_secs(180);
/// A call that needs nothing but its extension.
const CALL: Duration = Duration::from_secs(30);
/// A cancelled call is given up by then.
const CANCEL: Duration = Duration::from_secs(2);
/// Clients kill what does not end by itself; the quickest after a tenth of a second, most after some seconds.
const END: Duration = Duration::from_secs(2);

/// The two ways in which clients speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Era {
    /// Begins with `initialize`.
    Older,
    /// Every request says who sent it.
    Newer,
}

impl Era {
    fn version(self) -> &'static str {
        match self {
            Self::Older => "2025-11-25",
            Self::Newer => "2026-07-28",
        }
    }

    /// How lines of the report name it.
    fn year(self) -> &'static str {
        self.version().get(..4).unwrap_or_default()
    }

    fn params(self, mut params: Value) -> Value {
        if self == Self::Newer
            && let Some(params) = params.as_object_mut()
        {
            let meta = json!({
                "io.modelcontextprotocol/protocolVersion": self.version(),
                "io.modelcontextprotocol/clientInfo": { "name": "pi-vers-doctor", "version": env!("CARGO_PKG_VERSION") },
                "io.modelcontextprotocol/clientCapabilities": {},
            });
            params.insert("_meta".into(), meta);
        }
        params
    }
}

/// One process, one era.
struct Patient<'a> {
    peer: Peer,
    era: Era,
    deaf: &'a Deaf,
    tools: Vec<Value>,
}

/// Starts it and tries everything; what fails at the beginning makes the rest pointless.
pub(super) async fn check(
    checks: &mut Checks,
    era: Era,
    loading: &Loading,
    deaf: &Deaf,
    state: &Path,
) {
    let year = era.year();
    let add = |checks: &mut Checks, what: &str, result: Result<String, Failure>| {
        let result = result.map_err(|why| match why.next {
            Some(_) => why,
            None => why.next("PI_VERS_LOG=debug pi-vers mcp </dev/null says more"),
        });
        let fine = result.is_ok();
        checks.add(&format!("{what} {year}"), result);
        fine
    };
    let begun = Instant::now();
    let mut patient = match Peer::start(loading, &deaf.url, state) {
        Ok(peer) => Patient {
            peer,
            era,
            deaf,
            tools: Vec::new(),
        },
        Err(why) => {
            add(checks, "start", Err(why));
            return;
        }
    };
    if !add(checks, "start", patient.hello(begun).await)
        || !add(checks, "lists", patient.lists().await)
    {
        return;
    }
    add(checks, "call", patient.call().await);
    add(checks, "unknown", patient.unknown().await);
    add(checks, "cancel", patient.cancel().await);
    // One of the two ways for each, with a call under way.
    let signal = (era == Era::Newer).then_some(Signal::TERM);
    add(checks, "end", patient.end(signal).await);
    add(checks, "output", patient.output());
}

impl Patient<'_> {
    /// Asks; an error is a failure.
    async fn result(
        &mut self,
        method: &str,
        params: Value,
        within: Duration,
    ) -> Result<Value, Failure> {
        let params = self.era.params(params);
        let mut answer = self.peer.ask(method, params, within).await?;
        match answer.get("error") {
            Some(error) => Err(wrong(format!("{method} failed: {error}"))),
            None => Ok(answer
                .get_mut("result")
                .map(Value::take)
                .unwrap_or_default()),
        }
    }

    async fn hello(&mut self, begun: Instant) -> Result<String, Failure> {
        if self.era == Era::Newer {
            let found = self.result("server/discover", json!({}), SOON).await?;
            let versions = found.get("supportedVersions").and_then(Value::as_array);
            if !versions.is_some_and(|all| all.contains(&json!(self.era.version()))) {
                return Err(wrong(format!(
                    "{} is not among its versions",
                    self.era.version()
                )));
            }
        } else {
            let params = json!({
                "protocolVersion": self.era.version(),
                "capabilities": {},
                "clientInfo": { "name": "pi-vers-doctor", "version": env!("CARGO_PKG_VERSION") },
            });
            let hello = self.result("initialize", params, SOON).await?;
            let version = hello.get("protocolVersion").and_then(Value::as_str);
            if version != Some(self.era.version()) {
                return Err(wrong(format!(
                    "it answers with version {}",
                    version.unwrap_or("none")
                )));
            }
            self.peer
                .notify("notifications/initialized", json!({}))
                .await?;
        }
        Ok(format!(
            "{} answered in {} ms",
            self.era.version(),
            begun.elapsed().as_millis()
        ))
    }

    async fn lists(&mut self) -> Result<String, Failure> {
        let begun = Instant::now();
        let mut counts = Vec::new();
        for what in ["tools", "prompts", "resources"] {
            let method = format!("{what}/list");
            let mut list = self.result(&method, json!({}), FIRST).await?;
            let Some(Value::Array(all)) = list.get_mut(what).map(Value::take) else {
                return Err(wrong(format!("{method} has no list")));
            };
            counts.push(format!("{} {what}", all.len()));
            if what == "tools" {
                self.tools = all;
            }
        }
        if self.tools.is_empty() {
            return Err(wrong("no tool is offered").next("`pi-vers tools` lists what there is"));
        }
        Ok(format!(
            "{} in {} ms",
            counts.join(", "),
            begun.elapsed().as_millis()
        ))
    }

    /// A tool that only reads, here, and needs no arguments.
    fn harmless(&self) -> Option<&str> {
        let fits = |tool: &&Value| {
            let hint =
                |name: &str| tool.pointer(&format!("/annotations/{name}")) == Some(&json!(true));
            let required = tool
                .pointer("/inputSchema/required")
                .and_then(Value::as_array);
            hint("readOnlyHint") && !hint("openWorldHint") && required.is_none_or(Vec::is_empty)
        };
        self.tools.iter().find(fits)?.get("name")?.as_str()
    }

    async fn call(&mut self) -> Result<String, Failure> {
        let Some(tool) = self.harmless().map(str::to_owned) else {
            return Ok("not tried: no tool that only reads is without arguments".to_owned());
        };
        let begun = Instant::now();
        let params = json!({ "name": tool, "arguments": {} });
        let result = self.result("tools/call", params, CALL).await?;
        if result.get("isError") == Some(&json!(true)) {
            let text = result.pointer("/content/0/text").and_then(Value::as_str);
            return Err(wrong(format!(
                "{tool} failed: {}",
                text.unwrap_or_default()
            )));
        }
        Ok(format!(
            "{tool} answered in {} ms",
            begun.elapsed().as_millis()
        ))
    }

    async fn unknown(&mut self) -> Result<String, Failure> {
        let params = self
            .era
            .params(json!({ "name": "no_such_tool", "arguments": {} }));
        let answer = self.peer.ask("tools/call", params, CALL).await?;
        match answer.pointer("/error/code").and_then(Value::as_i64) {
            Some(code) => Ok(format!("refused ({code})")),
            None => Err(wrong("a tool that is not there was not refused")),
        }
    }

    /// A call that waits for the platform, which never answers: its id, and the VM that it names, which there is not. `None`: there is no
    /// such tool.
    async fn under_way(&mut self) -> Result<Option<(u64, String)>, Failure> {
        const TOOL: &str = "vers_vm_state";
        let lists = |tool: &Value| tool.get("name") == Some(&json!(TOOL));
        if !self.tools.iter().any(lists) {
            return Ok(None);
        }
        let vm = uuid::Uuid::new_v4().to_string();
        let arguments = json!({ "vmId": vm, "state": "Running" });
        let params = self
            .era
            .params(json!({ "name": TOOL, "arguments": arguments }));
        let id = self.peer.send("tools/call", params).await?;
        if !self.deaf.comes_to(true, &vm, CALL).await {
            return Err(wrong(format!("{TOOL} did not ask the platform")));
        }
        Ok(Some((id, vm)))
    }

    async fn cancel(&mut self) -> Result<String, Failure> {
        let Some((id, vm)) = self.under_way().await? else {
            return Ok("not tried: no tool is known that asks the platform".to_owned());
        };
        let begun = Instant::now();
        let params = json!({ "requestId": id, "reason": "a doctor's test" });
        self.peer.notify("notifications/cancelled", params).await?;
        if !self.deaf.comes_to(false, &vm, CANCEL).await {
            return Err(wrong("what a cancelled call had begun went on"));
        }
        let took = begun.elapsed();
        self.result("tools/list", json!({}), SOON).await?;
        if self.peer.unasked.contains(&id) {
            return Err(wrong("a cancelled call was answered"));
        }
        Ok(format!("stopped within {} ms", took.as_millis()))
    }

    async fn end(&mut self, signal: Option<Signal>) -> Result<String, Failure> {
        self.under_way().await?;
        let (took, status) = self.peer.end(signal, END).await?;
        let (what, millis) = (
            if signal.is_some() {
                "SIGTERM"
            } else {
                "the end of its input"
            },
            took.as_millis(),
        );
        if !status.success() {
            return Err(wrong(format!("after {what} it ended with {status}")));
        }
        Ok(format!("{millis} ms after {what}, with a call under way"))
    }

    fn output(&self) -> Result<String, Failure> {
        match &self.peer.stray {
            None => Ok("nothing but the protocol on standard output".to_owned()),
            Some(stray) => Err(wrong(format!("standard output had {stray:?}"))),
        }
    }
}
