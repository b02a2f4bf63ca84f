#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

/// A server on loopback that answers by path and remembers what it was sent.
#[derive(Clone)]
struct Server {
    port: u16,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            port: listener.local_addr().unwrap().port(),
            seen: Arc::default(),
        };
        let (seen, answer) = (server.seen.clone(), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (seen, answer) = (seen.clone(), answer.clone());
                tokio::spawn(async move {
                    let mut request = Vec::new();
                    let done = |request: &[u8]| match request
                        .windows(4)
                        .position(|end| end == b"\r\n\r\n")
                    {
                        Some(_) if request.windows(8).any(|part| part == b"chunked\r") => {
                            request.ends_with(b"0\r\n\r\n")
                        }
                        found => found.is_some(),
                    };
                    while !done(&request) {
                        if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
                            return;
                        }
                    }
                    let request = String::from_utf8(request).unwrap();
                    let answer = answer(request.split(' ').nth(1).unwrap());
                    seen.lock().unwrap().push(request);
                    let _ = stream.write_all(answer.as_bytes()).await;
                    if answer.contains("x-hang") {
                        std::future::pending::<()>().await;
                    }
                });
            }
        });
        server
    }

    fn url(&self, host: &str, path: &str) -> String {
        format!("http://{host}:{}{path}", self.port)
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

fn ok(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn to(status: u16, location: &str) -> String {
    format!(
        "HTTP/1.1 {status} Go\r\nlocation: {location}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    )
}

/// Names of the tests: `a.test` and `b.test` are at 127.0.0.1 and may be; all others must be public.
fn lookup(asked: Arc<AtomicUsize>) -> Lookup {
    Arc::new(move |host| {
        asked.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            let addresses: &[&str] = match host.as_str() {
                "a.test" | "b.test" | "inner.test" | "localhost" => &["127.0.0.1"],
                "mixed.test" => &["169.254.169.254", "10.0.0.1", "::1", "::ffff:127.0.0.1"],
                "both.test" => &["127.0.0.2", "127.0.0.1"],
                _ => return Err(std::io::Error::other("no such name")),
            };
            Ok(addresses
                .iter()
                .map(|address| address.parse().unwrap())
                .collect())
        })
    })
}

fn judge() -> impl Judge {
    (
        |url: &Url| match url.path().starts_with("/forbidden")
            || url.host_str() == Some("forbidden.test")
        {
            true => Err(Error::new(Kind::Denied, "not granted")),
            false => Ok(()),
        },
        |host: &str, address: IpAddr| match (host, address.to_string().as_str()) {
            ("a.test" | "b.test" | "both.test", "127.0.0.1") => Ok(()),
            _ => public_address(host, address),
        },
    )
}

fn egress(limits: Limits) -> (Egress, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    (
        Egress::with_lookup(judge(), limits, lookup(asked.clone())).unwrap(),
        asked,
    )
}

fn get(url: impl Into<String>) -> Request {
    Request {
        method: "GET".to_owned(),
        url: url.into(),
        headers: vec![],
        timeout: Some(Duration::from_secs(30)),
    }
}

fn header(name: &str, value: &str, secret: bool) -> Header {
    Header {
        name: name.to_owned(),
        value: value.to_owned(),
        secret,
    }
}

async fn text(response: Response) -> Result<String, Error> {
    let chunks: Vec<Bytes> = response.body.try_collect().await?;
    Ok(String::from_utf8(chunks.concat()).unwrap())
}

#[tokio::test]
async fn a_request_goes_out_and_its_answer_comes_back() {
    let server = Server::start(|_| ok("hello")).await;
    let (egress, _) = egress(Limits::default());
    let mut request = get(server.url("a.test", "/x?q=1#fragment"));
    request.method = "POST".to_owned();
    request.headers = vec![
        header("X-One", "é", false),
        header("x-two", "2", false),
        header("x-two", "3", false),
    ];
    let body = futures::stream::iter(["ab", "cd"].map(|part| Ok(Bytes::from(part)))).boxed();
    let response = egress.send(request, Some(body)).await.unwrap();
    assert_eq!(
        (response.status, response.url.as_str()),
        (200, server.url("a.test", "/x?q=1").as_str())
    );
    assert!(
        response
            .headers
            .contains(&("content-length".to_owned(), "5".to_owned()))
    );
    assert_eq!(text(response).await.unwrap(), "hello");
    let seen = &server.seen()[0];
    assert!(seen.starts_with("POST /x?q=1 HTTP/1.1\r\n"), "{seen}");
    for part in [
        "x-one: é\r\n",
        "x-two: 2\r\nx-two: 3\r\n",
        "2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n",
    ] {
        assert!(seen.contains(part), "{seen}");
    }
}

#[tokio::test]
async fn what_the_judge_refuses_is_not_even_looked_up() {
    let (egress, asked) = egress(Limits::default());
    for url in [
        "http://forbidden.test/",
        "http://FORBIDDEN.test:81/x",
        "http://a.test/forbidden",
    ] {
        assert_eq!(
            egress.send(get(url), None).await.unwrap_err().kind(),
            Kind::Denied,
            "{url}"
        );
    }
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_address_is_judged_however_it_is_written() {
    let server = Server::start(|_| ok("inside")).await;
    let (egress, _) = egress(Limits::default());
    for host in
        "127.0.0.1 2130706433 0x7f.1 0177.0.0.1 127.1 0 0.0.0.0 [::1] [::] [::ffff:127.0.0.1] \
        [::ffff:7f00:1] [::127.0.0.1] [64:ff9b::7f00:1] [2002:7f00:1::] 169.254.169.254 \
        [fd00:ec2::254] 10.0.0.1 100.100.100.200 168.63.129.16 192.168.1.1 172.20.0.1 \
        ①②⑦.0.0.1 inner.test localhost LOCALHOST mixed.test"
            .split(' ')
    {
        let error = egress
            .send(get(server.url(host, "/")), None)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Denied, "{host}: {error}");
    }
    assert_eq!(server.seen(), [] as [String; 0]);
}

#[tokio::test]
async fn only_the_judged_address_is_dialled() {
    let server = Server::start(|_| ok("judged")).await;
    let (egress, _) = egress(Limits::default());
    // Nothing passes for 127.0.0.2, and nobody listens there; the answer comes from the other one.
    let response = egress
        .send(get(server.url("both.test", "/")), None)
        .await
        .unwrap();
    assert_eq!(text(response).await.unwrap(), "judged");
    let error = egress
        .send(get("http://unknown.test/"), None)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.message().contains("unknown.test"), "{error}");
}

