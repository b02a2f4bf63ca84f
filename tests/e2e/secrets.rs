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

/// Looks for the value in every command line of the machine it runs on, and says it backwards: a way that no redaction knows.
const LOOK: &str = "printf %s \"$TOKEN\" | rev; echo; n=0; for f in /proc/[0-9]*/cmdline; do \
     case $(tr '\\0' ' ' <$f 2>/dev/null) in *\"$TOKEN\"*) echo seen in $f;; *) n=$((n + 1));; esac; done; test $n -gt 2 && echo looked";

#[tokio::test(flavor = "multi_thread")]
async fn agents_are_handed_the_keys_of_the_environment_and_the_hosts_own_and_none_is_shown() {
    let scratch = Scratch::new();
    let endpoint = scratch.up().await;
    let vm = scratch.vm().await;
    let guest = pi_vers_tests::built::fixture("unruly");
    let digest = pi_vers_host::policy::Digest::of(&std::fs::read(&guest).unwrap());
    let grants = "shell = { vms = \"any\", commands = \"any\" }\n\
        process = [{ program = \"/bin/sh\", args = \"any\", env = \"any\" }]\n\
        secrets = [\"LLM_PROXY_KEY -> vm env\", \"LLM_PROXY_KEY -> child env\", \"VERS_API_KEY -> vm env\", \"VERS_AUTH_TOKEN -> vm env\"]\n\
        environment = [\"PI_PATH\"]\n";
    std::fs::create_dir_all(scratch.config()).unwrap();
    std::fs::write(
        scratch.config().join("policy.toml"),
        format!("[extension.unruly]\ndigest = \"{digest}\"\n{grants}"),
    )
    .unwrap();
    // The host's own key stands in a file of the Vers tools.
    let tools = scratch.root().join("home/.vers");
    std::fs::create_dir_all(&tools).unwrap();
    let keys = json!({ "keys": { "VERS_API_KEY": endpoint.api_key } }).to_string();
    std::fs::write(tools.join("keys.json"), keys).unwrap();
    let (model, anthropic) = (mark(), mark());
    let ca = endpoint.ca_pem.display().to_string();
    let connect = endpoint.ssh_addr.to_string();
    let env = [
        ("VERS_API_KEY", ""),
        ("VERS_BASE_URL", &*endpoint.api_url),
        ("VERS_VM_DOMAIN", &*endpoint.domain),
        ("VERS_VM_CONNECT", &*connect),
        ("VERS_TLS_CA", &*ca),
        ("PI_VERS_LOG", "trace"),
        ("LLM_PROXY_KEY", &*model),
        ("ANTHROPIC_API_KEY", &*anthropic),
        ("PI_PATH", "/opt/pi"),
    ];
    let file = guest.display().to_string();
    let mut said = String::new();
    let mut call = async |tool: &str, arguments: Value| -> String {
        let arguments = arguments.to_string();
        let args = ["run", "--json", "--extension", &file, tool, &arguments];
        let done = scratch.start_with(&args, &env).done().await;
        scratch.note();
        said.push_str(&done.stdout);
        said.push_str(&done.stderr);
        done.stdout
    };
    let backwards = |value: &str| value.chars().rev().collect::<String>();
    for (secret, value) in [
        (format!("LLM_PROXY_KEY@{vm}"), &*model),
        ("LLM_PROXY_KEY".to_owned(), &*model),
        (format!("VERS_API_KEY@{vm}"), &*endpoint.api_key),
    ] {
        let run = json!({ "text": secret, "argv": ["/bin/sh", "-c", LOOK] });
        let seen = call("with-secret", run).await;
        assert!(seen.contains(&backwards(value)), "{secret}: {seen}");
        assert!(
            seen.contains("looked") && !seen.contains("seen in"),
            "{secret}: {seen}"
        );
    }
    // Held and not granted, granted and not held.
    for (name, says) in [
        ("ANTHROPIC_API_KEY", "ANTHROPIC_API_KEY -> vm env"),
        ("VERS_AUTH_TOKEN", "holds no secret named VERS_AUTH_TOKEN"),
    ] {
        let run = json!({ "text": format!("{name}@{vm}"), "argv": ["/bin/sh", "-c", LOOK] });
        let refused = call("with-secret", run).await;
        assert!(
            refused.contains("\"ok\":false") && refused.contains(says),
            "{refused}"
        );
        assert!(
            call("variable", json!({ "text": name }))
                .await
                .contains("Error::Denied")
        );
    }
    let told = call("variable", json!({ "text": "LLM_PROXY_KEY" })).await;
    assert!(
        told.contains("Error::Denied") && told.contains("true"),
        "{told}"
    );
    assert!(
        call("variable", json!({ "text": "PI_PATH" }))
            .await
            .contains("/opt/pi")
    );

    assert!(said.contains("TRACE") && said.contains("with-secret"));
    let secrets = vec![model, anthropic, endpoint.api_key.clone()];
    for (number, secret) in secrets.iter().enumerate() {
        if let Some(at) = said.find(secret.as_str()) {
            let line = said[..at].lines().last().unwrap_or_default();
            panic!("secret {number} is in the output, behind {line:?}");
        }
    }
    std::fs::remove_file(tools.join("keys.json")).unwrap();
    let kept = holding(scratch.root(), &scratch.local(), &secrets);
    assert!(kept.is_empty(), "{kept:?}");
    scratch.end().await;
}
