//! Secrets are told where they are needed, and nowhere else: with all logging on, through success and failure, no output,
//! log, error and state file holds one.

use std::path::{Path, PathBuf};

use pi_vers_tests::{Scratch, ids, mark, settings};
use serde_json::{Value, json};
use vers_client::{Api, VmId};

/// The files below a directory that hold one of these words, without those below `except`.
fn holding(directory: &Path, except: &Path, words: &[String]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        let kind = entry.file_type().unwrap();
        if path == except {
            continue;
        }
        if kind.is_dir() {
            found.extend(holding(&path, except, words));
        } else if kind.is_file() {
            let bytes = std::fs::read(&path).unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes);
            if words.iter().any(|word| text.contains(word)) {
                found.push(path);
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_an_output_a_log_an_error_or_a_state_file() {
    let scratch = Scratch::new();
    let endpoint = scratch.up().await;
    let (variable, wrong) = (mark(), mark());
    let ca = endpoint.ca_pem.display().to_string();
    let connect = endpoint.ssh_addr.to_string();
    let environment = |key: &str| -> Vec<(String, String)> {
        [
            ("VERS_API_KEY", key),
            ("VERS_BASE_URL", &endpoint.api_url),
            ("VERS_VM_DOMAIN", &endpoint.domain),
            ("VERS_VM_CONNECT", &connect),
            ("VERS_TLS_CA", &ca),
            ("PI_VERS_LOG", "trace"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    };
    let said = std::sync::Mutex::new(String::new());
    let call = async |key: &str, tool: &str, arguments: Value| -> String {
        let env = environment(key);
        let env: Vec<(&str, &str)> = env.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let arguments = arguments.to_string();
        let args = ["run", "--json", "--session", "s", tool, &arguments];
        let done = scratch.start_with(&args, &env).done().await;
        scratch.note();
        let mut said = said.lock().unwrap();
        said.push_str(&done.stdout);
        said.push_str(&done.stderr);
        done.stdout
    };
    let key = endpoint.api_key.as_str();
    let created = call(key, "vers_vm_create", json!({ "wait_boot": true })).await;
    let vm = ids(&created)[0].clone();
    let private = Api::new(settings(&endpoint))
        .unwrap()
        .ssh_key(VmId(vm.parse().unwrap()))
        .await
        .unwrap();
    let private = private.private_key.expose().to_owned();
    // Its lines, but for the first and the last, which all keys have.
    let lines: Vec<String> = private.lines().map(str::to_owned).collect();
    let private = &lines[1..lines.len() - 1];
    assert!(private.iter().all(|line| line.len() > 10), "{lines:?}");

    call(key, "vers_vm_use", json!({ "vmId": vm })).await;
    let asked = call(key, "bash", json!({ "command": "echo $((6 * 7))" })).await;
    assert!(asked.contains("42"), "{asked}");
    call(key, "write", json!({ "path": "f", "content": "x" })).await;
    call(key, "read", json!({ "path": "f" })).await;
    // A variable of a command may be a secret.
    let background = json!({
        "id": "b", "command": "test \"$TOKEN\" && echo it is set", "env": { "TOKEN": variable }, "waitMs": 5000
    });
    let begun = call(key, "bg_start", background).await;
    assert!(begun.contains("it is set"), "{begun}");
    call(key, "bg_list", json!({})).await;
    // And what goes wrong.
    call(key, "bash", json!({ "command": "exit 7" })).await;
    call(key, "read", json!({ "path": "/nowhere" })).await;
    call(
        key,
        "vers_vm_delete",
        json!({ "vmId": uuid::Uuid::new_v4() }),
    )
    .await;
    let refused = call(&wrong, "vers_vms", json!({})).await;
    assert!(refused.contains("\"ok\":false"), "{refused}");

    let mut secrets = vec![key.to_owned(), variable, wrong];
    secrets.extend_from_slice(private);
    let said = said.into_inner().unwrap();
    // The look is no blind one.
    assert!(said.contains(&vm) && said.contains("TRACE"));
    let known = holding(scratch.root(), &scratch.local(), &[vm]);
    assert!(!known.is_empty(), "no state file knows the VM");
    for (number, secret) in secrets.iter().enumerate() {
        if let Some(at) = said.find(secret.as_str()) {
            let line = said[..at].lines().last().unwrap_or_default();
            panic!("secret {number} is in the output, behind {line:?}");
        }
    }
    // The local platform itself has to keep the keys of its VMs.
    let kept = holding(scratch.root(), &scratch.local(), &secrets);
    assert!(kept.is_empty(), "{kept:?}");
    scratch.end().await;
}
