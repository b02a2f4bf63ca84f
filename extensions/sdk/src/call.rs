//! Work on behalf of one tool call.

use std::future::Future;
use std::pin::pin;

use futures::future::{Either, select};
use serde::de::DeserializeOwned;

use crate::{Content, Error, ToolCall, args};

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

/// Shows this text as the call's state so far.
pub fn show(call: &ToolCall, text: impl Into<String>) {
    call.update(&[Content::Text(text.into())], None);
}
