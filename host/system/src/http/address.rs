//! Names to addresses, each address judged, and the addresses that are public.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use futures::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::Judge;
use crate::{Error, Kind};

/// How names are looked up; tests have their own.
pub(super) type Lookup =
    Arc<dyn Fn(String) -> BoxFuture<'static, std::io::Result<Vec<IpAddr>>> + Send + Sync>;

pub(super) fn system_lookup() -> Lookup {
    Arc::new(|host| {
        Box::pin(async move {
            let found = tokio::net::lookup_host((host.as_str(), 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    })
}

/// Gives the connector the addresses that passed the judge, and no others.
pub(super) struct JudgedResolver {
    judge: Arc<dyn Judge>,
    lookup: Lookup,
}

impl JudgedResolver {
    pub(super) fn new(judge: Arc<dyn Judge>, lookup: Lookup) -> Self {
        Self { judge, lookup }
    }
}

impl Resolve for JudgedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (judge, host) = (self.judge.clone(), name.as_str().to_owned());
        let found = (self.lookup)(host.clone());
        Box::pin(async move {
            let unknown = |why: &str| {
                Error::new(
                    Kind::Unavailable,
                    format!("the name `{host}` cannot be resolved: {why}"),
                )
            };
            let found = found.await.map_err(|error| unknown(&error.to_string()))?;
            let mut refused = unknown("it has no address");
            let mut passed = Vec::new();
            for address in found {
                match judge.address(&host, address.to_canonical()) {
                    Ok(()) => passed.push(SocketAddr::new(address, 0)),
                    Err(error) => refused = error,
                }
            }
            match passed.is_empty() {
                true => Err(refused.into()),
                false => Ok(Box::new(passed.into_iter()) as Addrs),
            }
        })
    }
}

/// A judge's part for most: `Denied` unless the address is a public one. Not public are this machine, private and
/// link-local networks, the metadata services of clouds, and all that wraps such an address.
pub fn public_address(host: &str, address: IpAddr) -> Result<(), Error> {
    let public = match address.to_canonical() {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    };
    if public {
        return Ok(());
    }
    let message = format!(
        "`{}` is at {address}, which is not a public address",
        host.escape_debug()
    );
    Err(Error::new(Kind::Denied, message))
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, d] = address.octets();
    match (a, b, c, d) {
        // This network, private, loopback, link-local; shared by carriers (some clouds' metadata too).
        (0 | 10 | 127, ..)
        | (169, 254, ..)
        | (172, 16..=31, ..)
        | (192, 168, ..)
        | (100, 64..=127, ..) => false,
        // Protocol assignments, documentation, benchmarks, the relay of 6to4.
        (192, 0, 0 | 2, _)
        | (198, 18..=19, ..)
        | (198, 51, 100, _)
        | (203, 0, 113, _)
        | (192, 88, 99, _) => false,
        // Azure's host, which answers to virtual machines only.
        (168, 63, 129, 16) => false,
        // Multicast, reserved, broadcast.
        (224.., ..) => false,
        _ => true,
    }
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match address.segments() {
        // NAT64: how hosts without IPv4 reach it.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        // Teredo and other assignments, documentation, 6to4.
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] | [0x2002, ..] => {
            false
        }
        // All that is given out to the world.
        [0x2000..=0x3fff, ..] => true,
        _ => false,
    }
}
