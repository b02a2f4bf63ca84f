//! HTTP patterns and addresses: which URLs an extension may ask for, and where they may lead.
//!
//! A pattern is `https://api.example.com/v1/*`: scheme, host, port and path as in a URL. `*.` before the host stands for
//! exactly one label; `/*` at the end for any path below, with any query; without it path and query are exact.
//! Methods may stand before it: `GET,HEAD https://…`. Patterns are written in their normal form (lower case,
//! punycode, no default port), so that what a reader sees is what is compared.
//!
//! Requests are matched as parsed URLs, field by field: text matching falls to `https://api.example.com@evil.com`,
//! `evil-example.com`, `2130706433` and friends. Encoded slashes and dots in a path are refused, since servers
//! disagree about them.
//!
//! A granted name may lead to a private address (DNS rebinding, metadata services). So each address is judged before
//! it is dialled: everything but public unicast is refused, unless the very pattern that allows the URL names the
//! address: as its host, as `localhost`, or in `{ url = …, addresses = ["10.1.0.0/16"] }`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

/// One HTTP rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HttpRule {
    pub(crate) source: String,
    pub(crate) addresses: Vec<Network>,
    methods: Vec<String>,
    /// Host, port and the path, without the stars.
    url: Url,
    one_label: bool,
    below: bool,
}

/// A block of addresses: `10.0.0.0/8`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (
                address.parse::<IpAddr>().ok()?,
                Some(bits.parse::<u8>().ok()?),
            ),
            None => (text.parse::<IpAddr>().ok()?, None),
        };
        let most = if address.is_ipv4() { 32 } else { 128 };
        Some(Self {
            address,
            bits: bits.unwrap_or(most),
        })
        .filter(|network| network.bits <= most)
    }

    fn contains(&self, ip: IpAddr) -> bool {
        let differ = |a: u128, b: u128, width: u32| {
            (a ^ b)
                .checked_shr(width - u32::from(self.bits))
                .unwrap_or(0)
                != 0
        };
        match (self.address, ip) {
            (IpAddr::V4(a), IpAddr::V4(b)) => !differ(u32::from(a).into(), u32::from(b).into(), 32),
            (IpAddr::V6(a), IpAddr::V6(b)) => !differ(a.into(), b.into(), 128),
            _ => false,
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

/// A URL in its normal form, `http` or `https`, with a host and nothing that hides.
fn plain_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| {
        format!("expected a URL such as \"https://api.example.com/v1/*\": {error}")
    })?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err("expected a URL that begins with https:// or http://".into());
    }
    if !url.username().is_empty()
        || url.password().is_some()
        || url.query().is_some()
        || url.fragment().is_some()
    {
        return Err("a pattern has no user, password, query or fragment".into());
    }
    // The URL standard allows a star in a name; here it would look like a pattern.
    if url.host_str().is_some_and(|host| host.contains('*')) {
        return Err("`*` cannot stand in this host".into());
    }
    Ok(url)
}

impl HttpRule {
    /// Reads a pattern; the error says what was expected.
    pub(crate) fn parse(source: &str, addresses: Vec<Network>) -> Result<Self, String> {
        let (methods, text) = match source.rsplit_once(' ') {
            Some((methods, text)) => (methods.trim().split(',').map(str::to_owned).collect(), text),
            None => (Vec::new(), source),
        };
        if methods.iter().any(|method: &String| {
            method.is_empty() || !method.bytes().all(|b| b.is_ascii_uppercase())
        }) {
            return Err(
                "expected methods in capitals before the URL: \"GET,HEAD https://…\"".into(),
            );
        }
        let one_label = text.contains("://*.");
        let bare = text.replacen("://*.", "://", 1);
        let (stem, below) = match bare.strip_suffix("/*") {
            Some(stem) => (format!("{stem}/"), true),
            None => (bare, false),
        };
        if stem.contains('*') {
            return Err(
                "`*` stands for one label (https://*.example.com/…) or ends the path (…/v1/*)"
                    .into(),
            );
        }
        let url = plain_url(&stem)?;
        if url.as_str() != stem {
            let any = if below {
                ""
            } else {
                " exactly, or with * after it for all below"
            };
            return Err(format!(
                "write it in its normal form: {}{any}",
                url.as_str()
            ));
        }
        let labels = |name: &str| name.split('.').filter(|label| !label.is_empty()).count();
        match url.host() {
            Some(Host::Domain(name)) if name.ends_with('.') => {
                return Err("leave out the dot at the host's end".into());
            }
            Some(Host::Domain(name)) if one_label && labels(name) < 2 => {
                return Err(format!("*.{name} would match a whole top-level domain"));
            }
            Some(Host::Ipv4(_) | Host::Ipv6(_)) if one_label => {
                return Err("an address has no labels".into());
            }
            _ => {}
        }
        if let Some(why) = ambiguous(url.path()) {
            return Err(format!("the path has {why}"));
        }
        Ok(Self {
            source: source.to_owned(),
            addresses,
            methods,
            url,
            one_label,
            below,
        })
    }

