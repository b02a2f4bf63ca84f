//! The state machine against sandboxes that fail on demand. No privileges are needed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use super::*;
use crate::sandbox::{Error, Pause, Spec, Tier};
use crate::state::record::CommitRecord;
use crate::state::{list, read_json};
use futures::future::{BoxFuture, FutureExt as _};
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::atomic::AtomicI32;
use tokio::sync::Notify;

/// What outlives a server: the kernel's side.
#[derive(Default)]
struct World {
    next_pid: AtomicI32,
    alive: Mutex<HashSet<i32>>,
    frozen: Mutex<HashSet<i32>>,
    exits: Mutex<HashMap<i32, Arc<Notify>>>,
    /// Starts that fail: those whose number (from 1) is in here.
    failing_starts: Mutex<HashSet<i32>>,
    starts: AtomicI32,
    failing_freeze: AtomicBool,
    layers: Mutex<HashMap<Uuid, Vec<PathBuf>>>,
    /// Starts wait for this, when it is set.
    gate: Mutex<Option<Arc<Notify>>>,
}

impl World {
    fn is_frozen(&self, h: &Handle) -> bool {
        self.frozen.lock().unwrap().contains(&h.pid)
    }
    fn kill(&self, pid: i32) {
        self.alive.lock().unwrap().remove(&pid);
        self.frozen.lock().unwrap().remove(&pid);
        if let Some(exit) = self.exits.lock().unwrap().get(&pid) {
            exit.notify_waiters();
            exit.notify_one();
        }
    }
    fn living(&self) -> usize {
        self.alive.lock().unwrap().len()
    }
}

struct Fake(Arc<World>, Capabilities);

fn broken(what: &str) -> Error {
    Error::Io {
        what: what.into(),
        source: std::io::ErrorKind::Other.into(),
    }
}

impl Backend for Fake {
    fn capabilities(&self) -> &Capabilities {
        &self.1
    }
    fn start<'a>(&'a self, spec: Spec<'a>) -> BoxFuture<'a, Result<Handle, Error>> {
        async move {
            let gate = self.0.gate.lock().unwrap().clone();
            if let Some(gate) = gate {
                gate.notified().await;
            }
            let n = self.0.starts.fetch_add(1, Ordering::SeqCst) + 1;
            if self.0.failing_starts.lock().unwrap().contains(&n) {
                return Err(broken("start was made to fail"));
            }
            std::fs::create_dir_all(spec.dir.join("upper")).unwrap();
            self.0
                .layers
                .lock()
                .unwrap()
                .insert(spec.id, spec.layers.to_vec());
            let pid = self.0.next_pid.fetch_add(1, Ordering::SeqCst) + 1;
            self.0.alive.lock().unwrap().insert(pid);
            self.0.exits.lock().unwrap().insert(pid, Arc::default());
            Ok(Handle {
                id: spec.id,
                tier: Tier::Sandbox,
                boot_id: "boot".into(),
                pid,
                start_time: 1,
                dir: spec.dir.to_owned(),
                cgroup: None,
                pids_v1: None,
            })
        }
        .boxed()
    }
    fn alive<'a>(&'a self, h: &'a Handle) -> BoxFuture<'a, bool> {
        async move { self.0.alive.lock().unwrap().contains(&h.pid) }.boxed()
    }
    fn exited<'a>(&'a self, h: &'a Handle) -> BoxFuture<'a, ()> {
        async move {
            let exit = self.0.exits.lock().unwrap().get(&h.pid).cloned();
            if let Some(exit) = exit
                && self.0.alive.lock().unwrap().contains(&h.pid)
            {
                exit.notified().await;
            }
        }
        .boxed()
    }
    fn freeze<'a>(&'a self, h: &'a Handle) -> BoxFuture<'a, Result<(), Error>> {
        async move {
            if self.0.failing_freeze.load(Ordering::SeqCst) {
                return Err(broken("freeze was made to fail"));
            }
            self.0.frozen.lock().unwrap().insert(h.pid);
            Ok(())
        }
        .boxed()
    }
    fn thaw<'a>(&'a self, h: &'a Handle) -> BoxFuture<'a, Result<(), Error>> {
        async move {
            self.0.frozen.lock().unwrap().remove(&h.pid);
            Ok(())
        }
        .boxed()
    }
    fn stop<'a>(&'a self, h: &'a Handle) -> BoxFuture<'a, Result<(), Error>> {
        async move {
            self.0.kill(h.pid);
            Ok(())
        }
        .boxed()
    }
    fn dial<'a>(&'a self, _: &'a Handle, _: Service) -> BoxFuture<'a, Result<UnixStream, Error>> {
        async move { Err(broken("nothing listens")) }.boxed()
    }
    fn sweep<'a>(&'a self, known: &'a [Handle]) -> BoxFuture<'a, Result<(), Error>> {
        async move {
            let known: HashSet<i32> = known.iter().map(|h| h.pid).collect();
            let stray: Vec<i32> = self
                .0
                .alive
                .lock()
                .unwrap()
                .difference(&known)
                .copied()
                .collect();
            for pid in stray {
                self.0.kill(pid);
            }
            Ok(())
        }
        .boxed()
    }
}

