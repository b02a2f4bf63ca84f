//! JSON Schema of a tool: arguments are checked before the guest sees them, structured results before
//! the client does.

use jsonschema::Validator;
use serde_json::Value;

use crate::error::Problem;
use crate::types::Tool;

/// More than this many problems of one call help nobody.
const MOST_PROBLEMS: usize = 20;

pub(super) struct Schema {
    arguments: Validator,
    output: Option<Validator>,
}

impl Schema {
    pub(super) fn compile(tool: &Tool) -> Result<Self, String> {
        let compile = |schema: &Value, what: &str| {
            if !schema.is_object() {
                return Err(format!(
                    "the {what} schema of tool {} is not an object",
                    tool.name
                ));
            }
            jsonschema::draft202012::new(schema).map_err(|why| {
                format!(
                    "the {what} schema of tool {} is not valid: {why}",
                    tool.name
                )
            })
        };
        if tool
            .parameters
            .get("type")
            .is_none_or(|kind| kind != "object")
        {
            return Err(format!(
                "the parameter schema of tool {} does not say \"type\": \"object\"",
                tool.name
            ));
        }
        Ok(Self {
            arguments: compile(&tool.parameters, "parameter")?,
            output: tool
                .output
                .as_ref()
                .map(|schema| compile(schema, "output"))
                .transpose()?,
        })
    }

    pub(super) fn problems(&self, arguments: &Value) -> Vec<Problem> {
        all(&self.arguments, arguments)
    }

    pub(super) fn output_problems(&self, structured: &Value) -> Vec<Problem> {
        match &self.output {
            Some(schema) => all(schema, structured),
            None => vec![Problem {
                path: String::new(),
                message: "the tool declares no output schema".into(),
            }],
        }
    }
}

fn all(schema: &Validator, value: &Value) -> Vec<Problem> {
    schema
        .iter_errors(value)
        .take(MOST_PROBLEMS)
        .map(|error| Problem {
            path: error.instance_path().to_string(),
            message: shorten(&error.to_string()),
        })
        .collect()
}

/// A message repeats the offending value, which may be a megabyte.
fn shorten(message: &str) -> String {
    const MOST: usize = 300;
    if message.chars().count() <= MOST {
        return message.into();
    }
    let head: String = message.chars().take(MOST).collect();
    format!("{head}…")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn tool(parameters: Value) -> Tool {
        Tool {
            name: "t".into(),
            label: String::new(),
            description: String::new(),
            parameters,
            output: None,
            hints: crate::types::Hints::default(),
            only_replaces: false,
        }
    }

    #[test]
    fn all_problems_are_listed_with_their_paths() {
        let schema = Schema::compile(&tool(json!({
            "type": "object",
            "properties": { "a": { "type": "string" }, "b": { "type": "array", "items": { "type": "integer" } } },
            "required": ["a", "c"],
            "additionalProperties": false,
        })))
        .unwrap();
        let problems = schema.problems(&json!({ "a": 1, "b": [1, "x"], "z": true }));
        let paths: Vec<&str> = problems
            .iter()
            .map(|problem| problem.path.as_str())
            .collect();
        assert!(
            paths.contains(&"/a") && paths.contains(&"/b/1") && problems.len() == 4,
            "{problems:?}"
        );
    }

    #[test]
    fn a_schema_that_points_elsewhere_is_refused_not_fetched() {
        let remote = tool(
            json!({ "type": "object", "properties": { "a": { "$ref": "http://127.0.0.1:9/x.json" } } }),
        );
        assert!(Schema::compile(&remote).is_err());
    }

    #[test]
    fn a_huge_value_does_not_make_a_huge_message() {
        let schema = Schema::compile(&tool(
            json!({ "type": "object", "properties": { "a": { "type": "integer" } } }),
        ))
        .unwrap();
        let problems = schema.problems(&json!({ "a": "x".repeat(1 << 20) }));
        assert!(problems.iter().all(|problem| problem.message.len() < 2000));
    }
}
