//! URLs and servers that lead elsewhere than they were granted.

use serde_json::json;

use crate::raider::{Raid, is_denied};
use crate::web::Web;

/// Written with `PORT` for the port of a server that must not hear of them. The only URLs granted are below `/ok/` of `127.0.0.1:PORT`.
#[rustfmt::skip]
const TRICKS: &[&str] = &[
    // Other paths of the same server.
    "http://127.0.0.1:PORT/", "http://127.0.0.1:PORT/ok", "http://127.0.0.1:PORT/okay/x", "http://127.0.0.1:PORT/OK/x", "http://127.0.0.1:PORT//ok/x",
    "http://127.0.0.1:PORT/ok/../secret", "http://127.0.0.1:PORT/ok/%2e%2e/secret", "http://127.0.0.1:PORT/ok/%2E%2e/secret", "http://127.0.0.1:PORT/ok/..%2fsecret",
    "http://127.0.0.1:PORT/ok/..%5csecret", "http://127.0.0.1:PORT/ok/..\\secret", "http://127.0.0.1:PORT/ok/%252e%252e/secret", "http://127.0.0.1:PORT/ok/..;/secret",
    "http://127.0.0.1:PORT/ok/.;x/../../secret", "http://127.0.0.1:PORT/%6f%6b/x", "http://127.0.0.1:PORT/ok%2fx", "http://127.0.0.1:PORT/x/ok/", "http://127.0.0.1:PORT/ok/%00",
    "http://127.0.0.1:PORT/ok/%0d%0aGET%20/secret", "http://127.0.0.1:PORT/./ok%2f..%2fsecret", "http://127.0.0.1:PORT/ok/..%c0%afsecret",
    // The same address, written otherwise: the grant is for this host and port.
    "http://localhost:PORT/secret", "http://2130706433:PORT/secret", "http://0x7f000001:PORT/secret", "http://0177.0.0.1:PORT/secret", "http://127.1:PORT/secret", "http://127.0.1:PORT/secret",
    "http://127.000.000.001:PORT/secret", "http://0x7f.0.0.1:PORT/secret", "http://017700000001:PORT/secret", "http://0:PORT/secret", "http://0.0.0.0:PORT/ok/x", "http://127.0.0.2:PORT/ok/x",
    "http://127.0.0.1.:PORT/secret", "http://localhost.:PORT/ok/x", "http://LOCALHOST:PORT/ok/x", "http://x.localhost:PORT/ok/x", "http://\u{ff11}27.0.0.1:PORT/secret",
    "http://127\u{3002}0\u{3002}0\u{3002}1:PORT/secret", "http://\u{2460}27.0.0.1:PORT/secret", "http://127.0.0.1%00.evil.example:PORT/ok/x",
    "http://[::1]:PORT/ok/x", "http://[::ffff:127.0.0.1]:PORT/ok/x", "http://[::ffff:7f00:1]:PORT/ok/x", "http://[::127.0.0.1]:PORT/ok/x", "http://[64:ff9b::7f00:1]:PORT/ok/x",
    "http://[0:0:0:0:0:ffff:127.0.0.1]:PORT/ok/x", "http://[fe80::1%25lo]:PORT/ok/x", "http://[::]:PORT/ok/x", "http://[::1%lo]:PORT/ok/x",
    // User information, ports, schemes, separators.
    "http://user@127.0.0.1:PORT/ok/x", "http://user:hunter2@127.0.0.1:PORT/ok/x", "http://:hunter2@127.0.0.1:PORT/ok/x", "http://127.0.0.1:PORT@evil.example/ok/x", "http://evil.example\\@127.0.0.1:PORT/ok/x",
    "http://evil.example#@127.0.0.1:PORT/ok/x", "http://127.0.0.1:80/ok/x", "http://127.0.0.1/ok/x", "http://127.0.0.1:0/ok/x", "http://127.0.0.1:99999/ok/x", "http://127.0.0.1:PORT:80/ok/x",
    "http://127.0.0.1:+PORT/ok/x", "http://127.0.0.1: PORT/ok/x", "https://127.0.0.1:PORT/ok/x", "ftp://127.0.0.1:PORT/ok/x", "ws://127.0.0.1:PORT/ok/x", "gopher://127.0.0.1:PORT/ok/x",
    "file:///etc/passwd", "file://127.0.0.1:PORT/ok/x", "data:text/plain,hello", "javascript:1", "unix:///var/run/docker.sock", "http+unix://127.0.0.1:PORT/ok/x", "blob:http://127.0.0.1:PORT/ok/x",
    "//127.0.0.1:PORT/ok/x", "/ok/x", "127.0.0.1:PORT/ok/x", "", " ", "http://", "http:///ok/x", "http://?", "http://\u{0}/ok/x",
    // The metadata of clouds, private and special networks.
    "http://169.254.169.254/latest/meta-data/", "http://[fd00:ec2::254]/latest/", "http://metadata.google.internal/", "http://100.100.100.200/", "http://168.63.129.16/", "http://192.168.0.1/", "http://10.0.0.1/", "http://172.16.0.1/",
];

