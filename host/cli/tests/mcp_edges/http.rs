//! Streamable HTTP: who may ask, from where, how much, and that sessions share nothing.

use std::io::Read as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::common::Home;
use crate::peer::{DEADLINE, call, meta, said};
use crate::web::{Reply, Request, Server, Session, hello};

/// The bar is 200 ms; a busy machine gets some more.
const BOUND: Duration = Duration::from_secs(1);

fn modern(id: u64, method: &str, mut params: Value) -> Value {
    params["_meta"] = meta();
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })
}

fn refused(reply: &Reply, status: u16, what: &str) {
    assert_eq!(reply.status, status, "{what}: {reply:?}");
    assert!(!reply.body.contains("serverInfo"), "{what}: {reply:?}");
}

#[test]
fn both_eras_are_served_at_one_address() {
    let home = Home::new();
    let server = Server::start(&home, &["showcase"], &[]);
    assert!(server.at.ip().is_loopback());
    let mut session = Session::open(&server);
    assert_eq!(session.call("noop", json!({})), "ok");
    let old = session.ask("tools/list", json!({}))["result"].take();
    let reply = server.post(&modern(1, "tools/list", json!({}))).send();
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(
        reply.header("mcp-session-id"),
        None,
        "there are none in the newer era"
    );
    let new = reply.messages().pop().unwrap()["result"].take();
    assert_eq!(new["tools"], old["tools"]);
    let reply = server
        .post(&modern(2, "tools/call", call("noop", json!({}))))
        .send();
    let result = reply.messages().pop().unwrap()["result"].take();
    assert_eq!(
        (said(&result), &result["resultType"]),
        ("ok", &json!("complete"))
    );
}

#[test]
fn a_page_of_another_site_is_refused_whatever_it_asks() {
    let home = Home::new();
    let server = Server::start(&home, &[], &[]);
    let port = server.at.port();
    let bodies = [
        hello(),
        modern(1, "server/discover", json!({})),
        modern(2, "tools/list", json!({})),
    ];
    for body in &bodies {
        // A name that an attacker's server resolves to this machine, and then some that only look right.
        let hosts = [
            "evil.example.com".to_owned(),
            format!("evil.example.com:{port}"),
            format!("127.0.0.1.evil.example.com:{port}"),
            format!("localhost.evil.example.com:{port}"),
            format!("127.0.0.1:{port}.evil.example.com"),
        ];
        for host in &hosts {
            let reply = server.post(body).header("host", host).send();
            assert!((400..500).contains(&reply.status), "{host}: {reply:?}");
            assert!(!reply.body.contains("serverInfo"), "{host}: {reply:?}");
        }
        let origins = [
            "http://evil.example.com".to_owned(),
            "null".to_owned(),
            format!("http://127.0.0.1.evil.example.com:{port}"),
            format!("http://localhost.evil.example.com:{port}"),
            "file://".to_owned(),
            "chrome-extension://abcdef".to_owned(),
        ];
        for origin in &origins {
            let reply = server.post(body).header("origin", origin).send();
            refused(&reply, 403, origin);
            assert_eq!(
                reply.header("access-control-allow-origin"),
                None,
                "{reply:?}"
            );
        }
        // A page of this machine's own, and the names it has.
        for host in [format!("localhost:{port}"), format!("127.0.0.1:{port}")] {
            let reply = server.post(body).header("host", &host).send();
            assert_eq!(reply.status, 200, "{host}: {reply:?}");
        }
    }
    // Nor is a preflight answered in a way that lets a page go on.
    let preflight = Request::new(server.at, "OPTIONS", "/mcp")
        .header("host", &server.at.to_string())
        .header("origin", "http://evil.example.com")
        .header("access-control-request-method", "POST")
        .send();
    assert_eq!(
        preflight.header("access-control-allow-origin"),
        None,
        "{preflight:?}"
    );
}

