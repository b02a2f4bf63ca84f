//! What a redirect asks for, and what must not go along.

use reqwest::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LOCATION, CONTENT_TYPE, COOKIE,
    HeaderMap, LOCATION,
};
use reqwest::{Method, StatusCode};
use url::Url;

use super::target::{MAX_URL, check, shown};
use crate::{Error, Kind};

/// The next request.
pub(super) struct Hop {
    pub(super) url: Url,
    pub(super) method: Method,
}

/// Where the answer sends us, if it does. The target is not judged yet.
pub(super) fn next(
    response: &reqwest::Response,
    from: &Url,
    method: &Method,
) -> Result<Option<Hop>, Error> {
    let method = match response.status() {
        StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND if *method == Method::POST => Method::GET,
        StatusCode::SEE_OTHER if *method != Method::HEAD => Method::GET,
        StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND | StatusCode::SEE_OTHER => method.clone(),
        StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => method.clone(),
        _ => return Ok(None),
    };
    let Some(location) = response.headers().get(LOCATION) else {
        return Ok(None);
    };
    let refused = |why: &str| {
        Error::new(
            Kind::Denied,
            format!(
                "a redirect of {} is not followed: the target {why}",
                shown(from)
            ),
        )
    };
    let location = std::str::from_utf8(location.as_bytes()).map_err(|_| refused("is no text"))?;
    if location.len() > MAX_URL {
        return Err(refused("is too long"));
    }
    let url = from
        .join(location)
        .map_err(|error| refused(&error.to_string()))?;
    let url = check(url).map_err(refused)?;
    if from.scheme() == "https" && url.scheme() == "http" {
        return Err(refused("is not encrypted any more"));
    }
    Ok(Some(Hop { url, method }))
}

/// What is for the origin it was given for, and for no other.
pub(super) fn drop_secrets(headers: &mut HeaderMap) {
    let secret: Vec<_> = headers
        .iter()
        .filter(|(_, value)| value.is_sensitive())
        .map(|(name, _)| name.clone())
        .collect();
    for name in secret.iter().chain(&[AUTHORIZATION, COOKIE]) {
        headers.remove(name);
    }
}

/// What describes a body that is not sent again.
pub(super) fn drop_content(headers: &mut HeaderMap) {
    for name in [
        CONTENT_TYPE,
        CONTENT_ENCODING,
        CONTENT_LANGUAGE,
        CONTENT_LOCATION,
    ] {
        headers.remove(name);
    }
}
