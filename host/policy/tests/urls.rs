//! HTTP patterns against URL tricks, and addresses against rebinding.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use pi_vers_policy::{Policy, Request, SecretUse, special_address};
use url::Url;

const POLICY: &str = r#"http = [
    "https://api.example.com/v1/*",
    "https://*.wild.example/*",
    "GET,HEAD https://read.example/file",
    "http://localhost:3000/*",
    { url = "https://intern.example/*", addresses = ["10.1.0.0/16", "fd00::/8"] },
]"#;

/// As the host does it: a text that is no URL is refused before.
fn allowed(method: &str, text: &str) -> bool {
    let grants = common::grants(POLICY);
    Url::parse(text).is_ok_and(|url| {
        grants
            .decide(&Request::Http { method, url: &url })
            .is_allowed()
    })
}

#[test]
fn granted_urls_are_allowed() {
    for url in [
        "https://api.example.com/v1/",
        "https://api.example.com/v1/a/b?q=/../&x#frag",
        "https://API.example.COM:443/v1/x",
        "https://api.example.com/v1/a/../b",
        "https://a.wild.example/",
        "https://a.wild.example/x%2Fy",
        "https://api.example.com/v1/%C3%BC/\u{fc}",
        "https://a.wild.example?q",
        "https://read.example/file",
        "https://read.example/x/../file",
        "http://localhost:3000/",
        "https://intern.example/x",
    ] {
        assert!(allowed("GET", url), "{url}");
    }
    assert!(allowed("DELETE", "https://api.example.com/v1/x"));
}

#[rustfmt::skip]
const TRICKS: &[&str] = &[
    // scheme, port
    "http://api.example.com/v1/x", "ftp://api.example.com/v1/x", "ws://api.example.com/v1/x", "file:///v1/x", "file://api.example.com/v1/x", "data:text/plain,x",
    "javascript:alert(1)", "https:api.example.com:8443/v1/x", "https://api.example.com:80/v1/x", "https://api.example.com:8443/v1/", "gopher://api.example.com/v1/", "blob:https://api.example.com/v1/x",
    // user information
    "https://api.example.com@evil.com/v1/x", "https://user@api.example.com/v1/x", "https://user:pass@api.example.com/v1/x", "https://:pass@api.example.com/v1/x",
    "https://api.example.com%40evil.com/v1/x", "https://api.example.com:443@evil.com/v1/", "https://evil.com\\@api.example.com/v1/x", "https://api.example.com:x@evil.com/v1/",
    // hosts that look alike
    "https://evil-api.example.com/v1/x", "https://evilapi.example.com/v1/", "https://api.example.com.evil.com/v1/x", "https://api.example.com./v1/x", "https://xapi.example.com/v1/",
    "https://example.com/v1/x", "https://api-example.com/v1/x", "https://api.example.co/v1/x", "https://\u{430}pi.example.com/v1/x", "https://api.example.com%2eevil.com/v1/", "https://api.example.com%00.evil.com/v1/x",
    "https://api.example\u{3002}com.evil.com/v1/", "https://evil.com#api.example.com/v1/x", "https://evil.com?api.example.com/v1/x", "https://evil.com/https://api.example.com/v1/x", "https://evil.com\\api.example.com/v1/",
    "https://api.example.com\t.evil.com/v1/x", "https://api.example.com\n.evil.com/v1/", "///evil.com/v1/x", "//api.example.com/v1/x", "https:///evil.com/v1/",
    // paths
    "https://api.example.com/", "https://api.example.com/v1", "https://api.example.com/v2/x", "https://api.example.com/v1x/", "https://api.example.com/V1/x", "https://api.example.com/v1/../admin",
    "https://api.example.com/v1/%2e%2e/admin", "https://api.example.com/v1/..%2fadmin", "https://api.example.com/v1/%2e%2e%2fadmin", "https://api.example.com/v1/..%5cadmin", "https://api.example.com/v1/..\\admin",
    "https://api.example.com/v1/%252e%252e/admin", "https://api.example.com/v1/..;/admin", "https://api.example.com/v1/.;x/../../admin", "https://api.example.com/v1/..%3b/admin", "https://api.example.com/v1/x%00",
    "https://api.example.com//v1/x", "https://api.example.com/%76%31/x", "https://api.example.com/v1%2fx", "https://api.example.com/x/v1/", "https://api.example.com/v1/x%0d%0aHost:evil",
    "https://api.example.com/v1/..%c0%afadmin", "https://api.example.com/v1/%c0%ae%c0%ae/admin", "https://api.example.com/v1/%e0%80%af", "https://api.example.com/v1/%ff", "https://api.example.com/v1/%ed%a0%80",
    // one label, exact paths
    "https://wild.example/", "https://a.b.wild.example/", "https://.wild.example/", "https://awild.example/", "https://a.wild.example.evil.com/", "https://a.wild.example:444/", "http://a.wild.example/",
    "https://read.example/file?x", "https://read.example/file/", "https://read.example/filex", "https://read.example/", "https://read.example/file?",
    // addresses in disguise
    "https://2130706433/v1/x", "https://0x7f.1/v1/", "https://127.1/", "https://0177.0.0.1/", "https://[::1]/", "https://[::ffff:127.0.0.1]/", "http://127.0.0.1:3000/", "http://[::1]:3000/", "http://169.254.169.254/latest/meta-data/",
    "http://localhost/", "http://localhost:3001/", "https://localhost:3000/", "http://localhost.:3000/", "http://localhost.evil.com:3000/", "http://x.localhost:3000/", "http://0/", "https://10.1.2.3/",
];

