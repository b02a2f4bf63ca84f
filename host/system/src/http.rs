//! The one way out by HTTP.
//!
//! The threat: an allowed server that redirects to this machine or to a cloud's metadata, a name that resolves to a
//! public address when it is judged and to 127.0.0.1 when it is dialled, a secret that follows a redirect to a stranger,
//! an answer without end.
//!
//! So redirects are followed here and not in the library: every hop's URL goes to the [`Judge`] before anything is
//! looked up, every address its name resolves to goes to the judge as well, and only those that passed are handed to the
//! connector: what was judged is what is dialled. There are no proxies (a proxy would resolve names itself), no cookies,
//! no decompression. Headers, bodies, hops and times are bounded.

mod address;
mod body;
mod redirect;
mod target;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::{Instant, timeout_at};
use url::Url;

use crate::{ByteStream, Error, Kind};
pub use address::public_address;
use address::{JudgedResolver, Lookup};
use target::shown;

/// Headers that say how a message is framed or whom it is for: the egress sets them, and a wrong one could pass by a
/// judge or smuggle a second request.
const RESERVED: [&str; 10] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Decides where requests may go. A pair of functions is a judge too.
pub trait Judge: Send + Sync + 'static {
    /// Asked for every hop, before anything is looked up or sent. May take its time: a person may be asked. The
    /// exchange's time limit goes on meanwhile.
    fn url<'a>(&'a self, url: &'a Url) -> BoxFuture<'a, Result<(), Error>>;
    /// Asked for every address that `host` resolved to, or is. Only those that pass are dialled. IPv4 addresses in the
    /// clothes of IPv6 come as IPv4.
    fn address(&self, host: &str, address: IpAddr) -> Result<(), Error>;
}

impl<U, A> Judge for (U, A)
where
    U: Fn(&Url) -> Result<(), Error> + Send + Sync + 'static,
    A: Fn(&str, IpAddr) -> Result<(), Error> + Send + Sync + 'static,
{
    fn url<'a>(&'a self, url: &'a Url) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(std::future::ready(self.0(url)))
    }

    fn address(&self, host: &str, address: IpAddr) -> Result<(), Error> {
        self.1(host, address)
    }
}

/// Bounds of an exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request's body.
    pub request_bytes: u64,
    /// Bytes of an answer's body.
    pub response_bytes: u64,
    /// Bytes of the headers, of each direction.
    pub header_bytes: u32,
    /// Redirects followed.
    pub redirects: usize,
    /// For name, connection and TLS.
    pub connect: Duration,
    /// Between two pieces of an answer's body.
    pub idle: Duration,
    /// For everything, the body included; a request's own timeout can only be shorter.
    pub total: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_bytes: 64 << 20,
            response_bytes: 64 << 20,
            header_bytes: 64 << 10,
            redirects: 10,
            connect: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            total: Duration::from_secs(600),
        }
    }
}

/// A request's header. `Debug` does not show a secret one's value.
#[derive(Clone)]
pub struct Header {
    /// The name, in any case.
    pub name: String,
    /// The value.
    pub value: String,
    /// Whether the value is a secret: then it goes to the first origin only.
    pub secret: bool,
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {}",
            self.name,
            if self.secret { "…" } else { &self.value }
        )
    }
}

/// A request without its body.
#[derive(Debug, Clone)]
pub struct Request {
    /// `GET` and the like.
    pub method: String,
    /// `http` or `https`, absolute, without user and password.
    pub url: String,
    /// Not those that say how the message is framed, and not `host`.
    pub headers: Vec<Header>,
    /// For the whole exchange, the answer's body included.
    pub timeout: Option<Duration>,
}

/// The answer, its body still coming.
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Names in lower case; bytes that are no UTF-8 are replaced.
    pub headers: Vec<(String, String)>,
    /// The address after redirects.
    pub url: Url,
    /// Ends with an error if the answer breaks off, is too large, or takes too long. Dropping it ends the exchange.
    pub body: ByteStream,
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("status", &self.status)
            .field("url", &shown(&self.url))
            .finish_non_exhaustive()
    }
}