#[tokio::test]
async fn a_name_that_changes_its_address_is_judged_at_every_connection() {
    let server = Server::start(|_| ok("x")).await;
    let calls = Arc::new(AtomicUsize::new(0));
    let rebinding: Lookup = Arc::new(move |_| {
        let address = if calls.fetch_add(1, Ordering::SeqCst) == 0 {
            "127.0.0.1"
        } else {
            "127.0.0.2"
        };
        Box::pin(async move { Ok(vec![address.parse().unwrap()]) })
    });
    let egress = Egress::with_lookup(judge(), Limits::default(), rebinding).unwrap();
    text(
        egress
            .send(get(server.url("a.test", "/")), None)
            .await
            .unwrap(),
    )
    .await
    .unwrap();
    let error = egress
        .send(get(server.url("a.test", "/")), None)
        .await
        .unwrap_err();
    assert_eq!((error.kind(), server.seen().len()), (Kind::Denied, 1));
}

#[tokio::test]
async fn every_hop_is_judged() {
    let inner = Server::start(|_| ok("metadata")).await;
    let targets: HashMap<&str, String> = HashMap::from([
        ("/loopback", inner.url("127.0.0.1", "/")),
        ("/name", inner.url("inner.test", "/")),
        (
            "/metadata",
            "http://169.254.169.254/latest/meta-data/".to_owned(),
        ),
        ("/six", inner.url("[::1]", "/")),
        ("/denied", "/forbidden/x".to_owned()),
        ("/host", "//forbidden.test/".to_owned()),
        ("/file", "file:///etc/passwd".to_owned()),
        ("/user", inner.url("user:pass@a.test", "/")),
        ("/far", "/loopback".to_owned()),
        ("/broken", "http://[".to_owned()),
        ("/long", format!("/{}", "x".repeat(9000))),
    ]);
    let paths: Vec<_> = targets.keys().copied().collect();
    let server = Server::start(move |path| to(302, &targets[path])).await;
    let (egress, _) = egress(Limits::default());
    for path in paths {
        let error = egress
            .send(get(server.url("a.test", path)), None)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Denied, "{path}: {error}");
    }
    assert_eq!(inner.seen(), [] as [String; 0]);
}