#[test]
fn no_spelling_of_a_url_leads_elsewhere() {
    assert!(TRICKS.len() >= 60, "{}", TRICKS.len());
    let web = Web::new();
    let raid = Raid::new(&format!("http = [{}]", web.rule("/ok/*")));
    let port = web.port().to_string();
    let raids: Vec<_> = TRICKS
        .iter()
        .map(|url| json!({ "what": "http", "text": url.replace("PORT", &port), "timeout": 5_000 }))
        .collect();
    for (url, told) in TRICKS.iter().zip(raid.told(&raids)) {
        let refused = told.starts_with("refused: Error::Denied(")
            || told.starts_with("refused: Error::Invalid(");
        assert!(refused, "{url}: {told}");
        assert!(!told.contains("hunter2"), "{url}: {told}");
    }
    assert_eq!(web.seen(), [""; 0], "nobody was asked anything");
    // It is there, and what is granted is allowed, also in other words for the same.
    let allowed = [
        web.url("/ok/x"),
        web.url("/ok/a/../b"),
        format!("http://2130706433:{port}/ok/x"),
        format!("HTTP://127.0.0.1:{port}/ok/x?q=/../#f"),
    ];
    let raids: Vec<_> = allowed
        .iter()
        .map(|url| json!({ "what": "http", "text": url }))
        .collect();
    for (url, told) in allowed.iter().zip(raid.told(&raids)) {
        assert!(told.starts_with("200 "), "{url}: {told}");
    }
}

#[test]
fn a_name_that_stands_for_a_private_address_leads_nowhere_though_the_name_is_granted() {
    let web = Web::new();
    let names = [
        ("own.example", "127.0.0.1"),
        ("six.example", "::1"),
        ("mapped.example", "::ffff:127.0.0.1"),
        ("any.example", "0.0.0.0"),
        ("cloud.example", "169.254.169.254"),
        ("private.example", "10.0.0.1"),
        ("shared.example", "100.64.0.1"),
    ];
    let port = web.port();
    let url = |name: &str| format!("http://{name}:{port}/ok/x");
    let rules: Vec<String> = names
        .iter()
        .map(|(name, _)| format!("\"{}\"", url(name)))
        .chain([format!(
            "{{ url = \"{}\", addresses = [\"127.0.0.1\"] }}",
            url("granted.example")
        )])
        .collect();
    let mut raid = Raid::new(&format!("http = [{}]", rules.join(", ")));
    let hosts: Vec<String> = names
        .iter()
        .chain(&[("granted.example", "127.0.0.1")])
        .map(|(name, address)| format!("{address} {name}\n"))
        .collect();
    raid.resolve(&hosts.concat());
    let ask = |name: &str| json!({ "what": "http", "text": url(name), "timeout": 5_000 });
    let raids: Vec<_> = names.iter().map(|(name, _)| ask(name)).collect();
    for ((name, address), told) in names.iter().zip(raid.told(&raids)) {
        assert!(
            told.starts_with("refused: Error::Denied("),
            "{name} {address}: {told}"
        );
    }
    assert_eq!(web.seen(), [""; 0], "nobody was asked anything");
    // The names are those of this test, and an address that is granted is one that is asked.
    let told = raid.told(&[ask("granted.example")]);
    assert!(told[0].starts_with("200 "), "{told:?}");
}

