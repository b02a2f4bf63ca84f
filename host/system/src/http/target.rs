//! The URLs that are served at all, whatever the judge says of them.

use url::Url;

use crate::{Error, Kind};

/// Bytes of a URL.
pub(super) const MAX_URL: usize = 8 * 1024;

/// A URL that the egress serves at all.
pub(super) fn parse(text: &str) -> Result<Url, Error> {
    let invalid = |why: &str| Error::new(Kind::Invalid, format!("the URL {why}"));
    if text.len() > MAX_URL {
        return Err(invalid(&format!("is longer than {MAX_URL} bytes")));
    }
    let url = Url::parse(text).map_err(|error| invalid(&format!("is malformed: {error}")))?;
    check(url).map_err(invalid)
}

/// The URL without its fragment, or why it is not served.
pub(super) fn check(mut url: Url) -> Result<Url, &'static str> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err("is neither http nor https");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("has a user or a password in it; use a header");
    }
    if url.host_str().is_none_or(str::is_empty) || url.port() == Some(0) {
        return Err("has no host to go to");
    }
    url.set_fragment(None);
    Ok(url)
}

/// The URL for people, without the query: it may hold what is nobody's business.
pub(super) fn shown(url: &Url) -> String {
    format!("{}{}", url.origin().ascii_serialization(), url.path())
}
