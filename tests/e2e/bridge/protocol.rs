//! Lines and frames: what is offered, what is passed over, what ends the bridge.

use std::time::Duration;

use pi_vers_tests::{Scratch, built};
use serde_json::{Value, json};

use super::shim::Shim;

fn names(list: &Value) -> Vec<&str> {
    let all = list.as_array().unwrap().iter();
    all.map(|one| one["name"].as_str().unwrap()).collect()
}

fn tool<'a>(ready: &'a Value, name: &str) -> Option<&'a Value> {
    let all = ready["tools"].as_array().unwrap();
    all.iter().find(|tool| tool["name"] == name)
}

#[tokio::test(flavor = "multi_thread")]
async fn ready_declares_everything_and_replaces_only_what_the_harness_has() {
    let scratch = Scratch::new();
    let (shim, ready) = Shim::greet(&scratch, &[], &["bash", "read", "vers_vms"]).await;
    assert_eq!(ready["v"], 1);
    assert_eq!(ready["host"]["version"], env!("CARGO_PKG_VERSION"));
    assert!(names(&ready["extensions"]).contains(&"vers-vm"));
    let bash = tool(&ready, "bash").unwrap();
    assert_eq!(
        (&bash["replaces"], &bash["extension"]),
        (&json!(true), &json!("vers-vm"))
    );
    assert_eq!(bash["parameters"]["type"], "object");
    assert_eq!(bash["hints"]["readOnly"], false);
    // It only replaces, and this harness has none.
    assert_eq!(tool(&ready, "grep"), None);
    assert_eq!(tool(&ready, "edit").unwrap()["replaces"], false);
    // Replacing takes a grant, whatever the tool is.
    assert_eq!(tool(&ready, "vers_vms"), None);
    assert_eq!(tool(&ready, "vers_vm_use").unwrap()["replaces"], false);
    let commands = ready["commands"].as_array().unwrap();
    assert!(commands.iter().any(|command| command["name"] == "vers"
        && command["extension"] == "vers-vm"
        && command["description"] != ""));
    let flags = ready["flags"].as_array().unwrap();
    let flag = |name: &str| flags.iter().find(|flag| flag["name"] == name).unwrap();
    assert_eq!(flag("vers-ssh-timeout")["type"], "number");
    assert_eq!(flag("vers-ssh-timeout")["default"], 120.0);
    assert_eq!(flag("vers-api-key")["type"], "string");
    let topics = ready["topics"].as_array().unwrap();
    assert!(topics.contains(&json!("vers-vm.active")), "{topics:?}");
    shim.end().await;
    scratch.nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_known_is_passed_over_and_what_does_not_fit_is_answered() {
    let scratch = Scratch::new();
    let (mut shim, _) = Shim::unruly(&scratch, "", &[]).await;
    shim.send(json!({ "t": "later", "id": 77, "x": [] })).await;
    shim.send(json!({ "no": "t" })).await;
    shim.send(json!({ "t": "hello", "v": 1, "cwd": "/" })).await;
    shim.send(json!({ "t": "cancel", "id": 4711 })).await;
    shim.send(json!({ "t": "result", "id": 4711, "value": 1 }))
        .await;
    shim.send(json!({ "t": "update", "id": 4711, "content": [] }))
        .await;
    let id = shim.ask("call", json!({ "callId": "c" })).await;
    let answer = shim.answer(id).await;
    assert_eq!(
        (&answer["t"], &answer["code"]),
        (&json!("error"), &json!("invalid"))
    );
    let id = shim
        .ask("event", json!({ "name": "input", "data": {} }))
        .await;
    assert_eq!(shim.answer(id).await["code"], "invalid");
    let id = shim.ask("start", json!({ "reason": "whim" })).await;
    assert_eq!(shim.answer(id).await["code"], "invalid");
    assert_eq!(shim.code("ecko", json!({})).await, "not-found");
    assert_eq!(shim.code("echo", json!({ "text": 1 })).await, "invalid");
    // Of two requests of one id the second is passed over, and the first still answered once.
    for text in ["first", "second"] {
        shim.send(json!({ "t": "call", "id": 500, "tool": "sleep", "callId": text, "arguments": { "n": 300 } }))
            .await;
    }
    assert_eq!(shim.answer(500).await["t"], "result");
    assert_eq!(
        shim.text("echo", json!({ "text": "still here" })).await,
        "still here"
    );
    assert!(
        shim.seen.iter().all(|frame| frame["id"] != 500),
        "{:?}",
        shim.seen
    );
    shim.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_is_none_ends_the_bridge_with_one_readable_line() {
    let scratch = Scratch::new();
    let long = vec![b'x'; (16 << 20) + 1];
    let cases: [(&[u8], &str); 4] = [
        (b"garbage\n", "no JSON"),
        (b"[1]\n", "no JSON object"),
        (b"{\"t\":\"\xff\"}\n", "no JSON"),
        (&long, "longer than 16 MiB"),
    ];
    for (bytes, why) in cases {
        let (mut shim, _) = Shim::unruly(&scratch, "", &[]).await;
        shim.begin("sleep", json!({ "n": 600_000 })).await;
        shim.bytes(bytes).await;
        let ended = shim.ended().await;
        assert_eq!(ended.code, Some(2), "{ended:?}");
        let last = ended.stderr.lines().last().unwrap();
        assert!(
            last.starts_with("pi-vers: ") && last.contains(why),
            "{ended:?}"
        );
    }
    scratch.nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_served_before_hello() {
    let scratch = Scratch::new();
    // The end of the input before it is an end like any other.
    let mut shim = Shim::spawn(&scratch, &[]);
    shim.hang_up();
    assert_eq!(shim.ended().await.code, Some(0));
    let mut shim = Shim::spawn(&scratch, &[]);
    shim.bytes(b"what?\n").await;
    assert_eq!(shim.ended().await.code, Some(2));
    // A line that is not finished is none.
    let mut shim = Shim::spawn(&scratch, &[]);
    shim.bytes(b"{\"t\":\"hel").await;
    shim.hang_up();
    assert_eq!(shim.ended().await.code, Some(0));
    let mut shim = Shim::spawn(&scratch, &[]);
    shim.send(json!({ "t": "hello", "v": 1, "cwd": "relative" }))
        .await;
    let fatal = shim.next().await;
    assert_eq!(fatal["t"], "fatal", "{fatal}");
    assert_eq!(shim.ended().await.code, Some(2));
    // Nobody says anything at all.
    let mut shim = Shim::spawn(&scratch, &[]);
    let fatal = shim.next().await;
    assert!(
        fatal["message"].as_str().unwrap().contains("hello"),
        "{fatal}"
    );
    assert_eq!(shim.ended().await.code, Some(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extension_that_cannot_be_loaded_is_fatal_and_named() {
    let scratch = Scratch::new();
    std::fs::write(scratch.work().join("broken.wasm"), "no component").unwrap();
    let mut shim = Shim::spawn(&scratch, &["--extension", "broken.wasm"]);
    shim.send(json!({ "t": "hello", "v": 1, "cwd": scratch.work() }))
        .await;
    let fatal = shim.next().await;
    assert_eq!(fatal["t"], "fatal", "{fatal}");
    assert!(
        fatal["message"].as_str().unwrap().contains("broken.wasm"),
        "{fatal}"
    );
    let ended = shim.ended_within(Duration::from_secs(20)).await;
    assert_eq!(ended.code, Some(7), "{ended:?}");
}

/// Two that offer the same tools: the second is left out by name, and the others work.
#[tokio::test(flavor = "multi_thread")]
async fn an_extension_that_clashes_with_another_is_left_out_and_both_are_named() {
    let scratch = Scratch::new();
    let guest = built::fixture("unruly");
    let twin = twin(&std::fs::read(&guest).unwrap());
    std::fs::write(scratch.work().join("twin.wasm"), twin).unwrap();
    let guest = guest.to_str().unwrap();
    let args = ["--extension", guest, "--extension", "twin.wasm"];
    let (mut shim, ready) = Shim::greet(&scratch, &args, &[]).await;
    assert!(names(&ready["extensions"]).contains(&"unruly"));
    assert!(!names(&ready["extensions"]).contains(&"unrulz"), "{ready}");
    assert_eq!(tool(&ready, "echo").unwrap()["extension"], "unruly");
    let told = shim.noticed("ui.notify").await;
    let message = told["message"].as_str().unwrap();
    assert!(
        message.contains("unruly") && message.contains("unrulz"),
        "{message}"
    );
    assert_eq!(shim.text("echo", json!({ "text": "here" })).await, "here");
    shim.end().await;
}

/// The same component under another name of the same length.
fn twin(wasm: &[u8]) -> Vec<u8> {
    let mut twin = wasm.to_vec();
    let name = b"unruly";
    let mut at = 0;
    while let Some(found) = twin[at..].windows(name.len()).position(|w| w == name) {
        at += found;
        twin[at + name.len() - 1] = b'z';
        at += name.len();
    }
    twin
}
