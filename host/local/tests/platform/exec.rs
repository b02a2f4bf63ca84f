//! Commands, their streams, files and logs.

use crate::lab::{Api, DEADLINE, Lab};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

async fn lines(api: &Api, path: &str, body: Value) -> Vec<Value> {
    let response = api.send(Method::POST, path, Some(body)).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "application/x-ndjson");
    let text = response.text().await.unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn output(lines: &[Value], stream: &str) -> Vec<u8> {
    let chunks = lines
        .iter()
        .filter(|l| l["type"] == "chunk" && l["stream"] == stream);
    chunks
        .flat_map(|l| STANDARD.decode(l["data_b64"].as_str().unwrap()).unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_gets_what_it_was_given_and_returns_what_it_says() {
    let lab = Lab::new().await;
    let api = &lab.api;
    let vm = api.create().await;
    let done = api
        .exec(&vm, json!({
            "command": ["sh", "-c", "printf '%s|%s|' \"$X\" \"$PWD\"; cat; echo oops >&2; exit 7"],
            "env": {"X": "a'b $HOME"},
            "working_dir": "/usr",
            "stdin": "grüße\n",
        }))
        .await;
    assert_eq!(done["exit_code"], 7);
    assert_eq!(done["stdout"], "a'b $HOME|/usr|grüße\n");
    assert_eq!(done["stderr"], "oops\n");
    assert!(done["exec_id"].is_string());
    let words = api
        .exec(
            &vm,
            json!({"command": ["printf", "%s,", "a b", "", "$x", "'"]}),
        )
        .await;
    assert_eq!(words["stdout"], "a b,,$x,',");
    assert_eq!(
        api.exec(&vm, json!({"command": ["no-such-program"]})).await["exit_code"],
        127
    );
    assert_eq!(
        api.exec(&vm, json!({"command": ["sh", "-c", "kill -TERM $$"]}))
            .await["exit_code"],
        143
    );
    let big = "x".repeat(1 << 20);
    let done = api
        .exec(&vm, json!({"command": ["cat"], "stdin": big}))
        .await;
    assert_eq!(done["stdout"].as_str().unwrap().len(), big.len());
    // What it leaves in the background does not hold the answer.
    let done = api
        .exec(
            &vm,
            json!({"command": ["sh", "-c", "sleep 1000 & echo started"]}),
        )
        .await;
    assert_eq!(
        (&done["exit_code"], &done["stdout"]),
        (&json!(0), &json!("started\n"))
    );
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_limit_ends_the_whole_command() {
    let lab = Lab::new().await;
    let api = &lab.api;
    let vm = api.create().await;
    let body = json!({"command": ["sh", "-c", "echo first; sleep 54321"], "timeout_secs": 1});
    let done = api.exec(&vm, body.clone()).await;
    assert_eq!(
        (&done["exit_code"], &done["timed_out"], &done["stdout"]),
        (&json!(124), &json!(true), &json!("first\n"))
    );
    let streamed = lines(api, &format!("/vm/{vm}/exec/stream"), body).await;
    let last = streamed.last().unwrap();
    assert_eq!(
        (&last["type"], &last["exit_code"], &last["timed_out"]),
        (&json!("exit"), &json!(124), &json!(true))
    );
    assert_eq!(api.sh(&vm, "pgrep -f 'sleep 5432[1]' || true").await, "");
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_goes_away_ends_its_command() {
    let lab = Lab::new().await;
    let api = &lab.api;
    let vm = api.create().await;
    let body = json!({"command": ["sh", "-c", "touch /root/started; exec sleep 65432"]});
    let call = tokio::spawn({
        let (api, path) = (api.clone(), format!("/vm/{vm}/exec"));
        async move { api.send(Method::POST, &path, Some(body)).await }
    });
    api.sh(&vm, "while ! [ -e /root/started ]; do sleep 0.01; done")
        .await;
    call.abort();
    api.sh(
        &vm,
        "while pgrep -f 'sleep 6543[2]' >/dev/null; do sleep 0.01; done",
    )
    .await;
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_attached_to_again_without_loss() {
    let lab = Lab::new().await;
    let api = &lab.api;
    let vm = api.create().await;
    let exec_id = "11111111-1111-4111-8111-111111111111";
    let script = "for i in 1 2 3; do echo out$i; echo err$i >&2; sleep 0.05; done; exit 3";
    let body = json!({"command": ["sh", "-c", script], "exec_id": exec_id});
    let all = lines(api, &format!("/vm/{vm}/exec/stream"), body.clone()).await;
    assert_eq!(output(&all, "stdout"), b"out1\nout2\nout3\n");
    assert_eq!(output(&all, "stderr"), b"err1\nerr2\nerr3\n");
    let exit = all.last().unwrap();
    assert_eq!(
        (&exit["type"], &exit["exit_code"], &exit["exec_id"]),
        (&json!("exit"), &json!(3), &json!(exec_id))
    );
    let cursors: Vec<_> = all.iter().map(|l| l["cursor"].as_u64().unwrap()).collect();
    assert_eq!(cursors, (1..=all.len() as u64).collect::<Vec<_>>());
    let attach = format!("/vm/{vm}/exec/stream/attach");
    assert_eq!(lines(api, &attach, json!({"exec_id": exec_id})).await, all);
    assert_eq!(
        lines(api, &attach, json!({"exec_id": exec_id, "cursor": 0})).await,
        all
    );
    assert_eq!(
        lines(api, &attach, json!({"exec_id": exec_id, "cursor": 2})).await,
        all[2..]
    );
    assert_eq!(
        lines(
            api,
            &attach,
            json!({"exec_id": exec_id, "cursor": i64::MAX})
        )
        .await,
        all[all.len() - 1..]
    );
    let latest = json!({"exec_id": exec_id, "from_latest": true, "cursor": 1});
    assert_eq!(lines(api, &attach, latest).await, all[all.len() - 1..]);
    let again = api
        .answer(Method::POST, &format!("/vm/{vm}/exec/stream"), Some(body))
        .await;
    assert_eq!(again.0, 400, "{}", again.2);
    let missing = lines(
        api,
        &format!("/vm/{vm}/exec/stream"),
        json!({"command": ["no-such-program"]}),
    )
    .await;
    assert_eq!(missing.last().unwrap()["exit_code"], 127);
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_when_its_reader_leaves() {
    let lab = Lab::new().await;
    let api = &lab.api;
    let vm = api.create().await;
    let exec_id = "22222222-2222-4222-8222-222222222222";
    let script = "echo before; while ! [ -e /root/go ]; do sleep 0.01; done; echo after";
    let body = json!({"command": ["sh", "-c", script], "exec_id": exec_id});
    let mut response = api
        .send(Method::POST, &format!("/vm/{vm}/exec/stream"), Some(body))
        .await;
    let first = response.chunk().await.unwrap().unwrap();
    assert!(first.starts_with(b"{\"type\":\"chunk\""));
    drop(response);
    api.sh(&vm, "touch /root/go").await;
    let all = lines(
        api,
        &format!("/vm/{vm}/exec/stream/attach"),
        json!({"exec_id": exec_id}),
    )
    .await;
    assert_eq!(output(&all, "stdout"), b"before\nafter\n");
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_output_arrives_whole_at_a_slow_reader() {
    let lab = Lab::new().await;
    let api = &lab.api;
    let vm = api.create().await;
    let body = json!({"command": ["sh", "-c", "seq 1 2000000"]});
    let mut response = api
        .send(Method::POST, &format!("/vm/{vm}/exec/stream"), Some(body))
        .await;
    let mut text = Vec::new();
    let mut n = 0;
    while let Some(chunk) = response.chunk().await.unwrap() {
        text.extend_from_slice(&chunk);
        n += 1;
        if n % 64 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let all: Vec<Value> = text
        .split(|b| *b == b'\n')
        .filter(|l| !l.is_empty())
        .map(|l| serde_json::from_slice(l).unwrap())
        .collect();
    let expected: String = (1..=2_000_000).map(|n| format!("{n}\n")).collect();
    assert!(
        output(&all, "stdout") == expected.as_bytes(),
        "the output differs"
    );
    // Too much for one answer: said, not cut.
    let big = api
        .answer(
            Method::POST,
            &format!("/vm/{vm}/exec"),
            Some(json!({"command": ["seq", "1", "4000000"]})),
        )
        .await;
    assert_eq!(big.0, 413, "{}", big.2);
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_come_back_byte_for_byte() {
    let lab = Lab::new().await;
    let api = &lab.api;
    let vm = api.create().await;
    let files = format!("/vm/{vm}/files");
    let content: Vec<u8> = (0..=255).cycle().take(3 << 20).collect();
    let put = |body| api.answer(Method::PUT, &files, Some(body));
    let body =
        json!({"path": "/root/a/b/c.bin", "content_b64": STANDARD.encode(&content), "mode": 448});
    assert_eq!(put(body.clone()).await.0, 404);
    let mut with_dirs = body;
    with_dirs["create_dirs"] = json!(true);
    assert_eq!(put(with_dirs).await, (200, None, String::new()));
    assert_eq!(
        api.sh(&vm, "stat -c '%a %s' /root/a/b/c.bin").await,
        format!("700 {}\n", content.len())
    );
    let got = api.get(&format!("{files}?path=/root/a/b/c.bin")).await;
    assert!(
        STANDARD
            .decode(got["content_b64"].as_str().unwrap())
            .unwrap()
            == content,
        "the file differs"
    );
    assert_eq!(
        put(json!({"path": "/root/ü 'x'", "content_b64": ""}))
            .await
            .0,
        200
    );
    assert_eq!(api.sh(&vm, "stat -c %a \"/root/ü 'x'\"").await, "644\n");
    assert_eq!(
        put(json!({"path": "/root/a", "content_b64": ""})).await.0,
        400
    );
    assert_eq!(
        put(json!({"path": "/root/x", "content_b64": "%"})).await.0,
        400
    );
    assert_eq!(
        put(json!({"path": "/root/x", "content_b64": "", "mode": 99999}))
            .await
            .0,
        400
    );
    // Files without a size are read to their end.
    let status = api.get(&format!("{files}?path=/proc/self/status")).await;
    assert!(!status["content_b64"].as_str().unwrap().is_empty());
    api.sh(&vm, "mkfifo /root/fifo").await;
    let fifo = tokio::time::timeout(
        DEADLINE,
        api.answer(Method::GET, &format!("{files}?path=/root/fifo"), None),
    )
    .await;
    assert_eq!(fifo.unwrap().0, 400);
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_holds_the_output_of_all_commands() {
    let lab = Lab::new().await;
    let api = &lab.api;
    let vm = api.create().await;
    let logs = format!("/vm/{vm}/logs");
    assert_eq!(
        api.get(&logs).await,
        json!({"entries": [], "next_offset": 0, "eof": true})
    );
    api.sh(&vm, "echo one").await;
    api.exec(&vm, json!({"command": ["sh", "-c", "echo two >&2"]}))
        .await;
    let all = api.get(&logs).await;
    let text = |e: &Value| {
        String::from_utf8(STANDARD.decode(e["data_b64"].as_str().unwrap()).unwrap()).unwrap()
    };
    let seen: Vec<_> = all["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| (e["stream"].as_str().unwrap().to_owned(), text(e)))
        .collect();
    assert_eq!(
        seen,
        [
            ("stdout".to_owned(), "one\n".to_owned()),
            ("stderr".into(), "two\n".into())
        ]
    );
    let rest = api
        .get(&format!("{logs}?offset={}", all["next_offset"]))
        .await;
    assert_eq!(rest["entries"], json!([]));
    let errors = api
        .get(&format!("{logs}?stream=stderr&max_entries=1"))
        .await;
    assert_eq!(text(&errors["entries"][0]), "two\n");
    assert_eq!(
        api.answer(Method::GET, &format!("{logs}?stream=x"), None)
            .await
            .0,
        400
    );
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_beyond_the_documents_types_are_refused() {
    let lab = Lab::new().await;
    let api = &lab.api;
    let vm = api.create().await;
    let beyond = u64::try_from(i64::MAX).unwrap() + 1;
    let bodies = [
        ("exec", json!({"command": ["true"], "timeout_secs": beyond})),
        ("exec", json!({"command": ["true"], "timeout_secs": -1})),
        (
            "exec/stream/attach",
            json!({"exec_id": uuid::Uuid::nil(), "cursor": beyond}),
        ),
    ];
    for (call, body) in bodies {
        let path = format!("/vm/{vm}/{call}");
        let answer = api.send(Method::POST, &path, Some(body.clone())).await;
        assert_eq!(
            answer.status(),
            StatusCode::UNPROCESSABLE_ENTITY,
            "{call} {body}"
        );
    }
    let body = json!({"path": "/tmp/x", "content_b64": "", "mode": 1_u64 << 31});
    let answer = api
        .send(Method::PUT, &format!("/vm/{vm}/files"), Some(body))
        .await;
    assert!(answer.status().is_client_error(), "{}", answer.status());
    let most = json!({"command": ["true"], "timeout_secs": i64::MAX});
    assert_eq!(api.exec(&vm, most).await["exit_code"], 0);
    lab.end().await;
}
