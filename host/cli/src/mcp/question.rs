//! What an extension asks whoever called it, as requests to a client.
//!
//! A dialog becomes a form: a flat object with one field. What an extension asks in the protocol's own words goes out as it is. What comes back is a
//! stranger's: it is held against the same form again. Forms must not
//! be used for secrets; extensions have flags and the environment for those.

use std::collections::BTreeMap;

use pi_vers_host::{Answer, Dialog, Question, QuestionKind, visible};
use rmcp::model::{ElicitRequestParams, InputRequest, InputRequests};
use serde_json::{Value, json};

use super::client::Offers;

/// The key of a dialog's only question.
pub(crate) const KEY: &str = "answer";

/// Results of the client, by the questions' keys.
pub(crate) type Answers = BTreeMap<String, Value>;

/// What is asked at once.
#[derive(Debug)]
pub(crate) enum Questions {
    /// One dialog.
    Dialog { title: String, dialog: Dialog },
    /// In the protocol's own words.
    Own(InputRequests),
}

impl Questions {
    /// Those that an extension asks in the protocol's own words.
    pub(crate) fn own(questions: Vec<Question>) -> Result<Self, String> {
        let request = |one: Question| {
            let request = match one.kind {
                QuestionKind::Form => {
                    let mut params = one.parameters;
                    if let Some(params) = params.as_object_mut() {
                        params.insert("mode".into(), "form".into());
                    }
                    json!({ "method": "elicitation/create", "params": params })
                }
                QuestionKind::Sampling => {
                    json!({ "method": "sampling/createMessage", "params": one.parameters })
                }
                QuestionKind::Roots => json!({ "method": "roots/list" }),
            };
            match serde_json::from_value(request) {
                Ok(request) => Ok((one.key, request)),
                Err(why) => Err(format!("the question {} is none: {why}", visible(&one.key))),
            }
        };
        let all: Result<InputRequests, String> = questions.into_iter().map(request).collect();
        Ok(Self::Own(all?))
    }

    /// Whether a client that offers this can be asked.
    pub(crate) fn possible(&self, offers: Offers) -> bool {
        let one = |request: &InputRequest| match request {
            InputRequest::Elicitation(_) => offers.form,
            InputRequest::CreateMessage(_) => offers.sampling,
            InputRequest::ListRoots(_) => offers.roots,
            _ => false,
        };
        match self {
            Self::Dialog { .. } => offers.form,
            Self::Own(all) => all.values().all(one),
        }
    }

    /// The requests. Clients of the first version with forms know no titles of choices.
    pub(crate) fn requests(&self, titled: bool) -> InputRequests {
        match self {
            Self::Dialog { title, dialog } => {
                let request = json!({ "method": "elicitation/create", "params": form(title, dialog, titled) });
                match serde_json::from_value(request) {
                    Ok(request) => [(KEY.to_owned(), request)].into(),
                    Err(why) => {
                        tracing::warn!("a dialog can't be told as a form: {why}");
                        InputRequests::new()
                    }
                }
            }
            Self::Own(all) => all.clone(),
        }
    }

    /// Whether this is an answer to the question of this key.
    pub(crate) fn fits(&self, key: &str, answer: &Value) -> bool {
        match self {
            Self::Dialog { dialog, .. } => key == KEY && read(dialog, answer) != Reading::Misfit,
            Self::Own(all) => all
                .get(key)
                .is_some_and(|request| own_fits(request, answer)),
        }
    }

    /// The answers among these that fit, by the questions' keys.
    pub(crate) fn fitting(&self, mut from: Answers) -> Answers {
        from.retain(|key, answer| self.fits(key, answer));
        from
    }
}

fn own_fits(request: &InputRequest, answer: &Value) -> bool {
    let InputRequest::Elicitation(elicitation) = request else {
        return answer.is_object();
    };
    match answer.get("action").and_then(Value::as_str) {
        Some("accept") => {}
        Some("decline" | "cancel") => return true,
        _ => return false,
    }
    let ElicitRequestParams::FormElicitationParams {
        requested_schema, ..
    } = &elicitation.params
    else {
        return true;
    };
    let Ok(schema) = serde_json::to_value(requested_schema) else {
        return false;
    };
    let content = answer.get("content").cloned().unwrap_or_else(|| json!({}));
    // A schema that is none would have been refused by its type.
    jsonschema::validator_for(&schema).is_ok_and(|schema| schema.is_valid(&content))
}

