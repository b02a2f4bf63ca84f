//! `vers:system/http`: requests to granted origins through the host's one egress.
//!
//! The policy judges each hop twice: its URL before the name is looked up, and the address before it
//! is dialled. A secret header is put in by the host and goes only where the grant says.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use pi_vers_policy::{Decision, Grants, Request, SecretUse};
use pi_vers_system::http as egress;
use pi_vers_system::{Error as SystemError, Kind};
use url::Url;
use wasmtime::component::{Accessor, FutureReader, HasSelf, StreamReader};

use super::{stand_in, streams};
use crate::audit::{Auditor, Verdict};
use crate::bindings::vers::harness::types::Error;
use crate::bindings::vers::system::http::{
    HeaderValue, Host, HostWithStore, Request as WitRequest, Response,
};
use crate::guest::{Ask, Guest, Has};

impl Host for Guest {}

/// The policy as the egress asks it, at every hop.
struct Judge {
    /// The URL of the hop that is being judged.
    hop: Mutex<Option<Url>>,
    /// The first hop: judged before the egress began, perhaps by a person.
    first: Url,
    grants: Arc<Grants>,
    auditor: Option<Arc<Auditor>>,
    call: Option<String>,
    method: String,
    secrets: Vec<String>,
}

impl Judge {
    fn decide(&self, request: &Request<'_>) -> Result<(), SystemError> {
        let decision = self.grants.decide(request);
        if let Some(auditor) = &self.auditor {
            let verdict = Verdict::of(&decision);
            auditor.decided(&self.grants, request, &verdict, self.call.as_deref());
        }
        match decision {
            Decision::Allow => Ok(()),
            Decision::Deny(denial) => Err(SystemError::new(Kind::Denied, denial.to_string())),
            Decision::Ask(question) => {
                Err(SystemError::new(Kind::Denied, question.refused.to_string()))
            }
        }
    }
}

impl egress::Judge for Judge {
    fn url(&self, url: &Url) -> Result<(), SystemError> {
        *self.hop.lock().unwrap_or_else(PoisonError::into_inner) = Some(url.clone());
        if *url == self.first {
            return Ok(());
        }
        self.decide(&Request::Http {
            method: &self.method,
            url,
        })?;
        self.secrets.iter().try_for_each(|name| {
            self.decide(&Request::Secret {
                name,
                to: SecretUse::HttpHeader { url },
            })
        })
    }

    fn address(&self, host: &str, address: IpAddr) -> Result<(), SystemError> {
        let hop = self.hop.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(url) = hop.as_ref().filter(|url| url.host_str() == Some(host)) else {
            return Err(SystemError::new(
                Kind::Denied,
                format!("{host} was not judged before its address"),
            ));
        };
        self.decide(&Request::HttpAddress {
            method: &self.method,
            url,
            address,
        })
    }
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
            let ask = Ask::of(accessor)?;
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
            let judge = Judge {
                hop: Mutex::new(None),
                first: url,
                auditor: ask.auditor.clone(),
                call: ask.owner.call().map(str::to_owned),
                grants: ask.grants.clone(),
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
            Ok((ask, response))
        }
        .await;
        match sent {
            Err(why) => Ok(Err(why)),
            Ok((ask, response)) => {
                let (stream, done): (StreamReader<u8>, FutureReader<Result<(), Error>>) = accessor
                    .with(|access| {
                        streams::outgoing_checked(
                            access,
                            ask.owner.clone(),
                            async { Ok(()) },
                            streams::counted(response.body, ask.tally("http")),
                        )
                    })?;
                Ok(Ok(Response {
                    status: response.status,
                    headers: response.headers,
                    url: response.url.to_string(),
                    body: stream,
                    done,
                }))
            }
        }
    }
}