#[tokio::test]
async fn secrets_stay_with_the_origin_they_are_for() {
    let other = Server::start(|_| ok("other")).await;
    let target = other.url("b.test", "/landing");
    let server = Server::start(move |path| {
        if path == "/same" {
            to(302, "/leave")
        } else {
            to(307, &target)
        }
    })
    .await;
    let (egress, _) = egress(Limits::default());
    let mut request = get(server.url("a.test", "/same"));
    request.headers = vec![
        header("x-key", "canary-1", true),
        header("authorization", "canary-2", false),
        header("cookie", "canary-3", false),
        header("x-plain", "plain", false),
    ];
    assert!(!format!("{request:?}").contains("canary-1"));
    let response = egress.send(request, None).await.unwrap();
    assert_eq!(response.url.as_str(), other.url("b.test", "/landing"));
    let ours = server.seen();
    assert_eq!(ours.len(), 2);
    assert!(
        ours.iter()
            .all(|seen| (1..=3).all(|n| seen.contains(&format!("canary-{n}"))))
    );
    let theirs = &other.seen()[0];
    assert!(
        theirs.contains("x-plain: plain")
            && !theirs.contains("canary")
            && !theirs.contains("referer"),
        "{theirs}"
    );
}

#[tokio::test]
async fn methods_and_bodies_follow_the_rules_of_redirects() {
    let server = Server::start(|path| match path.strip_prefix("/go/") {
        Some(status) => to(status.parse().unwrap(), "/end"),
        None => ok("end"),
    })
    .await;
    let (egress, _) = egress(Limits::default());
    for (method, status, then) in [
        ("POST", 301, "GET"),
        ("POST", 302, "GET"),
        ("POST", 303, "GET"),
        ("PUT", 303, "GET"),
        ("HEAD", 303, "HEAD"),
        ("HEAD", 302, "HEAD"),
        ("DELETE", 302, "DELETE"),
        ("GET", 308, "GET"),
        ("DELETE", 307, "DELETE"),
    ] {
        let mut request = get(server.url("a.test", &format!("/go/{status}")));
        request.method = method.to_owned();
        egress.send(request, None).await.unwrap();
        assert!(
            server
                .seen()
                .last()
                .unwrap()
                .starts_with(&format!("{then} /end ")),
            "{method} {status}"
        );
    }
    let body = || Some(futures::stream::iter([Ok(Bytes::from("body"))]).boxed());
    let mut request = get(server.url("a.test", "/go/302"));
    (request.method, request.headers) = (
        "POST".to_owned(),
        vec![header("content-type", "a/b", false)],
    );
    egress.send(request.clone(), body()).await.unwrap();
    assert!(!server.seen().last().unwrap().contains("content-type"));
    request.url = server.url("a.test", "/go/307");
    let error = egress.send(request, body()).await.unwrap_err();
    assert!(
        error.kind() == Kind::Other && error.message().contains("a.test"),
        "{error}"
    );
}