/// The way out for one extension: its judge, its connections. Cheap to clone.
#[derive(Clone)]
pub struct Egress(Arc<Inner>);

struct Inner {
    client: reqwest::Client,
    judge: Arc<dyn Judge>,
    limits: Limits,
}

impl fmt::Debug for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Egress")
            .field("limits", &self.0.limits)
            .finish_non_exhaustive()
    }
}

impl Egress {
    /// A way out that leads where the judge lets it.
    pub fn new(judge: impl Judge, limits: Limits) -> Result<Self, Error> {
        Self::with_lookup(judge, limits, address::system_lookup())
    }

    fn with_lookup(judge: impl Judge, limits: Limits, lookup: Lookup) -> Result<Self, Error> {
        let judge: Arc<dyn Judge> = Arc::new(judge);
        let client = reqwest::Client::builder()
            .dns_resolver(JudgedResolver::new(judge.clone(), lookup))
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .connect_timeout(limits.connect)
            .http2_max_header_list_size(limits.header_bytes)
            .user_agent(concat!("pi-vers/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| {
                Error::new(
                    Kind::Other,
                    format!("setting up HTTP failed: {}", chain(&error)),
                )
            })?;
        Ok(Self(Arc::new(Inner {
            client,
            judge,
            limits,
        })))
    }

    /// Sends a request, follows redirects, and returns once the headers of the answer are here. Dropping the future ends
    /// the exchange.
    ///
    /// A body is sent once: a redirect that wants it again (307, 308) is an error that names the target's origin.
    ///
    /// # Errors
    /// What the judge said; `Invalid` for a malformed request; `Limit`, `TimedOut`, or `Unavailable`.
    pub async fn send(
        &self,
        request: Request,
        body: Option<ByteStream>,
    ) -> Result<Response, Error> {
        let total = request
            .timeout
            .unwrap_or(Duration::MAX)
            .min(self.0.limits.total);
        let deadline = Instant::now() + total.min(Duration::from_secs(365 * 86_400));
        let method = Method::from_bytes(request.method.as_bytes())
            .ok()
            .filter(|method| *method != Method::CONNECT)
            .ok_or_else(|| {
                Error::new(
                    Kind::Invalid,
                    format!(
                        "`{}` is no HTTP method to use here",
                        request.method.escape_debug()
                    ),
                )
            })?;
        let url = target::parse(&request.url)?;
        let headers = self.headers(request.headers)?;
        let first = shown(&url);
        let exchange = Box::pin(self.follow(method, url, headers, body, deadline));
        timeout_at(deadline, exchange).await.map_err(|_| {
            Error::new(
                Kind::TimedOut,
                format!("no answer from {first} within {total:?}"),
            )
        })?
    }

    /// One hop after another, each judged.
    async fn follow(
        &self,
        mut method: Method,
        mut url: Url,
        mut headers: HeaderMap,
        mut body: Option<ByteStream>,
        deadline: Instant,
    ) -> Result<Response, Error> {
        let limits = &self.0.limits;
        let had_body = body.is_some();
        for _ in 0..=limits.redirects {
            self.judge(&url).await?;
            let mut request = self
                .0
                .client
                .request(method.clone(), url.clone())
                .headers(headers.clone());
            if let Some(body) = body.take() {
                request = request.body(reqwest::Body::wrap_stream(body::bounded(
                    body,
                    limits.request_bytes,
                )));
            }
            let response = request.send().await.map_err(|error| failed(&url, error))?;
            let Some(hop) = redirect::next(&response, &url, &method)? else {
                return self.response(response, url, deadline);
            };
            if had_body && hop.method == method && method != Method::GET && method != Method::HEAD {
                let message = format!(
                    "{} wants the body to be sent again to {}; send the request there",
                    shown(&url),
                    hop.url.origin().ascii_serialization()
                );
                return Err(Error::new(Kind::Other, message));
            }
            if hop.url.origin() != url.origin() {
                redirect::drop_secrets(&mut headers);
            }
            if hop.method != method {
                redirect::drop_content(&mut headers);
            }
            (url, method) = (hop.url, hop.method);
        }
        Err(Error::new(
            Kind::Limit,
            format!(
                "more than {} redirects, the last to {}",
                limits.redirects,
                shown(&url)
            ),
        ))
    }