#[test]
fn with_a_token_nobody_else_is_served() {
    let home = Home::new();
    let token = "t0ken-for-tests-0123456789abcdef";
    let file = home.write("token", format!("{token}\n"));
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&file, mode).unwrap();
    let server = Server::start(&home, &[], &["--token-file", file.to_str().unwrap()]);
    let bearer = |token: &str| format!("Bearer {token}");
    for body in [hello(), modern(1, "server/discover", json!({}))] {
        let wrong = [
            String::new(),
            "Bearer".to_owned(),
            "Bearer ".to_owned(),
            bearer("other"),
            bearer(&token[..token.len() - 1]),
            bearer(&format!("{token}0")),
            bearer(&token.to_uppercase()),
            format!("Basic {token}"),
            token.to_owned(),
        ];
        for wrong in &wrong {
            let reply = server.post(&body).header("authorization", wrong).send();
            refused(&reply, 401, wrong);
            let challenge = reply.header("www-authenticate").unwrap_or_default();
            assert!(challenge.starts_with("Bearer"), "{reply:?}");
        }
        // Not in the address, where it would be written into logs.
        let mut address = Request::new(server.at, "POST", &format!("/mcp?access_token={token}"));
        for (name, value) in [
            ("host", server.at.to_string()),
            ("content-type", "application/json".to_owned()),
            ("accept", "application/json, text/event-stream".to_owned()),
        ] {
            address = address.header(name, &value);
        }
        refused(
            &address.body(body.to_string()).send(),
            401,
            "in the address",
        );
        let reply = server
            .post(&body)
            .header("authorization", &bearer(token))
            .send();
        assert_eq!(reply.status, 200, "{reply:?}");
        // It is no way around the other checks.
        let reply = server
            .post(&body)
            .header("authorization", &bearer(token))
            .header("origin", "http://evil.example.com")
            .send();
        refused(&reply, 403, "with a token");
    }
}

#[test]
fn other_machines_are_not_served_without_a_token() {
    let home = Home::new();
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let ran = home.run(["mcp", "--http", address]);
        assert_eq!(ran.code, 2, "{address}: {ran:?}");
        assert!(ran.err.contains("--token-file"), "{address}: {ran:?}");
    }
    // A file that says nothing is no token, and one that others can read is none either.
    let empty = home.write("empty", "\n");
    let ran = home.run([
        "mcp",
        "--http",
        "127.0.0.1:0",
        "--token-file",
        empty.to_str().unwrap(),
    ]);
    assert_ne!(ran.code, 0, "{ran:?}");
    let ran = home.run([
        "mcp",
        "--http",
        "127.0.0.1:0",
        "--token-file",
        "/nonexistent/token",
    ]);
    assert_ne!(ran.code, 0, "{ran:?}");
}

#[test]
fn what_is_no_request_of_the_protocol_is_refused() {
    let home = Home::new();
    let server = Server::start(&home, &[], &[]);
    let good = server.post(&hello());
    let cases = [
        (
            "another path",
            Request::new(server.at, "POST", "/other").header("host", &server.at.to_string()),
            404..=404,
        ),
        ("no JSON", good.clone().body("nonsense"), 400..=422),
        (
            "not UTF-8",
            good.clone().body(vec![b'"', 0xff, b'"']),
            400..=422,
        ),
        ("no body", good.clone().body(""), 400..=422),
        (
            "another type",
            good.clone().header("content-type", "text/plain"),
            415..=415,
        ),
        (
            "no answer is wanted",
            good.clone().header("accept", "text/html"),
            406..=406,
        ),
        (
            "no version of the protocol",
            server
                .post(&modern(1, "tools/list", json!({})))
                .header("mcp-protocol-version", "1999-01-01"),
            400..=400,
        ),
        (
            "another method in the header",
            server
                .post(&modern(1, "tools/list", json!({})))
                .header("mcp-method", "tools/call"),
            400..=400,
        ),
        (
            "PUT",
            Request::new(server.at, "PUT", "/mcp").header("host", &server.at.to_string()),
            400..=405,
        ),
    ];
    for (what, request, status) in cases {
        let reply = request.send();
        assert!(status.contains(&reply.status), "{what}: {reply:?}");
    }
    // A very long body is not read to its end.
    let mut long = hello();
    long["params"]["pad"] = "x".repeat(64 << 20).into();
    let mut stream = server.post(&long).begin();
    let mut said = [0; 64];
    let read = stream.read(&mut said).unwrap_or(0);
    let said = String::from_utf8_lossy(&said[..read]).into_owned();
    assert!(
        said.is_empty() || said.starts_with("HTTP/1.1 413"),
        "{said}"
    );
    // One that never comes holds nobody up.
    let mut slow = server
        .post(&hello())
        .header("content-length", "100")
        .body("");
    slow = slow.header("x-slow", "1");
    let _held: Vec<_> = (0..50).map(|_| slow.begin()).collect();
    assert_eq!(good.send().status, 200);
}

