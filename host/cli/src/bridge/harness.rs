//! The harness behind the shim, as extensions see it.
//!
//! What can be answered at once is answered from the newest `context`; what somebody has to do is a request; what nobody
//! waits for is a notice.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use futures::future::BoxFuture;
use pi_vers_host::{
    Answer, BuiltInCall, BuiltInError, Content, CustomMessage, Delivery, Dialog, FlagValue,
    Harness, HarnessError, Line, Severity, ToolOutput,
};
use serde_json::{Value, json};

use super::frames::{Context, Hello, Outgoing};
use super::requests::{Hear, Refused, Request, Requests};
use super::{stage, values};
use crate::wire::{Key, Outbox};

/// How long the harness may take over what no person decides.
const PROMPT: Duration = Duration::from_secs(30);
/// A dialog that stays open this long is as good as one without a limit.
const LONGEST_DIALOG: Duration = Duration::from_secs(60 * 60);

/// See the module.
pub(crate) struct Shim {
    outbox: Arc<Outbox>,
    pub(crate) requests: Requests,
    hello: Hello,
    /// Before the first `context` comes.
    id: String,
    context: RwLock<Option<Context>>,
    /// The shim's ids of what runs, by the ids under which the host knows it.
    under_way: Mutex<HashMap<String, u64>>,
}

impl Shim {
    pub(crate) fn new(outbox: Arc<Outbox>, hello: Hello) -> Self {
        Self {
            requests: Requests::new(outbox.clone()),
            outbox,
            hello,
            id: uuid::Uuid::new_v4().to_string(),
            context: RwLock::new(None),
            under_way: Mutex::default(),
        }
    }

    pub(crate) fn set_context(&self, context: Context) {
        *self.context.write().unwrap_or_else(PoisonError::into_inner) = Some(context);
    }

    fn context<T>(&self, look: impl FnOnce(&Context) -> T) -> Option<T> {
        let context = self.context.read().unwrap_or_else(PoisonError::into_inner);
        context.as_ref().map(look)
    }

    /// The text that the user gave a flag.
    pub(crate) fn text_flag(&self, name: &str) -> Option<String> {
        self.context(|context| Some(context.flags.get(name)?.as_str()?.trim().to_owned()))?
            .filter(|text| !text.is_empty())
    }

    /// From now on requests made for `name` are made for the shim's `id`, until the returned value is dropped.
    pub(crate) fn working_on(self: &Arc<Self>, name: String, id: u64) -> UnderWay {
        let mut under_way = self
            .under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        under_way.insert(name.clone(), id);
        UnderWay {
            shim: self.clone(),
            name,
        }
    }

    fn id_of(&self, name: &str) -> Option<u64> {
        let under_way = self
            .under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        under_way.get(name).copied()
    }

    fn notice(&self, key: Key, method: &str, params: Value) {
        let line = Outgoing::Notice { method, params }.line();
        self.outbox.notice(key, line);
    }

    fn keyed(&self, method: &str, from: &str, key: &str, name: &str, value: Option<Value>) {
        let key = format!("{from}/{key}");
        let mut params = json!({ "key": key });
        if let (Some(params), Some(value)) = (params.as_object_mut(), value) {
            params.insert(name.to_owned(), value);
        }
        self.notice(Key::Of(format!("{method} {key}")), method, params);
    }

    /// A request that no person decides.
    async fn prompt(&self, method: &str, params: Value) -> Result<Value, HarnessError> {
        let request = Request {
            method,
            params,
            call: None,
            limit: Some(PROMPT),
            hear: None,
        };
        self.requests.ask(request).await.map_err(failed)
    }

    async fn dialog(
        &self,
        method: &str,
        mut params: Value,
        call: Option<u64>,
        limit: Option<Duration>,
    ) -> Option<Value> {
        let limit = limit.filter(|limit| *limit < LONGEST_DIALOG);
        if let (Some(params), Some(limit)) = (params.as_object_mut(), limit) {
            let millis = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
            params.insert("timeoutMs".into(), millis.into());
        }
        let request = Request {
            method,
            params,
            call,
            limit: Some(limit.unwrap_or(LONGEST_DIALOG)),
            hear: None,
        };
        match self.requests.ask(request).await {
            Ok(value) => Some(value),
            Err(why) => {
                tracing::debug!(method, "no answer: {}", why.message);
                None
            }
        }
    }
}

