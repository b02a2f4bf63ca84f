//! Parts of requests. The framework's own refusals are the platform's (it is built with the same one); only what differs
//! is wrapped here.

use super::error::untyped;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;

/// Path parameters. A malformed one is refused in plain text without a Content-Type.
#[derive(Debug)]
pub(crate) struct InPath<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for InPath<T> {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(value)) => Ok(Self(value)),
            Err(refused) => Err(untyped(refused.status(), refused.body_text())),
        }
    }
}

/// A JSON body that may be left out. The Content-Type does not matter, as clients send none, or one without a body.
#[derive(Debug)]
pub(crate) struct OptionalJson<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned + Default> FromRequest<S> for OptionalJson<T> {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(IntoResponse::into_response)?;
        if bytes.is_empty() {
            return Ok(Self(T::default()));
        }
        let Json(value) = Json::from_bytes(&bytes).map_err(IntoResponse::into_response)?;
        Ok(Self(value))
    }
}

/// A whole number from 0 to the largest signed one, which is what `int64` with a minimum of 0 means in the document.
#[derive(Debug, Clone, Copy, serde::Deserialize)]
#[serde(try_from = "i64")]
pub(crate) struct Natural(u64);

impl TryFrom<i64> for Natural {
    type Error = std::num::TryFromIntError;

    fn try_from(number: i64) -> Result<Self, Self::Error> {
        u64::try_from(number).map(Self)
    }
}

impl From<Natural> for u64 {
    fn from(Natural(number): Natural) -> Self {
        number
    }
}

/// An optional query value that may be written as `null`.
pub(crate) fn lenient<'de, D, T>(from: D) -> Result<Option<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    let text: Option<std::borrow::Cow<'de, str>> = serde::Deserialize::deserialize(from)?;
    match text.as_deref() {
        None | Some("null") => Ok(None),
        Some(text) => text.parse().map(Some).map_err(serde::de::Error::custom),
    }
}

/// Tells an absent field (keep) from a `null` one (clear).
pub(crate) fn present<'de, D, T>(from: D) -> Result<Option<Option<T>>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: serde::Deserialize<'de>,
{
    serde::Deserialize::deserialize(from).map(Some)
}
