//! Bodies: bounded in size, and in the time between two pieces.

use futures::StreamExt as _;
use tokio::time::{Instant, timeout_at};
use url::Url;

use super::{Limits, failed, shown};
use crate::{ByteStream, Error, Kind};

/// The answer's body, until it ends, breaks off, stands still or is too large.
pub(super) fn stream(
    response: reqwest::Response,
    from: Url,
    limits: &Limits,
    deadline: Instant,
) -> ByteStream {
    let idle = limits.idle;
    let chunks = Box::pin(response.bytes_stream());
    let chunks = futures::stream::unfold(Some(chunks), move |chunks| {
        let from = from.clone();
        async move {
            let mut chunks = chunks?;
            let late = || {
                Error::new(
                    Kind::TimedOut,
                    format!("the answer of {} stopped coming", shown(&from)),
                )
            };
            match timeout_at(deadline.min(Instant::now() + idle), chunks.next()).await {
                Ok(Some(Ok(chunk))) => Some((Ok(chunk), Some(chunks))),
                Ok(Some(Err(error))) => Some((Err(failed(&from, error)), None)),
                Ok(None) => None,
                Err(_) => Some((Err(late()), None)),
            }
        }
    });
    bounded(chunks.boxed(), limits.response_bytes)
}

/// The stream until it is over its limit; then an error, and no more of it.
pub(super) fn bounded(stream: ByteStream, limit: u64) -> ByteStream {
    let bounded = stream.scan((0_u64, false), move |(passed, over), chunk| {
        if *over {
            return futures::future::ready(None);
        }
        *passed += chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        *over = *passed > limit;
        let error = || {
            Error::new(
                Kind::Limit,
                format!("the body is larger than {limit} bytes"),
            )
        };
        futures::future::ready(Some(if *over { Err(error()) } else { chunk }))
    });
    bounded.boxed()
}
