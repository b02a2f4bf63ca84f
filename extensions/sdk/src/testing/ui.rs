//! What the user sees, and a user who answers.

use std::collections::{BTreeMap, VecDeque};

use futures::channel::oneshot;
use serde_json::json;

use super::Kit;
use super::executor;
use super::world::{ask, wait_for, world};
use crate::Error;
use crate::harness::types::Span;
use crate::harness::ui::{Dialog as Wanted, Severity};

/// What a dialog asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asks {
    /// One of these.
    Select(Vec<String>),
    /// Yes or no to this.
    Confirm(String),
    /// A line; this stands in the empty field.
    Input(String),
    /// A text that begins as this.
    Edit(String),
}

/// A dialog that waits for its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dialog {
    /// Its title.
    pub title: String,
    /// What it asks for.
    pub asks: Asks,
}

/// What the user answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The option with this text.
    Choose(String),
    /// To a [`Asks::Confirm`].
    Yes,
    /// To a [`Asks::Confirm`].
    No,
    /// To a [`Asks::Input`] or [`Asks::Edit`].
    Text(String),
    /// Nothing: the dialog is closed.
    Dismiss,
}

/// The lines of a widget, without their looks.
pub type Widget = Vec<String>;

struct Open {
    dialog: Dialog,
    answer: oneshot::Sender<Reply>,
}

#[derive(Default)]
pub(crate) struct Ui {
    is_blind: bool,
    notices: Vec<String>,
    statuses: BTreeMap<String, String>,
    widgets: BTreeMap<String, Widget>,
    open: Vec<Open>,
    replies: VecDeque<Reply>,
}

fn plain(line: &[Span]) -> String {
    line.iter().map(|span| span.text.as_str()).collect()
}

/// Whether somebody can answer a dialog.
#[must_use]
pub fn available() -> bool {
    world(|world| !world.ui.is_blind)
}

/// A short notice that goes away by itself.
pub fn notify(message: &str, severity: Severity) {
    let _ = ask(
        "ui.notify",
        json!({ "message": message, "severity": format!("{severity:?}").to_lowercase() }),
    );
    world(|world| world.ui.notices.push(message.into()));
}

/// The footer entry of this key; `None` removes it.
pub fn set_status(key: &str, text: Option<&[Span]>) {
    world(|world| match text {
        Some(text) => world.ui.statuses.insert(key.into(), plain(text)),
        None => world.ui.statuses.remove(key),
    });
}

/// A block of lines near the editor; `None` removes it.
pub fn set_widget(key: &str, lines: Option<&[Vec<Span>]>) {
    world(|world| match lines {
        Some(lines) => {
            let lines = lines.iter().map(|line| plain(line)).collect();
            world.ui.widgets.insert(key.into(), lines)
        }
        None => world.ui.widgets.remove(key),
    });
}

async fn answered(what: &str, dialog: Wanted, asks: Asks) -> Result<Option<Reply>, Error> {
    wait_for(what, json!({ "title": dialog.title })).await?;
    let told = world(|world| {
        if world.ui.is_blind {
            return None;
        }
        let (answer, told) = oneshot::channel();
        match world.ui.replies.pop_front() {
            Some(reply) => drop(answer.send(reply)),
            None => {
                let dialog = Dialog {
                    title: dialog.title,
                    asks,
                };
                world.ui.open.push(Open { dialog, answer });
            }
        }
        Some(told)
    });
    let Some(told) = told else { return Ok(None) };
    let late = async {
        match dialog.timeout {
            Some(timeout) => executor::until(executor::ticks() + timeout).await,
            None => std::future::pending().await,
        }
    };
    let reply = executor::waiting(async {
        futures::pin_mut!(late);
        match futures::future::select(told, late).await {
            futures::future::Either::Left((Ok(reply), _)) => Some(reply),
            _ => None,
        }
    })
    .await;
    world(|world| world.ui.open.retain(|open| !open.answer.is_canceled()));
    Ok(reply?.filter(|reply| *reply != Reply::Dismiss))
}

fn unfit(asks: &str, reply: &Reply) -> ! {
    panic!("the test answers {reply:?} to a dialog that asks for {asks}")
}

/// The index of the chosen option; `None` when dismissed.
pub async fn select(dialog: Wanted, options: Vec<String>) -> Result<Option<u32>, Error> {
    let reply = answered("ui.select", dialog, Asks::Select(options.clone())).await?;
    Ok(reply.map(|reply| {
        let chosen = match &reply {
            Reply::Choose(text) => options.iter().position(|option| option == text),
            _ => None,
        };
        match chosen.and_then(|at| u32::try_from(at).ok()) {
            Some(at) => at,
            None => unfit(&format!("one of {options:?}"), &reply),
        }
    }))
}

/// The answer; `None` when dismissed.
pub async fn confirm(dialog: Wanted, message: String) -> Result<Option<bool>, Error> {
    let reply = answered("ui.confirm", dialog, Asks::Confirm(message)).await?;
    Ok(reply.map(|reply| match reply {
        Reply::Yes => true,
        Reply::No => false,
        other => unfit("yes or no", &other),
    }))
}

fn text(reply: Option<Reply>) -> Option<String> {
    reply.map(|reply| match reply {
        Reply::Text(text) => text,
        other => unfit("a text", &other),
    })
}

/// One line of text; `None` when dismissed.
pub async fn input(dialog: Wanted, placeholder: String) -> Result<Option<String>, Error> {
    answered("ui.input", dialog, Asks::Input(placeholder))
        .await
        .map(text)
}

/// The text of a multi-line editor; `None` when dismissed.
pub async fn edit(dialog: Wanted, prefill: String) -> Result<Option<String>, Error> {
    answered("ui.edit", dialog, Asks::Edit(prefill))
        .await
        .map(text)
}

impl Kit {
    /// From now on nobody can answer a dialog, as in a CI run.
    pub fn no_screen(&self) {
        world(|world| world.ui.is_blind = true);
    }

    /// Answers the dialog that has been open longest, and runs until everything waits; where none is open, the next one gets it.
    pub fn reply(&self, reply: Reply) {
        world(|world| {
            world.ui.open.retain(|open| !open.answer.is_canceled());
            if world.ui.open.is_empty() {
                world.ui.replies.push_back(reply);
            } else {
                // It was not cancelled a moment ago.
                let _ = world.ui.open.remove(0).answer.send(reply);
            }
        });
        self.settle();
    }

    /// The dialogs that wait for an answer, oldest first.
    #[must_use]
    pub fn dialogs(&self) -> Vec<Dialog> {
        world(|world| {
            world.ui.open.retain(|open| !open.answer.is_canceled());
            world
                .ui
                .open
                .iter()
                .map(|open| open.dialog.clone())
                .collect()
        })
    }

    /// The notices so far.
    #[must_use]
    pub fn notices(&self) -> Vec<String> {
        world(|world| world.ui.notices.clone())
    }

    /// The footer entry of this key.
    #[must_use]
    pub fn status(&self, key: &str) -> Option<String> {
        world(|world| world.ui.statuses.get(key).cloned())
    }

    /// The widget of this key.
    #[must_use]
    pub fn widget(&self, key: &str) -> Option<Widget> {
        world(|world| world.ui.widgets.get(key).cloned())
    }
}
