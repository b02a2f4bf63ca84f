//! Arguments of a tool call as a Rust type.
//!
//! The host has checked them against the tool's JSON Schema, so a mismatch here is a slip between
//! schema and type. It is still an error in words, never a trap.

use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error as _};

use crate::Error;

/// Parses JSON into `T`; a mismatch is `error.invalid` and names the field.
///
/// # Errors
/// `Error::Invalid` with serde's reason.
pub fn parse<T: DeserializeOwned>(json: &str) -> Result<T, Error> {
    serde_json::from_str(json).map_err(unfit)
}

/// A mismatch in words.
pub(crate) fn unfit(why: serde_json::Error) -> Error {
    Error::Invalid(format!("The arguments do not fit: {why}."))
}

/// For `#[serde(default, deserialize_with = "args::whole")]` on an `Option<u64>`: JSON Schema's `integer`
/// admits `5.0`, which models write and serde refuses.
///
/// # Errors
/// When the value is no whole number from 0 to 2^53.
pub fn whole<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    let Some(number) = Option::<f64>::deserialize(from)? else {
        return Ok(None);
    };
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked: whole, not negative, and exact in an f64"
    )]
    if number.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(&number) {
        Ok(Some(number as u64))
    } else {
        Err(D::Error::custom(format!(
            "{number} is not a whole number from 0 up"
        )))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[derive(serde::Deserialize, Debug)]
    struct Args {
        path: String,
        #[serde(default, deserialize_with = "whole")]
        limit: Option<u64>,
    }

    #[test]
    fn whole_numbers_come_as_integers_or_floats() {
        for (json, limit) in [
            (r#"{"path":"a"}"#, None),
            (r#"{"path":"a","limit":null}"#, None),
            (r#"{"path":"a","limit":5}"#, Some(5)),
            (r#"{"path":"a","limit":5.0}"#, Some(5)),
        ] {
            let args: Args = parse(json).unwrap();
            assert_eq!((args.path.as_str(), args.limit), ("a", limit));
        }
    }

    #[test]
    fn a_mismatch_is_invalid_and_says_where() {
        for (json, says) in [
            (r#"{"limit":5}"#, "path"),
            (r#"{"path":"a","limit":1.5}"#, "1.5"),
            (r#"{"path":"a","limit":-1}"#, "-1"),
            ("nonsense", "expected"),
        ] {
            match parse::<Args>(json) {
                Err(Error::Invalid(message)) => assert!(message.contains(says), "{message}"),
                other => unreachable!("{other:?}"),
            }
        }
    }
}