#[test]
fn methods_and_headers_smuggle_nothing() {
    let web = Web::new();
    let raid = Raid::new(&format!("http = [{}]", web.rule("/ok/*")));
    let url = web.url("/ok/x");
    let mut raids: Vec<_> = [
        "CONNECT",
        "GET\r\nX: y",
        "GET /secret",
        "",
        "G\u{e9}T",
        "TRACE\0",
    ]
    .iter()
    .filter(|method| !method.is_empty())
    .map(|method| json!({ "what": "http", "text": url, "method": method }))
    .collect();
    for (name, value) in [
        ("host", "evil.example"),
        ("Host", "evil.example"),
        ("transfer-encoding", "chunked"),
        ("content-length", "5"),
        ("connection", "x-secret"),
        ("proxy-authorization", "x"),
        ("upgrade", "websocket"),
        ("x-a", "1\r\nx-b: 2"),
        ("x-a\r\nx-b", "1"),
        ("x a", "1"),
        ("", "1"),
        ("x-a", "\u{0}"),
    ] {
        raids.push(json!({ "what": "http", "text": url, "headers": [[name, value]] }));
    }
    let many: Vec<_> = (0..40_000)
        .map(|n| [format!("x-{n}"), "y".into()])
        .collect();
    raids.push(json!({ "what": "http", "text": url, "headers": many }));
    for (raid, told) in raids.iter().zip(raid.told(&raids)) {
        let shown: String = raid.to_string().chars().take(200).collect();
        assert!(told.starts_with("refused: Error::"), "{shown}: {told}");
    }
    assert_eq!(web.seen(), [""; 0]);
}

#[test]
fn a_redirect_is_judged_at_each_hop_and_carries_no_secret_to_a_stranger() {
    let (web, other) = (Web::new(), Web::new());
    let rules = format!(
        "http = [{}]\nsecrets = [\"LLM_PROXY_KEY -> http {}\"]",
        web.rule("/*"),
        web.url("")
    );
    let mut raid = Raid::new(&rules);
    raid.home.set("LLM_PROXY_KEY", "canary-of-a-redirect");
    let secret = json!([["x-key", "secret:LLM_PROXY_KEY"]]);
    let to = |target: &str| json!({ "what": "http", "text": web.url(&format!("/to?{target}")), "headers": secret });
    let told = raid.told(&[
        to(&other.url("/stolen")),
        to("http://169.254.169.254/latest/meta-data/"),
        to("file:///etc/passwd"),
        to("http://user:pass@127.0.0.1/"),
        to(&format!("//127.0.0.1:{}/stolen", other.port())),
        to(&web.url("/to?/to?/to")),
        to("/ok/there"),
    ]);
    for told in &told[..5] {
        assert!(told.starts_with("refused: Error::"), "{told}");
    }
    assert!(is_denied(&told[0]) && is_denied(&told[1]), "{told:?}");
    assert!(told[6].starts_with("200 "), "{}", told[6]);
    assert_eq!(other.seen(), [""; 0]);
    // One that never ends.
    let forever =
        json!({ "what": "http", "text": web.url(&format!("/to?{}", web.url("/to?/to"))) });
    let told = raid.told(&[forever]);
    assert!(
        told[0].starts_with("refused: ") || told[0].starts_with("200 "),
        "{told:?}"
    );
    // What the policy leaves open is asked about, and here nobody can be asked.
    let rules = format!("http = [{}]\nask = [\"http\"]", web.rule("/*"));
    let raid = Raid::new(&rules);
    let told = raid.told(&[
        json!({ "what": "http", "text": web.url(&format!("/to?{}", other.url("/asked"))) }),
    ]);
    assert!(told[0].contains("nobody approved it"), "{told:?}");
    assert_eq!(other.seen(), [""; 0]);
}

#[test]
fn answers_without_end_are_bounded_and_connections_counted() {
    let web = Web::new();
    let rules = format!(
        "http = [{}]\nlimits = {{ connections = 3, memory = \"512 MiB\" }}",
        web.rule("/*")
    );
    let raid = Raid::new(&rules);
    let keep = json!({ "what": "http-keep", "text": web.url("/hello"), "n": 10 });
    let told = raid.told(&[
        keep.clone(),
        json!({ "what": "http-drop" }),
        keep,
        json!({ "what": "http-drop" }),
        json!({ "what": "http", "text": web.url("/endless") }),
        json!({ "what": "http", "text": web.url("/fields") }),
        json!({ "what": "http", "text": web.url("/silent"), "timeout": 200 }),
    ]);
    for told in [&told[0], &told[2]] {
        assert!(
            told.contains("3 Error::Limit") && told.contains("`connections`"),
            "{told}"
        );
    }
    assert!(told[4].contains("Error::Limit"), "{}", told[4]);
    assert!(told[5].starts_with("refused: "), "{} bytes", told[5].len());
    assert!(told[6].contains("Error::TimedOut"), "{}", told[6]);
}
