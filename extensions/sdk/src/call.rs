//! Work on behalf of one tool call.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use futures::future::{Either, select};
use serde::de::DeserializeOwned;

use crate::harness::timers;
use crate::{Content, Error, ToolCall, args};

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
