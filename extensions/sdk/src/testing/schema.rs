//! As much of JSON Schema as tools' schemas use.

use serde_json::Value;

/// Whether a value fits; if not, where and why.
pub(crate) fn check(schema: &str, value: &Value) -> Result<(), String> {
    let schema: Value =
        serde_json::from_str(schema).map_err(|why| format!("the schema is no JSON: {why}"))?;
    fits(&schema, value, "")
}

fn fits(schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    let wrong = |why: &str| {
        Err(format!(
            "{}: {value} {why}",
            if at.is_empty() { "/" } else { at }
        ))
    };
    if let Some(words) = schema.get("enum").and_then(Value::as_array)
        && !words.contains(value)
    {
        return wrong(&format!("is none of {words:?}"));
    }
    let types: Vec<&str> = match schema.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    if !types.is_empty() && !types.iter().any(|one| is_of(one, value)) {
        return wrong(&format!("is no {}", types.join(" or ")));
    }
    if let Some(all) = schema
        .get("anyOf")
        .or_else(|| schema.get("oneOf"))
        .and_then(Value::as_array)
        && !all.iter().any(|one| fits(one, value, at).is_ok())
    {
        return wrong("fits none of the forms");
    }
    let number = |name: &str| schema.get(name).and_then(Value::as_f64);
    let outside = |size: f64, least: &str, most: &str| {
        number(least).is_some_and(|least| size < least)
            || number(most).is_some_and(|most| size > most)
    };
    #[allow(clippy::cast_precision_loss, reason = "sizes of test data")]
    match value {
        Value::Number(given) if outside(given.as_f64().unwrap_or(0.0), "minimum", "maximum") => {
            return wrong("is too small or too large");
        }
        Value::String(text) if outside(text.chars().count() as f64, "minLength", "maxLength") => {
            return wrong("is too short or too long");
        }
        Value::Array(items) => {
            if outside(items.len() as f64, "minItems", "maxItems") {
                return wrong("has too few or too many items");
            }
            if let Some(item) = schema.get("items") {
                for (index, value) in items.iter().enumerate() {
                    fits(item, value, &format!("{at}/{index}"))?;
                }
            }
        }
        Value::Object(given) => {
            let required = schema.get("required").and_then(Value::as_array);
            for name in required.into_iter().flatten().filter_map(Value::as_str) {
                if !given.contains_key(name) {
                    return wrong(&format!("has no {name}"));
                }
            }
            for (name, value) in given {
                let known = schema.get("properties").and_then(|all| all.get(name));
                match known.or_else(|| schema.get("additionalProperties")) {
                    Some(Value::Bool(false)) => return wrong(&format!("must not have {name}")),
                    Some(schema @ Value::Object(_)) => {
                        fits(schema, value, &format!("{at}/{name}"))?
                    }
                    _ => {}
                }
            }
        }
        _ => {}
    }
    Ok(())
}

fn is_of(kind: &str, value: &Value) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "number" => value.is_number(),
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_host_refuses_is_refused_here() {
        let schema = json!({
            "type": "object",
            "properties": {
                "name": { "type": "string", "minLength": 1 },
                "count": { "type": "integer", "minimum": 1, "maximum": 3 },
                "mode": { "type": "string", "enum": ["a", "b"] },
                "env": { "type": "object", "additionalProperties": { "type": "string" } },
                "list": { "type": "array", "items": { "type": "number" }, "maxItems": 1 },
            },
            "required": ["name"],
            "additionalProperties": false,
        })
        .to_string();
        for good in [
            json!({ "name": "x" }),
            json!({ "name": "x", "count": 2.0, "mode": "b", "env": { "A": "1" }, "list": [1.5] }),
        ] {
            assert_eq!(check(&schema, &good), Ok(()));
        }
        for (bad, says) in [
            (json!({}), "no name"),
            (json!([]), "no object"),
            (json!({ "name": "" }), "too short"),
            (json!({ "name": 1 }), "no string"),
            (json!({ "name": "x", "count": 4 }), "too large"),
            (json!({ "name": "x", "count": 1.5 }), "no integer"),
            (json!({ "name": "x", "mode": "c" }), "none of"),
            (json!({ "name": "x", "env": { "A": 1 } }), "/env/A"),
            (json!({ "name": "x", "list": [1, 2] }), "too many"),
            (json!({ "name": "x", "other": 1 }), "must not have other"),
        ] {
            let why = check(&schema, &bad).err().unwrap_or_default();
            assert!(why.contains(says), "{bad}: {why}");
        }
    }
}
