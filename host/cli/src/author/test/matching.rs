//! What a script expects, compared with what came: a subset, with a few operators.
//!
//! An object is matched by an object that has at least these members; a list by one of the same length, item by item; everything else
//! by what is equal. An object all of whose keys are operators is no object but a condition:
//!
//! | operator | holds for |
//! |---|---|
//! | `{"contains": "x"}` | a text with this in it |
//! | `{"matches": "^a+$"}` | a text in which the regular expression is found |
//! | `{"includes": M}` | a list with an item that M matches |
//! | `{"length": 3}` | a list, a text (in characters) or an object of this many |
//! | `{"not": M}` | what M does not match |
//! | `{"one_of": [M, …]}` | what one of these matches |
//! | `{"absent": true}` | what is not there, or null |
//! | `{"any": true}` | what is there, and not null |
//! | `{"exactly": V}` | what is equal to V, with nothing besides |

use regex::Regex;
use serde_json::{Map, Value};

const OPERATORS: [&str; 9] = [
    "absent", "any", "contains", "exactly", "includes", "length", "matches", "not", "one_of",
];
/// Of a script's own text; what it is matched against does not change the time it takes by more than its length.
const LARGEST_PATTERN: usize = 1 << 20;

/// One place where something else came than was expected.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Mismatch {
    /// A JSON pointer into what came.
    pub(super) path: String,
    pub(super) expected: Value,
    /// None: nothing is there.
    pub(super) actual: Option<Value>,
}

/// All places where they differ.
pub(super) fn mismatches(expected: &Value, actual: &Value) -> Vec<Mismatch> {
    let mut found = Vec::new();
    compare(expected, Some(actual), "", &mut found);
    found
}

/// Whether all of it matches.
pub(super) fn matches(expected: &Value, actual: &Value) -> bool {
    mismatches(expected, actual).is_empty()
}

/// What is wrong with an expectation itself: told before anything runs.
pub(super) fn check(expected: &Value) -> Result<(), String> {
    match expected {
        Value::Array(all) => all.iter().try_for_each(check),
        Value::Object(all) if is_condition(all) => {
            all.iter().try_for_each(|(operator, operand)| {
                let wrong = |what: &str| format!("{operator:?} takes {what}, not {operand}");
                match operator.as_str() {
                    "contains" if !operand.is_string() => Err(wrong("a text")),
                    "matches" => match operand.as_str() {
                        Some(pattern) => pattern_of(pattern).map(drop),
                        None => Err(wrong("a regular expression")),
                    },
                    "length" if !operand.is_u64() => Err(wrong("a number")),
                    "absent" | "any" if operand != &Value::Bool(true) => Err(wrong("true")),
                    "includes" | "not" => check(operand),
                    "one_of" => match operand {
                        Value::Array(all) => all.iter().try_for_each(check),
                        _ => Err(wrong("a list")),
                    },
                    _ => Ok(()),
                }
            })
        }
        Value::Object(all) => all.values().try_for_each(check),
        _ => Ok(()),
    }
}

fn is_condition(object: &Map<String, Value>) -> bool {
    !object.is_empty() && object.keys().all(|key| OPERATORS.contains(&key.as_str()))
}

fn pattern_of(pattern: &str) -> Result<Regex, String> {
    regex::RegexBuilder::new(pattern)
        .size_limit(LARGEST_PATTERN)
        .build()
        .map_err(|why| {
            let why = why.to_string();
            let last = why.lines().last().unwrap_or_default();
            format!("{pattern:?} is no regular expression: {last}")
        })
}

fn compare(expected: &Value, actual: Option<&Value>, path: &str, found: &mut Vec<Mismatch>) {
    let here = |found: &mut Vec<Mismatch>| {
        found.push(Mismatch {
            path: path.to_owned(),
            expected: expected.clone(),
            actual: actual.cloned(),
        });
    };
    match (expected, actual) {
        (Value::Object(wanted), _) if is_condition(wanted) => {
            if !wanted
                .iter()
                .all(|(operator, operand)| holds(operator, operand, actual))
            {
                here(found);
            }
        }
        (Value::Object(wanted), Some(Value::Object(there))) => {
            for (key, wanted) in wanted {
                let path = format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"));
                compare(wanted, there.get(key), &path, found);
            }
        }
        (Value::Array(wanted), Some(Value::Array(there))) if wanted.len() == there.len() => {
            for (at, (wanted, there)) in wanted.iter().zip(there).enumerate() {
                compare(wanted, Some(there), &format!("{path}/{at}"), found);
            }
        }
        (Value::Number(wanted), Some(Value::Number(there))) => {
            if wanted.as_f64() != there.as_f64() {
                here(found);
            }
        }
        // What is expected to be null may as well not be there.
        (Value::Null, None) => {}
        (wanted, Some(there)) if wanted == there => {}
        _ => here(found),
    }
}