#[tokio::test]
async fn redirects_headers_and_bodies_are_bounded() {
    let server = Server::start(|path| match path {
        "/around" => to(302, "/around"),
        "/headers" => format!(
            "HTTP/1.1 200 OK\r\nx-big: {}\r\ncontent-length: 0\r\n\r\n",
            "x".repeat(3000)
        ),
        "/length" => ok(&"x".repeat(5000)),
        _ => format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(5000)),
    })
    .await;
    let limits = Limits {
        header_bytes: 2000,
        response_bytes: 4000,
        request_bytes: 100,
        redirects: 3,
        ..Default::default()
    };
    let (egress, _) = egress(limits);
    let url = |path| server.url("a.test", path);
    assert_eq!(
        egress
            .send(get(url("/around")), None)
            .await
            .unwrap_err()
            .kind(),
        Kind::Limit
    );
    assert_eq!(server.seen().len(), 4);
    assert_eq!(
        egress
            .send(get(url("/headers")), None)
            .await
            .unwrap_err()
            .kind(),
        Kind::Limit
    );
    for path in ["/length", "/endless"] {
        assert_eq!(
            text(egress.send(get(url(path)), None).await.unwrap())
                .await
                .unwrap_err()
                .kind(),
            Kind::Limit
        );
    }
    let mut request = get(url("/length"));
    request.headers = vec![header("x", &"x".repeat(2000), false)];
    assert_eq!(
        egress.send(request, None).await.unwrap_err().kind(),
        Kind::Limit
    );
    let mut request = get(url("/length"));
    request.method = "POST".to_owned();
    let endless = futures::stream::repeat_with(|| Ok(Bytes::from("more"))).boxed();
    assert_eq!(
        egress
            .send(request, Some(endless))
            .await
            .unwrap_err()
            .kind(),
        Kind::Limit
    );
}