    /// Whether this rule allows the request, wherever its name leads.
    pub(crate) fn matches(&self, method: &str, url: &Url) -> bool {
        let host = match (self.url.host(), url.host()) {
            (Some(Host::Domain(granted)), Some(Host::Domain(asked))) if self.one_label => asked
                .split_once('.')
                .is_some_and(|(label, parent)| !label.is_empty() && parent == granted),
            (granted, asked) => granted.is_some() && granted == asked,
        };
        let path = match self.below {
            // Beneath `/` there is nothing to climb out of.
            true if self.url.path() == "/" => true,
            true => url.path().starts_with(self.url.path()) && ambiguous(url.path()).is_none(),
            false => url.path() == self.url.path() && url.query().is_none(),
        };
        host && path
            && self.url.scheme() == url.scheme()
            && self.url.port_or_known_default() == url.port_or_known_default()
            && (self.methods.is_empty() || self.methods.iter().any(|granted| granted == method))
    }

    /// Whether the rule names this address, so that it is allowed though it is not public.
    pub(crate) fn names(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        let by_host = match self.url.host() {
            Some(Host::Ipv4(host)) => IpAddr::V4(host) == ip,
            Some(Host::Ipv6(host)) => IpAddr::V6(host).to_canonical() == ip,
            Some(Host::Domain(name)) => name == "localhost" && !self.one_label && ip.is_loopback(),
            None => false,
        };
        by_host || self.addresses.iter().any(|network| network.contains(ip))
    }
}

/// What no grant can make safe in a URL.
pub(crate) fn refused(url: &Url) -> Option<&'static str> {
    if !matches!(url.scheme(), "http" | "https") {
        return Some("only http and https are spoken");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Some("a URL may not carry a user name or password");
    }
    None
}

/// Parts of a path that servers read in different ways, so that a prefix means nothing.
pub(crate) fn ambiguous(path: &str) -> Option<&'static str> {
    let lower = path.to_ascii_lowercase();
    let encoded = ["%2f", "%5c", "%2e", "%00", "%25", "%0a", "%0d", "%3b"];
    if encoded.iter().any(|code| lower.contains(code)) {
        return Some("an encoded slash, dot, percent, semicolon or control character in the path");
    }
    // What is no UTF-8, a careless decoder reads as something else: C0 AF as a slash.
    if !is_text(path) {
        return Some("encoded bytes in the path that are no UTF-8");
    }
    let dots = |segment: &str| matches!(segment.split(';').next(), Some("." | ".."));
    (path.contains('\\') || path.split('/').any(dots))
        .then_some("a dot segment or backslash in the path")
}

/// Whether the percent-encoded bytes of a path are text.
fn is_text(path: &str) -> bool {
    let mut rest = path.as_bytes();
    let mut decoded = Vec::with_capacity(rest.len());
    while let Some((first, more)) = rest.split_first() {
        let digits = more.first_chunk::<2>().filter(|_| *first == b'%');
        let byte = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        decoded.push(byte.unwrap_or(*first));
        rest = match byte {
            Some(_) => more.get(2..).unwrap_or_default(),
            None => more,
        };
    }
    std::str::from_utf8(&decoded).is_ok()
}

/// The origin a secret may go to: `https://host[:port]`.
pub(crate) fn secret_origin(text: &str) -> Result<Url, String> {
    let url = plain_url(text)?;
    if url.origin().ascii_serialization() != text {
        return Err(format!(
            "expected an origin in its normal form: {}",
            url.origin().ascii_serialization()
        ));
    }
    let loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    };
    if url.scheme() != "https" && !loopback {
        return Err("a secret goes over https only (http to this machine itself)".into());
    }
    Ok(url)
}

/// Why an address is not public unicast; `None` if it is.
pub fn special_address(ip: IpAddr) -> Option<&'static str> {
    match ip {
        IpAddr::V4(ip) => special_v4(ip),
        IpAddr::V6(ip) => special_v6(ip),
    }
}

fn special_v4(ip: Ipv4Addr) -> Option<&'static str> {
    Some(match ip.octets() {
        [0, ..] => "this network",
        [127, ..] => "loopback",
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => "private",
        [100, 64..=127, ..] => "shared by carriers (CGNAT)",
        [169, 254, ..] => "link-local, where metadata services are",
        [192, 0, 0, _]
        | [192, 31, 196, _]
        | [192, 52, 193, _]
        | [192, 88, 99, _]
        | [192, 175, 48, _] => "reserved for protocols",
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => "for documentation",
        [198, 18..=19, ..] => "for benchmarks",
        // Azure's platform services answer here, on a public-looking address.
        [168, 63, 129, 16] => "a metadata service",
        [224..=239, ..] => "multicast",
        [240..=255, ..] => "reserved or broadcast",
        _ => return None,
    })
}

fn special_v6(ip: Ipv6Addr) -> Option<&'static str> {
    let [a, b, c, d, e, f, high, low] = ip.segments();
    let [o1, o2] = high.to_be_bytes();
    let [o3, o4] = low.to_be_bytes();
    let inner = Ipv4Addr::new(o1, o2, o3, o4);
    Some(match [a, b, c, d, e, f] {
        [0, 0, 0, 0, 0, 0xffff] | [0x64, 0xff9b, 0, 0, 0, 0] => return special_v4(inner),
        [0, 0, 0, 0, 0, 0] if high == 0 && low == 1 => "loopback",
        [0xfe80..=0xfebf, ..] => "link-local",
        [0xfc00..=0xfdff, ..] => "private (unique local)",
        [0xff00..=0xffff, ..] => "multicast",
        [0x2001, 0..=0x1ff, ..] | [0x2002, ..] => "a tunnel or reserved for protocols",
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => "for documentation",
        [_, _, _, _, 0 | 0x200, 0x5efe] => "a tunnel (ISATAP)",
        [0x2000..=0x3fff, ..] => return None,
        _ => "not global unicast",
    })
}
