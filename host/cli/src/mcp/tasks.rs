//! Long calls as tasks: the client gets a ticket at once, and asks how far it is.
//!
//! The SDK keeps the tasks. Here is what one does: it goes on with the call, puts questions to whoever asks for its state, and ends what it
//! started when it is cancelled. Its time to live is the longest that a call may take: the SDK gives a task up that is older.

use std::sync::Arc;
use std::time::Duration;

use pi_vers_host::CallError;
use rmcp::ErrorData;
use rmcp::model::{CallToolResult, InputRequest, Task};
use rmcp::task_manager::{TaskContext, TaskExit, TaskOptions};
use serde_json::Value;
use tokio::task::JoinSet;

use super::asking::TRIES;
use super::calls;
use super::desk::Ask;
use super::home::Home;
use super::question::{Answers, Questions};
use super::running::{Event, Running, ToolEnd};

/// Most tasks of a home that run.
const MOST: usize = 64;
/// How long a task may run, and how long its result is kept.
const LONGEST: Duration = Duration::from_secs(60 * 60);
/// How often a client is to ask, in milliseconds.
const POLL: u64 = 500;

/// There are too many tasks.
#[derive(Debug)]
pub(crate) struct Full;

/// Room for a task.
pub(crate) struct Begun {
    home: Arc<Home>,
}

/// Finds room.
pub(crate) fn begin(home: &Arc<Home>, call: &str) -> Result<Begun, Full> {
    if home.tasks.running_task_count() >= MOST {
        tracing::warn!("too many tasks run: call {call} becomes none");
        return Err(Full);
    }
    Ok(Begun { home: home.clone() })
}

impl Begun {
    /// Goes on with the call as a task.
    pub(crate) fn run(self, running: Running<ToolEnd>, declared: bool) -> Task {
        let ttl = u64::try_from(LONGEST.as_millis()).ok();
        let options = TaskOptions::new()
            .with_ttl_ms(ttl)
            .with_poll_interval_ms(POLL);
        running.set_patience(None);
        // Questions of a task go to its state, not to the client that began it.
        self.home.tasks.spawn(options, move |task| {
            Box::pin(async move { work(running, &task, declared).await })
        })
    }
}

async fn work(
    mut running: Running<ToolEnd>,
    task: &TaskContext,
    declared: bool,
) -> Result<CallToolResult, TaskExit> {
    let mut questions = JoinSet::new();
    let mut rounds = 0_u32;
    loop {
        tokio::select! {
            biased;
            () = task.cancelled() => {
                running.stop().await;
                return Err(TaskExit::Cancelled);
            }
            event = running.next() => match event {
                Event::Ask(ask) => {
                    rounds += 1;
                    questions.spawn(put(task.clone(), ask, rounds));
                }
                Event::Caption(caption) => task.set_status_message(caption),
                Event::Done(end) => return ended(&end, declared),
            },
            // One that was answered; the call goes on by itself.
            Some(_) = questions.join_next() => {}
        }
    }
}

/// Puts questions to whoever asks for the task's state.
async fn put(task: TaskContext, mut ask: Ask, round: u32) {
    let asked = async {
        let requests = ask.questions.requests(true).into_iter();
        let all = requests.map(|(key, request)| one(&task, &ask.questions, round, key, request));
        let answers = futures::future::join_all(all).await;
        answers.into_iter().collect::<Option<Answers>>()
    };
    let answers = tokio::select! {
        () = ask.reply.closed() => None,
        answers = asked => answers,
    };
    let _ = ask.reply.send(answers);
}

async fn one(
    task: &TaskContext,
    questions: &Questions,
    round: u32,
    key: String,
    request: InputRequest,
) -> Option<(String, Value)> {
    for attempt in 1..=TRIES {
        // A key can be used once in the life of a task.
        let name = match (round, attempt) {
            (1, 1) => key.clone(),
            (_, 1) => format!("{key}#{round}"),
            _ => format!("{key}#{round}.{attempt}"),
        };
        let answer = task.request_input(name, request.clone()).await.ok()?;
        if questions.fits(&key, &answer) {
            return Some((key, answer));
        }
    }
    None
}

/// What ends as a result, and what does not.
fn ended(end: &ToolEnd, declared: bool) -> Result<CallToolResult, TaskExit> {
    match end {
        Err(CallError::Cancelled { .. }) => Err(TaskExit::Cancelled),
        Err(
            why @ (CallError::Refused { .. }
            | CallError::Crashed { .. }
            | CallError::Contract { .. }
            | CallError::Closed),
        ) => Err(TaskExit::Error(ErrorData::internal_error(
            why.to_string(),
            None,
        ))),
        _ => Ok(calls::result(end, declared)),
    }
}
