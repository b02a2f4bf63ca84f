//! Extensions from a URL, and their signatures.

use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::keys::ssh_key::{HashAlg, LineEnding, PrivateKey};

use crate::common::Home;
use crate::server::{Reply, Server};
use crate::{built, digest, home, other};

fn nothing_was_added(home: &Home) {
    assert_eq!(home.run(["list"]).out, "no extensions are added\n");
    let kept = home.path(".local/state/pi-vers/components");
    let count = std::fs::read_dir(kept).map_or(0, Iterator::count);
    assert_eq!(count, 0, "something was kept");
}

#[test]
fn a_url_is_fetched_once_and_compared() {
    let (home, server) = (home(), Server::start());
    let wasm = built().wasm();
    server.put("/hello.wasm", Reply::ok(wasm.clone()));
    let ran = home.run([
        "add",
        &server.url("/hello.wasm"),
        "--digest",
        &digest(&wasm),
    ]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let before = server.asked().len();
    assert_eq!(
        home.run(["run", "hello_greet", r#"{"name":"Ada"}"#]).code,
        0
    );
    assert_eq!(server.asked().len(), before, "a session asks nobody");
}

#[test]
fn what_a_server_does_wrong_is_refused_and_leaves_nothing() {
    let (home, server) = (home(), Server::start());
    let wasm = built().wasm();
    server.put("/good", Reply::ok(wasm.clone()));
    server.put("/other", Reply::ok(other(&wasm, "x")));
    let short = wasm[..wasm.len() / 2].to_vec();
    server.put(
        "/cut",
        Reply {
            length: Some(wasm.len()),
            ..Reply::ok(short.clone())
        },
    );
    server.put("/half", Reply::ok(short));
    server.put(
        "/huge",
        Reply {
            length: Some(4 << 30),
            ..Reply::ok(wasm.clone())
        },
    );
    server.put("/page", Reply::ok("<html>"));
    server.put("/out", Reply::redirect("https://example.com/x.wasm"));
    server.put("/plain", Reply::redirect("http://example.com/x.wasm"));
    server.put("/file", Reply::redirect("file:///etc/passwd"));
    server.put("/inner", Reply::redirect("http://169.254.169.254/latest"));
    server.put("/round", Reply::redirect("/round"));
    server.put(
        "/broken",
        Reply {
            status: 500,
            ..Reply::default()
        },
    );
    for path in [
        "/cut", "/half", "/huge", "/page", "/out", "/plain", "/file", "/inner", "/round",
        "/broken", "/missing",
    ] {
        let ran = home.run(["add", &server.url(path)]);
        assert!(ran.code > 1, "{path}: {ran:?}");
        ran.line();
    }
    let ran = home.run(["add", &server.url("/other"), "--digest", &digest(&wasm)]);
    assert_eq!(ran.code, 3, "{ran:?}");
    nothing_was_added(&home);
    // A redirect that stays here is followed.
    server.put("/moved", Reply::redirect("/good"));
    assert_eq!(home.run(["add", &server.url("/moved")]).code, 0);
}

fn key(seed: u8) -> PrivateKey {
    PrivateKey::from(Ed25519Keypair::from_seed(&[seed; 32]))
}

fn public(key: &PrivateKey) -> String {
    key.public_key().to_openssh().unwrap()
}

fn sign(key: &PrivateKey, bytes: &[u8]) -> String {
    let signature = key.sign("pi-vers", HashAlg::Sha512, bytes).unwrap();
    signature.to_pem(LineEnding::LF).unwrap()
}

#[test]
fn a_signature_is_checked_and_from_then_on_demanded() {
    let (home, server) = (home(), Server::start());
    let (alice, mallory) = (key(1), key(2));
    let config = format!("[signers]\nalice = \"{}\"\n", public(&alice));
    home.write(".config/pi-vers/extensions.toml", config);
    let wasm = built().wasm();
    let url = server.url("/hello.wasm");
    server.put("/hello.wasm", Reply::ok(wasm.clone()));
    // Tampered with: the signature is of other bytes.
    server.put(
        "/hello.wasm.sig",
        Reply::ok(sign(&alice, &other(&wasm, "x"))),
    );
    let ran = home.run(["add", &url]);
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(
        ran.line().contains("does not belong to these bytes"),
        "{ran:?}"
    );
    // Half a signature is no signature.
    server.put(
        "/hello.wasm.sig",
        Reply::ok("-----BEGIN SSH SIGNATURE-----\nAAAA\n"),
    );
    assert_eq!(home.run(["add", &url]).code, 3);
    nothing_was_added(&home);
    // A stranger's says who, and is not demanded.
    server.put("/hello.wasm.sig", Reply::ok(sign(&mallory, &wasm)));
    let ran = home.run(["add", &url, "--signed-by", "alice"]);
    assert_eq!(ran.code, 3, "{ran:?}");
    server.put("/hello.wasm.sig", Reply::ok(sign(&alice, &wasm)));
    let ran = home.run(["add", &url]);
    assert!(ran.out.contains("signed  by alice (SHA256:"), "{ran:?}");
    // The next one has to be signed by her as well.
    let new = other(&wasm, "new");
    server.put("/hello.wasm", Reply::ok(new.clone()));
    assert_eq!(home.run(["update"]).code, 3, "the old signature");
    server.put(
        "/hello.wasm.sig",
        Reply {
            status: 404,
            ..Reply::default()
        },
    );
    let ran = home.run(["update"]);
    assert!(ran.line().contains("has no signature"), "{ran:?}");
    server.put("/hello.wasm.sig", Reply::ok(sign(&mallory, &new)));
    assert_eq!(home.run(["update"]).code, 3, "somebody else's");
    let listed = home.run(["list", "--json"]).json();
    assert_eq!(
        listed[0][0]["locked"]["digest"],
        digest(&wasm),
        "nothing has changed"
    );
    server.put("/hello.wasm.sig", Reply::ok(sign(&alice, &new)));
    let ran = home.run(["update"]);
    assert_eq!(ran.code, 0, "{ran:?}");
}

#[test]
fn a_file_has_its_signature_beside_it() {
    let home = home();
    let wasm = built().wasm();
    let file = home.write("work/hello.wasm", &wasm);
    home.write("work/hello.wasm.sig", sign(&key(1), &wasm));
    let file = file.to_str().unwrap();
    let ran = home.run(["add", file, "--signed-by", &public(&key(2))]);
    assert_eq!(ran.code, 3, "{ran:?}");
    let ran = home.run(["add", file, "--signed-by", &public(&key(1))]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains("a key you have no name for"), "{ran:?}");
}
