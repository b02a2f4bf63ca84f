//! A tool or a command that runs, and one request of the client that waits for it.
//!
//! The two are not the same: a call that asks something is handed back to a newer client and goes on under its
//! next request. So progress, log level and cancelling belong to the request, and the call belongs to nobody in between.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use pi_vers_host::{CallError, Cause, Content, ToolOutput, Update, visible};
use serde_json::{Map, Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::catalogue::{Entry, Prompt};
use super::desk::{Ask, Desk};
use super::dialog::{self, Reading};
use super::era::Leg;
use super::house::House;
use super::rpc::{Fault, INTERNAL};
use crate::wire::Key;

/// Where a result keeps what is for user interfaces.
const DETAILS: &str = "pi-vers/details";
/// Between two notices of progress.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a call that was given up is waited for.
const GRACE: Duration = Duration::from_secs(5);
/// So often a client is asked that answers nonsense.
const TRIES: u32 = 3;
/// So many problems of arguments are named.
const MOST_PROBLEMS: usize = 8;
/// The part of a text that shows what is going on.
const CAPTION: usize = 200;

/// What comes of a call or a command.
pub(crate) type Outcome = Result<Value, Fault>;

/// See the module. Dropping it gives the call up.
pub(crate) struct Running {
    work: BoxFuture<'static, Outcome>,
    asks: mpsc::Receiver<Ask>,
    updates: Option<watch::Receiver<Update>>,
    cancel: Box<dyn Fn() + Send>,
}

/// How far a request got with it.
pub(crate) enum Step {
    Done(Outcome),
    /// It waits for an answer that only another request can bring.
    Asks(Running, Ask),
}

impl Running {
    /// Starts a tool.
    pub(crate) fn tool(house: &House, desk: &Arc<Desk>, entry: &Entry, arguments: Value) -> Self {
        let id = uuid::Uuid::new_v4().to_string();
        let (asks, mark) = desk.questions_of(id.clone());
        let mut call = house.session.call_with_id(&id, &entry.name, arguments);
        let (updates, canceller) = (call.updates(), call.canceller());
        let structured = entry.structured;
        let work = async move {
            let outcome = call.outcome().await;
            drop(mark);
            Ok(match outcome {
                Ok(output) => result(&output, structured, false),
                Err(why) => failed(&why),
            })
        };
        Self {
            work: work.boxed(),
            asks,
            updates: Some(updates),
            cancel: Box::new(move || canceller.cancel()),
        }
    }

    /// Starts a command. What it says is the prompt's message.
    pub(crate) fn command(
        house: &Arc<House>,
        desk: &Arc<Desk>,
        name: &str,
        prompt: &Prompt,
        arguments: String,
    ) -> Self {
        let id = uuid::Uuid::new_v4().to_string();
        let (asks, mark) = desk.questions_of(id.clone());
        let (number, words) = desk.keep_words_of(prompt.extension.clone());
        let cause = Cause {
            id: Some(id),
            cancel: CancellationToken::new(),
        };
        let cancel = cause.cancel.clone();
        let (house, desk, name) = (house.clone(), desk.clone(), name.to_owned());
        let description = prompt.description.clone();
        let work = async move {
            let outcome = house.session.command_for(&cause, &name, &arguments).await;
            let mut text = desk.words(number);
            drop((mark, words));
            if let Err(why) = outcome {
                return Err(Fault::new(INTERNAL, format!("/{name}: {why}")));
            }
            if text.is_empty() {
                text = format!("/{name} was run and said nothing.");
            }
            Ok(json!({
                "description": description,
                "messages": [{ "role": "user", "content": { "type": "text", "text": text } }],
            }))
        };
        Self {
            work: work.boxed(),
            asks,
            updates: None,
            cancel: Box::new(move || cancel.cancel()),
        }
    }

    /// Sees it through as far as this request can. `None`: it was given up, and nobody waits for an answer.
    pub(crate) async fn drive(
        mut self,
        leg: &Leg,
        desk: &Arc<Desk>,
        give_up: &CancellationToken,
    ) -> Option<Step> {
        let mut progress = Progress::of(leg);
        let mut asking: Option<BoxFuture<'static, ()>> = None;
        let mut open = true;
        loop {
            tokio::select! {
                biased;
                () = give_up.cancelled() => {
                    drop(asking);
                    (self.cancel)();
                    // Its end is waited for, so that the place it has counts until it is free.
                    let _ = timeout(GRACE, self.work).await;
                    return None;
                }
                ask = self.asks.recv(), if open && asking.is_none() => match ask {
                    None => open = false,
                    Some(ask) if !leg.form => drop(ask.reply.send(None)),
                    Some(ask) if leg.modern => return Some(Step::Asks(self, ask)),
                    Some(ask) => asking = Some(inline(desk.clone(), ask, leg.titled).boxed()),
                },
                outcome = &mut self.work => return Some(Step::Done(outcome)),
                () = maybe(&mut asking) => asking = None,
                () = progress.next(self.updates.as_mut()) => progress.send(desk, self.updates.as_ref()),
            }
        }
    }
}

async fn maybe(asking: &mut Option<BoxFuture<'static, ()>>) {
    match asking {
        Some(asking) => asking.await,
        None => std::future::pending().await,
    }
}

/// Asks an older client while its request is under way.
async fn inline(desk: Arc<Desk>, mut ask: Ask, titled: bool) {
    let form = dialog::form(&ask.title, &ask.dialog, titled);
    for _ in 0..TRIES {
        let answered = tokio::select! {
            // The extension waits no more.
            () = ask.reply.closed() => return,
            answered = desk.request("elicitation/create", &form) => answered,
        };
        match answered.map(|result| dialog::read(&ask.dialog, &result)) {
            Ok(Reading::Answer(answer)) => return drop(ask.reply.send(Some(answer))),
            Ok(Reading::Misfit) => {}
            Ok(Reading::Dismissed) => break,
            Err(why) => {
                tracing::debug!("no answer: {why}");
                break;
            }
        }
    }
    let _ = ask.reply.send(None);
}

/// The progress of one request: always rising, and seldom enough.
struct Progress {
    token: Option<Value>,
    last: Option<f64>,
    news: bool,
    pause: Pin<Box<Sleep>>,
}

impl Progress {
    fn of(leg: &Leg) -> Self {
        Self {
            token: leg.progress.clone(),
            last: None,
            news: false,
            pause: Box::pin(tokio::time::sleep_until(Instant::now())),
        }
    }

    /// Waits until there is something to say. Cancel-safe.
    async fn next(&mut self, updates: Option<&mut watch::Receiver<Update>>) {
        match updates {
            Some(updates) if self.token.is_some() => {
                if !self.news && updates.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
                self.news = true;
                self.pause.as_mut().await;
            }
            _ => std::future::pending().await,
        }
    }

    fn send(&mut self, desk: &Desk, updates: Option<&watch::Receiver<Update>>) {
        let (Some(token), Some(updates)) = (&self.token, updates) else {
            return;
        };
        let params = params(token, &mut self.last, &updates.borrow());
        // Of what the client has not read yet the newest counts.
        let key = Key::Of(format!("progress {token}"));
        desk.notify("notifications/progress", params, key);
        self.news = false;
        self.pause.as_mut().reset(Instant::now() + PAUSE);
    }
}

fn params(token: &Value, last: &mut Option<f64>, update: &Update) -> Value {
    let told = update.progress.as_ref();
    let done = told.map(|told| told.done).filter(|done| done.is_finite());
    let next = match (*last, done) {
        (None, done) => done.unwrap_or(0.0),
        (Some(last), Some(done)) if done > last => done,
        // A step that changes the number, however large it is.
        (Some(last), _) => (last + 0.001).max(last.next_up()),
    };
    *last = Some(next);
    let mut params = json!({ "progressToken": token, "progress": next });
    if let Some(params) = params.as_object_mut() {
        if let Some(total) = told
            .and_then(|told| told.total)
            .filter(|total| *total >= next)
        {
            params.insert("total".into(), total.into());
        }
        let message = told.map(|told| told.caption.clone());
        let message = message.filter(|caption| !caption.is_empty());
        let message = message.or_else(|| last_line(&update.content));
        if let Some(message) = message {
            params.insert("message".into(), visible(&message).into());
        }
    }
    params
}

fn last_line(content: &[Content]) -> Option<String> {
    let text = content.iter().rev().find_map(Content::as_text)?;
    let line = text.lines().rev().find(|line| !line.trim().is_empty())?;
    Some(line.trim().chars().take(CAPTION).collect())
}

fn block(content: &Content) -> Value {
    match content {
        Content::Text(text) => json!({ "type": "text", "text": text }),
        Content::Image(image) => {
            json!({ "type": "image", "mimeType": image.media_type, "data": STANDARD.encode(&image.data) })
        }
        other => json!({ "type": "text", "text": other.in_words() }),
    }
}

/// A tool's result. What it declares to be for programs goes where clients take it instead of the text; what is for user
/// interfaces does not.
fn result(output: &ToolOutput, structured: bool, is_error: bool) -> Value {
    let mut content: Vec<Value> = output.content.iter().map(block).collect();
    let mut result = Map::new();
    let structured = output
        .structured
        .as_ref()
        .filter(|_| structured && !is_error);
    if let Some(structured) = structured {
        if content.is_empty() {
            content.push(json!({ "type": "text", "text": structured.to_string() }));
        }
        result.insert("structuredContent".into(), structured.clone());
    }
    result.insert("content".into(), content.into());
    result.insert("isError".into(), is_error.into());
    if let Some(details) = &output.details {
        result.insert("_meta".into(), json!({ DETAILS: details }));
    }
    Value::Object(result)
}

/// The result of a tool that has none, for the model to read.
pub(crate) fn said(text: &str) -> Value {
    json!({ "content": [{ "type": "text", "text": text }], "isError": true })
}

fn failed(why: &CallError) -> Value {
    let (text, output) = match why {
        CallError::Failed(output) => return result(output, false, true),
        CallError::Arguments { problems, .. } => {
            let mut text = "The arguments do not fit the tool's schema:".to_owned();
            for problem in problems.iter().take(MOST_PROBLEMS) {
                text.push_str(&format!("\n{problem}"));
            }
            (text, None)
        }
        CallError::TimedOut { output, .. } | CallError::Cancelled { output, .. } => {
            (why.to_string(), Some(output))
        }
        _ => (why.to_string(), None),
    };
    let mut all = output.cloned().unwrap_or_default();
    all.content.push(Content::Text(visible(&text)));
    result(&all, false, true)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use pi_vers_host::Problem;

    #[test]
    fn progress_rises_whatever_a_tool_reports() {
        let mut last = None;
        let mut before = f64::NEG_INFINITY;
        for done in [5.0, 5.0, 3.0, f64::NAN, 1e300, 1e300, 2.0] {
            let update = Update {
                progress: Some(pi_vers_host::Progress {
                    done,
                    total: Some(10.0),
                    caption: String::new(),
                }),
                ..Update::default()
            };
            let params = params(&json!("t"), &mut last, &update);
            let now = params["progress"].as_f64().unwrap();
            assert!(now > before, "{now} after {before}");
            assert_eq!(params.get("total").is_some(), now <= 10.0);
            before = now;
        }
        let update = Update {
            content: vec![Content::text("one\ntwo\n\n")],
            ..Update::default()
        };
        assert_eq!(params(&json!(1), &mut None, &update)["message"], "two");
    }

    #[test]
    fn details_never_take_the_place_of_the_text() {
        let output = ToolOutput {
            content: vec![Content::text("for the model")],
            details: Some(json!({ "for": "people" })),
            structured: Some(json!({ "for": "programs" })),
        };
        let plain = result(&output, false, false);
        assert!(plain.get("structuredContent").is_none());
        assert_eq!(plain["_meta"][DETAILS], json!({ "for": "people" }));
        let declared = result(&output, true, false);
        assert_eq!(declared["structuredContent"], json!({ "for": "programs" }));
        assert_eq!(declared["content"][0]["text"], "for the model");
        assert!(
            result(&output, true, true)
                .get("structuredContent")
                .is_none()
        );
    }

    #[test]
    fn wrong_arguments_are_a_result_with_a_line_for_each() {
        let problem = Problem {
            path: "/vmId".into(),
            message: "is no text".into(),
        };
        let why = CallError::Arguments {
            tool: "t".into(),
            problems: vec![problem; 20],
        };
        let result = failed(&why);
        assert_eq!(result["isError"], true);
        let text = result["content"][0]["text"].as_str().unwrap();
        assert_eq!(text.lines().count(), 1 + MOST_PROBLEMS);
        assert!(text.ends_with("/vmId: is no text"), "{text}");
    }
}
