//! What a refusal of the platform means.
//!
//! Failures come in four shapes: `{"error":…,"success":false}`, plain text with or without a content type, an empty
//! body, and a hybrid that looks like a success (`{"vms":[],"error":…}`). Two of them share a status: `403` in plain
//! text is the gateway that does not know the key, `403` in JSON is the platform that knows it and says no.

use reqwest::StatusCode;
use serde_json::Value;

use crate::error::{Error, Kind, shown};

/// What kind of request it was, as far as that changes what a failure means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// Without a key.
    Publicly,
    /// To delete something.
    ToDelete,
    /// Anything else.
    Otherwise,
}

/// The failure in an answer, if it is one; `what` names the operation and the VM.
pub(super) fn failure(what: &str, asked: Asked, status: StatusCode, body: &[u8]) -> Option<Error> {
    let json: Option<Value> = serde_json::from_slice(body).ok().filter(Value::is_object);
    if status.is_success() {
        // The hybrid shape, or a success that says it is none.
        let json = json?;
        let refused = json.get("success").and_then(Value::as_bool) == Some(false);
        let holds_error = json
            .get("error")
            .is_some_and(|error| !error.is_null() && error != "");
        let text = text_of(&json);
        if !refused && !holds_error {
            return None;
        }
        let text = text.unwrap_or_default();
        let kind = if text.contains("not found") {
            Kind::NotFound
        } else {
            Kind::Other
        };
        return Some(
            Error::new(kind, format!("{what}: the platform says: {}", shown(&text)))
                .with_status(status.as_u16()),
        );
    }
    let text = match &json {
        Some(json) => text_of(json).unwrap_or_default(),
        None => String::from_utf8_lossy(body).into_owned(),
    };
    let (kind, advice) = verdict(status, json.is_some(), asked);
    let mut line = format!("{what}: HTTP {status}");
    let text = shown(&text);
    if !text.is_empty() && !status.to_string().eq_ignore_ascii_case(&text) {
        line.push_str(": ");
        line.push_str(&text);
    }
    if !advice.is_empty() {
        line.push_str("; ");
        line.push_str(advice);
    }
    Some(Error::new(kind, line).with_status(status.as_u16()))
}

fn verdict(status: StatusCode, json: bool, asked: Asked) -> (Kind, &'static str) {
    match status.as_u16() {
        401 if asked == Asked::Publicly => (Kind::Unauthorized, ""),
        403 if asked == Asked::Publicly => (Kind::Denied, ""),
        401 => (
            Kind::Unauthorized,
            "the API key is not accepted: check VERS_API_KEY, or log in with `pi-vers login`",
        ),
        403 if !json => (
            Kind::Unauthorized,
            "the API key is not accepted: check VERS_API_KEY, or log in with `pi-vers login`",
        ),
        403 if asked == Asked::ToDelete => (
            Kind::Denied,
            "it belongs to somebody else, or does not exist (any more)",
        ),
        403 => (
            Kind::Denied,
            "it belongs to somebody else, or this key may not do that",
        ),
        404 | 410 => (Kind::NotFound, "check the id with a list"),
        400 | 405 | 415 | 422 => (Kind::Invalid, "the platform does not accept this request"),
        409 => (Kind::Conflict, ""),
        408 => (Kind::TimedOut, "try again"),
        402 => (Kind::Limit, "see https://vers.sh/billing"),
        413 => (Kind::Limit, "it is too large"),
        429 => (
            Kind::Limit,
            "too many requests, or a quota is used up; try again later",
        ),
        500 | 502 | 503 | 504 => (
            Kind::Unavailable,
            "the platform has trouble; try again later",
        ),
        300..=399 => (
            Kind::Other,
            "redirects are not followed; check VERS_BASE_URL",
        ),
        _ => (Kind::Other, ""),
    }
}

fn text_of(json: &Value) -> Option<String> {
    ["error", "message", "reason"]
        .iter()
        .find_map(|name| match json.get(name)? {
            Value::String(text) if !text.is_empty() => Some(text.clone()),
            Value::Object(object) => Some(object.get("message")?.as_str()?.to_owned()),
            _ => None,
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn kind(status: u16, body: &str) -> Option<Kind> {
        failure(
            "test",
            Asked::Otherwise,
            StatusCode::from_u16(status).unwrap(),
            body.as_bytes(),
        )
        .map(|e| e.kind())
    }

    #[test]
    fn the_two_403s_are_told_apart() {
        assert_eq!(kind(403, "403 Forbidden"), Some(Kind::Unauthorized));
        assert_eq!(kind(403, ""), Some(Kind::Unauthorized));
        assert_eq!(
            kind(403, r#"{"error":"Forbidden","success":false}"#),
            Some(Kind::Denied)
        );
        let error = failure(
            "delete VM x",
            Asked::ToDelete,
            StatusCode::FORBIDDEN,
            br#"{"error":"Forbidden"}"#,
        )
        .unwrap();
        assert!(error.to_string().contains("does not exist"), "{error}");
    }

    #[test]
    fn each_shape_of_failure_is_understood() {
        assert_eq!(
            kind(400, "Invalid URL: Cannot parse `vm_id`"),
            Some(Kind::Invalid)
        );
        assert_eq!(
            kind(422, "Failed to deserialize the JSON body"),
            Some(Kind::Invalid)
        );
        assert_eq!(
            kind(404, r#"{"error":"not found","success":false}"#),
            Some(Kind::NotFound)
        );
        assert_eq!(
            kind(404, r#"{"vms":[],"error":"parent vm not found"}"#),
            Some(Kind::NotFound)
        );
        assert_eq!(
            kind(
                409,
                r#"{"error":"commit still has 1 active VM(s)","success":false}"#
            ),
            Some(Kind::Conflict)
        );
        assert_eq!(kind(503, "<html>"), Some(Kind::Unavailable));
        assert_eq!(kind(418, ""), Some(Kind::Other));
    }

    #[test]
    fn a_success_that_holds_an_error_is_a_failure() {
        assert_eq!(
            kind(200, r#"{"vms":[],"error":"parent vm not found"}"#),
            Some(Kind::NotFound)
        );
        assert_eq!(kind(201, r#"{"success":false}"#), Some(Kind::Other));
        assert_eq!(kind(200, r#"{"vms":[],"error":null}"#), None);
        assert_eq!(
            kind(200, r#"{"valid":true,"message":"API key is valid"}"#),
            None
        );
        assert_eq!(kind(200, "[]"), None);
        assert_eq!(kind(200, ""), None);
    }

    #[test]
    fn the_line_names_operation_status_and_next_step() {
        let error = failure(
            "branch VM 1",
            Asked::Otherwise,
            StatusCode::FORBIDDEN,
            b"403 Forbidden",
        )
        .unwrap();
        assert_eq!(
            error.to_string(),
            "branch VM 1: HTTP 403 Forbidden; the API key is not accepted: check VERS_API_KEY, or log in with `pi-vers login`"
        );
        assert_eq!(error.status(), Some(403));
    }

    proptest! {
        #[test]
        fn any_answer_is_judged_without_panic(status in 100u16..600, body in prop::collection::vec(any::<u8>(), 0..200)) {
            let status = StatusCode::from_u16(status).unwrap();
            let verdict = failure("x", Asked::Otherwise, status, &body);
            prop_assert!(status.is_success() || verdict.is_some());
            if let Some(error) = verdict {
                prop_assert!(!error.to_string().chars().any(char::is_control));
            }
        }
    }
}
