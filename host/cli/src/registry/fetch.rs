//! Bytes from elsewhere: bounded in size, time and hops, and from nowhere the user did not name.
//!
//! The threat: a server that sends without end, slowly or something else, and one that redirects to this machine or to a private network.
//! So every hop is judged: it is encrypted, or this machine from beginning to end; and only the host that the user named may have an address
//! that is not public.

use std::path::Path;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use pi_vers_host::visible;
use pi_vers_system::http::{Egress, Header, Judge, Limits, Request, public_address};
use pi_vers_system::{Error, Kind};
use std::net::IpAddr;
use url::Url;

use super::source::{allowed, is_loopback};
use crate::failure::{Code, Failure};

/// Larger components are not loaded either.
pub(super) const LARGEST: usize = pi_vers_host::LARGEST;
const REDIRECTS: usize = 5;
const TOTAL: Duration = Duration::from_secs(300);
const IDLE: Duration = Duration::from_secs(30);

/// Judges the hops of one fetch.
struct Hops {
    first: Url,
}

impl Hops {
    fn leads_to(&self, url: &Url) -> Result<(), Error> {
        let refused = |why: String| {
            Error::new(
                Kind::Denied,
                format!("{} leads to {}: {why}", self.first, visible(url.as_str())),
            )
        };
        allowed(url).map_err(refused)?;
        if is_loopback(url) != is_loopback(&self.first) {
            return Err(refused(
                "from this machine to elsewhere, or the other way round".into(),
            ));
        }
        Ok(())
    }
}

impl Judge for Hops {
    fn url<'a>(&'a self, url: &'a Url) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(std::future::ready(self.leads_to(url)))
    }

    fn address(&self, host: &str, address: IpAddr) -> Result<(), Error> {
        // The user named it, and may have it in a private network.
        if self.first.host_str() == Some(host) {
            return match address.is_loopback() == is_loopback(&self.first) {
                true => Ok(()),
                false => Err(Error::new(
                    Kind::Denied,
                    format!("the name {host} stands for this machine"),
                )),
            };
        }
        match is_loopback(&self.first) && address.is_loopback() {
            true => Ok(()),
            false => public_address(host, address),
        }
    }
}

/// An answer, whole.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// Why something could not be had.
pub(super) fn failed(url: &Url, why: &dyn std::fmt::Display) -> Failure {
    Failure::new(
        Code::Platform,
        "fetch",
        format!("{} cannot be fetched: {why}", visible(url.as_str())),
    )
}

/// Asks for a URL; at most this many bytes of a body.
pub(super) async fn get(
    url: &Url,
    accept: Option<&str>,
    token: Option<&str>,
    most: usize,
) -> Result<Answer, Failure> {
    let limits = Limits {
        response_bytes: u64::try_from(most).unwrap_or(u64::MAX),
        redirects: REDIRECTS,
        total: TOTAL,
        idle: IDLE,
        ..Limits::default()
    };
    let fault = |why: Error| failed(url, &why);
    let way = Egress::new(Hops { first: url.clone() }, limits).map_err(fault)?;
    let mut headers = Vec::new();
    if let Some(accept) = accept {
        headers.push(Header {
            name: "accept".into(),
            value: accept.to_owned(),
            secret: false,
        });
    }
    if let Some(token) = token {
        // It goes to the registry and to nobody that it redirects to.
        headers.push(Header {
            name: "authorization".into(),
            value: format!("Bearer {token}"),
            secret: true,
        });
    }
    let request = Request {
        method: "GET".into(),
        url: url.to_string(),
        headers,
        timeout: None,
    };
    let response = way.send(request, None).await.map_err(fault)?;
    let said = response
        .headers
        .iter()
        .find(|(name, _)| name == "content-length")
        .and_then(|(_, value)| value.parse::<u64>().ok());
    let mut body = response.body;
    let mut bytes = Vec::new();
    while let Some(chunk) = body.next().await {
        bytes.extend_from_slice(&chunk.map_err(fault)?);
        if bytes.len() > most {
            return Err(failed(url, &format!("it has more than {most} bytes")));
        }
    }
    if said.is_some_and(|said| said != bytes.len() as u64) {
        return Err(failed(url, &"it broke off"));
    }
    Ok(Answer {
        status: response.status,
        headers: response.headers,
        body: bytes,
    })
}

/// The body of an answer that has one.
pub(super) async fn body(url: &Url, most: usize) -> Result<Vec<u8>, Failure> {
    let answer = get(url, None, None, most).await?;
    match answer.status {
        200 => Ok(answer.body),
        status => Err(failed(url, &format!("HTTP {status}"))),
    }
}

/// A file of this machine, as far as a component goes.
pub(super) fn file(path: &Path) -> Result<Vec<u8>, Failure> {
    use std::io::Read as _;
    let shown = visible(&path.display().to_string());
    let wrong = |why: &dyn std::fmt::Display| {
        Failure::new(Code::Usage, "file", format!("{shown} can't be read: {why}"))
            .next("check the path")
    };
    let file = std::fs::File::open(path).map_err(|why| wrong(&why))?;
    if !file.metadata().map_err(|why| wrong(&why))?.is_file() {
        return Err(wrong(&"it is no file"));
    }
    let mut bytes = Vec::new();
    let most = u64::try_from(LARGEST).unwrap_or(u64::MAX);
    file.take(most + 1)
        .read_to_end(&mut bytes)
        .map_err(|why| wrong(&why))?;
    match bytes.len() > LARGEST {
        true => Err(wrong(&"it is larger than a component may be")),
        false => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn hops(first: &str) -> Hops {
        Hops {
            first: first.parse().unwrap(),
        }
    }

    #[test]
    fn a_redirect_leads_neither_to_this_machine_nor_out_of_the_encryption() {
        let public = hops("https://example.com/a");
        for bad in [
            "http://example.com/a",
            "https://127.0.0.1/a",
            "http://localhost/a",
            "https://[::1]/a",
            "https://u@example.com/",
        ] {
            assert!(public.leads_to(&bad.parse().unwrap()).is_err(), "{bad}");
        }
        assert!(
            public
                .leads_to(&"https://cdn.example.net/b".parse().unwrap())
                .is_ok()
        );
        let private: IpAddr = "10.0.0.7".parse().unwrap();
        let own: IpAddr = "127.0.0.1".parse().unwrap();
        assert!(
            public.address("example.com", private).is_ok(),
            "named by the user"
        );
        assert!(public.address("cdn.example.net", private).is_err());
        assert!(public.address("cdn.example.net", own).is_err());
        assert!(
            public.address("example.com", own).is_err(),
            "a name of this machine"
        );
        let local = hops("http://127.0.0.1:5000/a");
        assert!(
            local
                .leads_to(&"https://example.com/".parse().unwrap())
                .is_err()
        );
        assert!(
            local
                .leads_to(&"http://localhost:1/".parse().unwrap())
                .is_ok()
        );
    }
}
