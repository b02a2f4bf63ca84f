//! The client behind the front end.

use std::rc::Rc;

use serde_json::{Value, json};

use super::Kit;
use super::world::{ask as note, wait_for, world};
use crate::Error;
use crate::bindings::vers::harness::client::{Listing, Question, QuestionKind};

type Answers = Rc<dyn Fn(&Question) -> Value>;

#[derive(Default)]
pub(crate) struct Client {
    offered: Vec<QuestionKind>,
    answers: Option<Answers>,
}

/// Whether whoever made this call can be asked this.
#[must_use]
pub fn offers(kind: QuestionKind) -> bool {
    world(|world| world.client.offered.contains(&kind))
}

/// Asks all of this at once and waits until all is answered.
pub async fn ask(questions: Vec<Question>) -> Result<Vec<(String, String)>, Error> {
    let keys: Vec<&str> = questions
        .iter()
        .map(|question| question.key.as_str())
        .collect();
    wait_for("client.ask", json!({ "keys": keys })).await?;
    if let Some(question) = questions.iter().find(|question| !offers(question.kind)) {
        return Err(Error::Unavailable(format!(
            "the caller cannot be asked for {:?}",
            question.kind
        )));
    }
    let answers = world(|world| world.client.answers.clone());
    let answer = |question: &Question| {
        answers
            .as_ref()
            .map_or(Value::Null, |answers| answers(question))
    };
    Ok(questions
        .iter()
        .map(|question| (question.key.clone(), answer(question).to_string()))
        .collect())
}

/// Says that this list of the extension has changed.
pub fn list_changed(list: Listing) {
    let name = match list {
        Listing::Tools => "tools",
        Listing::Prompts => "prompts",
        Listing::Resources => "resources",
    };
    // Nobody is told where it is denied.
    let _ = note("client.list-changed", json!({ "list": name }));
}

impl Kit {
    /// Lets the client be asked this, with these answers, see the contract for each kind.
    pub fn client(&self, kinds: &[QuestionKind], answers: impl Fn(&Question) -> Value + 'static) {
        world(|world| {
            world.client.offered = kinds.to_vec();
            world.client.answers = Some(Rc::new(answers));
        });
    }
}