#[test]
fn url_tricks_are_refused() {
    assert!(TRICKS.len() >= 60);
    for url in TRICKS {
        assert!(!allowed("GET", url), "{url}");
    }
    for method in ["POST", "get", "HEAD ", "", "GET\r\nX: y"] {
        assert!(!allowed(method, "https://read.example/file"), "{method}");
    }
}

#[test]
fn denials_do_not_repeat_a_password() {
    let url = Url::parse("https://user:hunter2@api.example.com/v1/x").unwrap();
    let denial = common::denial(common::grants(POLICY).decide(&Request::Http {
        method: "GET",
        url: &url,
    }));
    assert!(
        !denial.to_string().contains("hunter2") && denial.fix.is_none(),
        "{denial:?}"
    );
}

#[test]
fn patterns_in_another_than_their_normal_form_are_refused() {
    for pattern in [
        "api.example.com/*",
        "https://api.example.com",
        "https://API.example.com/*",
        "https://user@a.b/*",
        "https://a.b:443/*",
        "https://a.b/x?y",
        "https://a.b/x#y",
        "https://a.*.b/*",
        "https://*.*.b/*",
        "https://*.com/*",
        "https://*/*",
        "https://*.127.0.0.1/*",
        "https://a.b/x*",
        "https://a.b/*/x",
        "https://a.b./*",
        "ftp://a.b/*",
        "get https://a.b/*",
        "GET,, https://a.b/*",
        "https://2130706433/*",
        "https://a.b/%2e%2e/*",
        "https://a.b/../x/*",
        "https://m\u{fc}ller.de/*",
        "https://@a.b/*",
        "https://a.b/x%2f/*",
        "",
        "*",
        "http://",
    ] {
        let error = Policy::parse(&common::text(&format!("http = [{pattern:?}]")), "p")
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("p:3:9: "), "{pattern}: {error}");
    }
}

#[rustfmt::skip]
const SPECIAL: &[&str] = &[
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.255.255", "169.254.169.254", "172.16.0.1", "172.31.255.255",
    "192.0.0.1", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "168.63.129.16",
    "::", "::1", "::127.0.0.1", "::8.8.8.8", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:0:127.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "100::1",
    "fe80::1", "febf::1", "fec0::1", "fc00::1", "fd12::1", "fd00:ec2::254", "ff02::1", "2001::1", "2001:2::1", "2001:10::1", "2001:db8::1", "2002:7f00:1::", "2002:a00:1::1", "3fff::1", "5f00::1", "4000::1", "2a00::5efe:10.0.0.1", "2a00::200:5efe:7f00:1",
];

