//! Calls everything that the published client has and the local platform implements, and checks the answers. What the local
//! platform does not have has to be said in the platform's own way of errors.
//!
//! `BASE_URL` (without `/api/v1`) and `API_KEY` say which platform.

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use vers_sdk::client::Client;
use vers_sdk::errors::{APIErrorKind, SDKError};
use vers_sdk::models::*;

type Result<T> = std::result::Result<T, SDKError>;

/// The body of calls that take one and have nothing to say in it.
fn nothing() -> serde_json::Value {
    json!({})
}

/// The kind of the error that a call has to fail with, and its message.
fn refused<T: std::fmt::Debug>(result: Result<T>) -> (u16, APIErrorKind, String) {
    match result {
        Err(SDKError::API(error)) => (error.status, error.kind.clone(), error.error_message()),
        other => panic!("an error of the API was expected: {other:?}"),
    }
}

fn map(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn command(script: &str) -> VmExecRequest {
    VmExecRequest {
        command: ["sh", "-c", script].map(str::to_owned).to_vec(),
        env: None,
        exec_id: None,
        stdin: None,
        timeout_secs: None,
        working_dir: None,
    }
}

struct Check {
    client: Client,
    calls: Vec<&'static str>,
}

impl Check {
    async fn sh(&self, vm: &str, script: &str) -> String {
        let done = self.client.exec_vm(vm, &command(script), None).await.unwrap();
        assert_eq!(done.exit_code, 0, "{script}: {done:?}");
        done.stdout
    }

    async fn account(&mut self) {
        let client = &self.client;
        assert!(!client.version_handler(None).await.unwrap().workspace_version.is_empty());
        let whoami = client.whoami_handler(None).await.unwrap();
        assert!(!whoami.org.name.is_empty() && !whoami.user.id.is_empty());
        assert!(client.validate_key(&nothing(), None).await.unwrap().valid);
        let vars = SetEnvVarsRequest { replace: None, vars: map(&[("SDK_A", "1"), ("SDK_B", "two words")]) };
        assert_eq!(client.set_env_vars(&vars, None).await.unwrap().vars, vars.vars);
        client.delete_env_var("SDK_B", None).await.unwrap();
        assert_eq!(client.list_env_vars(None).await.unwrap().vars, map(&[("SDK_A", "1")]));
        self.calls.extend(["version_handler", "whoami_handler", "validate_key", "set_env_vars", "delete_env_var", "list_env_vars"]);
    }

    async fn vm(&mut self) -> String {
        let client = &self.client;
        let vm_config = VmCreateVmConfig {
            fs_size_mib: Some(512),
            image_name: None,
            kernel_name: None,
            labels: Some(map(&[("role", "sdk")])),
            mem_size_mib: Some(256),
            vcpu_count: Some(1),
        };
        let wait = CreateNewRootVmParams { wait_boot: Some(true) };
        let vm = client.create_new_root_vm(&NewRootRequest { vm_config }, Some(&wait), None).await.unwrap().vm_id;
        let status = client.vm_status(&vm, None).await.unwrap();
        assert_eq!((status.state, status.labels), (VmState::Running, Some(map(&[("role", "sdk")]))));
        assert_eq!(client.list_vms(None).await.unwrap().iter().map(|vm| &vm.vm_id).collect::<Vec<_>>(), [&vm]);
        let metadata = client.get_vm_metadata(&vm, None).await.unwrap();
        assert_eq!((metadata.mem_size_mib, metadata.vcpu_count, metadata.state), (256, 1, VmState::Running));
        let key = client.ssh_key(&vm, None).await.unwrap();
        assert!(key.ssh_port > 0 && key.ssh_private_key.starts_with("-----BEGIN OPENSSH PRIVATE KEY-----"));

        client.upsert_vm_labels(&vm, &LabelVmRequest { labels: map(&[("a", "1")]) }, None).await.unwrap();
        assert_eq!(client.vm_status(&vm, None).await.unwrap().labels, Some(map(&[("role", "sdk"), ("a", "1")])));
        client.delete_vm_label(&vm, "role", None).await.unwrap();
        assert_eq!(client.vm_status(&vm, None).await.unwrap().labels, Some(map(&[("a", "1")])));
        client.replace_vm_labels(&vm, &LabelVmRequest { labels: map(&[("b", "2")]) }, None).await.unwrap();
        assert_eq!(client.vm_status(&vm, None).await.unwrap().labels, Some(map(&[("b", "2")])));

        client.resize_vm_disk(&vm, &VmResizeDiskRequest { fs_size_mib: 1024 }, None, None).await.unwrap();
        client.update_vm_state(&vm, &VmUpdateStateRequest { state: VmUpdateStateEnum::Running }, None, None).await.unwrap();
        let calls = [
            "create_new_root_vm", "vm_status", "list_vms", "get_vm_metadata", "ssh_key", "upsert_vm_labels", "delete_vm_label",
            "replace_vm_labels", "resize_vm_disk", "update_vm_state",
        ];
        self.calls.extend(calls);
        vm
    }

    async fn commands_and_files(&mut self, vm: &str) {
        let client = &self.client;
        // The account's variables are in the VM's environment.
        let mut run = command("cat; echo $OWN $SDK_A; pwd; echo err >&2; exit 3");
        run.stdin = Some("in\n".into());
        run.env = Some(map(&[("OWN", "own")]));
        run.working_dir = Some("/tmp".into());
        let done = client.exec_vm(vm, &run, None).await.unwrap();
        assert_eq!((done.exit_code, done.stdout.as_str(), done.stderr.as_str()), (3, "in\nown 1\n/tmp\n", "err\n"));

        let file = VmWriteFileRequest {
            content_b64: Some(STANDARD.encode([0, 255, b'\r', b'\n'])),
            create_dirs: Some(true),
            mode: Some(0o640),
            path: Some("/srv/sub/f".into()),
        };
        client.write_file_vm(vm, &file, None).await.unwrap();
        assert_eq!(self.sh(vm, "stat -c %a /srv/sub/f").await, "640\n");
        let params = ReadFileVmParams { path: Some("/srv/sub/f".into()) };
        let read = client.read_file_vm(vm, Some(&params), None).await.unwrap();
        assert_eq!(STANDARD.decode(read.content_b64).unwrap(), [0, 255, b'\r', b'\n']);

        // The client takes an answer for one JSON value, and a stream has several: only one of a single event can be read.
        let mut run = command("exit 4");
        run.exec_id = Some("6b0f5c1e-2f0e-4a57-9d5c-2d2c5a6d8e10".into());
        let event = client.exec_vm_stream(vm, &run, None).await.unwrap();
        assert_eq!((&event["type"], &event["exit_code"], &event["exec_id"]), (&json!("exit"), &json!(4), &json!(run.exec_id)));
        let attach = VmExecStreamAttachRequest { cursor: None, exec_id: run.exec_id.unwrap(), from_latest: None };
        let event = client.exec_vm_stream_attach(vm, &attach, None).await.unwrap();
        assert_eq!((&event["type"], &event["exit_code"]), (&json!("exit"), &json!(4)));

        let params = VmLogsParams { offset: Some(0), max_entries: Some(100), stream: Some("stderr".into()) };
        let logs = client.vm_logs(vm, Some(&params), None).await.unwrap();
        let lines: Vec<Vec<u8>> = logs.entries.iter().map(|entry| STANDARD.decode(&entry.data_b64).unwrap()).collect();
        assert_eq!(lines.concat(), b"err\n", "{logs:?}");
        assert!(logs.entries.iter().all(|entry| entry.stream == VmExecLogStream::Stderr));
        self.calls.extend(["exec_vm", "write_file_vm", "read_file_vm", "exec_vm_stream", "exec_vm_stream_attach", "vm_logs"]);
    }

    /// A commit with a tag and in a repository, public in the end.
    async fn commits(&mut self, vm: &str) -> String {
        let client = &self.client;
        self.sh(vm, "echo one > /srv/state").await;
        let request = CommitVmRequest { description: Some("why".into()), name: Some("golden".into()) };
        let commit = client.commit_vm(vm, &request, None, None).await.unwrap().commit_id;
        self.sh(vm, "echo two > /srv/state").await;
        let listed = client.list_commits(None).await.unwrap();
        assert_eq!((listed.total, &listed.commits[0].commit_id, listed.commits[0].name.as_str()), (1, &commit, "golden"));
        assert_eq!(client.list_parent_commits(&commit, None).await.unwrap()[0].id, commit);
        let change = UpdateCommitRequest { description: Some("because".into()), is_public: true, name: Some("gold".into()) };
        let changed = client.update_commit(&commit, &change, None).await.unwrap();
        assert_eq!((changed.name.as_str(), changed.is_public), ("gold", true));
        assert_eq!(client.list_public_commits(None).await.unwrap().commits.len(), 1);

        let tag = CreateTagRequest { commit_id: commit.clone(), description: None, tag_name: "best".into() };
        assert_eq!(client.create_tag(&tag, None).await.unwrap().commit_id, commit);
        assert_eq!(client.list_tags(None).await.unwrap().tags.len(), 1);
        client.update_tag("best", &UpdateTagRequest { commit_id: None, description: Some("d".into()) }, None).await.unwrap();
        assert_eq!(client.get_tag("best", None).await.unwrap().description.as_deref(), Some("d"));

        client.create_repository(&CreateRepositoryRequest { description: None, name: "repo".into() }, None).await.unwrap();
        assert_eq!(client.list_repositories(None).await.unwrap().repositories.len(), 1);
        let tag = CreateRepoTagRequest { commit_id: commit.clone(), description: None, tag_name: "latest".into() };
        assert_eq!(client.create_repo_tag("repo", &tag, None).await.unwrap().reference, "repo:latest");
        assert_eq!(client.list_repo_tags("repo", None).await.unwrap().tags.len(), 1);
        client.update_repo_tag("repo", "latest", &UpdateRepoTagRequest { commit_id: None, description: Some("d".into()) }, None).await.unwrap();
        assert_eq!(client.get_repo_tag("repo", "latest", None).await.unwrap().description.as_deref(), Some("d"));
        client.set_repository_visibility("repo", &SetRepositoryVisibilityRequest { is_public: true }, None).await.unwrap();
        assert!(client.get_repository("repo", None).await.unwrap().is_public);
        let public = client.list_public_repositories(None).await.unwrap().repositories;
        let org = &public[0].org_name;
        assert_eq!(client.get_public_repository(org, "repo", None).await.unwrap().repo_id, public[0].repo_id);
        assert_eq!(client.list_public_repo_tags(org, "repo", None).await.unwrap().tags.len(), 1);
        assert_eq!(client.get_public_repo_tag(org, "repo", "latest", None).await.unwrap().commit_id, commit);
        let calls = [
            "commit_vm", "list_commits", "list_parent_commits", "update_commit", "list_public_commits", "create_tag", "list_tags", "update_tag",
            "get_tag", "create_repository", "list_repositories", "create_repo_tag", "list_repo_tags", "update_repo_tag", "get_repo_tag",
            "set_repository_visibility", "get_repository", "list_public_repositories", "get_public_repository", "list_public_repo_tags",
            "get_public_repo_tag",
        ];
        self.calls.extend(calls);
        commit
    }

    /// Every way to a new VM; each has the files of its origin.
    async fn copies(&mut self, vm: &str, commit: &str) {
        let client = &self.client;
        let mut copies = Vec::new();
        for origin in [
            FromCommitVmRequest::CommitId { commit_id: commit.to_owned() },
            FromCommitVmRequest::TagName { tag_name: "best".into() },
            FromCommitVmRequest::Ref { r#ref: "repo:latest".into() },
        ] {
            copies.push((client.restore_from_commit(&origin, None).await.unwrap().vm_id, "one\n"));
        }
        let two = BranchVmParams { keep_paused: None, skip_wait_boot: None, count: Some(2) };
        let made = client.branch_vm(vm, &nothing(), Some(&two), None).await.unwrap().vms;
        assert_eq!(made.len(), 2);
        copies.extend(made.into_iter().map(|vm| (vm.vm_id, "two\n")));
        let made = client.branch_by_vm(vm, &nothing(), None, None).await.unwrap().vms;
        copies.extend(made.into_iter().map(|vm| (vm.vm_id, "two\n")));
        for made in [
            client.branch_by_commit(commit, &nothing(), None, None).await,
            client.branch_by_tag("best", &nothing(), None, None).await,
            client.branch_by_ref("repo", "latest", &nothing(), None, None).await,
        ] {
            copies.extend(made.unwrap().vms.into_iter().map(|vm| (vm.vm_id, "one\n")));
        }
        assert_eq!(copies.len(), 9);
        for (copy, state) in &copies {
            assert_eq!(self.sh(copy, "cat /srv/state").await, *state);
            assert_eq!(client.delete_vm(copy, None, None).await.unwrap().vm_id, *copy);
        }
        self.calls.extend(["restore_from_commit", "branch_vm", "branch_by_vm", "branch_by_commit", "branch_by_tag", "branch_by_ref", "delete_vm"]);
    }

    async fn removal(&mut self, vm: &str, commit: &str) {
        let client = &self.client;
        client.delete_repo_tag("repo", "latest", None).await.unwrap();
        client.delete_repository("repo", None).await.unwrap();
        client.delete_tag("best", None).await.unwrap();
        client.delete_commit(commit, None).await.unwrap();
        client.delete_vm(vm, None, None).await.unwrap();
        assert!(client.list_vms(None).await.unwrap().is_empty());
        assert_eq!(client.list_commits(None).await.unwrap().total, 0);
        self.calls.extend(["delete_repo_tag", "delete_repository", "delete_tag", "delete_commit"]);
    }

    async fn errors(&mut self) {
        let client = &self.client;
        let none = "00000000-0000-4000-8000-000000000000";
        assert_eq!(refused(client.vm_status(none, None).await).1, APIErrorKind::NotFound);
        assert_eq!(refused(client.get_tag("none", None).await).1, APIErrorKind::NotFound);
        let stranger = Client::new(&std::env::var("BASE_URL").unwrap()).with_api_key("wrong").with_max_retries(0);
        // Documented as 401; what the platform answers is 403.
        assert_eq!(refused(stranger.list_vms(None).await).1, APIErrorKind::PermissionDenied);
        // What only the cloud has is refused as what it is, not as a missing page.
        let domain = CreateDomainRequest { domain: "a.example".into(), vm_id: none.into() };
        let fork = ForkRepositoryRequest { repo_name: None, source_org: "o".into(), source_repo: "r".into(), source_tag: "t".into(), tag_name: None };
        let deploy = DeployRequest { branch: None, name: None, repo: "r".into(), settings: None };
        let source = ImageSourceRequest::ImageRef { image_ref: "i".into(), r#type: "docker".into() };
        let image = CreateBaseImageRequest { description: None, image_name: "i".into(), size_mib: None, source };
        for answer in [
            refused(client.create_domain(&domain, None).await),
            refused(client.list_domains(None, None).await),
            refused(client.get_domain(none, None).await),
            refused(client.delete_domain(none, None).await),
            refused(client.fork_repository(&fork, None).await),
            refused(client.deploy_handler(&deploy, None).await),
            refused(client.create_image(&image, None).await),
            refused(client.upload_image(&nothing(), None).await),
            refused(client.list_images(None).await),
            refused(client.get_image_status("i", None).await),
            refused(client.delete_image(none, None).await),
        ] {
            assert!(answer.2.contains("local platform"), "{answer:?}");
        }
        let calls = [
            "create_domain", "list_domains", "get_domain", "delete_domain", "fork_repository", "deploy_handler", "create_image", "upload_image",
            "list_images", "get_image_status", "delete_image",
        ];
        self.calls.extend(calls);
    }
}

#[tokio::main]
async fn main() {
    let variable = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} says which platform to check"));
    let client = Client::new(&variable("BASE_URL")).with_api_key(&variable("API_KEY")).with_max_retries(0).with_timeout(Duration::from_secs(60));
    let mut check = Check { client, calls: Vec::new() };
    check.account().await;
    let vm = check.vm().await;
    check.commands_and_files(&vm).await;
    let commit = check.commits(&vm).await;
    check.copies(&vm, &commit).await;
    check.removal(&vm, &commit).await;
    check.errors().await;
    check.calls.sort_unstable();
    check.calls.dedup();
    println!("{} calls, and every call is as it should be: {}", check.calls.len(), check.calls.join(" "));
}
