//! Questions to the client behind a call, beyond the dialogs: forms, its model, its directories.
//!
//! What a client offers differs from client to client, and often it offers nothing: ask [`offers`] first, and have
//! another way. Answers come from a foreign program: read them as such.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::Error;
use crate::harness::client;

pub use crate::harness::client::{Listing, Question, QuestionKind, list_changed, offers};

/// A form for the client's user. The schema is one of a flat object of texts, numbers, booleans and choices, as MCP's
/// elicitation has it. Never ask for a secret this way.
#[must_use]
pub fn form(key: &str, message: &str, schema: &Value) -> Question {
    let parameters = json!({ "message": message, "requestedSchema": schema });
    Question {
        key: key.into(),
        kind: QuestionKind::Form,
        parameters: parameters.to_string(),
    }
}

/// A text for the client's model to answer, in so many tokens at most.
#[must_use]
pub fn sampling(key: &str, prompt: &str, most_tokens: u32) -> Question {
    let parameters = json!({
        "messages": [{ "role": "user", "content": { "type": "text", "text": prompt } }],
        "maxTokens": most_tokens,
    });
    Question {
        key: key.into(),
        kind: QuestionKind::Sampling,
        parameters: parameters.to_string(),
    }
}

/// The directories that the client works in.
#[must_use]
pub fn roots(key: &str) -> Question {
    Question {
        key: key.into(),
        kind: QuestionKind::Roots,
        parameters: "{}".into(),
    }
}

/// The client's answers, by the keys of the questions.
#[derive(Debug, Clone, PartialEq)]
pub struct Answers(BTreeMap<String, Value>);

impl Answers {
    /// The whole answer to a question; null for a key that was not asked.
    #[must_use]
    pub fn get(&self, key: &str) -> &Value {
        self.0.get(key).unwrap_or(&Value::Null)
    }

    /// What the user wrote into a form; `None`: the form was declined or dismissed.
    #[must_use]
    pub fn form(&self, key: &str) -> Option<&Value> {
        let answer = self.get(key);
        let accepted = answer.get("action").and_then(Value::as_str) == Some("accept");
        answer.get("content").filter(|_| accepted)
    }

    /// The text of the model's answer, if it is one.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        let content = self.get(key).get("content")?;
        let block = content
            .as_array()
            .map_or(Some(content), |blocks| blocks.first());
        block?.get("text")?.as_str()
    }
}

/// Asks all of this at once and waits until all is answered.
///
/// # Errors
/// `Error::Unavailable`: the caller does not offer one of the kinds, nothing was asked. `Error::Denied`: the policy's.
/// `Error::Cancelled`: the call was given up meanwhile.
pub async fn ask(questions: Vec<Question>) -> Result<Answers, Error> {
    let told = client::ask(questions).await?;
    let read = |(key, text): (String, String)| {
        serde_json::from_str(&text)
            .map(|answer| (key, answer))
            .map_err(|why| Error::Other(format!("the client's answer is no JSON: {why}")))
    };
    told.into_iter()
        .map(read)
        .collect::<Result<_, _>>()
        .map(Answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_that_was_not_accepted_has_no_content() {
        let answers = Answers(BTreeMap::from([
            (
                "a".into(),
                json!({ "action": "accept", "content": { "x": 1 } }),
            ),
            (
                "b".into(),
                json!({ "action": "decline", "content": { "x": 1 } }),
            ),
            ("c".into(), json!({ "action": "cancel" })),
        ]));
        assert_eq!(answers.form("a"), Some(&json!({ "x": 1 })));
        for key in ["b", "c", "d"] {
            assert_eq!(answers.form(key), None);
        }
    }

    #[test]
    fn a_models_text_is_found_in_either_shape() {
        let block = json!({ "type": "text", "text": "Paris" });
        let answers = Answers(BTreeMap::from([
            ("one".into(), json!({ "content": block })),
            ("many".into(), json!({ "content": [block] })),
            ("picture".into(), json!({ "content": { "type": "image" } })),
        ]));
        assert_eq!(answers.text("one"), Some("Paris"));
        assert_eq!(answers.text("many"), Some("Paris"));
        assert_eq!(answers.text("picture"), None);
    }

    #[test]
    fn questions_are_written_as_the_contract_has_them() {
        let schema = json!({ "type": "object" });
        let asked = form("name", "Who?", &schema);
        let parameters: Value = serde_json::from_str(&asked.parameters).unwrap_or_default();
        assert_eq!(
            parameters,
            json!({ "message": "Who?", "requestedSchema": schema })
        );
        assert_eq!(roots("r").parameters, "{}");
        let asked = sampling("s", "Hi", 100);
        assert!(
            asked.parameters.contains("\"maxTokens\":100"),
            "{}",
            asked.parameters
        );
    }
}