#[test]
fn sessions_share_nothing() {
    let home = Home::new();
    let server = Server::start(&home, &["showcase"], &[]);
    let (mut one, mut two) = (Session::open(&server), Session::open(&server));
    assert_ne!(one.id, two.id);
    assert!(one.id.len() >= 32, "it can be guessed: {}", one.id);
    assert_eq!(one.call("show_count", json!({})), "1");
    assert_eq!(one.call("show_count", json!({})), "2");
    assert_eq!(two.call("show_count", json!({})), "1");
    one.call("show_status", json!({ "text": "only here" }));
    let status = |session: &mut Session<'_>| {
        let params = json!({ "uri": "pi-vers://status" });
        session.ask("resources/read", params)["result"]["contents"][0]["text"].to_string()
    };
    assert!(status(&mut one).contains("only here"));
    assert!(!status(&mut two).contains("only here"));
    // The end of one is not the end of the other.
    let delete = |id: &str| {
        Request::new(server.at, "DELETE", "/mcp")
            .header("host", &server.at.to_string())
            .header("mcp-session-id", id)
            .header("mcp-protocol-version", "2025-11-25")
            .send()
    };
    assert!((200..300).contains(&delete(&one.id).status));
    let ping = json!({ "jsonrpc": "2.0", "id": 9, "method": "ping" });
    assert_eq!(one.request(&ping).send().status, 404);
    assert_eq!(two.call("show_count", json!({})), "2");
    // An id that nobody was given, and none at all.
    for id in [
        "",
        "00000000-0000-0000-0000-000000000000",
        "../../etc/passwd",
    ] {
        let reply = two.request(&ping).header("mcp-session-id", id).send();
        let wanted = if id.is_empty() { 400..=422 } else { 404..=404 };
        assert!(wanted.contains(&reply.status), "{id:?}: {reply:?}");
    }
}

#[test]
fn a_cancel_and_a_closed_stream_stop_a_call() {
    let home = Home::new();
    let server = Server::start(&home, &["showcase"], &[]);
    let mut wait = call("show_wait", json!({ "ms": 3_600_000 }));
    wait["_meta"] = json!({ "progressToken": "waits" });
    let deadline = Instant::now() + DEADLINE;

    let mut session = Session::open(&server);
    let body = json!({ "jsonrpc": "2.0", "id": "long", "method": "tools/call", "params": wait });
    let stream = begun(&session.request(&body));
    let cancel = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": "long" } });
    assert_eq!(session.request(&cancel).send().status, 202);
    while session.call("show_cancelled", json!({})) != "1 cancelled, 0 waiting" {
        assert!(Instant::now() < deadline, "the cancel did not arrive");
    }
    drop(stream);

    // In the newer era the end of the stream is the cancel.
    let token = wait["_meta"].take();
    let mut body = modern(1, "tools/call", wait);
    body["params"]["_meta"]["progressToken"] = token["progressToken"].clone();
    drop(begun(&server.post(&body)));
    let told = || {
        let body = modern(2, "tools/call", call("show_cancelled", json!({})));
        let answer = server.post(&body).send().messages().pop().unwrap();
        said(&answer["result"]).to_owned()
    };
    while told() != "1 cancelled, 0 waiting" {
        assert!(
            Instant::now() < deadline,
            "the closed stream stopped nothing"
        );
    }
}

/// Sends a call that reports progress, and waits until it does.
fn begun(request: &Request) -> TcpStream {
    let mut stream = request.begin();
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("notifications/progress") {
        let mut piece = [0; 4096];
        let read = stream.read(&mut piece).unwrap();
        assert_ne!(read, 0, "{}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&piece[..read]);
    }
    stream
}

#[test]
fn it_ends_in_time_with_streams_open() {
    for signal in [Signal::INT, Signal::TERM] {
        let home = Home::new();
        let mut server = Server::start(&home, &["showcase", "unruly"], &[]);
        let open: Vec<_> = {
            let mut session = Session::open(&server);
            session.call("noop", json!({}));
            let request = |tool, arguments| {
                session
                    .request(&json!({ "jsonrpc": "2.0", "id": tool, "method": "tools/call", "params": call(tool, arguments) }))
                    .begin()
            };
            let listen = modern(
                7,
                "subscriptions/listen",
                json!({ "notifications": { "toolsListChanged": true } }),
            );
            let mut listening = server.post(&listen).begin();
            let mut first = [0; 16];
            assert_ne!(listening.read(&mut first).unwrap(), 0);
            let events = Request::new(server.at, "GET", "/mcp")
                .header("host", &server.at.to_string())
                .header("accept", "text/event-stream")
                .header("mcp-session-id", &session.id)
                .header("mcp-protocol-version", "2025-11-25")
                .begin();
            let calls = [
                request("show_wait", json!({ "ms": 3_600_000 })),
                request("spin", json!({})),
            ];
            session.call("noop", json!({}));
            calls.into_iter().chain([listening, events]).collect()
        };
        let pid = Pid::from_raw(i32::try_from(server.child.id()).unwrap()).unwrap();
        let since = Instant::now();
        kill_process(pid, signal).unwrap();
        let took = server.ended(since);
        println!("HTTP {signal:?}: {took:?}");
        assert!(took < BOUND, "{signal:?}: it took {took:?}");
        drop(open);
    }
}