async fn open(dir: &Path, world: &Arc<World>) -> Arc<Manager> {
    let capabilities = Capabilities {
        tier: Tier::Sandbox,
        memory_snapshots: false,
        limits: false,
        pause: Pause::Freezer,
        full_root: true,
        notes: Vec::new(),
    };
    let limits = Limits {
        max_vms: 8,
        max_commits: 8,
        ..Limits::default()
    };
    let state = StateDir::create(dir).unwrap();
    Manager::open(
        state,
        Uuid::nil(),
        limits,
        Box::new(Fake(world.clone(), capabilities)),
    )
    .await
    .unwrap()
    .0
}

struct Lab {
    dir: tempfile::TempDir,
    world: Arc<World>,
    manager: Arc<Manager>,
}

impl Lab {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let world = Arc::<World>::default();
        let manager = open(dir.path(), &world).await;
        Self {
            dir,
            world,
            manager,
        }
    }

    /// As after `kill -9`: nothing is told, everything is read again.
    async fn reopen(self) -> Self {
        // The watchers must not write any more.
        self.manager.closing.cancel();
        let manager = open(self.dir.path(), &self.world).await;
        Self { manager, ..self }
    }

    async fn vm(&self) -> Uuid {
        self.manager
            .new_root(VmConfig::default(), true)
            .await
            .unwrap()
    }

    fn phase(&self, id: Uuid) -> Phase {
        self.manager.vm(id).unwrap().phase
    }

    fn handle(&self, id: Uuid) -> Handle {
        self.manager.vm(id).unwrap().handle.unwrap()
    }

    async fn commit(&self, id: Uuid) -> Uuid {
        self.manager
            .commit(id, CommitRequest::default())
            .await
            .unwrap()
    }

    async fn becomes(&self, id: Uuid, phase: Phase) {
        tokio::time::timeout(Duration::from_secs(20), async {
            while self.phase(id) != phase {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
    }

    async fn settled(&self) {
        self.manager.tasks.close();
        self.manager.closing.cancel();
        tokio::time::timeout(Duration::from_secs(20), self.manager.tasks.wait())
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_vm_is_paused_resumed_and_deleted() {
    let lab = Lab::new().await;
    let vm = lab.vm().await;
    assert_eq!(lab.phase(vm), Phase::Running);
    lab.manager.pause(vm, false).await.unwrap();
    lab.manager.pause(vm, false).await.unwrap();
    assert!(lab.world.is_frozen(&lab.handle(vm)));
    assert!(matches!(
        lab.manager.dial(vm, Service::Ssh).await,
        Err(Fault::WrongState(_))
    ));
    lab.manager.resume(vm, false).await.unwrap();
    assert!(!lab.world.is_frozen(&lab.handle(vm)));
    lab.manager.delete(vm, false).await.unwrap();
    assert_eq!(lab.manager.delete(vm, false).await, Err(Fault::NOT_FOUND));
    lab.settled().await;
    assert_eq!(lab.world.living(), 0);
    assert!(
        list(&lab.manager.state.path("vms")).is_empty() && lab.manager.state.trash().is_empty()
    );
}

#[tokio::test]
async fn a_vm_whose_first_process_dies_sleeps_and_starts_again_on_its_disk() {
    let lab = Lab::new().await;
    let vm = lab.vm().await;
    std::fs::write(lab.manager.vm_dir(vm).join("upper/file"), "kept").unwrap();
    lab.world.kill(lab.handle(vm).pid);
    lab.becomes(vm, Phase::Sleeping).await;
    assert!(lab.manager.pause(vm, false).await.is_err());
    lab.manager.resume(vm, false).await.unwrap();
    assert_eq!(lab.phase(vm), Phase::Running);
    assert_eq!(
        std::fs::read_to_string(lab.manager.vm_dir(vm).join("upper/file")).unwrap(),
        "kept"
    );
}

#[tokio::test]
async fn a_failed_start_leaves_nothing_when_waited_for_and_a_dead_vm_otherwise() {
    let lab = Lab::new().await;
    lab.world.failing_starts.lock().unwrap().extend([1, 2, 3]);
    assert!(
        lab.manager
            .new_root(VmConfig::default(), true)
            .await
            .is_err()
    );
    assert!(lab.manager.vms().is_empty());
    let vm = lab
        .manager
        .new_root(VmConfig::default(), false)
        .await
        .unwrap();
    lab.becomes(vm, Phase::Dead).await;
    assert!(lab.manager.resume(vm, false).await.is_err());
    assert_eq!(lab.phase(vm), Phase::Dead);
    lab.manager.resume(vm, false).await.unwrap();
    assert_eq!(lab.phase(vm), Phase::Running);
}

#[tokio::test]
async fn a_booting_vm_is_waited_for_unless_told_otherwise() {
    let lab = Lab::new().await;
    let gate = Arc::<Notify>::default();
    *lab.world.gate.lock().unwrap() = Some(gate.clone());
    let vm = lab
        .manager
        .new_root(VmConfig::default(), false)
        .await
        .unwrap();
    assert_eq!(lab.phase(vm), Phase::Booting);
    assert!(matches!(
        lab.manager.pause(vm, true).await,
        Err(Fault::WrongState(_))
    ));
    let waiting = tokio::spawn({
        let manager = lab.manager.clone();
        async move { manager.pause(vm, false).await }
    });
    gate.notify_one();
    waiting.await.unwrap().unwrap();
    assert_eq!(lab.phase(vm), Phase::Paused);
}

#[tokio::test]
async fn a_commit_is_refused_for_a_vm_that_cannot_be_frozen_and_leaves_nothing() {
    let lab = Lab::new().await;
    let vm = lab.vm().await;
    lab.world.failing_freeze.store(true, Ordering::SeqCst);
    assert!(
        lab.manager
            .commit(vm, CommitRequest::default())
            .await
            .is_err()
    );
    lab.settled().await;
    assert!(lab.manager.commits(false).is_empty());
    assert!(list(&lab.manager.state.path("commits")).is_empty());
    assert!(lab.manager.registry().making.is_empty() && lab.manager.registry().pins.is_empty());
}

#[tokio::test]
async fn a_commit_whose_copy_fails_thaws_the_vm() {
    let lab = Lab::new().await;
    let vm = lab.vm().await;
    std::fs::remove_dir(lab.manager.vm_dir(vm).join("upper")).unwrap();
    assert!(
        lab.manager
            .commit(vm, CommitRequest::default())
            .await
            .is_err()
    );
    assert!(!lab.world.is_frozen(&lab.handle(vm)));
    assert_eq!(lab.phase(vm), Phase::Running);
}

#[tokio::test]
async fn keep_paused_leaves_the_vm_paused() {
    let lab = Lab::new().await;
    let vm = lab.vm().await;
    let request = CommitRequest {
        keep_paused: true,
        ..CommitRequest::default()
    };
    lab.manager.commit(vm, request).await.unwrap();
    assert_eq!(lab.phase(vm), Phase::Paused);
    assert!(lab.world.is_frozen(&lab.handle(vm)));
    // A paused VM is committed as it stands, and stays paused.
    lab.commit(vm).await;
    assert!(lab.world.is_frozen(&lab.handle(vm)));
}

#[tokio::test]
async fn layers_of_a_restored_vm_are_those_of_its_commit_newest_first() {
    let lab = Lab::new().await;
    let root = lab.vm().await;
    let first = lab.commit(root).await;
    let middle = lab.manager.restore(first).await.unwrap();
    let second = lab.commit(middle).await;
    let leaf = lab.manager.restore(second).await.unwrap();
    let expected: Vec<_> = [second, first]
        .map(|id| lab.manager.state.commit(id).join("layer"))
        .into();
    assert_eq!(lab.world.layers.lock().unwrap()[&leaf], expected);
    let parents: Vec<_> = lab
        .manager
        .parents(second)
        .unwrap()
        .iter()
        .map(|c| c.id)
        .collect();
    assert_eq!(parents, [second, first]);
    let host_key = |id| std::fs::read(lab.manager.vm_dir(id).join("host_key")).unwrap();
    let ssh_key = |id| std::fs::read(lab.manager.vm_dir(id).join("ssh_key")).unwrap();
    assert_eq!(host_key(root), host_key(leaf));
    assert_ne!(ssh_key(root), ssh_key(leaf));
}

#[tokio::test]
async fn a_commit_in_use_is_not_deleted() {
    let lab = Lab::new().await;
    let root = lab.vm().await;
    let commit = lab.commit(root).await;
    let vm = lab.manager.restore(commit).await.unwrap();
    let conflict = |text: &str| Err(Fault::Conflict(text.into()));
    assert_eq!(
        lab.manager.delete_commit(commit).await,
        conflict("commit still has 1 active VM(s)")
    );
    let child = lab.commit(vm).await;
    lab.manager.delete(vm, false).await.unwrap();
    assert_eq!(
        lab.manager.delete_commit(commit).await,
        conflict("commit still has 1 child commit(s)")
    );
    lab.manager
        .create_tag("t".into(), child, None)
        .await
        .unwrap();
    assert_eq!(
        lab.manager.delete_commit(child).await,
        conflict("commit still has 1 tag(s)")
    );
    lab.manager.delete_tag("t".into()).await.unwrap();
    lab.manager.delete_commit(child).await.unwrap();
    lab.manager.delete_commit(commit).await.unwrap();
    assert_eq!(
        lab.manager.delete_commit(commit).await,
        Err(Fault::COMMIT_NOT_FOUND)
    );
}

#[tokio::test]
async fn failed_branches_are_cleaned_up_and_the_others_live() {
    let lab = Lab::new().await;
    let root = lab.vm().await;
    lab.world.failing_starts.lock().unwrap().extend([3]);
    let Branched { vms, failed } = lab.manager.branch(root, 3, false, false).await.unwrap();
    assert_eq!((vms.len(), failed.len()), (2, 1));
    assert_eq!(lab.world.living(), 3);
    assert_eq!(list(&lab.manager.state.path("vms")).len(), 3);
    assert_eq!(lab.phase(root), Phase::Running);
    for vm in vms {
        assert_eq!(lab.manager.vm(vm).unwrap().parent_vm, Some(root));
        lab.manager.delete(vm, false).await.unwrap();
    }
    // Nobody asked for the commit in between, and nobody needs it now.
    assert!(lab.manager.commits(false).is_empty());
    lab.settled().await;
    assert!(list(&lab.manager.state.path("commits")).is_empty());
}

#[tokio::test]
async fn a_branch_of_which_nothing_starts_leaves_nothing() {
    let lab = Lab::new().await;
    let root = lab.vm().await;
    lab.world.failing_starts.lock().unwrap().extend([2, 3]);
    let branched = lab.manager.branch(root, 2, true, false).await.unwrap();
    assert_eq!((branched.vms.len(), branched.failed.len()), (0, 2));
    assert_eq!(lab.manager.vms().len(), 1);
    assert!(lab.manager.commits(false).is_empty());
    assert_eq!(lab.phase(root), Phase::Paused);
}

#[tokio::test]
async fn limits_hold_before_anything_is_made() {
    let lab = Lab::new().await;
    let root = lab.vm().await;
    assert!(matches!(
        lab.manager.branch(root, 8, false, false).await,
        Err(Fault::Limit(_))
    ));
    assert!(matches!(
        lab.manager.branch(root, usize::MAX, false, false).await,
        Err(Fault::Limit(_))
    ));
    assert!(lab.manager.commits(false).is_empty());
    assert_eq!(
        lab.manager.branch(root, 0, false, false).await.unwrap(),
        Branched::default()
    );
    for _ in 0..8 {
        lab.commit(root).await;
    }
    assert!(matches!(
        lab.manager.commit(root, CommitRequest::default()).await,
        Err(Fault::Limit(_))
    ));
}

#[tokio::test]
async fn an_abandoned_call_goes_on_to_its_end() {
    let lab = Lab::new().await;
    let vm = lab.vm().await;
    let (first, second) = (Uuid::from_u128(1), Uuid::from_u128(2));
    for id in [first, second] {
        let request = CommitRequest {
            commit_id: Some(id),
            ..CommitRequest::default()
        };
        // Polled once, then dropped.
        let _ = lab.manager.commit(vm, request).now_or_never();
    }
    lab.commit(vm).await;
    let all: HashSet<_> = lab.manager.commits(false).iter().map(|c| c.id).collect();
    assert!(all.contains(&first) && all.contains(&second), "{all:?}");
    assert!(!lab.world.is_frozen(&lab.handle(vm)));
}

#[tokio::test]
async fn operations_on_one_vm_never_interleave() {
    let lab = Lab::new().await;
    let vm = lab.vm().await;
    let mut all = Vec::new();
    for n in 0..24 {
        let manager = lab.manager.clone();
        all.push(tokio::spawn(async move {
            match n % 4 {
                0 => manager.pause(vm, false).await,
                1 => manager.resume(vm, false).await,
                2 if n < 12 => manager
                    .commit(vm, CommitRequest::default())
                    .await
                    .map(|_| ()),
                _ => {
                    manager
                        .edit_labels(vm, move |l| {
                            l.insert(n.to_string(), String::new());
                            Ok(())
                        })
                        .await
                }
            }
        }));
    }
    for one in all {
        one.await.unwrap().unwrap();
    }
    // What the record says is what is.
    assert_eq!(
        lab.world.is_frozen(&lab.handle(vm)),
        lab.phase(vm) == Phase::Paused
    );
    assert_eq!(lab.manager.commits(false).len(), 3);
    let on_disk: VmRecord = read_json(&lab.manager.vm_dir(vm).join("meta.json")).unwrap();
    assert_eq!((on_disk.phase, on_disk.labels.len()), (lab.phase(vm), 9));
}

#[tokio::test]
async fn recovery_adopts_thaws_and_puts_to_sleep() {
    let lab = Lab::new().await;
    let (running, frozen, paused, dead) = (
        lab.vm().await,
        lab.vm().await,
        lab.vm().await,
        lab.vm().await,
    );
    lab.manager.pause(paused, false).await.unwrap();
    // Killed in the middle of a commit: frozen, but recorded as running.
    lab.world
        .frozen
        .lock()
        .unwrap()
        .insert(lab.handle(frozen).pid);
    lab.manager.closing.cancel();
    tokio::task::yield_now().await;
    lab.world.kill(lab.handle(dead).pid);
    let lab = lab.reopen().await;
    assert_eq!(
        [running, frozen, paused, dead].map(|id| lab.phase(id)),
        [
            Phase::Running,
            Phase::Running,
            Phase::Paused,
            Phase::Sleeping
        ]
    );
    assert!(!lab.world.is_frozen(&lab.handle(frozen)));
    assert!(lab.world.is_frozen(&lab.handle(paused)));
    // An adopted VM is watched again.
    lab.world.kill(lab.handle(running).pid);
    lab.becomes(running, Phase::Sleeping).await;
}

#[tokio::test]
async fn recovery_removes_what_was_cut_short() {
    let lab = Lab::new().await;
    let (vm, deleting) = (lab.vm().await, lab.vm().await);
    let commit = lab.commit(vm).await;
    lab.manager
        .create_tag("tag".into(), commit, None)
        .await
        .unwrap();
    lab.manager
        .set_env([("A".to_owned(), "b".to_owned())].into(), false)
        .await
        .unwrap();
    let state = lab.manager.state.clone();
    let cut = |id: Uuid, phase| {
        let path = state.vm(id).join("meta.json");
        let mut record: VmRecord = read_json(&path).unwrap();
        record.phase = phase;
        write_json(&path, &record).unwrap();
    };
    cut(deleting, Phase::Deleting);
    let booting = lab.vm().await;
    cut(booting, Phase::Booting);
    let never = Uuid::new_v4();
    std::fs::create_dir(state.vm(never)).unwrap();
    let half = state.commit_in_progress(Uuid::new_v4());
    std::fs::create_dir_all(half.join("layer/deep")).unwrap();
    std::fs::create_dir_all(state.path("trash/x/y")).unwrap();
    let lab = lab.reopen().await;
    assert_eq!(
        lab.manager.vms().iter().map(|v| v.id).collect::<Vec<_>>(),
        [vm]
    );
    assert_eq!(lab.world.living(), 1);
    assert_eq!(
        lab.manager
            .commits(false)
            .iter()
            .map(|c| c.id)
            .collect::<Vec<_>>(),
        [commit]
    );
    assert_eq!(lab.manager.tag("tag").unwrap().commit_id, commit);
    assert_eq!(lab.manager.env()["A"], "b");
    lab.settled().await;
    assert_eq!(list(&state.path("vms")), [state.vm(vm)]);
    assert_eq!(list(&state.path("commits")), [state.commit(commit)]);
    assert!(state.trash().is_empty());
}

#[tokio::test]
async fn a_vm_with_files_and_a_damaged_record_is_left_alone() {
    let lab = Lab::new().await;
    let vm = lab.vm().await;
    std::fs::write(lab.manager.vm_dir(vm).join("upper/work"), "of days").unwrap();
    std::fs::write(lab.manager.vm_dir(vm).join("meta.json"), "{").unwrap();
    let lab = lab.reopen().await;
    assert!(lab.manager.vms().is_empty());
    lab.settled().await;
    assert!(lab.manager.vm_dir(vm).join("upper/work").exists());
    // Its processes are not: nobody could reach them.
    assert_eq!(lab.world.living(), 0);
}

#[tokio::test]
async fn a_cold_start_cut_short_keeps_the_disk() {
    let lab = Lab::new().await;
    let vm = lab.vm().await;
    lab.world.kill(lab.handle(vm).pid);
    lab.becomes(vm, Phase::Sleeping).await;
    let gate = Arc::<Notify>::default();
    *lab.world.gate.lock().unwrap() = Some(gate.clone());
    let starting = tokio::spawn({
        let manager = lab.manager.clone();
        async move { manager.resume(vm, false).await }
    });
    lab.becomes(vm, Phase::Booting).await;
    let on_disk: VmRecord = read_json(&lab.manager.vm_dir(vm).join("meta.json")).unwrap();
    assert_eq!(on_disk.phase, Phase::Sleeping);
    gate.notify_one();
    starting.await.unwrap().unwrap();
}

#[tokio::test]
async fn sleep_all_ends_every_process_and_lets_no_new_one_in() {
    let lab = Lab::new().await;
    let (a, b) = (lab.vm().await, lab.vm().await);
    lab.manager.pause(b, false).await.unwrap();
    lab.manager.refuse();
    let (slept, failed) = lab.manager.sleep_all().await;
    assert_eq!((slept, failed.len()), (2, 0));
    assert_eq!(lab.world.living(), 0);
    assert_eq!([a, b].map(|id| lab.phase(id)), [Phase::Sleeping; 2]);
    assert_eq!(
        lab.manager.new_root(VmConfig::default(), true).await,
        Err(Fault::Closing)
    );
    assert_eq!(lab.manager.resume(a, false).await, Err(Fault::Closing));
}

#[tokio::test]
async fn a_commit_says_that_it_holds_the_disk_only() {
    let lab = Lab::new().await;
    let vm = lab.vm().await;
    let commit = lab.commit(vm).await;
    let text = std::fs::read_to_string(lab.manager.state.commit(commit).join("meta.json")).unwrap();
    assert!(text.contains("\"contents\": \"disk_only\""), "{text}");
    let record: CommitRecord = serde_json::from_str(&text).unwrap();
    assert_eq!(record.vm, Some(vm));
}

#[tokio::test]
async fn names_survive_a_restart_and_keep_their_rules() {
    let lab = Lab::new().await;
    let vm = lab.vm().await;
    let (one, two) = (lab.commit(vm).await, lab.commit(vm).await);
    let m = &lab.manager;
    m.create_repository("repo".into(), Some("d".into()))
        .await
        .unwrap();
    let again = m.create_repository("repo".into(), None).await.unwrap_err();
    assert_eq!(again, Fault::Conflict("repository already exists".into()));
    assert!(matches!(
        m.create_repository("a/b".into(), None).await,
        Err(Fault::Invalid(_))
    ));
    m.create_repo_tag("repo".into(), "latest".into(), one, Some("x".into()))
        .await
        .unwrap();
    assert!(
        m.create_repo_tag("repo".into(), "latest".into(), one, None)
            .await
            .is_err()
    );
    let unknown = m
        .create_repo_tag("repo".into(), "other".into(), Uuid::nil(), None)
        .await
        .unwrap_err();
    assert_eq!(unknown, Fault::COMMIT_NOT_FOUND);
    let none = m
        .update_repo_tag("repo".into(), "latest".into(), TagChange::default())
        .await
        .unwrap_err();
    assert_eq!(none, Fault::Invalid("No updates provided".into()));
    let change = TagChange {
        commit_id: Some(two),
        description: Some(None),
    };
    m.update_repo_tag("repo".into(), "latest".into(), change)
        .await
        .unwrap();
    m.set_visibility("repo".into(), true).await.unwrap();
    let lab = lab.reopen().await;
    let m = &lab.manager;
    assert_eq!(m.resolve_ref("repo:latest"), Ok(two));
    assert_eq!(m.repo_tag("repo", "latest").unwrap().description, None);
    assert!(m.repository("repo").unwrap().is_public);
    for wrong in ["repo", "repo:", ":latest", "a:b:c", ""] {
        assert!(
            matches!(m.resolve_ref(wrong), Err(Fault::Invalid(_))),
            "{wrong}"
        );
    }
    m.delete_repository("repo".into()).await.unwrap();
    assert_eq!(
        m.resolve_ref("repo:latest"),
        Err(Fault::REPOSITORY_NOT_FOUND)
    );
    m.delete_commit(two).await.unwrap();
}