fn holds(operator: &str, operand: &Value, actual: Option<&Value>) -> bool {
    let there = actual.filter(|value| !value.is_null());
    let text = there.and_then(Value::as_str);
    let fits = |wanted: &Value| {
        let mut found = Vec::new();
        compare(wanted, actual, "", &mut found);
        found.is_empty()
    };
    match operator {
        "contains" => text
            .zip(operand.as_str())
            .is_some_and(|(text, part)| text.contains(part)),
        "matches" => text
            .zip(operand.as_str())
            .and_then(|(text, pattern)| Some(pattern_of(pattern).ok()?.is_match(text)))
            .unwrap_or(false),
        "includes" => there
            .and_then(Value::as_array)
            .is_some_and(|all| all.iter().any(|one| matches(operand, one))),
        "length" => {
            let length = match there {
                Some(Value::Array(all)) => Some(all.len()),
                Some(Value::Object(all)) => Some(all.len()),
                Some(Value::String(text)) => Some(text.chars().count()),
                _ => None,
            };
            length.map(|length| length as u64) == operand.as_u64()
        }
        "not" => !fits(operand),
        "one_of" => operand.as_array().is_some_and(|all| all.iter().any(fits)),
        "absent" => there.is_none(),
        "any" => there.is_some(),
        "exactly" => actual == Some(operand),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use serde_json::json;

    #[test]
    fn an_expectation_is_a_subset() {
        let came = json!({ "ok": true, "text": "Hello, Ada!", "n": 1, "list": [{ "a": 1, "b": 2 }], "none": null });
        for good in [
            json!({}),
            json!({ "ok": true, "n": 1.0 }),
            json!({ "text": { "contains": "Ada" } }),
            json!({ "text": { "matches": "^Hello, \\w+!$", "length": 11 } }),
            json!({ "list": [{ "b": 2 }] }),
            json!({ "list": { "includes": { "a": { "not": 7 } } } }),
            json!({ "list": { "length": 1 } }),
            json!({ "none": { "absent": true }, "more": { "absent": true }, "nothing": null }),
            json!({ "n": { "one_of": [7, 1] }, "ok": { "any": true } }),
            json!({ "list": { "exactly": [{ "a": 1, "b": 2 }] } }),
        ] {
            assert!(check(&good).is_ok());
            assert_eq!(mismatches(&good, &came), [], "{good}");
        }
        for (bad, at) in [
            (json!({ "ok": false }), "/ok"),
            (json!({ "text": "hello" }), "/text"),
            (json!({ "list": [] }), "/list"),
            (json!({ "list": [{ "a": 2 }] }), "/list/0/a"),
            (json!({ "more": 1 }), "/more"),
            (json!({ "list": { "includes": { "a": 9 } } }), "/list"),
            (json!({ "ok": { "absent": true } }), "/ok"),
            (json!({ "list": { "exactly": [{ "a": 1 }] } }), "/list"),
            (json!({ "n": { "contains": "1" } }), "/n"),
        ] {
            let found = mismatches(&bad, &came);
            assert_eq!(found.len(), 1, "{bad}");
            assert_eq!(found[0].path, at, "{bad}");
        }
    }

    #[test]
    fn an_object_with_other_keys_besides_is_no_condition() {
        let came = json!({ "length": 3, "name": "x" });
        assert!(matches(&json!({ "length": 3, "name": "x" }), &came));
        assert!(matches(
            &json!({ "exactly": { "length": 3 } }),
            &json!({ "length": 3 })
        ));
    }

    #[test]
    fn a_wrong_condition_is_told_before_anything_runs() {
        for wrong in [
            json!({ "matches": "(" }),
            json!([{ "a": { "contains": 1 } }]),
            json!({ "length": "3" }),
            json!({ "one_of": 1 }),
            json!({ "not": { "matches": 1 } }),
            json!({ "absent": false }),
        ] {
            assert!(check(&wrong).is_err(), "{wrong}");
        }
    }

    proptest::proptest! {
        #[test]
        fn everything_matches_itself_exactly(text in "\\PC{0,20}", number in proptest::prelude::any::<i64>()) {
            let value = json!({ "a": [text, number], "b": { "exactly": number } });
            let wanted = json!({ "exactly": value.clone() });
            proptest::prop_assert!(matches(&wanted, &value));
        }
    }
}
