//! What happens when the agent has come to its end: the plan is shown, and the user says how it goes on.
//!
//! The harness waits for nobody here, and other events come while a person thinks. So the question is asked by a task of its own, of which
//! there is one at most: another end of the agent, or plan mode switched by hand, dismisses it.

use std::cell::{Cell, RefCell};

use futures::channel::oneshot;
use futures::future::{Either, select};
use pi_vers_sdk::harness::session::{self, Delivery};
use pi_vers_sdk::harness::types::{Content, CustomMessage};
use pi_vers_sdk::harness::ui::{self, Dialog};
use pi_vers_sdk::{Error, outcome, wit_bindgen};
use serde_json::Value;

use crate::state::{self, change, get, warn};
use crate::{messages, mode, show, todos};

thread_local! {
    /// Dropped, it dismisses the question that is open.
    static OPEN: RefCell<Option<oneshot::Sender<()>>> = RefCell::default();
}

/// Dismisses the question that is open, if there is one.
pub(crate) fn dismiss() {
    OPEN.with_borrow_mut(Option::take);
}

/// The agent has come to its end, with these messages.
pub(crate) fn ended(conversation: &[Value]) {
    let complete = get(|state| {
        state.executing && !state.todos.is_empty() && state.todos.iter().all(|todo| todo.completed)
    });
    if complete {
        wit_bindgen::spawn_local(completed());
        return;
    }
    if !get(|state| state.enabled) || !ui::available() {
        return;
    }
    let said = conversation.iter().rev().find_map(messages::assistant);
    let found = todos::extract(&said.unwrap_or_default());
    if !found.is_empty() {
        change(|state| state.todos = found);
    }
    let (open, dismissed) = oneshot::channel();
    OPEN.with_borrow_mut(|slot| *slot = Some(open));
    let answered = Cell::new(false);
    wit_bindgen::spawn_local(async move {
        let asking = async {
            match question(&answered).await {
                Ok(()) | Err(Error::Cancelled) => {}
                Err(error) => {
                    let why = outcome::explain(&error);
                    warn(&format!("The plan could not be asked about: {why}"));
                }
            }
        };
        futures::pin_mut!(asking);
        // What an answer sets off is carried through: it dismisses the question itself.
        if let Either::Right((_, asking)) = select(asking, dismissed).await
            && answered.get()
        {
            asking.await;
        }
    });
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

fn dialog(title: &str) -> Dialog {
    Dialog {
        title: title.into(),
        timeout: None,
    }
}

/// Adds a message that the user sees.
async fn send(kind: &str, text: String, trigger: bool) {
    let message = CustomMessage {
        kind: kind.into(),
        content: vec![Content::Text(text)],
        display: true,
        details: None,
    };
    let delivery = if trigger {
        Delivery::FollowUp
    } else {
        Delivery::Steer
    };
    if let Err(error) = session::send_message(message, delivery, trigger).await {
        warn(&format!(
            "A message could not be sent: {}",
            outcome::explain(&error)
        ));
    }
}
