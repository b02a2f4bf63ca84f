//! One way to the platform: deadlines on everything, retries where they are safe, bounded answers.
//!
//! A request is sent again only if it cannot have taken effect (no connection, `429`) or may take effect twice
//! (`GET`, `DELETE`, `PUT`, `PATCH`). Starting, branching and committing VMs are not: whether the platform honours the
//! idempotency key that goes with them is not documented, and a duplicate VM costs money.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rand::Rng as _;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use reqwest::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::Url;
use uuid::Uuid;

use super::failure::{Asked, failure};
use crate::config::Settings;
use crate::error::{Error, Kind, Result};
use crate::tls;

/// The longest answer that is read.
const MAX_BODY: usize = 16 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const ATTEMPTS: u32 = 4;
const FIRST_DELAY: Duration = Duration::from_millis(250);
const LONGEST_DELAY: Duration = Duration::from_secs(5);
/// A platform that asks for more patience than this gets the error instead.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(30);

/// One request, and what to call it in an error.
pub(crate) struct Call {
    what: String,
    method: Method,
    url: Url,
    body: Option<Value>,
    deadline: Duration,
    authorized: bool,
}

impl Call {
    /// `path`: segments below the base; each is encoded.
    pub(crate) fn new(what: impl Into<String>, method: Method, base: &Url, path: &[&str]) -> Self {
        let mut url = base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        Self {
            what: what.into(),
            method,
            url,
            body: None,
            deadline: Duration::from_secs(60),
            authorized: true,
        }
    }

    pub(crate) fn query(mut self, name: &str, value: impl ToString) -> Self {
        self.url
            .query_pairs_mut()
            .append_pair(name, &value.to_string());
        self
    }

    pub(crate) fn json(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }

    /// How long all attempts may take together; a minute unless said otherwise.
    pub(crate) fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    pub(crate) fn public(mut self) -> Self {
        self.authorized = false;
        self
    }

    fn may_repeat(&self) -> bool {
        matches!(
            self.method,
            Method::GET | Method::HEAD | Method::DELETE | Method::PUT | Method::PATCH
        )
    }
}

/// What one attempt came to.
struct Attempt {
    error: Error,
    /// Whether trying again is both safe and of use.
    again: bool,
    after: Option<Duration>,
}

impl Attempt {
    fn last(error: Error) -> Self {
        Self {
            error,
            again: false,
            after: None,
        }
    }
}

/// The HTTP client with the settings it works by.
#[derive(Clone)]
pub(crate) struct Http {
    client: reqwest::Client,
    settings: Settings,
}

