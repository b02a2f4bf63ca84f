//! What the lines of a prompt make the agent say, up to the next thing that is not speech.

use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::agent::Exit;
use super::draft::Draft;
use super::run::{Failure, Next, Run};
use super::script::{Question, Room, Step};
use super::shell;

/// Pieces of output that wait to be said.
const WAITING: usize = 16;
/// A long answer comes in so many pieces at most: each piece is written with all before it.
const PIECES: usize = 16;
/// The least of them, in bytes.
const PIECE: usize = 4 << 10;

/// Says what is to be said; what comes after it.
pub(super) async fn speak(run: &mut Run<'_>, draft: &mut Draft<'_>) -> Next {
    let report = std::mem::take(&mut run.report);
    if !report.is_empty() && !run.stop.is_cancelled() {
        say(draft, &report).await;
    }
    while !run.stop.is_cancelled() {
        let Some(step) = run.todo.pop_front() else {
            return Next::Rest;
        };
        if let Some(next) = one(run, draft, step).await {
            return next;
        }
    }
    Next::Aborted
}

/// One line. `None`: the message goes on; also when the run was stopped, which is seen then.
async fn one(run: &mut Run<'_>, draft: &mut Draft<'_>, step: Step) -> Option<Next> {
    let agent = run.agent;
    match step {
        Step::Run(command) => {
            let id = format!("call_{}", uuid::Uuid::new_v4().simple());
            draft.call(&id, &command).await;
            return Some(Next::Tool(command));
        }
        Step::Stream(command) => stream(run, draft, &command).await,
        Step::Say(text) => say(draft, &text).await,
        Step::Sleep(time) => pause(run, time).await,
        Step::Fail(why) => return Some(Next::Failed(Failure::Final(why))),
        Step::Retry { times: 0, .. } => {}
        Step::Retry { times, delay } => {
            let times = times - 1;
            run.todo.push_front(Step::Retry { times, delay });
            return Some(Next::Failed(Failure::Passing(delay)));
        }
        Step::Compact {
            room: Room::Overflow,
            punkin,
        } => return Some(Next::Failed(Failure::Full { punkin })),
        Step::Compact {
            room: Room::Threshold,
            punkin,
        } => run.room = Some(punkin),
        Step::Hang => run.stop.cancelled().await,
        Step::Crash(code) => agent.end(Exit::Code(code)).await,
        Step::Kill(signal) => agent.end(Exit::Signal(signal)).await,
        Step::Ask {
            question,
            title,
            options,
        } => {
            let answer = ask(run, question, &title, &options).await;
            say(draft, &format!("answer: {answer}")).await;
        }
        Step::Notify(text) => {
            let id = uuid::Uuid::new_v4().to_string();
            let request = json!({ "type": "extension_ui_request", "id": id, "method": "notify", "message": text, "notifyType": "info" });
            agent.emit(request).await;
        }
        Step::Noise(text) => agent.noise(&text).await,
        Step::Big(bytes) => big(run, draft, bytes).await,
        Step::Env(name) => say(draft, &env(&name)).await,
        Step::Model => {
            let model = draft.model();
            let text = format!("model: {}/{}", model.provider, model.id);
            say(draft, &text).await;
        }
        Step::SystemPrompt => say(draft, &agent.system_prompt).await,
        Step::Count => {
            let count = agent.state().session.prompts();
            say(draft, &format!("prompt {count} of this session")).await;
        }
        Step::Hear(text) => say(draft, &format!("You said: {text}")).await,
    }
    None
}

/// Says a text that ends its line.
async fn say(draft: &mut Draft<'_>, text: &str) {
    let end = if text.ends_with('\n') { "" } else { "\n" };
    draft.say(&format!("{text}{end}")).await;
}

async fn pause(run: &Run<'_>, time: Duration) {
    tokio::select! {
        biased;
        () = run.stop.cancelled() => {}
        () = tokio::time::sleep(time) => {}
    }
}

async fn stream(run: &Run<'_>, draft: &mut Draft<'_>, command: &str) {
    let (heard, mut pieces) = mpsc::channel::<String>(WAITING);
    let saying = async {
        while let Some(piece) = pieces.recv().await {
            draft.say(&piece).await;
        }
    };
    let (ended, ()) = tokio::join!(shell::run(command, &run.stop, heard), saying);
    let feed = if draft.at_line_start() { "" } else { "\n" };
    draft.say(&format!("{feed}[{}]\n", ended.words())).await;
}

async fn big(run: &Run<'_>, draft: &mut Draft<'_>, bytes: usize) {
    let piece = bytes.div_ceil(PIECES).max(PIECE);
    let mut left = bytes;
    while left > 0 && !run.stop.is_cancelled() {
        let now = left.min(piece);
        left -= now;
        let mut text = "0123456789abcdef".repeat(now.div_ceil(16));
        text.truncate(now);
        draft.say(&text).await;
    }
    draft.say("\n").await;
}

/// What the user answered, in words.
async fn ask(run: &Run<'_>, question: Question, title: &str, options: &[String]) -> String {
    let method = question.method();
    let request = match question {
        Question::Confirm => json!({ "method": method, "title": title, "message": title }),
        Question::Select => json!({ "method": method, "title": title, "options": options }),
        Question::Input | Question::Editor => json!({ "method": method, "title": title }),
    };
    let Some(answer) = run.agent.ask(request, &run.stop).await else {
        return "none".to_owned();
    };
    if answer.get("cancelled") == Some(&Value::Bool(true)) {
        return "cancelled".to_owned();
    }
    match (answer.get("value"), answer.get("confirmed")) {
        (Some(Value::String(value)), _) => value.clone(),
        (_, Some(Value::Bool(true))) => "yes".to_owned(),
        (_, Some(Value::Bool(false))) => "no".to_owned(),
        _ => "cancelled".to_owned(),
    }
}

/// Whether a variable is set; of its value only a digest, so that a test can compare it and a log does not hold it.
fn env(name: &str) -> String {
    match std::env::var_os(name) {
        None => format!("{name} is not set"),
        Some(value) => {
            use std::os::unix::ffi::OsStrExt as _;
            let digest = format!("{:x}", Sha256::digest(value.as_bytes()));
            format!(
                "{name} is set, sha256 {}",
                digest.get(..12).unwrap_or(&digest)
            )
        }
    }
}