    async fn judge(&self, url: &Url) -> Result<(), Error> {
        self.0.judge.url(url).await?;
        // An address in the URL is not resolved, so the resolver does not see it.
        let address = match url.host() {
            Some(url::Host::Ipv4(address)) => IpAddr::V4(address),
            Some(url::Host::Ipv6(address)) => IpAddr::V6(address),
            _ => return Ok(()),
        };
        self.0
            .judge
            .address(url.host_str().unwrap_or_default(), address.to_canonical())
    }

    fn headers(&self, headers: Vec<Header>) -> Result<HeaderMap, Error> {
        let mut map = HeaderMap::new();
        let mut bytes = 0;
        for header in headers {
            let invalid = |why| {
                Error::new(
                    Kind::Invalid,
                    format!("the header `{}` {why}", header.name.escape_debug()),
                )
            };
            let name = HeaderName::from_bytes(header.name.as_bytes())
                .map_err(|_| invalid("has no valid name"))?;
            if RESERVED.contains(&name.as_str()) {
                return Err(invalid("is set by the host"));
            }
            let mut value = HeaderValue::from_bytes(header.value.as_bytes())
                .map_err(|_| invalid("has control characters in its value"))?;
            value.set_sensitive(header.secret);
            bytes += name.as_str().len() + value.len();
            if bytes > self.0.limits.header_bytes as usize {
                return Err(Error::new(
                    Kind::Limit,
                    format!(
                        "the headers are larger than {} bytes",
                        self.0.limits.header_bytes
                    ),
                ));
            }
            map.try_append(name, value)
                .map_err(|_| Error::new(Kind::Limit, "there are too many headers"))?;
        }
        Ok(map)
    }

    fn response(
        &self,
        response: reqwest::Response,
        url: Url,
        deadline: Instant,
    ) -> Result<Response, Error> {
        let limits = &self.0.limits;
        let size: usize = response
            .headers()
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len())
            .sum();
        if size > limits.header_bytes as usize {
            return Err(Error::new(
                Kind::Limit,
                format!(
                    "the headers of {} are larger than {} bytes",
                    shown(&url),
                    limits.header_bytes
                ),
            ));
        }
        // The answer to HEAD announces what it does not bring; its stream is empty.
        let headers = response
            .headers()
            .iter()
            .map(|(name, value)| {
                (
                    name.as_str().to_owned(),
                    String::from_utf8_lossy(value.as_bytes()).into_owned(),
                )
            })
            .collect();
        let status = response.status().as_u16();
        let body = body::stream(response, url.clone(), limits, deadline);
        Ok(Response {
            status,
            headers,
            url,
            body,
        })
    }
}

/// Our own error if one is at the bottom of it (the judge's, the body's), else what the library says.
fn failed(url: &Url, error: reqwest::Error) -> Error {
    let error = error.without_url();
    let mut source = std::error::Error::source(&error);
    while let Some(inner) = source {
        if let Some(ours) = inner.downcast_ref::<Error>() {
            return ours.clone();
        }
        source = inner.source();
    }
    let kind = match error.is_timeout() {
        true => Kind::TimedOut,
        false if error.is_builder() => Kind::Invalid,
        false => Kind::Unavailable,
    };
    Error::new(
        kind,
        format!("the exchange with {} failed: {}", shown(url), chain(&error)),
    )
}

/// An error and its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(&format!(": {inner}"));
        source = inner.source();
    }
    text
}
