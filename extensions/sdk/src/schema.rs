//! Descriptions of tools and the JSON Schemas of their parameters.

use serde_json::{Value, json};

use crate::{Hints, Tool};

/// A tool without a schema for its result.
#[must_use]
pub fn tool(name: &str, label: &str, description: &str, hints: Hints, parameters: Value) -> Tool {
    Tool {
        name: name.into(),
        label: label.into(),
        description: description.into(),
        parameters: parameters.to_string(),
        output: None,
        hints,
        only_replaces: false,
    }
}

/// An object schema that admits these properties and no others; a name that ends in `?` is optional.
#[must_use]
pub fn object(properties: &[(&str, Value)]) -> Value {
    let name = |name: &str| name.trim_end_matches('?').to_owned();
    let required: Vec<String> = properties
        .iter()
        .filter(|(n, _)| !n.ends_with('?'))
        .map(|(n, _)| name(n))
        .collect();
    let properties: serde_json::Map<String, Value> = properties
        .iter()
        .map(|(n, schema)| (name(n), schema.clone()))
        .collect();
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

/// A text.
#[must_use]
pub fn string(description: &str) -> Value {
    json!({ "type": "string", "description": description })
}

/// Yes or no.
#[must_use]
pub fn boolean(description: &str) -> Value {
    json!({ "type": "boolean", "description": description })
}

/// A whole number from 1 up.
#[must_use]
pub fn positive(description: &str) -> Value {
    json!({ "type": "integer", "minimum": 1, "description": description })
}

/// One of these words.
#[must_use]
pub fn one_of(words: &[&str], description: &str) -> Value {
    json!({ "type": "string", "enum": words, "description": description })
}
