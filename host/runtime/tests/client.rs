//! What an MCP server needs of the host beyond tools and dialogs: questions to the client, patience, content of every
//! kind, resources and prompts; with the guest that the conformance suite talks to.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

#[path = "client/front.rs"]
mod front;
#[path = "client/publications.rs"]
mod publications;

use std::sync::Arc;
use std::time::Duration;

use front::{Client, Mood};
use pi_vers_host::secrets::Secrets;
use pi_vers_host::{
    CallError, CallOptions, Content, Listing, QuestionKind, Refusal, ResourceBody, Session,
};
use serde_json::{Value, json};
use support::nowhere;

/// No sleep of a test decides anything; it only gives the other side time to be wrong.
const SOON: Duration = Duration::from_secs(20);

/// All that the policy can grant here.
const ALL: &str = "client = [\"form\", \"sampling\", \"roots\"]";

struct Bench {
    session: Session,
    client: Arc<Client>,
    _home: tempfile::TempDir,
}

impl Bench {
    async fn new(rules: &str, mood: Mood) -> Self {
        Self::of(&[("conformance", rules)], mood).await
    }

    async fn of(guests: &[(&str, &str)], mood: Mood) -> Self {
        let home = tempfile::tempdir().unwrap();
        let client = Arc::new(Client::new(mood));
        let front = client.clone();
        let (_, session) =
            support::session_of(guests, front, home.path(), nowhere(), Secrets::new()).await;
        Self {
            session,
            client,
            _home: home,
        }
    }

    async fn call(&self, tool: &str, arguments: Value) -> Result<Vec<Content>, CallError> {
        let mut call = self.session.call_with_id("call-1", tool, arguments);
        let outcome = tokio::time::timeout(SOON, call.outcome()).await;
        outcome.expect("an answer").map(|output| output.content)
    }

    async fn text(&self, tool: &str) -> String {
        match self.call(tool, json!({})).await.unwrap().as_slice() {
            [Content::Text(text)] => text.clone(),
            other => panic!("{other:?}"),
        }
    }

