//! The one HTTP egress (signatures first; the bodies follow).
use crate::{ByteStream, Error};
use std::net::IpAddr;
use std::time::Duration;
use url::Url;

/// Decides; called for every hop. `(url_fn, address_fn)` is a judge too.
pub trait Judge: Send + Sync + 'static {
    /// Before anything is looked up or sent.
    fn url(&self, url: &Url) -> Result<(), Error>;
    /// Each address that `host` resolved to (or is); only those that pass are dialled.
    fn address(&self, host: &str, address: IpAddr) -> Result<(), Error>;
}

impl<U, A> Judge for (U, A)
where
    U: Fn(&Url) -> Result<(), Error> + Send + Sync + 'static,
    A: Fn(&str, IpAddr) -> Result<(), Error> + Send + Sync + 'static,
{
    fn url(&self, url: &Url) -> Result<(), Error> {
        self.0(url)
    }
    fn address(&self, host: &str, address: IpAddr) -> Result<(), Error> {
        self.1(host, address)
    }
}

/// `Denied` unless the address is a public unicast one: no loopback, private, link-local, metadata, …
pub fn public_address(_host: &str, _address: IpAddr) -> Result<(), Error> {
    unimplemented!()
}

/// Bounds of one exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Limits {
    pub request_bytes: u64,
    pub response_bytes: u64,
    pub header_bytes: usize,
    pub redirects: usize,
    pub connect: Duration,
    pub idle: Duration,
    pub timeout: Duration,
}

/// A request header; a secret one is dropped when a redirect changes the origin.
#[derive(Clone)]
#[allow(missing_docs)]
pub struct Header {
    pub name: String,
    pub value: String,
    pub secret: bool,
}

/// A request without its body.
#[derive(Clone)]
#[allow(missing_docs)]
pub struct Request {
    pub method: String,
    pub url: String,
    pub headers: Vec<Header>,
    pub timeout: Option<Duration>,
}

/// The answer, its body still coming.
#[allow(missing_docs)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub url: Url,
    pub body: ByteStream,
}

/// The way out for one extension: its judge, its connections. Cheap to clone.
#[derive(Clone)]
pub struct Egress(());

impl Egress {
    /// With the limits' defaults unless given.
    pub fn new(_judge: impl Judge, _limits: Limits) -> Result<Self, Error> {
        unimplemented!()
    }
    /// Returns once the headers are here; dropping the future or the body ends the exchange.
    pub async fn send(
        &self,
        _request: Request,
        _body: Option<ByteStream>,
    ) -> Result<Response, Error> {
        unimplemented!()
    }
}