/// Something that runs for the shim.
pub(crate) struct UnderWay {
    shim: Arc<Shim>,
    name: String,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let shim = &self.shim;
        let mut under_way = shim
            .under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        under_way.remove(&self.name);
    }
}

fn failed(why: Refused) -> HarnessError {
    match why.code.as_str() {
        "not-found" => HarnessError::NotFound(why.message),
        _ => HarnessError::Failed(why.message),
    }
}

fn lines(lines: Vec<Line>) -> Value {
    lines.into_iter().map(line).collect()
}

/// Only what differs from plain text is written.
fn line(line: Line) -> Value {
    let span = |span: pi_vers_host::Span| {
        let mut object = serde_json::Map::new();
        object.insert("text".into(), span.text.into());
        if span.role != pi_vers_host::Role::Normal {
            object.insert("role".into(), json!(span.role));
        }
        for (name, set) in [("bold", span.bold), ("strikethrough", span.strikethrough)] {
            if set {
                object.insert(name.into(), true.into());
            }
        }
        Value::Object(object)
    };
    line.into_iter().map(span).collect()
}

impl Harness for Shim {
    fn interactive(&self) -> bool {
        self.context(|context| context.interactive).unwrap_or(false)
    }

    fn notify(&self, _from: &str, message: &str, severity: Severity) {
        let params = json!({ "message": message, "severity": severity });
        self.notice(Key::Alone, "ui.notify", params);
    }

    fn set_status(&self, from: &str, key: &str, text: Option<Line>) {
        self.keyed("ui.status", from, key, "line", text.map(line));
    }

    fn set_widget(&self, from: &str, key: &str, text: Option<Vec<Line>>) {
        self.keyed("ui.widget", from, key, "lines", text.map(lines));
    }

