//! `vers:system/http`: requests to granted origins through the host's one egress.
//!
//! The policy judges each hop twice: its URL before the name is looked up, and the address before it
//! is dialled. A secret header is put in by the host and goes only where the grant says.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt as _};
use futures::{Stream, StreamExt};
use pi_vers_policy::{Request, SecretUse};
use pi_vers_system::http as egress;
use pi_vers_system::secrets::Strainer;
use pi_vers_system::{Error as SystemError, Kind};
use url::Url;
use wasmtime::component::{Accessor, FutureReader, HasSelf, StreamReader};

use super::{stand_in, streams};
use crate::bindings::vers::harness::types::Error;
use crate::bindings::web::vers::system::http::{
    HeaderValue, Host, HostWithStore, Request as WitRequest, Response,
};
use crate::connections::Lease;
use crate::error::Refusal;
use crate::guest::{Ask, Guest, Has};

impl Host for Guest {}

/// The policy as the egress asks it, at every hop.
struct Judge {
    /// The URL of the hop that is being judged.
    hop: Mutex<Option<Url>>,
    /// The first hop: judged before the egress began, perhaps by a person.
    first: Url,
    ask: Arc<Ask>,
    method: String,
    secrets: Vec<String>,
}

impl Judge {
    async fn hop(&self, url: &Url) -> Result<(), Error> {
        self.ask
            .permit(&Request::Http {
                method: &self.method,
                url,
            })
            .await?;
        for name in &self.secrets {
            let to = SecretUse::HttpHeader { url };
            self.ask.permit(&Request::Secret { name, to }).await?;
        }
        Ok(())
    }
}

/// What the policy or the end of the call says, for the egress to hand back.
fn judged(why: Error) -> SystemError {
    let (refusal, message) = super::refusal(why);
    let kind = match refusal {
        Refusal::Cancelled => Kind::Cancelled,
        Refusal::TimedOut => Kind::TimedOut,
        _ => Kind::Denied,
    };
    SystemError::new(kind, message)
}

impl egress::Judge for Judge {
    /// A redirect to where the policy leaves it open is asked about like the request itself.
    fn url<'a>(&'a self, url: &'a Url) -> BoxFuture<'a, Result<(), SystemError>> {
        *self.hop.lock().unwrap_or_else(PoisonError::into_inner) = Some(url.clone());
        async move {
            if *url == self.first {
                return Ok(());
            }
            self.hop(url).await.map_err(judged)
        }
        .boxed()
    }

    /// Nobody is asked about an address: what a name leads to now is nothing a person could know.
    fn address(&self, host: &str, address: IpAddr) -> Result<(), SystemError> {
        let hop = self.hop.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(url) = hop.as_ref().filter(|url| url.host_str() == Some(host)) else {
            return Err(SystemError::new(
                Kind::Denied,
                format!("{host} was not judged before its address"),
            ));
        };
        let request = Request::HttpAddress {
            method: &self.method,
            url,
            address,
        };
        self.ask.permit_unasked(&request).map_err(judged)
    }
}

/// The bytes of an answer: without the values of secrets, when it is the answer to a request that carried one. A server may repeat what it
/// was sent, and the guest may not have it.
fn answer(
    source: pi_vers_system::ByteStream,
    ask: &Ask,
    lease: Lease,
    strained: bool,
) -> impl Stream<Item = Result<Bytes, SystemError>> + Send + 'static + use<> {
    let strainer = strained.then(|| Strainer::new(ask.services.secrets.clone()));
    let state = (Some(source), strainer, lease);
    futures::stream::unfold(state, |(source, mut strainer, lease)| async move {
        let mut source = source?;
        let item = loop {
            match (source.next().await, &mut strainer) {
                (Some(Ok(chunk)), Some(strainer)) => {
                    let clean = strainer.push(&chunk);
                    // All of it may be the beginning of a value.
                    if !clean.is_empty() {
                        break Some(Ok(clean));
                    }
                }
                (Some(item), _) => break Some(item),
                (None, _) => break None,
            }
        };
        match item {
            Some(item) => Some((item, (Some(source), strainer, lease))),
            None => {
                let rest = strainer.as_mut().map(Strainer::finish)?;
                (!rest.is_empty()).then_some((Ok(rest), (None, strainer, lease)))
            }
        }
    })
}

impl HostWithStore<Guest> for HasSelf<Guest> {
    async fn send(
        accessor: &Accessor<Guest, Has>,
        request: WitRequest,
        body: Option<StreamReader<u8>>,
    ) -> wasmtime::Result<Result<Response, Error>> {
        let body = body
            .map(|reader| accessor.with(|access| streams::incoming(access, reader)))
            .transpose()?;
        let sent = async {
            let ask = Arc::new(Ask::of(accessor)?);
            let url: Url = request
                .url
                .parse()
                .map_err(|why| Error::Invalid(format!("the URL is not valid: {why}")))?;
            ask.permit(&Request::Http {
                method: &request.method,
                url: &url,
            })
            .await?;
            let (mut headers, mut secrets) =
                (Vec::with_capacity(request.headers.len()), Vec::new());
            let mut told = Vec::new();
            for header in request.headers {
                told.push((header.name.clone(), stand_in::value(&header.value)));
                headers.push(match header.value {
                    HeaderValue::Plain(value) => egress::Header {
                        name: header.name,
                        value,
                        secret: false,
                    },
                    HeaderValue::Secret(name) => {
                        ask.permit(&Request::Secret {
                            name: &name,
                            to: SecretUse::HttpHeader { url: &url },
                        })
                        .await?;
                        let value = ask.services.secret(&name).await?;
                        secrets.push(name);
                        egress::Header {
                            name: header.name,
                            value,
                            secret: true,
                        }
                    }
                });
            }
            let lease = ask.connections.one()?;
            let strained = !secrets.is_empty();
            let judge = Judge {
                hop: Mutex::new(None),
                first: url,
                ask: ask.clone(),
                method: request.method.clone(),
                secrets,
            };
            let way = egress::Egress::new(judge, egress::Limits::default())?;
            let timeout = request.timeout.map(Duration::from_millis);
            let request = egress::Request {
                method: request.method,
                url: request.url,
                headers,
                timeout,
            };
            let response = match &ask.services.stand_in {
                Some(played) => {
                    ask.race(stand_in::send(played, &request, told, body))
                        .await?
                }
                None => {
                    let body = body.map(|body| streams::stream(body).map(Ok).boxed());
                    ask.race(way.send(request, body)).await?
                }
            };
            Ok((ask, response, lease, strained))
        }
        .await;
        match sent {
            Err(why) => Ok(Err(why)),
            Ok((ask, response, lease, strained)) => {
                let clean = |text: String| match strained {
                    true => ask.services.secrets.redact(&text).into_owned(),
                    false => text,
                };
                let bytes = answer(response.body, &ask, lease, strained);
                let headers = response.headers.into_iter();
                let headers = headers.map(|(name, value)| (name, clean(value))).collect();
                let (stream, done): (StreamReader<u8>, FutureReader<Result<(), Error>>) = accessor
                    .with(|access| {
                        streams::outgoing_checked(
                            access,
                            ask.owner.clone(),
                            async { Ok(()) },
                            streams::counted(bytes, ask.tally("http")),
                        )
                    })?;
                Ok(Ok(Response {
                    status: response.status,
                    headers,
                    url: clean(response.url.to_string()),
                    body: stream,
                    done,
                }))
            }
        }
    }
}
