//! Tool calls.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::executor::{self, Owner};
use super::world::world;
use super::{Kit, said};
use crate::outcome::explain;
use crate::{Content, ToolError, ToolResult};

/// What a running call has shown.
#[derive(Debug, Clone)]
pub struct Update {
    /// The blocks.
    pub content: Vec<Content>,
    /// For the user interface, a JSON text.
    pub details: Option<String>,
}

/// A step of a progress bar.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// How much is done.
    pub done: f64,
    /// Out of how much, if that is known.
    pub total: Option<f64>,
    /// In words.
    pub caption: String,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) owner: Rc<Owner>,
    pub(crate) updates: RefCell<Vec<Update>>,
    pub(crate) progress: RefCell<Vec<Progress>>,
    /// By the clock.
    patient_until: Cell<Option<u64>>,
}

/// The host's side of a call: what [`ToolCall`](crate::ToolCall) is made of.
#[derive(Debug)]
pub struct Call {
    id: String,
    tool: String,
    arguments: String,
    pub(crate) state: Rc<State>,
}

impl Call {
    pub(crate) fn new(id: String, tool: &str, arguments: String) -> Self {
        let state = State::default();
        let patience = world(|world| world.patience);
        state
            .patient_until
            .set(patience.map(|patience| executor::ticks() + patience));
        Self {
            id,
            tool: tool.into(),
            arguments,
            state: Rc::new(state),
        }
    }

    pub(crate) fn id(&self) -> String {
        self.id.clone()
    }

    pub(crate) fn tool(&self) -> String {
        self.tool.clone()
    }

    pub(crate) fn arguments(&self) -> String {
        self.arguments.clone()
    }

    pub(crate) fn update(&self, content: &[Content], details: Option<&str>) {
        let details = details.map(str::to_owned);
        self.state.updates.borrow_mut().push(Update {
            content: content.to_vec(),
            details,
        });
    }

    pub(crate) fn progress(&self, done: f64, total: Option<f64>, caption: &str) {
        let caption = caption.into();
        self.state.progress.borrow_mut().push(Progress {
            done,
            total,
            caption,
        });
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.state.owner.is_given_up()
    }

    pub(crate) async fn cancelled(&self) {
        self.state.owner.given_up().await;
    }

    #[allow(clippy::unused_self, reason = "the contract's shape")]
    pub(crate) fn remaining(&self) -> Option<u64> {
        None
    }

    pub(crate) fn patience(&self) -> Option<u64> {
        let until = self.state.patient_until.get()?;
        Some(until.saturating_sub(executor::ticks()))
    }
}

type Done = Rc<RefCell<Option<Result<ToolResult, ToolError>>>>;

/// A call that was begun by [`Kit::begin`].
#[derive(Debug)]
pub struct Running<'a> {
    pub(crate) kit: &'a Kit,
    pub(crate) tool: String,
    pub(crate) state: Rc<State>,
    pub(crate) done: Done,
}

impl Running<'_> {
    /// Whether it has ended.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.done.borrow().is_some()
    }

    /// What it has shown so far, oldest first: the text of each update.
    #[must_use]
    pub fn updates(&self) -> Vec<String> {
        let updates = self.state.updates.borrow();
        updates
            .iter()
            .map(|update| crate::outcome::text_of(&update.content))
            .collect()
    }

    /// The updates as they were made.
    #[must_use]
    pub fn whole_updates(&self) -> Vec<Update> {
        self.state.updates.borrow().clone()
    }

    /// The steps of its progress bar.
    #[must_use]
    pub fn progress(&self) -> Vec<Progress> {
        self.state.progress.borrow().clone()
    }

    /// Gives it up, as its user does: every wait of it ends with `Error::Cancelled`. Returns what the tool made of that; the host tells
    /// the model `cancelled` in any case. `None`: it goes on all the same, and a host would stop it.
    pub fn cancel(self) -> Option<Result<ToolResult, ToolError>> {
        self.state.owner.give_up();
        self.kit.settle();
        self.done.take()
    }

    /// Waits until it has ended; the clock goes on as far as needed.
    ///
    /// # Errors
    /// The tool's.
    ///
    /// # Panics
    /// When it waits for what will not come: a dialog nobody answers, a process that nobody ends.
    pub fn finish(self) -> Result<ToolResult, ToolError> {
        let what = format!("the call of {}", self.tool);
        self.kit.until(&what, || self.done.borrow().is_some());
        // It is there: just looked at.
        self.done.take().unwrap_or(Err(ToolError::Cancelled))
    }
}

/// What the model reads of a call's end: the text of its result or of its failure.
#[must_use]
pub fn read(done: &Result<ToolResult, ToolError>) -> String {
    match done {
        Ok(result) | Err(ToolError::Failed(result)) => said(result),
        Err(ToolError::Capability(error)) => explain(error),
        Err(ToolError::Cancelled) => "cancelled".into(),
    }
}