#[test]
fn addresses_that_are_not_public_are_refused_unless_named() {
    let grants = common::grants(POLICY);
    let reach = |url: &str, ip: &str| {
        let url = Url::parse(url).unwrap();
        grants
            .decide(&Request::HttpAddress {
                method: "GET",
                url: &url,
                address: ip.parse().unwrap(),
            })
            .is_allowed()
    };
    for ip in SPECIAL {
        assert!(special_address(ip.parse().unwrap()).is_some(), "{ip}");
        assert!(!reach("https://api.example.com/v1/x", ip), "{ip}");
    }
    for ip in [
        "8.8.8.8",
        "1.1.1.1",
        "100.63.255.255",
        "100.128.0.1",
        "172.15.0.1",
        "172.32.0.1",
        "2606:4700::1111",
        "2a00:1450::1",
        "64:ff9b::8.8.8.8",
        "::ffff:8.8.8.8",
    ] {
        assert!(reach("https://api.example.com/v1/x", ip), "{ip}");
    }
    // Named by this pattern, and by this pattern alone.
    assert!(
        reach("http://localhost:3000/", "127.0.0.1")
            && reach("http://localhost:3000/", "::1")
            && reach("http://localhost:3000/", "::ffff:127.0.0.1")
    );
    assert!(
        !reach("http://localhost:3000/", "10.0.0.1")
            && !reach("http://localhost:3001/", "127.0.0.1")
    );
    assert!(
        reach("https://intern.example/", "10.1.2.3")
            && reach("https://intern.example/", "fd12::1")
            && reach("https://intern.example/", "::ffff:10.1.2.3")
    );
    assert!(
        !reach("https://intern.example/", "10.2.0.1")
            && !reach("https://intern.example/", "127.0.0.1")
            && !reach("https://a.wild.example/", "10.1.2.3")
    );
    let whole =
        common::grants(r#"http = [{ url = "https://a.b/*", addresses = ["0.0.0.0/0", "::1"] }]"#);
    let url = Url::parse("https://a.b/").unwrap();
    let reach = |ip: &str| {
        whole
            .decide(&Request::HttpAddress {
                method: "GET",
                url: &url,
                address: ip.parse().unwrap(),
            })
            .is_allowed()
    };
    assert!(reach("127.0.0.1") && reach("::1") && !reach("fe80::1"));
}

#[test]
fn secrets_go_where_they_are_granted_and_nowhere_else() {
    let grants = common::grants(
        r#"secrets = ["A -> http https://api.example.com", "B -> child env /usr/bin/gh", "C -> child env", "D -> vm env", "E -> http http://localhost:99"]"#,
    );
    let header = |name: &str, url: &str| {
        let url = Url::parse(url).unwrap();
        grants
            .decide(&Request::Secret {
                name,
                to: SecretUse::HttpHeader { url: &url },
            })
            .is_allowed()
    };
    assert!(header("A", "https://api.example.com/any?x") && header("E", "http://localhost:99/"));
    for url in [
        "http://api.example.com/",
        "https://api.example.com:444/",
        "https://x.example.com/",
        "https://api.example.com./",
        "https://evil.com/",
        "data:x",
    ] {
        assert!(!header("A", url), "{url}");
    }
    for name in ["B", "C", "D", "a", "A ", ""] {
        assert!(!header(name, "https://api.example.com/"), "{name}");
    }
    let child = |name, program: &str| {
        grants
            .decide(&Request::Secret {
                name,
                to: SecretUse::ChildEnv {
                    program: program.as_ref(),
                },
            })
            .is_allowed()
    };
    assert!(
        child("B", "/usr/bin/gh")
            && child("C", "/usr/bin/env")
            && !child("B", "/usr/bin/env")
            && !child("D", "/x")
            && !child("A", "/x")
    );
    let on_vm = |name| {
        grants
            .decide(&Request::Secret {
                name,
                to: SecretUse::VmEnv,
            })
            .is_allowed()
    };
    assert!(on_vm("D") && !on_vm("A") && !on_vm("B") && !on_vm("C"));
    for secret in [
        "A",
        "A -> ",
        "A->vm env",
        "A -> http http://example.com",
        "A -> http https://a.b/x",
        "A -> http https://*.a.b",
        "A -> child env gh",
        "9 -> vm env",
        "A -> file",
        "A B -> vm env",
    ] {
        assert!(
            Policy::parse(&common::text(&format!("secrets = [{secret:?}]")), "p").is_err(),
            "{secret}"
        );
    }
}