    async fn refused(&self, tool: &str) -> (Refusal, String) {
        match self.call(tool, json!({})).await {
            Err(CallError::Refused { kind, message }) => (kind, message),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_questions_reach_the_client_at_once_and_their_answers_the_guest() {
    let bench = Bench::new(ALL, Mood::Answers).await;
    let text = bench
        .text("test_input_required_result_multiple_inputs")
        .await;
    assert_eq!(text, "All inputs received");
    let asked = bench.client.asked();
    let [(from, call, questions)] = asked.as_slice() else {
        panic!("{asked:?}");
    };
    assert_eq!(
        (from.as_str(), call.as_deref()),
        ("conformance", Some("call-1"))
    );
    let kinds: Vec<(&str, QuestionKind)> = questions
        .iter()
        .map(|question| (question.key.as_str(), question.kind))
        .collect();
    assert_eq!(
        kinds,
        [
            ("user_name", QuestionKind::Form),
            ("greeting", QuestionKind::Sampling),
            ("client_roots", QuestionKind::Roots)
        ]
    );
    assert_eq!(questions[0].parameters["message"], "What is your name?");
    let text = bench.text("test_input_required_result_elicitation").await;
    assert_eq!(text, "Hello, Ada!");
    bench.text("test_input_required_result_multi_round").await;
    let keys: Vec<String> = bench
        .client
        .asked()
        .iter()
        .map(|(_, _, questions)| questions[0].key.clone())
        .collect();
    assert_eq!(keys, ["user_name", "user_name", "step1", "step2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_client_does_not_offer_is_unavailable_and_known_before_it_is_asked() {
    let bench = Bench::new(ALL, Mood::OffersNothing).await;
    let (kind, message) = bench.refused("test_missing_capability").await;
    assert_eq!(kind, Refusal::Unavailable);
    assert!(message.contains("sampling"), "{message}");
    let text = bench.text("test_input_required_result_capabilities").await;
    assert_eq!(text, "no MRTR-capable capabilities");
    let bench = Bench::new(ALL, Mood::OffersForms).await;
    let text = bench.text("test_input_required_result_capabilities").await;
    assert_eq!(text, "Capability-aware flow complete");
    let asked = bench.client.asked();
    assert_eq!(asked[0].2.len(), 1, "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_is_not_granted_never_reaches_the_client() {
    let bench = Bench::new("client = [\"form\"]", Mood::Answers).await;
    for tool in [
        "test_missing_capability",
        "test_input_required_result_multiple_inputs",
    ] {
        let (kind, message) = bench.refused(tool).await;
        assert_eq!(kind, Refusal::Denied);
        assert!(
            message.contains("sampling") && message.contains("client"),
            "{message}"
        );
    }
    assert!(bench.client.asked().is_empty());
    bench.text("test_input_required_result_elicitation").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_an_answer_out_is_the_front_ends_failure() {
    let bench = Bench::new(ALL, Mood::AnswersNothing).await;
    let (kind, message) = bench
        .refused("test_input_required_result_elicitation")
        .await;
    assert_eq!(kind, Refusal::Other);
    assert!(message.contains("user_name"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_call_closes_its_questions() {
    let bench = Bench::new(ALL, Mood::NeverAnswers).await;
    let mut call = bench
        .session
        .call("test_input_required_result_elicitation", json!({}));
    tokio::time::timeout(SOON, bench.client.is_asked())
        .await
        .unwrap();
    assert_eq!(bench.client.open(), 1);
    call.canceller().cancel();
    let outcome = tokio::time::timeout(SOON, call.outcome()).await.unwrap();
    assert!(
        matches!(outcome, Err(CallError::Cancelled { .. })),
        "{outcome:?}"
    );
    assert_eq!(bench.client.open(), 0, "the question is closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn sounds_resources_and_pictures_arrive_as_they_are() {
    let bench = Bench::new("", Mood::OffersNothing).await;
    let audio = bench.call("test_audio_content", json!({})).await.unwrap();
    match audio.as_slice() {
        [Content::Audio(audio)] => {
            assert_eq!(audio.media_type, "audio/wav");
            assert!(audio.data.starts_with(b"RIFF"));
        }
        other => panic!("{other:?}"),
    }
    let mixed = bench
        .call("test_multiple_content_types", json!({}))
        .await
        .unwrap();
    match mixed.as_slice() {
        [
            Content::Text(_),
            Content::Image(image),
            Content::Resource(resource),
        ] => {
            assert!(image.data.starts_with(b"\x89PNG"));
            assert_eq!(resource.uri, "test://mixed-content-resource");
            assert_eq!(resource.media_type.as_deref(), Some("application/json"));
            let body = ResourceBody::Text(r#"{"test":"data","value":123}"#.into());
            assert_eq!(resource.body, body);
        }
        other => panic!("{other:?}"),
    }
    let schema = bench.session.tools().into_iter();
    let schema = schema
        .map(|offer| offer.item)
        .find(|tool| tool.name == "json_schema_2020_12_tool");
    assert_eq!(
        schema.unwrap().parameters["$defs"]["address"]["$anchor"],
        "addressDef"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_with_a_uri_that_could_be_misread_breaks_the_contract() {
    let bench = Bench::of(&[("unruly", "")], Mood::OffersNothing).await;
    let link = bench
        .call("link", json!({ "text": "test://a" }))
        .await
        .unwrap();
    assert!(
        matches!(link.as_slice(), [Content::Link(link)] if link.uri == "test://a"),
        "{link:?}"
    );
    let outcome = bench
        .call("link", json!({ "text": "test://\u{202e}a" }))
        .await;
    match outcome {
        Err(CallError::Contract { extension, why }) => {
            assert_eq!(extension, "unruly");
            assert!(
                why.contains("is no URI") && !why.contains('\u{202e}'),
                "{why}"
            );
        }
        other => panic!("{other:?}"),
    }
    // What a call shows meanwhile is not worth ending it for.
    let mut call = bench
        .session
        .call("show-link", json!({ "text": "test:// a" }));
    let updates = call.updates();
    assert_eq!(call.outcome().await.unwrap().text(), "shown");
    assert!(updates.borrow().content.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn hints_and_news_reach_the_front_end() {
    let bench = Bench::new("", Mood::OffersNothing).await;
    let tools = bench.session.tools();
    let hints = |name: &str| {
        let tool = tools.iter().find(|offer| offer.item.name == name);
        let hints = tool.unwrap().item.hints;
        (hints.long_running, hints.task_only)
    };
    assert_eq!(hints("greet"), (false, false));
    assert_eq!(hints("slow_compute"), (true, false));
    assert_eq!(hints("confirm_delete"), (true, true));
    bench.text("test_trigger_tool_change").await;
    bench.text("test_trigger_prompt_change").await;
    assert_eq!(bench.client.changed(), [Listing::Tools, Listing::Prompts]);
    bench.text("test_logging_tool").await;
    assert_eq!(bench.client.told(), ["conformance call-1 Error log"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_knows_how_long_its_caller_waits() {
    let bench = Bench::of(&[("unruly", "")], Mood::OffersNothing).await;
    assert_eq!(bench.text("patience").await, "None");
    let options = |patience| CallOptions {
        id: None,
        patience: Some(patience),
    };
    let minute = Duration::from_secs(60);
    let mut call = bench
        .session
        .call_with(options(minute), "patience", json!({}));
    let text = call.outcome().await.unwrap().text();
    let left: u64 = text
        .trim_matches(|c: char| !c.is_ascii_digit())
        .parse()
        .unwrap();
    assert!((1..=60_000).contains(&left), "{text}");

    // A tool that waits answers before its caller is gone.
    let long = json!({ "n": 600_000 });
    let mut call = bench.session.call_with(
        options(Duration::from_millis(300)),
        "patiently",
        long.clone(),
    );
    let outcome = tokio::time::timeout(SOON, call.outcome()).await.unwrap();
    assert_eq!(outcome.unwrap().text(), "not yet, call again");

    // Patience that grows meanwhile is used.
    let mut call = bench.session.call_with(
        options(Duration::from_secs(1)),
        "patiently",
        json!({ "n": 1500 }),
    );
    call.patience().set(None);
    let outcome = tokio::time::timeout(SOON, call.outcome()).await.unwrap();
    assert_eq!(outcome.unwrap().text(), "done");

    let mut call = bench.session.call_with(options(minute), "patiently", long);
    call.canceller().cancel();
    let outcome = tokio::time::timeout(SOON, call.outcome()).await.unwrap();
    assert!(
        matches!(outcome, Err(CallError::Cancelled { .. })),
        "{outcome:?}"
    );
}