impl Http {
    pub(crate) fn new(settings: Settings) -> Result<Self> {
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls::client_config(settings.tls())?)
            .user_agent(concat!("pi-vers/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            // A redirect could carry the key elsewhere, and turns a POST into a GET.
            .redirect(reqwest::redirect::Policy::none());
        if settings.is_local() {
            builder = builder.no_proxy();
        }
        let client = builder
            .build()
            .map_err(|e| Error::other(format!("the HTTP client cannot be set up: {e}")))?;
        Ok(Self { client, settings })
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The answer's JSON.
    pub(crate) async fn json<T: DeserializeOwned>(&self, call: Call) -> Result<T> {
        let what = call.what.clone();
        let body = self.send(call).await?;
        serde_json::from_slice(&body).map_err(|e| {
            let answer = if body.is_empty() { "an empty answer".to_owned() } else { format!("an answer of {} bytes", body.len()) };
            // The position is said, the text is not: it can hold a key.
            Error::other(format!(
                "{what}: the platform gave {answer} that is not understood (line {}, column {}); check VERS_BASE_URL, or update pi-vers",
                e.line(),
                e.column()
            ))
        })
    }

    /// Only whether it worked.
    pub(crate) async fn unit(&self, call: Call) -> Result<()> {
        self.send(call).await.map(drop)
    }

    async fn send(&self, call: Call) -> Result<Bytes> {
        let late = || {
            Error::timed_out(format!(
                "{}: no answer within {} s; try again",
                call.what,
                call.deadline.as_secs()
            ))
        };
        tokio::time::timeout(call.deadline, self.attempts(&call))
            .await
            .unwrap_or_else(|_| Err(late()))
    }

    async fn attempts(&self, call: &Call) -> Result<Bytes> {
        // One value for all attempts of a call.
        let idempotency_key = Uuid::new_v4().to_string();
        let mut delay = FIRST_DELAY;
        let mut attempt = 1;
        loop {
            let failed = match self.attempt(call, &idempotency_key).await {
                Ok(body) => return Ok(body),
                // The first answer got lost: what was to be deleted is gone.
                Err(failed) if attempt > 1 && gone(call, &failed.error) => return Ok(Bytes::new()),
                Err(failed) => failed,
            };
            if !failed.again || attempt == ATTEMPTS {
                return Err(failed.error);
            }
            let wait = match failed.after {
                Some(after) if after > LONGEST_RETRY_AFTER => return Err(failed.error),
                Some(after) => after,
                None => delay.mul_f64(rand::rng().random_range(0.75..1.25)),
            };
            tracing::debug!(call = %call.what, attempt, ?wait, error = %failed.error, "trying again");
            tokio::time::sleep(wait).await;
            delay = (delay * 2).min(LONGEST_DELAY);
            attempt += 1;
        }
    }

    async fn attempt(&self, call: &Call, idempotency_key: &str) -> Result<Bytes, Attempt> {
        let mut request = self.client.request(call.method.clone(), call.url.clone());
        if call.authorized {
            // Read afresh: somebody may have logged in meanwhile.
            let key = self
                .settings
                .api_key()
                .await
                .map_err(|e| Attempt::last(e.during(&call.what)))?;
            let bearer = zeroize::Zeroizing::new(format!("Bearer {}", key.expose()));
            let mut value = HeaderValue::from_str(&bearer).map_err(|_| {
                Attempt::last(Error::invalid(
                    "the Vers API key cannot be sent in a header",
                ))
            })?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        if call.method != Method::GET {
            request = request.header("x-idempotency-key", idempotency_key);
            // The platform wants to be told that nothing is JSON, too.
            request = request.header(CONTENT_TYPE, "application/json");
            request = request.body(call.body.as_ref().map(Value::to_string).unwrap_or_default());
        }
        let response = request.send().await.map_err(|e| self.transport(call, &e))?;
        let status = response.status();
        let after = response.headers().get(RETRY_AFTER).and_then(retry_after);
        let body = bounded(response, MAX_BODY).await.map_err(|e| match e {
            Some(e) => self.transport(call, &e),
            None => Attempt::last(Error::new(
                Kind::Limit,
                format!("{}: the answer exceeds {} MiB", call.what, MAX_BODY >> 20),
            )),
        })?;
        let asked = match call.method {
            _ if !call.authorized => Asked::Publicly,
            Method::DELETE => Asked::ToDelete,
            _ => Asked::Otherwise,
        };
        match failure(&call.what, asked, status, &body) {
            None => Ok(body),
            Some(error) => {
                let again = match status {
                    StatusCode::TOO_MANY_REQUESTS => true,
                    StatusCode::REQUEST_TIMEOUT
                    | StatusCode::INTERNAL_SERVER_ERROR
                    | StatusCode::BAD_GATEWAY
                    | StatusCode::SERVICE_UNAVAILABLE
                    | StatusCode::GATEWAY_TIMEOUT => call.may_repeat(),
                    _ => false,
                };
                Err(Attempt {
                    error,
                    again,
                    after,
                })
            }
        }
    }

    fn transport(&self, call: &Call, error: &reqwest::Error) -> Attempt {
        let host = call.url.host_str().unwrap_or("the platform");
        if tls::is_certificate_error(error) {
            return Attempt::last(Error::new(
                Kind::Denied,
                format!(
                    "{}: the certificate of {host} is not trusted ({}); name the file of its authority in VERS_TLS_CA",
                    call.what,
                    innermost(error)
                ),
            ));
        }
        let again = error.is_connect() || call.may_repeat();
        let advice = if again {
            "check the network and VERS_BASE_URL"
        } else {
            "whether it was done is not known: look before you try it again"
        };
        let line = format!(
            "{}: cannot reach {host}: {}; {advice}",
            call.what,
            innermost(error)
        );
        Attempt {
            error: Error::unavailable(line),
            again,
            after: None,
        }
    }
}

fn gone(call: &Call, error: &Error) -> bool {
    call.method == Method::DELETE && matches!(error.kind(), Kind::NotFound | Kind::Denied)
}

/// The body, if it is no longer than this; `None` if it is.
pub(crate) async fn bounded(
    mut response: reqwest::Response,
    most: usize,
) -> Result<Bytes, Option<reqwest::Error>> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > most {
            return Err(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// Seconds; the form with a date is not worth a parser, and counts as absent.
fn retry_after(value: &HeaderValue) -> Option<Duration> {
    value
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()
        .map(Duration::from_secs)
}

/// The cause itself: the outer layers only repeat the URL.
pub(crate) fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    crate::error::shown(&cause.to_string())
}
