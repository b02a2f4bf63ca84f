//! The platform's published Rust client, as it comes from the registry, against the local platform.
//!
//! It is built in a workspace of its own (`tests/sdk`): it needs OpenSSL and an HTTP stack of its own, which nothing of
//! pi-vers shall be built with.

use std::process::Stdio;

use pi_vers_tests::{DEADLINE, Scratch, built, needs};
use tokio::process::Command;

#[tokio::test(flavor = "multi_thread")]
async fn the_published_client_finds_its_platform() {
    needs("pkg-config");
    needs("libssl-dev");
    let sources = built::root().join("tests/sdk");
    let target = built::target().join("sdk");
    let mut build = built::cargo(&sources);
    build
        .args(["build", "--locked", "--target-dir"])
        .arg(&target);
    tokio::task::spawn_blocking(move || built::run(&mut build, "tests/sdk"))
        .await
        .unwrap();

    let scratch = Scratch::new();
    let endpoint = scratch.up().await;
    let mut client = Command::new(target.join("debug/vers-sdk-check"));
    client
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .current_dir(scratch.work());
    client
        .env("BASE_URL", endpoint.api_url.trim_end_matches("/api/v1"))
        .env("API_KEY", &endpoint.api_key);
    let output = client.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(DEADLINE, output)
        .await
        .expect("it ends")
        .unwrap();
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{said}");
    // It says what it has done, so that a check that does nothing does not pass.
    assert!(said.contains("every call is as it should be"), "{said}");
    scratch.end().await;
}
