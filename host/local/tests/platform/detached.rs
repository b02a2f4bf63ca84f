//! A server in a process of its own: found, killed, taken up again, stopped, removed.

use crate::lab::{Api, DEADLINE, helper, names, nothing_left, options};
use reqwest::{Method, StatusCode};
use serde_json::json;
use std::path::{Path, PathBuf};
use vers_local::{Endpoint, Options};

struct Detached {
    dir: tempfile::TempDir,
}

impl Detached {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    async fn up(&self) -> Endpoint {
        self.up_with(options(self.dir.path())).await
    }

    async fn up_with(&self, options: Options) -> Endpoint {
        vers_local::up(options, (helper(), Vec::new()))
            .await
            .unwrap_or_else(|e| panic!("{e}"))
    }

    async fn kill(&self, endpoint: &Endpoint, signal: &str) {
        let pid = endpoint.pid.to_string();
        assert!(
            std::process::Command::new("kill")
                .args([signal, &pid])
                .status()
                .unwrap()
                .success()
        );
        tokio::time::timeout(DEADLINE, async {
            while !matches!(vers_local::find(&self.state()).await, Ok(None)) {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
    }

    async fn reset(self) {
        vers_local::reset(&self.state()).await.unwrap();
        assert!(!self.state().exists());
        nothing_left(&self.state());
    }
}

fn meta(state: &Path, vm: &str) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(state.join(format!("vms/{vm}/meta.json"))).unwrap())
        .unwrap()
}

/// Whether it runs: a dead one that nobody has asked about yet does not.
fn runs(pid: &str) -> bool {
    let stat =
        std::fs::read_to_string(Path::new("/proc").join(pid).join("stat")).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_is_taken_up_again_with_its_vms() {
    let lab = Detached::new();
    assert!(vers_local::find(&lab.state()).await.unwrap().is_none());
    let endpoint = lab.up().await;
    assert_eq!(lab.up().await, endpoint, "a second `up` finds the first");
    let api = Api::new(&endpoint);
    let (running, paused, lost) = (api.create().await, api.create().await, api.create().await);
    api.sh(
        &running,
        "nohup sh -c 'while :; do echo x >> /root/ticks; sleep 0.01; done' >/dev/null 2>&1 &",
    )
    .await;
    api.set_state(&paused, "Paused").await;
    let commit = api.commit(&running).await;
    lab.kill(&endpoint, "-9").await;
    assert!(
        !lab.state().join("endpoint.json").exists(),
        "a stale file is removed by who finds it"
    );
    assert!(!vers_local::status(&lab.state()).await.unwrap().running);
    // While no server runs, one VM dies, and a commit and a removal are found half done.
    let pid = meta(&lab.state(), &lost)["handle"]["pid"].to_string();
    assert!(
        std::process::Command::new("kill")
            .args(["-9", &pid])
            .status()
            .unwrap()
            .success()
    );
    std::fs::create_dir_all(lab.state().join("commits/.tmp-x/layer")).unwrap();
    std::fs::create_dir_all(lab.state().join("trash/x/y")).unwrap();

    let again = lab.up().await;
    assert_ne!(again.pid, endpoint.pid);
    assert_eq!(
        (&again.api_key, std::fs::read(&again.ca_pem).is_ok()),
        (&endpoint.api_key, true)
    );
    let api = Api::new(&again);
    assert_eq!(api.state(&running).await, "running");
    assert_eq!(api.state(&paused).await, "paused");
    assert_eq!(api.state(&lost).await, "sleeping");
    let before: u64 = api
        .sh(&running, "wc -l < /root/ticks")
        .await
        .trim()
        .parse()
        .unwrap();
    api.sh(
        &running,
        &format!("while [ $(wc -l < /root/ticks) -le {before} ]; do sleep 0.01; done"),
    )
    .await;
    api.set_state(&paused, "Running").await;
    assert_eq!(api.sh(&paused, "echo hi").await, "hi\n");
    api.set_state(&lost, "Running").await;
    assert_eq!(names(&lab.state().join("commits")), [commit]);
    // An adopted VM is watched: its end is noticed.
    let pid = meta(&lab.state(), &running)["handle"]["pid"].to_string();
    assert!(
        std::process::Command::new("kill")
            .args(["-9", &pid])
            .status()
            .unwrap()
            .success()
    );
    while api.state(&running).await != "sleeping" {
        tokio::task::yield_now().await;
    }
    lab.reset().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_in_a_commit_leaves_the_vm_running_and_no_half_commit() {
    let lab = Detached::new();
    let endpoint = lab.up().await;
    let api = Api::new(&endpoint);
    let vm = api.create().await;
    api.sh(&vm, "mkdir /root/many; cd /root/many; seq 1 20000 | xargs -n 500 touch; head -c 200000000 /dev/zero > /root/big").await;
    let call = tokio::spawn({
        let (api, path) = (api.clone(), format!("/vm/{vm}/commit"));
        async move { api.request(Method::POST, &path).send().await.is_err() }
    });
    let commits = lab.state().join("commits");
    tokio::time::timeout(DEADLINE, async {
        while !names(&commits).iter().any(|n| n.starts_with(".tmp-")) {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    lab.kill(&endpoint, "-9").await;
    assert!(
        call.await.unwrap(),
        "the commit was over before the kill; make it larger"
    );
    let api = Api::new(&lab.up().await);
    assert_eq!(api.get("/commits").await["total"], 0);
    assert_eq!(names(&commits), Vec::<String>::new());
    assert_eq!(api.state(&vm).await, "running");
    assert_eq!(api.sh(&vm, "ls /root/many | wc -l").await, "20000\n");
    api.commit(&vm).await;
    lab.reset().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminated_server_leaves_its_vms_running_and_down_puts_them_to_sleep() {
    let lab = Detached::new();
    let endpoint = lab.up().await;
    let api = Api::new(&endpoint);
    let vm = api.create().await;
    api.sh(&vm, "echo kept > /root/file").await;
    lab.kill(&endpoint, "-TERM").await;
    let pid = meta(&lab.state(), &vm)["handle"]["pid"].to_string();
    assert!(runs(&pid));
    // Without a server, down ends what is left.
    let report = vers_local::down(&lab.state()).await.unwrap();
    assert_eq!((report.was_running, report.vms_put_to_sleep), (false, 1));
    assert!(!runs(&pid));
    nothing_left(&lab.state());
    let api = Api::new(&lab.up().await);
    assert_eq!(api.state(&vm).await, "sleeping");
    api.set_state(&vm, "Running").await;
    assert_eq!(api.sh(&vm, "cat /root/file").await, "kept\n");
    // With one, it is told.
    let report = vers_local::down(&lab.state()).await.unwrap();
    assert_eq!((report.was_running, report.vms_put_to_sleep), (true, 1));
    nothing_left(&lab.state());
    assert_eq!(
        vers_local::down(&lab.state()).await.unwrap(),
        vers_local::DownReport::default()
    );
    let status = vers_local::status(&lab.state()).await.unwrap();
    assert_eq!(
        (status.running, status.vms.len(), &*status.vms[0].state),
        (false, 1, "sleeping")
    );
    lab.reset().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_server_does_not_keep_down_from_its_end() {
    let lab = Detached::new();
    let endpoint = lab.up().await;
    Api::new(&endpoint).create().await;
    let pid = endpoint.pid.to_string();
    // It holds the lock and answers nothing. Only the last signal helps.
    assert!(
        std::process::Command::new("kill")
            .args(["-STOP", &pid])
            .status()
            .unwrap()
            .success()
    );
    vers_local::reset(&lab.state()).await.unwrap();
    assert!(!lab.state().exists());
    nothing_left(&lab.state());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_never_share_a_directory() {
    let lab = Detached::new();
    lab.up().await;
    let refused = vers_local::Platform::start(options(lab.dir.path()))
        .await
        .unwrap_err();
    assert!(
        matches!(refused, vers_local::Error::Locked { .. }),
        "{refused}"
    );
    lab.reset().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_start_says_why() {
    let lab = Detached::new();
    let mut wrong = options(lab.dir.path());
    wrong.ssh_listen = ([0, 0, 0, 0], 0).into();
    let refused = vers_local::up(wrong, (helper(), Vec::new()))
        .await
        .unwrap_err()
        .to_string();
    assert!(refused.contains("loopback only"), "{refused}");
    let refused = vers_local::up(options(lab.dir.path()), ("/bin/false".into(), Vec::new()))
        .await
        .unwrap_err();
    assert!(
        refused.to_string().contains("before it was ready"),
        "{refused}"
    );
    let script = (
        "/bin/sh".into(),
        ["-c", "echo the reason >&2; exit 3"]
            .map(Into::into)
            .to_vec(),
    );
    let refused = vers_local::up(options(lab.dir.path()), script)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("exit status: 3") && refused.contains("the reason"),
        "{refused}"
    );
    let refused = vers_local::up(options(lab.dir.path()), ("/no/such".into(), Vec::new()))
        .await
        .unwrap_err();
    assert!(
        refused.to_string().contains("cannot run /no/such"),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_state_path_is_no_obstacle() {
    let lab = Detached::new();
    let mut deep = options(lab.dir.path());
    deep.state_dir = lab
        .dir
        .path()
        .join("d".repeat(100))
        .join("e".repeat(100))
        .join("state");
    let state = deep.state_dir.clone();
    let api = Api::new(&lab.up_with(deep).await);
    let vm = api.create().await;
    assert_eq!(api.sh(&vm, "echo hi").await, "hi\n");
    let commit = api.commit(&vm).await;
    let made = api
        .json(
            Method::POST,
            "/vm/from_commit",
            Some(json!({"commit_id": commit})),
            StatusCode::CREATED,
        )
        .await;
    assert_eq!(
        api.sh(made["vm_id"].as_str().unwrap(), "echo hi").await,
        "hi\n"
    );
    vers_local::reset(&state).await.unwrap();
    assert!(!state.exists());
    nothing_left(&state);
}

#[tokio::test(flavor = "multi_thread")]
async fn reset_removes_only_what_is_the_platforms() {
    let lab = Detached::new();
    std::fs::create_dir_all(lab.state()).unwrap();
    std::fs::write(lab.state().join("precious"), "x").unwrap();
    assert!(matches!(
        vers_local::reset(&lab.state()).await,
        Err(vers_local::Error::NotOurs { .. })
    ));
    let api = Api::new(&lab.up().await);
    api.create().await;
    vers_local::reset(&lab.state()).await.unwrap();
    assert_eq!(names(&lab.state()), ["precious"]);
    assert_eq!(
        vers_local::reset(&lab.dir.path().join("none"))
            .await
            .unwrap(),
        vers_local::DownReport::default()
    );
}
