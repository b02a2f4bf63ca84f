//! `kill -9` of the server and of the host at every step of a session: the next start repairs, and nothing leaks.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pi_vers_tests::{DEADLINE, Running, Scratch, eventually, ids, mark, text, traces};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// Waits closely: a step lasts milliseconds.
async fn at_once(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "still not: {what}");
        tokio::time::sleep(Duration::from_micros(300)).await;
    }
}

struct Lab(Scratch);

impl Lab {
    async fn up() -> Self {
        let scratch = Scratch::new();
        scratch.up().await;
        Self(scratch)
    }

    /// With one VM that is in use.
    async fn with_vm() -> (Self, String) {
        let lab = Self::up().await;
        let vm = ids(&lab
            .0
            .text("vers_vm_create", json!({ "wait_boot": true }))
            .await)[0]
            .clone();
        lab.0.text("vers_vm_use", json!({ "vmId": vm })).await;
        (lab, vm)
    }

    fn start(&self, tool: &str, arguments: Value) -> Running {
        self.0.start(&[
            "run",
            "--local",
            "--json",
            "--session",
            "s",
            tool,
            &arguments.to_string(),
        ])
    }

    async fn bash(&self, command: &str) -> String {
        self.0.text("bash", json!({ "command": command })).await
    }

    /// Ends the server so that it cannot notice.
    async fn kill_server(&self) {
        self.0.note();
        let endpoint: Value =
            serde_json::from_slice(&std::fs::read(self.0.local().join("endpoint.json")).unwrap())
                .unwrap();
        let pid = i32::try_from(endpoint["pid"].as_i64().unwrap()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        let ended = || {
            std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| {
                stat.rsplit(") ")
                    .next()
                    .unwrap_or_default()
                    .starts_with(['Z', 'X'])
            })
        };
        eventually("the killed server is gone", ended).await;
    }

    /// Every VM as the platform lists it: id and state.
    async fn listed(&self) -> Vec<(String, String)> {
        let line = self.0.call("vers_vms", json!({})).await;
        let vms = line["details"]["vms"]
            .as_array()
            .unwrap_or_else(|| panic!("{line}"));
        vms.iter()
            .map(|vm| {
                (
                    vm["vm_id"].as_str().unwrap().to_owned(),
                    vm["state"].as_str().unwrap().to_owned(),
                )
            })
            .collect()
    }

