//! HTTP without a network.

use std::rc::Rc;

use serde_json::json;

use super::Kit;
use super::streams::{FutureReader, StreamReader, pipe};
use super::world::{wait_for, world};
use crate::Error;
use crate::bindings::vers::system::http::Request;

type Answer = Rc<dyn Fn(&Request, &[u8]) -> Result<Answered, Error>>;

#[derive(Default)]
pub(crate) struct Http {
    answer: Option<Answer>,
}

/// What a server answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answered {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answered {
    /// With this status and body.
    #[must_use]
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
        }
    }
}

/// The answer, its body still coming.
#[derive(Debug)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: Vec<(String, String)>,
    /// The address after redirects.
    pub url: String,
    /// The body.
    pub body: StreamReader<u8>,
    /// Resolves when the body has ended, well or not.
    pub done: FutureReader<Result<(), Error>>,
}

/// Sends a request and returns once the headers are here.
pub async fn send(request: Request, body: Option<StreamReader<u8>>) -> Result<Response, Error> {
    wait_for(
        "http.send",
        json!({ "method": request.method, "url": request.url }),
    )
    .await?;
    let sent = match body {
        Some(body) => body.collect().await,
        None => Vec::new(),
    };
    let answer = world(|world| world.http.answer.clone());
    let Some(answer) = answer else {
        return Err(Error::Unavailable(format!(
            "no server answers {} in this test",
            request.url
        )));
    };
    let answered = answer(&request, &sent)?;
    let (writer, body) = pipe();
    writer.push(answered.body);
    Ok(Response {
        status: answered.status,
        headers: answered.headers,
        url: request.url,
        body,
        done: FutureReader::ready(Ok(())),
    })
}

impl Kit {
    /// Answers every HTTP request, which comes with its body.
    pub fn http(&self, answer: impl Fn(&Request, &[u8]) -> Result<Answered, Error> + 'static) {
        world(|world| world.http.answer = Some(Rc::new(answer)));
    }
}