    fn ask(
        &self,
        _from: &str,
        call: Option<&str>,
        title: &str,
        dialog: Dialog,
        timeout: Option<Duration>,
    ) -> BoxFuture<'_, Option<Answer>> {
        if !self.interactive() {
            return Box::pin(async { None });
        }
        let call = call.and_then(|call| self.id_of(call));
        let title = title.to_owned();
        Box::pin(async move {
            let (method, params) = match &dialog {
                Dialog::Select(options) => {
                    ("ui.select", json!({ "title": title, "options": options }))
                }
                Dialog::Confirm(message) => {
                    ("ui.confirm", json!({ "title": title, "message": message }))
                }
                Dialog::Input(placeholder) => (
                    "ui.input",
                    json!({ "title": title, "placeholder": placeholder }),
                ),
                Dialog::Edit(prefill) => ("ui.edit", json!({ "title": title, "prefill": prefill })),
            };
            let answer = self.dialog(method, params, call, timeout).await?;
            match dialog {
                Dialog::Select(_) => {
                    let index = answer
                        .as_u64()
                        .and_then(|index| usize::try_from(index).ok());
                    index.map(Answer::Index)
                }
                Dialog::Confirm(_) => answer.as_bool().map(Answer::Yes),
                Dialog::Input(_) | Dialog::Edit(_) => {
                    answer.as_str().map(|text| Answer::Text(text.to_owned()))
                }
            }
        })
    }

    fn approve(&self, from: &str, question: &str) -> BoxFuture<'_, bool> {
        if !self.interactive() {
            return Box::pin(async { false });
        }
        let params =
            json!({ "title": format!("Allow the extension {from}?"), "message": question });
        Box::pin(async move {
            let answer = self.dialog("ui.confirm", params, None, None).await;
            answer == Some(Value::Bool(true))
        })
    }

    fn working_directory(&self) -> PathBuf {
        let now = self.context(|context| context.cwd.clone());
        let now = now.filter(|cwd| !cwd.is_empty());
        now.unwrap_or_else(|| self.hello.cwd.clone()).into()
    }

    fn session_id(&self) -> String {
        let id = self.context(|context| context.session_id.clone());
        id.filter(|id| !id.is_empty())
            .unwrap_or_else(|| self.id.clone())
    }

    fn flag(&self, name: &str) -> Option<FlagValue> {
        // The key and the platform are the host's business alone.
        if stage::FLAGS.contains(&name) {
            return None;
        }
        self.context(|context| values::flag(context.flags.get(name)?))?
    }

    fn send_message(
        &self,
        _from: &str,
        message: CustomMessage,
        delivery: Delivery,
        trigger_turn: bool,
    ) -> BoxFuture<'_, Result<(), HarnessError>> {
        let mut params = values::message(&message);
        params.insert("delivery".into(), json!(delivery));
        params.insert("triggerTurn".into(), trigger_turn.into());
        Box::pin(async move {
            let sent = self.prompt("session.sendMessage", params.into()).await;
            sent.map(drop)
        })
    }

    fn send_user_message(
        &self,
        _from: &str,
        content: Vec<Content>,
        delivery: Delivery,
    ) -> BoxFuture<'_, Result<(), HarnessError>> {
        let params = json!({ "content": values::content(&content), "delivery": delivery });
        Box::pin(async move {
            let sent = self.prompt("session.sendUserMessage", params).await;
            sent.map(drop)
        })
    }

    fn append_entry(
        &self,
        from: &str,
        kind: &str,
        data: Value,
    ) -> BoxFuture<'_, Result<(), HarnessError>> {
        let params = json!({ "extension": from, "kind": kind, "data": data });
        Box::pin(async move {
            let kept = self.prompt("session.appendEntry", params).await;
            kept.map(drop)
        })
    }

    fn entries(
        &self,
        from: &str,
        kind: Option<&str>,
    ) -> BoxFuture<'_, Result<Vec<Value>, HarnessError>> {
        let mut params = json!({ "extension": from });
        if let (Some(params), Some(kind)) = (params.as_object_mut(), kind) {
            params.insert("kind".into(), kind.into());
        }
        Box::pin(async move {
            match self.prompt("session.entries", params).await? {
                Value::Array(entries) => Ok(entries),
                _ => Err(HarnessError::Failed(
                    "the harness's list of entries is no list".into(),
                )),
            }
        })
    }

    fn active_tools(&self) -> Option<Vec<String>> {
        self.context(|context| context.active_tools.clone())
    }

    fn other_tools(&self) -> Vec<String> {
        self.context(|context| context.all_tools.clone())
            .unwrap_or_default()
    }

    fn set_active_tools(&self, names: Vec<String>) -> BoxFuture<'_, Result<(), HarnessError>> {
        Box::pin(async move {
            let params = json!({ "names": names });
            let now = self.prompt("session.setActiveTools", params).await?;
            // The next `context` says the same; until it comes this is newer.
            if let Ok(now) = serde_json::from_value(now) {
                let mut context = self.context.write().unwrap_or_else(PoisonError::into_inner);
                if let Some(context) = context.as_mut() {
                    context.active_tools = now;
                }
            }
            Ok(())
        })
    }

    fn bus(&self, _from: &str, topic: &str, data: &Value) {
        let params = json!({ "topic": topic, "data": data });
        self.notice(Key::Alone, "bus", params);
    }

    fn is_idle(&self) -> bool {
        self.context(|context| context.idle).unwrap_or(true)
    }

    fn built_ins(&self) -> Vec<String> {
        self.hello.built_ins.clone()
    }

    fn run_built_in(&self, call: BuiltInCall) -> BoxFuture<'_, Result<ToolOutput, BuiltInError>> {
        Box::pin(async move {
            let updates = call.updates;
            let hear: Hear = Box::new(move |news| match values::read_content(&news.content) {
                Ok(content) => updates.send_modify(|update| {
                    update.content = content;
                    update.details = news.details;
                }),
                Err(why) => tracing::debug!("an update of a built-in tool: {why}"),
            });
            let request = Request {
                method: "builtIn",
                params: json!({ "tool": call.tool, "arguments": call.arguments }),
                call: self.id_of(&call.id),
                limit: None,
                hear: Some(hear),
            };
            let answer = self.requests.ask_until(request, &call.cancel).await;
            match answer {
                Ok(value) => match values::read_tool_result(&value) {
                    Ok((output, false)) => Ok(output),
                    Ok((output, true)) => Err(BuiltInError::Failed(output)),
                    Err(why) => Err(said(&format!("the harness's own {}: {why}", call.tool))),
                },
                Err(why) => Err(match why.code.as_str() {
                    "not-found" => BuiltInError::Missing(call.tool),
                    "cancelled" => BuiltInError::Cancelled,
                    _ => said(&why.message),
                }),
            }
        })
    }
}

fn said(text: &str) -> BuiltInError {
    BuiltInError::Failed(ToolOutput {
        content: vec![Content::text(text)],
        ..ToolOutput::default()
    })
}