    /// After a new start: what is listed is what is there, each VM can be used, and nothing half-made lies about.
    async fn is_whole(&self) -> Vec<(String, String)> {
        self.0.up().await;
        // A server that was not killed itself finishes what it was asked for.
        let deadline = Instant::now() + DEADLINE;
        let mut listed = self.listed().await;
        while listed.iter().any(|(_, state)| state == "booting") {
            assert!(Instant::now() < deadline, "it boots for ever: {listed:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
            listed = self.listed().await;
        }
        let mut known: Vec<String> = listed.iter().map(|(id, _)| id.clone()).collect();
        known.sort();
        assert_eq!(
            names(&self.0.local().join("vms")),
            known,
            "directories and records of VMs"
        );
        let half: Vec<String> = names(&self.0.local().join("commits"))
            .into_iter()
            .filter(|name| name.starts_with('.'))
            .collect();
        assert_eq!(half, Vec::<String>::new(), "half commits");
        eventually("the trash is empty", || {
            names(&self.0.local().join("trash")).is_empty()
        })
        .await;
        for (vm, state) in &listed {
            assert!(
                ["running", "paused", "sleeping"].contains(&state.as_str()),
                "{vm} is {state}"
            );
            // A session of its own: what this one uses stays.
            let used = self
                .0
                .call_in("probe", "vers_vm_use", json!({ "vmId": vm }))
                .await;
            assert_eq!(used["ok"], true, "{used}");
            let ran = self
                .0
                .call_in("probe", "bash", json!({ "command": "echo alive" }))
                .await;
            assert_eq!(text(&ran), "alive\n", "{ran}");
        }
        listed
    }

    async fn end(self) {
        self.0.end().await;
    }
}

/// The process with this mark that is there longest: it forks, and its child is for a moment what it is itself.
fn the_first(mark: &str) -> Option<u32> {
    traces::marked(mark).into_iter().min()
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Files that take a while to copy.
const MANY_FILES: &str = "mkdir -p /srv/many && cd /srv/many && for i in $(seq 3000); do echo $i > $i; done && ls | wc -l";

#[tokio::test(flavor = "multi_thread")]
async fn the_server_is_killed_while_it_creates_a_vm() {
    let lab = Lab::up().await;
    for step in ["directory", "record", "processes"] {
        let before = names(&lab.0.local().join("vms"));
        let creating = tokio::spawn(
            lab.start("vers_vm_create", json!({ "wait_boot": true }))
                .done(),
        );
        let vms = lab.0.local().join("vms");
        at_once("a VM is being made", || {
            let new = names(&vms)
                .into_iter()
                .find(|name| !before.contains(name))
                .map(|name| vms.join(name));
            let is_there = new.is_some_and(|new| match step {
                "directory" => true,
                "record" => new.join("meta.json").exists(),
                _ => new
                    .file_name()
                    .and_then(|id| id.to_str())
                    .is_some_and(|id| !traces::marked(id).is_empty()),
            });
            is_there || creating.is_finished()
        })
        .await;
        if step != "processes" {
            assert!(
                !creating.is_finished(),
                "it ended before {step}: {:?}",
                creating.await
            );
        }
        lab.kill_server().await;
        let done = creating.await.unwrap();
        assert_ne!(done.code, None, "the host does not crash with it: {done:?}");
        lab.is_whole().await;
    }
    let made = lab
        .0
        .text("vers_vm_create", json!({ "wait_boot": true }))
        .await;
    assert!(
        lab.is_whole()
            .await
            .contains(&(ids(&made)[0].clone(), "running".into()))
    );
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_is_killed_and_vms_and_their_processes_live_on() {
    let (lab, vm) = Lab::with_vm().await;
    let mark = mark();
    lab.bash(&format!("cd /srv; nohup sh -c ': {mark}; while :; do echo x >> ticks; sleep 0.05; done' >/dev/null 2>&1 &")).await;
    eventually("the background process runs", || {
        !traces::marked(&mark).is_empty()
    })
    .await;
    let process = the_first(&mark);
    lab.kill_server().await;
    assert_eq!(the_first(&mark), process);
    assert_eq!(lab.is_whole().await, [(vm.clone(), "running".to_owned())]);
    assert_eq!(the_first(&mark), process, "the same process, never stopped");
    // The session goes on where it was: same VM, same directory.
    assert_eq!(lab.bash("pwd; ls").await, "/srv\nticks\n");

    // While a command runs: the host says that it lost the VM, and the command does not run on alone.
    let (command, other) = (self::mark(), self::mark());
    let running = lab.start("bash", json!({ "command": format!(": {command}; echo begun; sh -c ': {other}; sleep 600; :'; :"), "timeout": 0 }));
    // The arguments of the host itself, those of the shell that runs the command, and the command.
    eventually("the command runs", || traces::marked(&other).len() >= 3).await;
    lab.kill_server().await;
    let done = running.done().await;
    // Before the host has heard that the command runs, or after it.
    let line = done.lines().pop().unwrap_or_else(|| panic!("{done:?}"));
    let said = format!("{} {}", text(&line), line["error"]["message"]);
    match done.code {
        Some(1) => assert!(said.contains("was lost while the command ran"), "{done:?}"),
        Some(4) => assert!(
            said.contains("the connection was lost; whether it took effect is unknown"),
            "{done:?}"
        ),
        _ => panic!("{done:?}"),
    }
    eventually("the command of the lost connection is gone", || {
        traces::marked(&other).is_empty() && traces::marked(&command).is_empty()
    })
    .await;
    assert_eq!(lab.is_whole().await, [(vm.clone(), "running".to_owned())]);
    assert_eq!(the_first(&mark), process);

    // Killed and then ended, without a start between: nothing stays.
    lab.kill_server().await;
    let down = lab.0.run(&["local", "down"]).await;
    assert_eq!(down.code, Some(0), "{down:?}");
    lab.0.nothing_left();
    assert_eq!(lab.is_whole_asleep(&vm).await, "ticks\n");
    lab.end().await;
}

impl Lab {
    /// After `down`: the VM sleeps, wakes when it is used, and has its files.
    async fn is_whole_asleep(&self, vm: &str) -> String {
        self.0.up().await;
        assert_eq!(
            self.listed().await,
            [(vm.to_owned(), "sleeping".to_owned())]
        );
        let line = self.0.call("bash", json!({ "command": "ls /srv" })).await;
        let said = text(&line);
        said.strip_prefix(&format!("[VM {vm} was paused and has been resumed.]\n"))
            .unwrap_or_else(|| panic!("{line}"))
            .to_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_is_killed_while_it_commits_and_while_it_branches() {
    let (lab, vm) = Lab::with_vm().await;
    lab.bash(MANY_FILES).await;
    let commits = lab.0.local().join("commits");
    for (tool, rounds) in [("vers_vm_commit", 2), ("vers_vm_branch", 2)] {
        for round in 0..rounds {
            let before = names(&commits);
            let running = lab.start(tool, json!({ "vmId": vm }));
            at_once("a commit is being made", || {
                let new = names(&commits)
                    .into_iter()
                    .any(|name| !before.contains(&name));
                // First as it begins, then as it is done and what follows begins.
                let whole = names(&commits)
                    .into_iter()
                    .any(|name| !before.contains(&name) && !name.starts_with('.'));
                if round == 0 { new } else { whole }
            })
            .await;
            lab.kill_server().await;
            assert_ne!(running.done().await.code, None);
            let listed = lab.is_whole().await;
            assert!(
                listed.contains(&(vm.clone(), "running".into())),
                "frozen for the copy, and thawed again: {listed:?}"
            );
            assert_eq!(lab.bash("ls /srv/many | wc -l").await, "3000\n");
        }
    }
    // Whatever commits there are, are whole; and new ones can be made.
    let made = lab.0.text("vers_vm_commit", json!({ "vmId": vm })).await;
    assert!(names(&commits).contains(&ids(&made)[1]));
    for commit in names(&commits) {
        let restored = lab
            .0
            .text("vers_vm_restore", json!({ "commitId": commit }))
            .await;
        let copy = ids(&restored)[1].clone();
        lab.0.text("vers_vm_use", json!({ "vmId": copy })).await;
        assert_eq!(
            lab.bash("cat $(seq -f /srv/many/%g 3000) | sha256sum; seq 3000 | sha256sum")
                .await
                .lines()
                .collect::<std::collections::HashSet<_>>()
                .len(),
            1
        );
    }
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_is_killed_with_a_paused_vm() {
    let (lab, vm) = Lab::with_vm().await;
    let mark = mark();
    lab.bash(&format!(
        "nohup sh -c ': {mark}; while :; do sleep 0.05; done' >/dev/null 2>&1 &"
    ))
    .await;
    eventually("the background process runs", || {
        !traces::marked(&mark).is_empty()
    })
    .await;
    let process = the_first(&mark);
    lab.0
        .text("vers_vm_state", json!({ "vmId": vm, "state": "Paused" }))
        .await;
    lab.kill_server().await;
    lab.0.up().await;
    assert_eq!(lab.listed().await, [(vm.clone(), "paused".to_owned())]);
    assert_eq!(the_first(&mark), process, "a paused VM keeps its processes");
    lab.0
        .text("vers_vm_state", json!({ "vmId": vm, "state": "Running" }))
        .await;
    assert_eq!(lab.bash("echo on").await, "on\n");
    assert_eq!(the_first(&mark), process, "resumed, not started anew");
    // Paused and killed again, and then deleted.
    lab.0
        .text("vers_vm_state", json!({ "vmId": vm, "state": "Paused" }))
        .await;
    lab.kill_server().await;
    lab.0.up().await;
    lab.0.text("vers_vm_delete", json!({ "vmId": vm })).await;
    assert_eq!(lab.is_whole().await, []);
    assert_eq!(traces::marked(&mark), Vec::<u32>::new());
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_is_killed_while_it_deletes_a_vm() {
    let (lab, vm) = Lab::with_vm().await;
    lab.bash(MANY_FILES).await;
    let other = ids(&lab
        .0
        .text("vers_vm_create", json!({ "wait_boot": true }))
        .await)[0]
        .clone();
    let deleting = lab.start("vers_vm_delete", json!({ "vmId": vm }));
    let record: PathBuf = lab.0.local().join("vms").join(&vm).join("meta.json");
    at_once("the removal has begun", || {
        std::fs::read_to_string(&record).map_or(true, |text| text.contains("deleting"))
    })
    .await;
    lab.kill_server().await;
    assert_ne!(deleting.done().await.code, None);
    // Once begun, it is finished.
    assert_eq!(lab.is_whole().await, [(other, "running".to_owned())]);
    assert_eq!(traces::marked(&vm), Vec::<u32>::new());
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_is_killed_at_each_step_and_leaves_nothing_running() {
    let (lab, vm) = Lab::with_vm().await;
    // While a command runs, with children that do not heed TERM.
    let mark = mark();
    let inner = format!("sh -c 'trap \"\" TERM; : {mark}; while :; do sleep 5; done'");
    let running = lab.start(
        "bash",
        json!({ "command": format!("{inner} & {inner}"), "timeout": 0 }),
    );
    // The host's own argument, the shell that runs the command, and its two children.
    eventually("the command runs", || traces::marked(&mark).len() >= 4).await;
    running.kill().await;
    eventually("the command is gone", || traces::marked(&mark).is_empty()).await;

    // While it creates, commits, branches, restores, deletes: the platform ends what it has begun, or does not begin it.
    lab.bash(MANY_FILES).await;
    let commit = ids(&lab.0.text("vers_vm_commit", json!({ "vmId": vm })).await)[1].clone();
    let (vms, commits) = (lab.0.local().join("vms"), lab.0.local().join("commits"));
    for (tool, arguments) in [
        ("vers_vm_create", json!({ "wait_boot": true })),
        ("vers_vm_commit", json!({ "vmId": vm })),
        ("vers_vm_branch", json!({ "vmId": vm })),
        ("vers_vm_restore", json!({ "commitId": commit })),
    ] {
        let before = (names(&vms), names(&commits));
        let running = lab.start(tool, arguments);
        at_once("it has begun", || (names(&vms), names(&commits)) != before).await;
        running.kill().await;
        eventually("nothing half-made is left", || {
            !names(&commits).iter().any(|name| name.starts_with('.'))
        })
        .await;
        eventually("no VM is booting any more", || {
            names(&vms).iter().all(|vm| {
                std::fs::read_to_string(vms.join(vm).join("meta.json"))
                    .is_ok_and(|text| !text.contains("\"booting\""))
            })
        })
        .await;
        assert!(
            lab.is_whole()
                .await
                .contains(&(vm.clone(), "running".into())),
            "{tool}"
        );
    }
    // The session's file is whole each time: it still knows its VM and its directory.
    assert_eq!(lab.bash("pwd").await, "/srv/many\n");
    lab.end().await;
}

/// The platform of a run that was killed stays up: the next run finds it, and `down` ends it.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_runs_platform_is_found_by_the_next_run() {
    let scratch = Scratch::new();
    let file = scratch.work().join("script.jsonl");
    std::fs::write(
        &file,
        "{\"tool\":\"vers_vm_create\",\"arguments\":{\"wait_boot\":true}}\n",
    )
    .unwrap();
    let running = scratch.start(&["run", "--local", "--json", "--script", "script.jsonl"]);
    at_once("its VM runs", || {
        let vms = scratch.local().join("vms");
        names(&vms).iter().any(|vm| {
            std::fs::read_to_string(vms.join(vm).join("meta.json"))
                .is_ok_and(|text| text.contains("\"running\""))
        })
    })
    .await;
    running.kill().await;
    scratch.note();
    assert_eq!(
        scratch.call("vers_vms", json!({})).await["details"]["vms"][0]["state"],
        "running"
    );
    let down = scratch.run(&["local", "down", "--json"]).await;
    assert_eq!(
        (down.code, down.lines()[0].clone()),
        (
            Some(0),
            json!({ "was_running": true, "vms_put_to_sleep": 1 })
        ),
        "{down:?}"
    );
    scratch.nothing_left();
    scratch.end().await;
}
