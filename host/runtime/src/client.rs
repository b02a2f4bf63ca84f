//! Questions to the client behind a call, beyond the dialogs: what extensions may ask and how it is judged.
//!
//! Parameters come from a guest and go to a foreign program, and answers the other way: both are JSON whose
//! shape MCP defines. The host checks what a front end has to rely on (keys, sizes, the outer shape) and
//! leaves the rest to whoever speaks the protocol.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::bindings::vers::harness::client as wit;
use crate::types::json;

/// The most questions that are asked together.
const MOST_QUESTIONS: usize = 16;

/// The most bytes of all parameters, or of all answers.
const MOST_BYTES: usize = 1 << 20;

/// What a client can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QuestionKind {
    /// Its user fills in a form: parameters `{message, requestedSchema}`, answer `{action, content?}`.
    Form,
    /// Its model completes a conversation: parameters and answer of `sampling/createMessage`.
    Sampling,
    /// The directories it works in: parameters `{}`, answer `{roots}`.
    Roots,
}

impl fmt::Display for QuestionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Form => "forms",
            Self::Sampling => "sampling",
            Self::Roots => "roots",
        })
    }
}

/// One question to the client.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// The extension's name for it, unique among those asked together: 1 to 64 letters, digits, `_`, `-` and `.`.
    pub key: String,
    /// What is asked for.
    pub kind: QuestionKind,
    /// An object of the kind's shape.
    pub parameters: Value,
}

/// What a client answered, by the keys of the questions.
pub type ClientAnswers = BTreeMap<String, Value>;

/// A list of the session that clients keep a copy of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names say it all")]
pub enum Listing {
    Tools,
    Prompts,
    Resources,
}

impl From<wit::QuestionKind> for QuestionKind {
    fn from(kind: wit::QuestionKind) -> Self {
        match kind {
            wit::QuestionKind::Form => Self::Form,
            wit::QuestionKind::Sampling => Self::Sampling,
            wit::QuestionKind::Roots => Self::Roots,
        }
    }
}

impl From<wit::Listing> for Listing {
    fn from(list: wit::Listing) -> Self {
        match list {
            wit::Listing::Tools => Self::Tools,
            wit::Listing::Prompts => Self::Prompts,
            wit::Listing::Resources => Self::Resources,
        }
    }
}

/// A guest's questions, or what is wrong with them.
pub(crate) fn questions(asked: Vec<wit::Question>) -> Result<Vec<Question>, String> {
    if asked.is_empty() || asked.len() > MOST_QUESTIONS {
        return Err(format!(
            "ask 1 to {MOST_QUESTIONS} questions at once, not {}",
            asked.len()
        ));
    }
    let bytes = asked.iter().map(|one| one.parameters.len());
    if bytes.fold(0, usize::saturating_add) > MOST_BYTES {
        return Err(format!(
            "the questions have more than {MOST_BYTES} bytes together"
        ));
    }
    let mut keys = BTreeSet::new();
    let mut questions = Vec::new();
    for one in asked {
        let question = question(one)?;
        if !keys.insert(question.key.clone()) {
            return Err(format!("two questions have the key {}", question.key));
        }
        questions.push(question);
    }
    Ok(questions)
}

fn question(asked: wit::Question) -> Result<Question, String> {
    let fits = (1..=64).contains(&asked.key.len())
        && asked
            .key
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
    if !fits {
        let shown: String = pi_vers_policy::visible(&asked.key)
            .chars()
            .take(80)
            .collect();
        return Err(format!(
            "the key of a question is {shown:?}: use 1 to 64 letters, digits, _, - and ."
        ));
    }
    let kind = QuestionKind::from(asked.kind);
    let parameters = json(&asked.parameters, &format!("question {}", asked.key))?;
    let has = |name: &str, is: fn(&Value) -> bool| parameters.get(name).is_some_and(is);
    let lacks = match kind {
        QuestionKind::Form if !has("message", Value::is_string) => "a text `message`",
        QuestionKind::Form if !has("requestedSchema", Value::is_object) => {
            "an object `requestedSchema`"
        }
        QuestionKind::Sampling if !has("messages", Value::is_array) => "a list `messages`",
        QuestionKind::Roots if !parameters.is_object() => "the shape of an object",
        _ => {
            return Ok(Question {
                key: asked.key,
                kind,
                parameters,
            });
        }
    };
    Err(format!("question {} lacks {lacks}", asked.key))
}

/// The answers in the order of the questions, or what is wrong with them.
pub(crate) fn answers(
    questions: &[String],
    mut answers: ClientAnswers,
) -> Result<Vec<(String, String)>, String> {
    let mut bytes = 0_usize;
    let mut told = Vec::new();
    for key in questions {
        let Some(answer) = answers.remove(key) else {
            return Err(format!("the client did not answer question {key}"));
        };
        let answer = answer.to_string();
        bytes = bytes.saturating_add(answer.len());
        if bytes > MOST_BYTES {
            return Err(format!(
                "the client's answers have more than {MOST_BYTES} bytes"
            ));
        }
        told.push((key.clone(), answer));
    }
    Ok(told)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn asked(key: &str, kind: wit::QuestionKind, parameters: &str) -> wit::Question {
        wit::Question {
            key: key.into(),
            kind,
            parameters: parameters.into(),
        }
    }

    #[test]
    fn questions_a_front_end_could_not_rely_on_are_refused() {
        use wit::QuestionKind::{Form, Roots, Sampling};
        let form = r#"{"message":"m","requestedSchema":{}}"#;
        for (bad, why) in [
            (vec![], "1 to 16"),
            (vec![asked("a", Roots, "{}"); 17], "1 to 16"),
            (vec![asked("a", Roots, "{}"); 2], "two questions"),
            (vec![asked("a b", Roots, "{}")], "the key"),
            (vec![asked("", Roots, "{}")], "the key"),
            (vec![asked("a", Form, "{")], "is no JSON"),
            (
                vec![asked("a", Form, r#"{"message":"m"}"#)],
                "requestedSchema",
            ),
            (
                vec![asked("a", Form, r#"{"requestedSchema":{}}"#)],
                "message",
            ),
            (vec![asked("a", Sampling, "{}")], "messages"),
            (vec![asked("a", Roots, "[]")], "object"),
            (
                vec![asked(
                    "a",
                    Roots,
                    &format!("\"{}\"", "x".repeat(MOST_BYTES)),
                )],
                "bytes",
            ),
        ] {
            let said = questions(bad).unwrap_err();
            assert!(said.contains(why), "{said}");
        }
        let good = questions(vec![
            asked("input-a", Form, form),
            asked("r.1", Roots, "{}"),
        ])
        .unwrap();
        assert_eq!(good.len(), 2);
    }

    #[test]
    fn answers_come_in_the_order_of_the_questions_and_all_of_them() {
        let keys = ["b".to_owned(), "a".to_owned()];
        let given = ClientAnswers::from([
            ("a".into(), json!(1)),
            ("b".into(), json!(2)),
            ("c".into(), json!(3)),
        ]);
        assert_eq!(
            answers(&keys, given).unwrap(),
            [("b".into(), "2".into()), ("a".into(), "1".into())]
        );
        let short = ClientAnswers::from([("a".into(), json!(1))]);
        assert!(answers(&keys, short).unwrap_err().contains("question b"));
    }
}