#[tokio::test]
async fn a_server_that_does_not_go_on_is_given_up() {
    let server = Server::start(|path| match path {
        "/nothing" => "HTTP/1.1 200 OK\r\nx-hang: 1\r\n".to_owned(),
        _ => "HTTP/1.1 200 OK\r\nx-hang: 1\r\ncontent-length: 10\r\n\r\nhalf".to_owned(),
    })
    .await;
    let (egress, _) = egress(Limits {
        idle: Duration::from_millis(200),
        ..Default::default()
    });
    let mut request = get(server.url("a.test", "/nothing"));
    request.timeout = Some(Duration::from_millis(200));
    assert_eq!(
        egress.send(request, None).await.unwrap_err().kind(),
        Kind::TimedOut
    );
    let mut body = egress
        .send(get(server.url("a.test", "/half")), None)
        .await
        .unwrap()
        .body;
    assert_eq!(body.next().await.unwrap().unwrap(), "half");
    assert_eq!(
        body.next().await.unwrap().unwrap_err().kind(),
        Kind::TimedOut
    );
    assert!(body.next().await.is_none());
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_an_error() {
    let server =
        Server::start(|_| "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf".to_owned()).await;
    let (egress, _) = egress(Limits::default());
    let response = egress
        .send(get(server.url("a.test", "/?token=canary")), None)
        .await
        .unwrap();
    let error = text(response).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(!error.message().contains("canary"), "{error}");
}

#[tokio::test]
async fn malformed_requests_are_not_sent() {
    let server = Server::start(|_| ok("x")).await;
    let (egress, asked) = egress(Limits::default());
    let long = format!("http://a.test/{}", "x".repeat(9000));
    for url in [
        "",
        "a.test",
        "/x",
        "ftp://a.test/",
        "file:///etc/passwd",
        "data:,x",
        "http://",
        "http://u@a.test/",
        "http://u:p@a.test/",
        "http://a.test:0/",
        "http://a b/",
        &long,
    ] {
        assert_eq!(
            egress.send(get(url), None).await.unwrap_err().kind(),
            Kind::Invalid,
            "{url}"
        );
    }
    for method in ["", "G T", "CONNECT", "GET /x HTTP/1.1\r\n"] {
        let request = Request {
            method: method.to_owned(),
            ..get(server.url("a.test", "/"))
        };
        assert_eq!(
            egress.send(request, None).await.unwrap_err().kind(),
            Kind::Invalid,
            "{method}"
        );
    }
    for (name, value) in [
        ("Host", "b.test"),
        ("content-length", "0"),
        ("Transfer-Encoding", "chunked"),
        ("connection", "x-key"),
        ("upgrade", "h2c"),
        ("proxy-authorization", "x"),
        ("a b", "x"),
        ("", "x"),
        ("a:", "x"),
        ("x", "a\r\nhost: b.test"),
        ("x", "a\0"),
    ] {
        let request = Request {
            headers: vec![header(name, value, true)],
            ..get(server.url("a.test", "/"))
        };
        let error = egress.send(request, None).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{name}");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

const PROXY_TEST: &str = "PI_VERS_TEST_PROXY";

/// Runs in the process that the next test starts; does nothing by itself.
#[tokio::test]
async fn in_a_process_with_a_proxy() {
    if std::env::var_os(PROXY_TEST).is_none() {
        return;
    }
    let (egress, _) = egress(Limits::default());
    let error = egress
        .send(get("http://inner.test:1/"), None)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Denied, "{error}");
}

/// A proxy would resolve names itself, and reach what nobody judged.
#[tokio::test]
async fn a_proxy_in_the_environment_is_not_used() {
    let proxy = Server::start(|_| ok("by proxy")).await;
    let mut other = tokio::process::Command::new(std::env::current_exe().unwrap());
    other.args(["--exact", "http::tests::in_a_process_with_a_proxy"]);
    other
        .env(PROXY_TEST, "1")
        .env_remove("NO_PROXY")
        .env_remove("no_proxy");
    for name in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
        other.env(name, format!("http://127.0.0.1:{}", proxy.port));
    }
    let output = other.output().await.unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    assert_eq!(proxy.seen(), [] as [String; 0]);
}

#[test]
fn public_addresses_are_told_from_the_others() {
    let public = |address: &str| public_address("x", address.parse().unwrap()).is_ok();
    for address in "1.1.1.1 8.8.8.8 172.15.0.1 172.32.0.1 192.0.1.1 100.63.0.1 223.255.255.255 \
        2606:4700::1111 2a00::1 2001:4860:4860::8888 64:ff9b::808:808 ::ffff:8.8.8.8"
        .split(' ')
    {
        assert!(public(address), "{address}");
    }
    for address in "0.0.0.0 0.1.2.3 10.1.2.3 100.64.0.1 127.255.255.254 169.254.169.254 172.16.0.1 \
        172.31.255.255 192.0.0.8 192.0.2.1 192.168.0.1 198.18.0.1 198.51.100.1 203.0.113.1 \
        224.0.0.1 240.0.0.1 255.255.255.255 :: ::1 ::7f00:1 ::ffff:10.0.0.1 \
        64:ff9b::a9fe:a9fe 64:ff9b:1::1 fc00::1 fd00:ec2::254 fe80::1 fec0::1 ff02::1 \
        2001::1 2001:db8::1 2002:7f00:1:: 3fff::1"
        .split(' ')
    {
        assert!(!public(address), "{address}");
    }
}

proptest! {
    #[test]
    fn nothing_a_guest_writes_as_url_or_header_panics(url in "(https?://)?[ -~é]{0,30}", name in "\\PC{0,8}", value in "\\PC{0,8}|[\\x00-\\x20]{0,3}") {
        if let Ok(url) = target::parse(&url) {
            prop_assert!(matches!(url.scheme(), "http" | "https") && url.username().is_empty() && url.host().is_some());
        }
        static EGRESS: std::sync::OnceLock<Egress> = std::sync::OnceLock::new();
        let egress = EGRESS.get_or_init(|| Egress::new(judge(), Limits::default()).unwrap());
        if let Ok(map) = egress.headers(vec![header(&name, &value, false)]) {
            prop_assert!(map.values().all(|value| !value.as_bytes().contains(&b'\n') && !value.as_bytes().contains(&b'\r')));
        }
    }
}
