//! From start to removal: freezing, commits, crashes, adoption.

use crate::client::DEADLINE;
use crate::vm::{Platform, Vm, eventually, processes_of};
use std::path::PathBuf;
use std::time::Duration;
use vers_local::internal::{Error, Handle, Sandboxes, Service, remove_tree};

const COUNTER: &str =
    "nohup sh -c 'i=0; while :; do i=$((i+1)); echo $i > /tmp/count; done' >/dev/null 2>&1 &";

fn count(vm: &Vm) -> Option<u64> {
    let text = std::fs::read_to_string(vm.dir.join("upper/tmp/count")).ok()?;
    text.trim().parse().ok()
}

#[tokio::test]
async fn a_frozen_vm_stands_still_and_goes_on() {
    let p = Platform::new().await;
    let vm = p.vm(&[]).await;
    p.connect(&vm).await.text(COUNTER).await;
    eventually("the counter counts", || async { count(&vm).is_some() }).await;
    p.sandboxes.freeze(&vm.handle).await.unwrap();
    p.sandboxes
        .freeze(&vm.handle)
        .await
        .expect("frozen already");
    let frozen = count(&vm);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(count(&vm), frozen);
    assert!(p.sandboxes.alive(&vm.handle).await);
    p.sandboxes.thaw(&vm.handle).await.unwrap();
    eventually("the counter goes on", || async {
        count(&vm) > frozen && count(&vm).is_some()
    })
    .await;
    assert_eq!(p.connect(&vm).await.text("echo here").await, "here");
    p.delete(vm).await;
    p.end().await;
}

#[tokio::test]
async fn a_frozen_vm_is_stopped() {
    let p = Platform::new().await;
    let vm = p.vm(&[]).await;
    p.connect(&vm).await.text(COUNTER).await;
    p.sandboxes.freeze(&vm.handle).await.unwrap();
    p.sandboxes.stop(&vm.handle).await.unwrap();
    assert!(!p.sandboxes.alive(&vm.handle).await);
    p.sandboxes.stop(&vm.handle).await.expect("stopped already");
    assert!(matches!(
        p.sandboxes.freeze(&vm.handle).await,
        Err(Error::NotRunning { .. })
    ));
    assert!(matches!(
        p.sandboxes.dial(&vm.handle, Service::Ssh).await,
        Err(Error::NotRunning { .. })
    ));
    p.delete(vm).await;
    p.end().await;
}

#[tokio::test]
async fn restores_and_branches_hold_the_same_bytes_and_diverge() {
    let p = Platform::new().await;
    let first = p.vm(&[]).await;
    let c = p.connect(&first).await;
    c.text("mkdir -p a/b && echo one > a/b/f && ln -s f a/b/link && ln a/b/f a/hard && mkfifo a/fifo && chmod 640 a/b/f && printf x > \"$(printf 'odd \\377\\nname')\" && echo t > /tmp/t && echo h > /home/h && echo gone > gone").await;
    let one = p.commit(&first, None, "c1").await;
    c.text("echo two > a/b/f && rm gone && echo late > late")
        .await;

    let second = p.vm(&one).await;
    let c2 = p.connect(&second).await;
    assert_eq!(
        c2.text("cat a/b/f a/b/link a/hard /tmp/t /home/h gone")
            .await,
        "one\none\none\nt\nh\ngone"
    );
    assert_eq!(
        c2.text("stat -c '%a %h' a/b/f; test -p a/fifo && echo fifo")
            .await,
        "640 2\nfifo"
    );
    assert_eq!(c2.text("cat odd*").await, "x");
    assert_eq!(c2.text("test -e late || echo absent").await, "absent");
    assert_eq!(c.text("cat a/b/f").await, "two");
    assert_eq!(c2.text("echo $VERS_VM_ID").await, second.id.to_string());

    // A commit on top of a commit: removals, replaced directories and new names come along.
    c2.text("rm gone && rm -r a && mkdir a && echo new > a/new && mv /tmp/t /tmp/t2")
        .await;
    let two = p.commit(&second, None, "c2").await;
    assert_eq!(two.len(), 2);
    let third = p.vm(&two).await;
    let c3 = p.connect(&third).await;
    assert_eq!(
        c3.text(
            "ls a; cat a/new /tmp/t2; test -e gone || echo absent; test -e /tmp/t || echo absent"
        )
        .await,
        "new\nnew\nt\nabsent\nabsent"
    );
    // Side by side from the same layers.
    let fourth = p.vm(&two).await;
    let c4 = p.connect(&fourth).await;
    c4.text("echo changed > a/new").await;
    assert_eq!(c3.text("cat a/new").await, "new");
    assert_eq!(c2.text("cat a/new").await, "new");
    assert_eq!(c.text("cat a/b/f").await, "two");

    for vm in [first, second, third, fourth] {
        p.delete(vm).await;
    }
    p.end().await;
}

#[tokio::test]
async fn many_layers_are_stacked() {
    let p = Platform::new().await;
    let mut layers: Vec<PathBuf> = Vec::new();
    for i in 0..70 {
        let layer = p.state.join(format!("layer-{i}"));
        std::fs::create_dir_all(layer.join("srv")).unwrap();
        std::fs::write(layer.join(format!("srv/{i}")), i.to_string()).unwrap();
        std::fs::write(layer.join("srv/top"), i.to_string()).unwrap();
        layers.insert(0, layer);
    }
    let vm = p.vm(&layers).await;
    let c = p.connect(&vm).await;
    assert_eq!(
        c.text("ls /srv | wc -l; cat /srv/top /srv/0").await,
        "71\n690"
    );
    p.delete(vm).await;
    p.end().await;
}

