//! Work on behalf of one tool call.

use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use futures::future::{Either, select};
use serde::de::DeserializeOwned;

use crate::contract::Call;
use crate::harness::timers;
use crate::{Content, Error, args};

/// One running call of a tool. Clones are the same call: work that goes on beside the tool's function takes one along.
#[derive(Debug, Clone)]
pub struct ToolCall(Rc<Call>);

impl From<Call> for ToolCall {
    fn from(call: Call) -> Self {
        Self(Rc::new(call))
    }
}

impl ToolCall {
    /// The harness's id of this call.
    #[must_use]
    pub fn id(&self) -> String {
        self.0.id()
    }

    /// The tool's name.
    #[must_use]
    pub fn tool(&self) -> String {
        self.0.tool()
    }

    /// The arguments, a JSON text that the host has checked against the tool's schema. [`arguments`] reads them as a type.
    #[must_use]
    pub fn arguments(&self) -> String {
        self.0.arguments()
    }

    /// Replaces what the user sees of this call while it runs. Cheap: the host coalesces, so call it whenever there is news.
    /// `details` is a JSON text for the user interface. [`show`] is enough for a text.
    pub fn update(&self, content: &[Content], details: Option<&str>) {
        self.0.update(content, details);
    }

    /// For progress bars: `done` out of `total` (`None`: not known), and a caption.
    pub fn progress(&self, done: f64, total: Option<f64>, caption: &str) {
        self.0.progress(done, total, caption);
    }

    /// Whether the user or the harness has given the call up. Nothing has to be done about it: every import that this call waits in
    /// ends with `Error::Cancelled`.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Resolves when the call is given up; [`until_cancelled`] races it against work.
    pub async fn cancelled(&self) {
        self.0.cancelled().await;
    }

    /// Milliseconds before the host's deadline, if there is one.
    #[must_use]
    pub fn remaining(&self) -> Option<u64> {
        self.0.remaining()
    }

    /// How many milliseconds longer the caller is likely to wait for the answer; `None`: no limit is known. May change while the call
    /// runs. [`patiently`] and [`background::outlasting`](crate::background::outlasting) see to it.
    #[must_use]
    pub fn patience(&self) -> Option<u64> {
        self.0.patience()
    }

    #[cfg(target_family = "wasm")]
    pub(crate) fn handle(&self) -> &Call {
        &self.0
    }
}

/// Before its caller gives a call up an answer has to be on its way for so long.
const MARGIN: Duration = Duration::from_secs(2);

/// The call's arguments as a type.
///
/// # Errors
/// `Error::Invalid` when they do not fit.
pub fn arguments<T: DeserializeOwned>(call: &ToolCall) -> Result<T, Error> {
    args::parse(&call.arguments())
}

/// Runs `work` until the call is given up; then drops it and returns `Error::Cancelled`.
///
/// Imports that a cancelled call waits in end by themselves: this is only for waits inside the guest, such as a
/// channel between two calls. `work` must be safe to drop at any await.
///
/// # Errors
/// The work's own, or `Error::Cancelled`.
pub async fn until_cancelled<T>(
    call: &ToolCall,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    match select(pin!(work), pin!(call.cancelled())).await {
        Either::Left((done, _)) => done,
        Either::Right(((), _)) => Err(Error::Cancelled),
    }
}

/// Runs `work` as long as the caller is likely to wait; then drops it and returns `None`: the time to answer with how things
/// stand and how to go on. Where no limit is known, that never comes. Given up, it returns `Error::Cancelled`.
///
/// `work` must be safe to drop at any await, and what it has done so far must not be lost with it.
///
/// # Errors
/// The work's own, or `Error::Cancelled`.
pub async fn patiently<T>(
    call: &ToolCall,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<Option<T>, Error> {
    let work = until_cancelled(call, work);
    match select(pin!(work), pin!(impatience(call))).await {
        Either::Left((done, _)) => done.map(Some),
        Either::Right((Ok(()), _)) => Ok(None),
        Either::Right((Err(ended), _)) => Err(ended),
    }
}

/// Waits until the caller's patience is nearly used up. It may grow on the way, when a call is taken up again after a
/// question or becomes a task, so it is looked at again.
async fn impatience(call: &ToolCall) -> Result<(), Error> {
    let mut margin = None;
    loop {
        let Some(left) = call.patience().map(Duration::from_millis) else {
            return std::future::pending().await;
        };
        // A caller in a hurry shall not get its answer before anything was waited for.
        let margin = *margin.get_or_insert_with(|| MARGIN.min(left / 2));
        let rest = left.saturating_sub(margin);
        if rest.is_zero() {
            return Ok(());
        }
        let rest = u64::try_from(rest.as_millis()).unwrap_or(u64::MAX);
        timers::sleep(rest.max(1)).await?;
    }
}

/// Shows this text as the call's state so far.
pub fn show(call: &ToolCall, text: impl Into<String>) {
    call.update(&[Content::Text(text.into())], None);
}
