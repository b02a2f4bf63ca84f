//! Resources and prompts of a session.

use pi_vers_host::{CallError, Cause, Content, ResourceBody, Speaker};
use tokio_util::sync::CancellationToken;

use super::front::Mood;
use super::{ALL, Bench, SOON};

fn cause() -> Cause {
    Cause {
        id: Some("prompt-1".into()),
        cancel: CancellationToken::new(),
    }
}

fn pair(name: &str, value: &str) -> (String, String) {
    (name.into(), value.into())
}

#[tokio::test(flavor = "multi_thread")]
async fn resources_are_listed_with_their_extension_and_read_by_uri() {
    let bench = Bench::new("", Mood::OffersNothing).await;
    let session = &bench.session;
    let listed = session.resources(&cause()).await.unwrap();
    let uris: Vec<(&str, &str)> = listed
        .iter()
        .map(|offer| (offer.extension.as_str(), offer.item.uri.as_str()))
        .collect();
    assert_eq!(
        uris,
        [
            ("conformance", "test://static-text"),
            ("conformance", "test://static-binary"),
            ("conformance", "test://watched-resource")
        ]
    );
    let templates = session.resource_templates(&cause()).await.unwrap();
    assert_eq!(templates[0].item.uri_template, "test://template/{id}/data");
    let read = session
        .read_resource(&cause(), "test://static-binary")
        .await;
    let read = read.unwrap();
    assert_eq!(read[0].media_type.as_deref(), Some("image/png"));
    assert!(matches!(&read[0].body, ResourceBody::Blob(data) if data.starts_with(b"\x89PNG")));
    let read = session
        .read_resource(&cause(), "test://template/7/data")
        .await;
    let read = read.unwrap();
    assert!(matches!(&read[0].body, ResourceBody::Text(text) if text.contains("Data for ID: 7")));
    for uri in ["test://nowhere", "not a uri", "\u{1b}[2J"] {
        let why = session.read_resource(&cause(), uri).await.unwrap_err();
        assert!(
            matches!(
                why,
                CallError::Unknown {
                    what: "resource",
                    ..
                }
            ),
            "{why:?}"
        );
        assert!(!why.to_string().contains('\u{1b}'), "{why}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn prompts_are_filled_in_and_completed() {
    let bench = Bench::new("", Mood::OffersNothing).await;
    let session = &bench.session;
    let listed = session.prompts(&cause()).await.unwrap();
    assert_eq!(listed.len(), 5);
    let two = &listed[1].item;
    assert_eq!(two.name, "test_prompt_with_arguments");
    assert!(two.arguments.iter().all(|argument| argument.required) && two.arguments.len() == 2);
    let arguments = vec![pair("arg1", "x"), pair("arg2", "y")];
    let filled = session
        .prompt(&cause(), &two.name, arguments)
        .await
        .unwrap();
    assert_eq!(filled.messages[0].speaker, Speaker::User);
    assert_eq!(
        filled.messages[0].content,
        Content::text("Prompt with arguments: arg1='x', arg2='y'")
    );
    let name = "test_prompt_with_embedded_resource";
    let uri = vec![pair("resourceUri", "test://here")];
    let filled = session.prompt(&cause(), name, uri).await.unwrap();
    assert!(
        matches!(&filled.messages[0].content, Content::Resource(resource) if resource.uri == "test://here")
    );
    let bad = vec![pair("resourceUri", "\u{1b}[2J")];
    let why = session.prompt(&cause(), name, bad).await.unwrap_err();
    assert!(matches!(why, CallError::Contract { .. }), "{why:?}");
    let why = session
        .prompt(&cause(), "nothing", vec![])
        .await
        .unwrap_err();
    assert!(
        matches!(why, CallError::Unknown { what: "prompt", .. }),
        "{why:?}"
    );
    let ways = session
        .complete_prompt(&cause(), &two.name, "arg1", "par")
        .await;
    assert_eq!(ways.unwrap(), ["paris", "park", "party"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_may_ask_the_client_and_is_given_up_with_its_cause() {
    let name = "test_input_required_result_prompt";
    let bench = Bench::new(ALL, Mood::Answers).await;
    let filled = bench.session.prompt(&cause(), name, vec![]).await.unwrap();
    assert_eq!(filled.messages[0].content, Content::text("context: tests"));
    assert_eq!(bench.client.asked()[0].1.as_deref(), Some("prompt-1"));

    let bench = Bench::new(ALL, Mood::NeverAnswers).await;
    let cause = cause();
    let (outcome, ()) = tokio::join!(bench.session.prompt(&cause, name, vec![]), async {
        tokio::time::timeout(SOON, bench.client.is_asked())
            .await
            .unwrap();
        cause.cancel.cancel();
    });
    assert!(
        matches!(outcome, Err(CallError::Cancelled { .. })),
        "{outcome:?}"
    );
    assert_eq!(bench.client.open(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extension_that_floods_or_hangs_hides_nothing_of_the_others() {
    let limits = "limits = { output = \"64 KiB\", call = \"2 s\" }";
    let guests = [("conformance", ""), ("unruly", limits)];
    let bench = Bench::of(&guests, Mood::OffersNothing).await;
    let session = &bench.session;
    let listed = session.resources(&cause()).await.unwrap();
    assert_eq!(listed.len(), 1000);
    assert_eq!(listed[0].item.uri, "test://static-text");
    assert!(
        listed
            .iter()
            .all(|offer| !offer.item.name.contains('\u{1b}'))
    );
    let good = |uri: &str| uri.bytes().all(|byte| byte.is_ascii_graphic());
    assert!(listed.iter().all(|offer| good(&offer.item.uri)));

    // One never answers: the other's prompts come all the same.
    let listed = tokio::time::timeout(SOON, session.prompts(&cause())).await;
    assert_eq!(listed.unwrap().unwrap().len(), 5);
    let never = tokio::time::timeout(SOON, session.prompt(&cause(), "never", vec![])).await;
    assert!(
        matches!(never, Ok(Err(CallError::TimedOut { .. }))),
        "{never:?}"
    );

    for uri in ["unruly://huge", "unruly://elsewhere"] {
        let why = session.read_resource(&cause(), uri).await.unwrap_err();
        assert!(matches!(why, CallError::Contract { .. }), "{why:?}");
        assert!(!why.to_string().contains('\u{1b}'), "{why}");
    }
    let why = session
        .read_resource(&cause(), "unruly://panic")
        .await
        .unwrap_err();
    assert!(matches!(why, CallError::Crashed { .. }), "{why:?}");
    let read = session.read_resource(&cause(), "test://static-text").await;
    assert_eq!(read.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_without_publishers_has_empty_lists() {
    let bench = Bench::of(&[], Mood::OffersNothing).await;
    assert!(bench.session.resources(&cause()).await.unwrap().is_empty());
    assert!(bench.session.prompts(&cause()).await.unwrap().is_empty());
    let given_up = cause();
    given_up.cancel.cancel();
    let bench = Bench::new("", Mood::OffersNothing).await;
    let outcome = bench.session.resources(&given_up).await;
    assert!(
        matches!(outcome, Err(CallError::Cancelled { .. })),
        "{outcome:?}"
    );
}
