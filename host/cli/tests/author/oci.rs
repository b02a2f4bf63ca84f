//! Extensions from an OCI registry.

use serde_json::{Value, json};

use crate::server::{Reply, Server};
use crate::{built, digest, home, other};

const WASM: &str = "application/wasm";

fn layer(kind: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": kind, "digest": digest(bytes), "size": bytes.len() })
}

/// Puts an artifact of these layers into a registry; the digest of its manifest.
fn publish(server: &Server, tag: &str, layers: &[Value]) -> String {
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": layer("application/vnd.wasm.config.v0+json", b"{}"),
        "layers": layers,
    });
    let manifest = manifest.to_string().into_bytes();
    let digest = digest(&manifest);
    for reference in [tag, &digest] {
        let path = format!("/v2/team/hello/manifests/{reference}");
        server.put(&path, Reply::ok(manifest.clone()));
    }
    digest
}

fn blob(server: &Server, of: &[u8], reply: Reply) {
    server.put(&format!("/v2/team/hello/blobs/{}", digest(of)), reply);
}

fn source(server: &Server, reference: &str) -> String {
    format!("oci://{}/team/hello{reference}", server.address)
}

#[test]
fn a_component_is_pulled_with_a_token_and_runs() {
    let (home, server) = (home(), Server::start());
    let wasm = built().wasm();
    let manifest = publish(&server, "1.0", &[layer(WASM, &wasm)]);
    // The registry wants a token; the storage that it redirects to must not see it.
    let storage = Server::start();
    storage.put("/bucket/x", Reply::ok(wasm.clone()));
    let with_token = |reply: Reply| Reply {
        token: Some("t0ken".into()),
        ..reply
    };
    let text = json!({ "schemaVersion": 2, "layers": [layer(WASM, &wasm)] }).to_string();
    server.put("/v2/team/hello/manifests/1.0", with_token(Reply::ok(text)));
    blob(
        &server,
        &wasm,
        with_token(Reply::redirect(&storage.url("/bucket/x"))),
    );
    server.put("/token", Reply::ok(json!({ "token": "t0ken" }).to_string()));
    let ran = home.run(["add", &source(&server, ":1.0")]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let asked = server.asked();
    let token = asked
        .iter()
        .find(|(path, _)| path.starts_with("/token"))
        .unwrap();
    assert_eq!(
        token.0,
        "/token?service=here&scope=repository%3Ateam%2Fhello%3Apull"
    );
    assert!(
        storage
            .asked()
            .iter()
            .all(|(_, authorization)| authorization.is_none())
    );
    assert_eq!(
        home.run(["run", "hello_greet", r#"{"name":"Ada"}"#]).code,
        0
    );
    // By the digest of its manifest nothing else can be had.
    assert_eq!(home.run(["remove", "hello"]).code, 0);
    blob(&server, &wasm, Reply::ok(wasm.clone()));
    let ran = home.run(["add", &source(&server, &format!("@{manifest}"))]);
    assert_eq!(ran.code, 0, "{ran:?}");
}

#[test]
fn what_a_registry_hands_out_instead_is_refused() {
    let (home, server) = (home(), Server::start());
    let wasm = built().wasm();
    let evil = other(&wasm, "evil");
    let refused = |reference: &str, says: &str| {
        let ran = home.run(["add", &source(&server, reference)]);
        assert!(ran.code > 1, "{reference}: {ran:?}");
        assert!(ran.line().contains(says), "{reference}: {ran:?}");
        assert_eq!(
            home.run(["list"]).out,
            "no extensions are added\n",
            "{reference}"
        );
    };
    // Another blob than the manifest says.
    publish(&server, "blob", &[layer(WASM, &wasm)]);
    blob(&server, &wasm, Reply::ok(evil.clone()));
    refused(":blob", "");
    let same_size = {
        let mut bytes = wasm.clone();
        *bytes.last_mut().unwrap() ^= 1;
        bytes
    };
    blob(&server, &wasm, Reply::ok(same_size));
    refused(":blob", "hands out something else");
    blob(
        &server,
        &wasm,
        Reply {
            length: Some(wasm.len()),
            ..Reply::ok(wasm[..100].to_vec())
        },
    );
    refused(":blob", "");
    // Another manifest than was asked for by digest.
    let digest_of = publish(&server, "a", &[layer(WASM, &wasm)]);
    let other_manifest = json!({ "schemaVersion": 2, "layers": [layer(WASM, &evil)] }).to_string();
    server.put(
        &format!("/v2/team/hello/manifests/{digest_of}"),
        Reply::ok(other_manifest),
    );
    refused(&format!("@{digest_of}"), "the manifest is");
    // No component, several, one that is too large, one without a digest to compare.
    publish(
        &server,
        "none",
        &[layer("application/vnd.oci.image.layer.v1.tar", b"x")],
    );
    refused(":none", "is it a component?");
    publish(&server, "two", &[layer(WASM, &wasm), layer(WASM, &evil)]);
    refused(":two", "several components");
    let huge = json!({ "mediaType": WASM, "digest": digest(&wasm), "size": 1_u64 << 40 });
    publish(&server, "huge", &[huge]);
    refused(":huge", "bytes, more than");
    let odd = json!({ "mediaType": WASM, "digest": "../../etc/passwd", "size": 3 });
    publish(&server, "odd", &[odd]);
    refused(":odd", "no sha256 digest");
    server.put("/v2/team/hello/manifests/page", Reply::ok("<html>"));
    refused(":page", "none of an OCI artifact");
    refused(":missing", "no such artifact");
    // A token from elsewhere: this machine's registry does not send us into the world.
    let challenge = "Bearer realm=\"https://example.com/token\"".to_owned();
    let asks = Reply {
        status: 401,
        headers: vec![("www-authenticate".into(), challenge)],
        ..Reply::default()
    };
    server.put("/v2/team/hello/manifests/away", asks);
    refused(":away", "for a token");
}

#[test]
fn a_moved_tag_changes_nothing_before_an_update_and_is_refused_by_the_lock() {
    let (home, server) = (home(), Server::start());
    let wasm = built().wasm();
    publish(&server, "latest", &[layer(WASM, &wasm)]);
    blob(&server, &wasm, Reply::ok(wasm.clone()));
    assert_eq!(home.run(["add", &source(&server, "")]).code, 0);
    let new = other(&wasm, "moved");
    publish(&server, "latest", &[layer(WASM, &new)]);
    blob(&server, &new, Reply::ok(new.clone()));
    // A new machine with the same list and lock.
    let copy = crate::home();
    for name in ["extensions.toml", "extensions.lock"] {
        let name = format!(".config/pi-vers/{name}");
        copy.write(&name, std::fs::read(home.path(&name)).unwrap());
    }
    let ran = copy.run(["lock", "--locked"]);
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(ran.line().contains("should be"), "{ran:?}");
    let ran = home.run(["update"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains(&digest(&new)), "{ran:?}");
}
