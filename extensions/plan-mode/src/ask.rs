//! What happens when the agent has come to its end: the plan is shown, and the user says how it goes on.
//!
//! The harness waits for nobody here, other events come while a person thinks, and what an event's handler has under way ends with
//! the event. So a task of the session's start does it ([`work`]), and events only tell it what there is to do. There is one question
//! at most: another end of the agent, or plan mode switched by hand, dismisses the one that is open.

use std::cell::{Cell, RefCell};

use futures::StreamExt as _;
use futures::channel::mpsc;
use futures::future::{Either, select};
use pi_vers_sdk::harness::session::{self, Delivery};
use pi_vers_sdk::harness::types::Content;
use pi_vers_sdk::harness::ui;
use pi_vers_sdk::show::{dialog, message};
use pi_vers_sdk::{Error, outcome, task};

use crate::state::{self, change, get, warn};
use crate::{messages, mode, show, todos};

/// How many jobs may wait: each replaces the one before it, so more say nothing new.
const WAITING: usize = 16;

/// What the task has to do.
enum Job {
    /// Nothing any more: an open question is dismissed.
    Dismiss,
    /// Say that the plan is complete.
    Complete,
    /// Show the plan and ask how it goes on.
    Ask,
}

thread_local! {
    static JOBS: RefCell<Option<mpsc::Sender<Job>>> = RefCell::default();
}

/// Starts the task, once in an instance.
pub(crate) fn begin() {
    if JOBS.with_borrow(Option::is_some) {
        return;
    }
    let (send, receive) = mpsc::channel(WAITING);
    JOBS.with_borrow_mut(|jobs| *jobs = Some(send));
    task::spawn(work(receive));
}

fn give(job: Job) {
    let given = JOBS.with_borrow_mut(|jobs| jobs.as_mut().map(|jobs| jobs.try_send(job)));
    if !matches!(given, Some(Ok(()))) {
        warn("The end of the agent was not dealt with: too much is waiting.");
    }
}

/// Dismisses the question that is open, if there is one.
pub(crate) fn dismiss() {
    give(Job::Dismiss);
}

/// Does one job after the other; the next one ends the one that is under way, but for what an answer has set off.
async fn work(mut jobs: mpsc::Receiver<Job>) {
    let mut next = jobs.next().await;
    while let Some(job) = next {
        let answered = Cell::new(false);
        let running = run(job, &answered);
        futures::pin_mut!(running);
        next = match select(running, jobs.next()).await {
            Either::Left(((), waiting)) => waiting.await,
            Either::Right((new, running)) => {
                if answered.get() {
                    running.await;
                }
                new
            }
        };
    }
}

async fn run(job: Job, answered: &Cell<bool>) {
    match job {
        Job::Dismiss => {}
        Job::Complete => {
            answered.set(true);
            completed().await;
        }
        Job::Ask => match question(answered).await {
            Ok(()) | Err(Error::Cancelled) => {}
            Err(error) => {
                let why = outcome::explain(&error);
                warn(&format!("The plan could not be asked about: {why}"));
            }
        },
    }
}

/// The agent has come to its end, with these messages.
pub(crate) fn ended(conversation: &[String]) {
    let complete = get(|state| {
        state.executing && !state.todos.is_empty() && state.todos.iter().all(|todo| todo.completed)
    });
    if complete {
        return give(Job::Complete);
    }
    if !get(|state| state.enabled) || !ui::available() {
        return;
    }
    let mut newest_first = conversation.iter().rev();
    let said = newest_first.find_map(|text| messages::assistant(&serde_json::from_str(text).ok()?));
    let found = todos::extract(&said.unwrap_or_default());
    if !found.is_empty() {
        change(|state| state.todos = found);
    }
    give(Job::Ask);
}

async fn completed() {
    let list = change(|state| {
        state.executing = false;
        std::mem::take(&mut state.todos)
    });
    let list: Vec<String> = list
        .iter()
        .map(|todo| format!("~~{}~~", todo.text))
        .collect();
    let text = format!("**Plan Complete!** ✓\n\n{}", list.join("\n"));
    // Cleared before anything else, so that a resumed session does not go on with it.
    state::persist().await;
    show::show();
    send("plan-complete", text, false).await;
}

async fn question(answered: &Cell<bool>) -> Result<(), Error> {
    state::persist().await;
    let steps: Vec<String> = get(|state| {
        let lines = state.todos.iter().enumerate();
        lines
            .map(|(at, todo)| format!("{}. ☐ {}", at + 1, todo.text))
            .collect()
    });
    if !steps.is_empty() {
        let text = format!("**Plan Steps ({}):**\n\n{}", steps.len(), steps.join("\n"));
        send("plan-todo-list", text, false).await;
    }
    let execute = if steps.is_empty() {
        "Execute the plan"
    } else {
        "Execute the plan (track progress)"
    };
    let options = [execute, "Stay in plan mode", "Refine the plan"];
    let chosen = ui::select(
        dialog("Plan mode - what next?"),
        options.map(str::to_owned).into(),
    )
    .await?;
    match chosen {
        Some(0) => {
            answered.set(true);
            mode::leave(true).await;
            let first = get(|state| state.todos.first().map(|todo| todo.text.clone()));
            let text = first.map_or_else(
                || "Execute the plan you just created.".to_owned(),
                |first| format!("Execute the plan. Start with: {first}"),
            );
            send(messages::EXECUTE_KIND, text, true).await;
        }
        Some(2) => {
            let wish = ui::edit(dialog("Refine the plan:"), String::new()).await?;
            let wish = wish.unwrap_or_default().trim().to_owned();
            if !wish.is_empty() {
                answered.set(true);
                session::send_user_message(vec![Content::Text(wish)], Delivery::FollowUp).await?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// Adds a message that the user sees.
async fn send(kind: &str, text: String, trigger: bool) {
    let delivery = if trigger {
        Delivery::FollowUp
    } else {
        Delivery::Steer
    };
    if let Err(error) = session::send_message(message(kind, text), delivery, trigger).await {
        warn(&format!(
            "A message could not be sent: {}",
            outcome::explain(&error)
        ));
    }
}