#[tokio::test]
async fn the_end_of_the_first_process_is_noticed_and_the_disk_starts_again() {
    let p = Platform::new().await;
    let mut vm = p.vm(&[]).await;
    p.connect(&vm)
        .await
        .text("echo kept > /root/kept; sleep 1000 >/dev/null 2>&1 &")
        .await;
    let pid = first_pid(&vm.handle);
    let watch = {
        let (sandboxes, handle) = (p.sandboxes.clone(), vm.handle.clone());
        tokio::spawn(async move { sandboxes.exited(&handle).await })
    };
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!watch.is_finished());
    let killed = std::process::Command::new("kill")
        .args(["-9", &pid.to_string()])
        .status()
        .unwrap();
    assert!(killed.success());
    tokio::time::timeout(DEADLINE, watch)
        .await
        .unwrap()
        .unwrap();
    assert!(!p.sandboxes.alive(&vm.handle).await);
    assert_eq!(processes_of(&p.instance), Vec::<String>::new());
    p.sandboxes.stop(&vm.handle).await.unwrap();
    vm.handle = p.start(vm.id, &vm.dir, &[], &vm.key).await;
    assert_eq!(p.connect(&vm).await.text("cat /root/kept").await, "kept");
    p.delete(vm).await;
    p.end().await;
}

fn first_pid(h: &Handle) -> i64 {
    serde_json::to_value(h).unwrap()["pid"].as_i64().unwrap()
}

#[tokio::test]
async fn a_later_server_adopts_by_the_stored_handle() {
    let p = Platform::new().await;
    let mut vm = p.vm(&[]).await;
    p.connect(&vm).await.text(COUNTER).await;
    let stored = serde_json::to_string(&vm.handle).unwrap();
    let later = Sandboxes::unprobed(&p.state, &p.instance);
    vm.handle = serde_json::from_str(&stored).unwrap();
    assert!(later.alive(&vm.handle).await);
    let mut other = serde_json::to_value(&vm.handle).unwrap();
    other["start_time"] = serde_json::json!(1);
    let other: Handle = serde_json::from_value(other).unwrap();
    assert!(
        !later.alive(&other).await,
        "another process with this number"
    );
    later.exited(&other).await;
    later.sweep(std::slice::from_ref(&vm.handle)).await.unwrap();
    assert!(later.alive(&vm.handle).await, "known VMs are left alone");
    later.sweep(&[]).await.unwrap();
    assert!(!later.alive(&vm.handle).await, "unknown ones are ended");
    p.delete(vm).await;
    p.end().await;
}

#[tokio::test]
async fn a_guest_that_kills_everything_gets_its_ssh_server_back() {
    let p = Platform::new().await;
    let vm = p.vm(&[]).await;
    let c = p.connect(&vm).await;
    // The agent must have lived a moment, else its end counts as a failure to start.
    let mut killer = c.start("kill -9 -1").await;
    // Until the old agent is gone it answers too.
    tokio::time::timeout(DEADLINE, async { while killer.wait().await.is_some() {} })
        .await
        .expect("the old agent goes");
    eventually("a new agent answers", || async {
        let Ok(stream) = p.sandboxes.dial(&vm.handle, Service::Ssh).await else {
            return false;
        };
        let key = p.host_key.public_key();
        tokio::spawn({
            let (key, vm_key) = (key.clone(), vm.key.clone());
            async move {
                crate::client::Client::connect(stream, &key, &vm_key)
                    .await
                    .is_some()
            }
        })
        .await
        .unwrap_or(false)
    })
    .await;
    assert_eq!(p.connect(&vm).await.text("echo back").await, "back");
    p.delete(vm).await;
    p.end().await;
}

#[tokio::test]
async fn starting_leaves_nothing_when_it_fails_or_is_cancelled() {
    let p = Platform::new().await;
    let key = russh::keys::PrivateKey::random(
        &mut russh::keys::key::safe_rng(),
        russh::keys::Algorithm::Ed25519,
    )
    .unwrap();
    let public = key.public_key().to_openssh().unwrap();
    let env = std::collections::BTreeMap::new();
    let id = uuid::Uuid::new_v4();
    let dir = p.state.join("vms").join(id.to_string());
    std::fs::create_dir(&dir).unwrap();
    let host_key = p.state.join("host_key");
    let missing = [p.state.join("no-such-layer")];
    let mut spec = vers_local::internal::Spec {
        id,
        dir: &dir,
        layers: &missing,
        hostname: "x",
        vcpu: 1,
        mem_mib: 128,
        authorized_key: &public,
        host_key: &host_key,
        env: &env,
    };
    let error = p.sandboxes.start(spec).await.unwrap_err().to_string();
    assert!(error.contains("no-such-layer"), "{error}");
    assert_eq!(processes_of(&p.instance), Vec::<String>::new());
    spec.layers = &[];
    spec.hostname = "bad name";
    assert!(p.sandboxes.start(spec).await.is_err());
    spec.hostname = "x";
    let dropped = tokio::time::timeout(Duration::from_micros(1500), p.sandboxes.start(spec)).await;
    assert!(dropped.is_err(), "it was too fast to be cancelled");
    eventually("the cancelled one is gone", || async {
        processes_of(&p.instance).is_empty()
    })
    .await;
    remove_tree(&dir).await.unwrap();
    p.end().await;
}

#[tokio::test]
async fn fifty_vms_come_and_go() {
    let p = Platform::new().await;
    let mut vms = Vec::new();
    for _ in 0..5 {
        let ten = futures::future::join_all((0..10).map(|_| p.vm(&[]))).await;
        vms.extend(ten);
    }
    // A process' line can't be read at every moment.
    eventually("each has two processes", || async {
        processes_of(&p.instance).len() == 100
    })
    .await;
    for vm in vms {
        p.delete(vm).await;
    }
    p.end().await;
}
