//! Answers of the platform's REST API: any status with any body is an error with one readable line, or a value.

#![cfg_attr(feature = "engine", no_main)]

#[allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "they are used in the client"
)]
#[path = "."]
mod api {
    #[path = "../../host/vers/src/api/failure.rs"]
    pub(crate) mod failure;
    #[path = "../../host/vers/src/api/types.rs"]
    pub(crate) mod types;

    /// What the client does with an answer, but for the connection.
    pub(crate) fn answer(status: u16, body: &[u8]) {
        let Ok(status) = reqwest::StatusCode::from_u16(status) else {
            return;
        };
        for asked in [
            failure::Asked::Publicly,
            failure::Asked::ToDelete,
            failure::Asked::Otherwise,
        ] {
            if let Some(error) = failure::failure("list VMs", asked, status, body) {
                let line = error.to_string();
                assert!(!line.chars().any(char::is_control), "{line:?}");
                assert!(line.chars().count() < 4_000, "{}", line.len());
            }
        }
    }
}

#[allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "they are used in the client"
)]
#[path = "../../host/vers/src/error.rs"]
mod error;
#[allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "they are used in the client"
)]
#[path = "../../host/vers/src/secret.rs"]
mod secret;

fn run(data: &[u8]) {
    use api::types::{Commit, CommitPage, Vm, VmMetadata, VmState};
    let (head, body) = data.split_at(data.len().min(2));
    let status = match head {
        [high, low] => u16::from_be_bytes([*high, *low]) % 600,
        _ => 200,
    };
    for body in [body, data] {
        api::answer(status, body);
        api::answer(200, body);
        let _ = serde_json::from_slice::<Vec<Vm>>(body);
        let _ = serde_json::from_slice::<VmMetadata>(body);
        let _ = serde_json::from_slice::<VmState>(body);
        if let Ok(page) = serde_json::from_slice::<CommitPage>(body) {
            for commit in &page.commits {
                let text = serde_json::to_vec(commit).unwrap_or_default();
                let again = serde_json::from_slice::<Commit>(&text);
                assert!(again.is_ok_and(|again| again == *commit));
            }
        }
    }
}

pi_vers_fuzz::target!(run);