/// What came back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    Answer(Answer),
    /// Somebody did not want to answer, or nobody was there.
    Dismissed,
    /// It does not fit the form.
    Misfit,
}

/// The parameters of `elicitation/create`.
fn form(title: &str, dialog: &Dialog, titled: bool) -> Value {
    let title = visible(title);
    let (message, field) = match dialog {
        Dialog::Confirm(message) => {
            let message = match (title.as_str(), visible(message)) {
                (_, message) if message.is_empty() => title,
                ("", message) => message,
                (title, message) => format!("{title}\n\n{message}"),
            };
            let field = json!({ "type": "boolean", "title": "Yes", "default": false });
            (message, field)
        }
        Dialog::Select(options) => {
            let field = if titled {
                let choice = |(at, option): (usize, &String)| json!({ "const": at.to_string(), "title": visible(option) });
                json!({ "type": "string", "oneOf": options.iter().enumerate().map(choice).collect::<Vec<_>>() })
            } else {
                let all: Vec<String> = (0..options.len()).map(|at| at.to_string()).collect();
                let names: Vec<String> = options.iter().map(|option| visible(option)).collect();
                json!({ "type": "string", "enum": all, "enumNames": names })
            };
            (title, field)
        }
        Dialog::Input(hint) => (
            title,
            json!({ "type": "string", "description": visible(hint) }),
        ),
        Dialog::Edit(text) => (title, json!({ "type": "string", "default": text })),
    };
    json!({
        "mode": "form",
        "message": message,
        "requestedSchema": { "type": "object", "properties": { KEY: field }, "required": [KEY] },
    })
}

/// Reads the result of `elicitation/create`.
pub(crate) fn read(dialog: &Dialog, result: &Value) -> Reading {
    match result.get("action").and_then(Value::as_str) {
        Some("accept") => {}
        Some("decline" | "cancel") => return Reading::Dismissed,
        _ => return Reading::Misfit,
    }
    let value = result.get("content").and_then(|content| content.get(KEY));
    let answer = match (dialog, value) {
        (Dialog::Confirm(_), Some(Value::Bool(yes))) => Some(Answer::Yes(*yes)),
        (Dialog::Select(options), Some(Value::String(choice))) => choice
            .parse()
            .ok()
            .filter(|at| *at < options.len())
            .map(Answer::Index),
        (Dialog::Input(_) | Dialog::Edit(_), Some(Value::String(text))) => {
            Some(Answer::Text(text.clone()))
        }
        _ => None,
    };
    answer.map_or(Reading::Misfit, Reading::Answer)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing)]
    use super::*;

    fn accept(value: Value) -> Value {
        json!({ "action": "accept", "content": { KEY: value } })
    }

    #[test]
    fn an_answer_that_does_not_fit_the_form_is_none() {
        let select = Dialog::Select(vec!["a".into(), "b".into()]);
        assert_eq!(
            read(&select, &accept(json!("1"))),
            Reading::Answer(Answer::Index(1))
        );
        for wrong in [json!("2"), json!(1), json!("b"), json!(null)] {
            assert_eq!(read(&select, &accept(wrong)), Reading::Misfit);
        }
        let confirm = Dialog::Confirm("?".into());
        assert_eq!(
            read(&confirm, &accept(json!(false))),
            Reading::Answer(Answer::Yes(false))
        );
        assert_eq!(read(&confirm, &accept(json!("yes"))), Reading::Misfit);
        assert_eq!(
            read(&confirm, &json!({ "action": "accept" })),
            Reading::Misfit
        );
        for word in ["decline", "cancel"] {
            assert_eq!(
                read(&confirm, &json!({ "action": word })),
                Reading::Dismissed
            );
        }
        for nonsense in [json!({}), json!([]), json!({ "action": 1 })] {
            assert_eq!(read(&confirm, &nonsense), Reading::Misfit);
        }
    }

    #[test]
    fn older_clients_get_a_plain_choice() {
        let select = Dialog::Select(vec!["a".into()]);
        let field =
            |titled| form("t", &select, titled)["requestedSchema"]["properties"][KEY].clone();
        assert_eq!(field(false)["enum"], json!(["0"]));
        assert_eq!(
            field(true)["oneOf"],
            json!([{ "const": "0", "title": "a" }])
        );
    }
}
