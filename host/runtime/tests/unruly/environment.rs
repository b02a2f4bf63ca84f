//! The host's environment and its secrets: what a guest is told of them.

use pi_vers_host::platform::{Environment, Overrides, Settings};
use pi_vers_host::secrets::Secrets;
use serde_json::json;

use crate::support::{Bench, Front};

const KEY: &str = "a-key-nobody-may-see";

async fn bench(rules: &str) -> Bench {
    let environment = Environment::of([
        ("VERS_BASE_URL", "http://127.0.0.1:9/api/v1"),
        ("VERS_API_KEY", KEY),
        ("HOME", "/nonexistent"),
        ("PI_PATH", "/opt/pi"),
        ("BLANK", " "),
        ("LLM_PROXY_KEY", "another-key"),
        ("MY_KEY", "the-users-own"),
        ("COPY_OF_A_KEY", "Bearer the-users-own"),
    ]);
    let settings = Settings::discover(environment, Overrides::default()).unwrap();
    let secrets = Secrets::new();
    secrets.insert("VERS_API_KEY", "an older key".into());
    secrets.insert("MY_KEY", "the-users-own".into());
    Bench::on(rules, Front::default(), settings, secrets).await
}

async fn variable(bench: &Bench, name: &str) -> String {
    bench.text("variable", json!({ "text": name })).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_variable_is_told_where_the_policy_names_it_and_nowhere_else() {
    let bench = bench("environment = [\"PI_PATH\", \"BLANK\", \"UNSET\"]").await;
    assert_eq!(
        variable(&bench, "PI_PATH").await,
        "Ok(Some(\"/opt/pi\")) false"
    );
    for absent in ["BLANK", "UNSET"] {
        assert_eq!(variable(&bench, absent).await, "Ok(None) false");
    }
    for other in ["PI_PAT", "PI_PATH2", "pi_path", "HOME", ""] {
        let answer = variable(&bench, other).await;
        assert!(answer.starts_with("Err(Error::Denied"), "{other}: {answer}");
        let fix = "to environment of [extension.unruly]";
        assert_eq!(answer.contains(fix), !other.is_empty(), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_variable_that_holds_a_secret_is_told_to_nobody() {
    let names = ["VERS_API_KEY", "LLM_PROXY_KEY", "MY_KEY", "COPY_OF_A_KEY"];
    let bench = bench(&format!("environment = {names:?}")).await;
    for name in names {
        let answer = variable(&bench, name).await;
        assert!(answer.starts_with("Err(Error::Denied"), "{name}: {answer}");
        assert!(answer.contains("holds a secret"), "{answer}");
        for value in [KEY, "another-key", "the-users-own"] {
            assert!(!answer.contains(value), "{answer}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_there_for_whom_it_is_held_and_granted() {
    let told = async |rules: &str, name: &str| {
        let answer = variable(&bench(rules).await, name).await;
        answer.rsplit(' ').next().map(str::to_owned).unwrap()
    };
    for way in [
        "vm env",
        "child env",
        "child env /bin/sh",
        "http https://a.example",
    ] {
        let rule = format!("secrets = [\"MY_KEY -> {way}\"]");
        assert_eq!(told(&rule, "MY_KEY").await, "true", "{way}");
        // Granted, but not held; and held, but not granted.
        assert_eq!(told(&rule.replace("MY_", "NO_"), "NO_KEY").await, "false");
        assert_eq!(told(&rule, "VERS_API_KEY").await, "false");
    }
    assert_eq!(told("", "MY_KEY").await, "false");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_is_given_the_key_that_the_host_uses_now_and_no_argument_shows_it() {
    let bench = bench(
        "process = [{ program = \"/bin/sh\", args = [\"-c ...\"], env = [\"TOKEN\", \"VERS_AGENT_DEPTH\"] }]\nsecrets = [\"VERS_API_KEY -> child env /bin/sh\"]",
    )
    .await;
    let script = "case $TOKEN in a-key-*-see) echo same at $VERS_AGENT_DEPTH;; esac; tr '\\0' ' ' </proc/$$/cmdline";
    let arguments = json!({ "text": "VERS_API_KEY", "argv": ["/bin/sh", "-c", script] });
    let said = bench.text("with-secret", arguments).await;
    assert!(
        said.contains("Code(0)") && said.contains("same at 1"),
        "{said}"
    );
    // The arguments were looked at; a key in them would be marked.
    assert!(
        said.contains("case $TOKEN") && !said.contains("redacted"),
        "{said}"
    );
    let arguments = json!({ "text": "MY_KEY", "argv": ["/bin/sh", "-c", "true"] });
    let mut call = bench.session.call("with-secret", arguments);
    let denied = call.outcome().await.unwrap_err().to_string();
    assert!(denied.contains("MY_KEY -> child env /bin/sh"), "{denied}");
}
