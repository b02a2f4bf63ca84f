//! Getting to a VM, and refusing to.

use std::time::{Duration, Instant};

use crate::lab::{Lab, eventually};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use vers_client::{Api, Command, Kind, Ssh};

const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_changed_host_key_is_refused_with_the_way_out() {
    let mut lab = Lab::start().await;
    lab.ssh().connect(lab.vm, PATIENCE).await.unwrap();
    lab.replace_host_key().await;
    let began = Instant::now();
    let error = lab.ssh().connect(lab.vm, PATIENCE).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Denied, "{error}");
    assert!(
        error.to_string().contains("host key has changed")
            && error.to_string().contains("known_hosts.json"),
        "{error}"
    );
    assert!(began.elapsed() < PATIENCE, "a refusal is not tried again");
    // For a VM that is not known it is no surprise.
    let other = vers_client::VmId(uuid::Uuid::new_v4());
    lab.ssh().connect(other, PATIENCE).await.unwrap();
}

#[tokio::test]
async fn a_branch_is_neither_a_scare_nor_a_hole() {
    let mut lab = Lab::start().await;
    let parent = lab.vm;
    let branch = |n| vers_client::VmId(uuid::Uuid::from_u128(n));
    lab.ssh().connect(parent, PATIENCE).await.unwrap();
    lab.platform().parent = Some(parent);
    let asked = |lab: &Lab| lab.platform().metadata_requests;
    eventually("the first key is looked into", || asked(&lab) == 1).await;
    // It resumes with its parent's key: nothing to look into.
    lab.ssh().connect(branch(1), PATIENCE).await.unwrap();
    lab.ssh().connect(branch(1), PATIENCE).await.unwrap();
    assert_eq!(asked(&lab), 1);
    // One that has made itself a new key is met like any VM, and its ancestry is looked up for the log.
    lab.replace_host_key().await;
    lab.ssh().connect(branch(2), PATIENCE).await.unwrap();
    eventually("its ancestry is looked up", || asked(&lab) == 2).await;
    // But its key lets nobody in for the others of the family.
    for vm in [parent, branch(1)] {
        let error = lab.ssh().connect(vm, PATIENCE).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Denied, "{error}");
    }
    lab.ssh().connect(branch(2), PATIENCE).await.unwrap();
}

#[tokio::test]
async fn a_certificate_of_another_authority_or_name_is_refused() {
    let mut lab = Lab::start().await;
    let settings = lab.settings(&[("VERS_TLS_CA", "")]);
    let ssh = Ssh::new(Api::new(settings).unwrap(), lab.options()).unwrap();
    let error = ssh.connect(lab.vm, PATIENCE).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Denied, "{error}");
    assert!(error.to_string().contains("VERS_TLS_CA"), "{error}");

    // Switched off by name, it is accepted.
    let settings = lab.settings(&[("VERS_TLS_CA", ""), ("VERS_INSECURE_TLS", "1")]);
    let ssh = Ssh::new(Api::new(settings).unwrap(), lab.options()).unwrap();
    ssh.connect(lab.vm, PATIENCE).await.unwrap();

    lab.wrong_name().await;
    let error = lab.ssh().connect(lab.vm, PATIENCE).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Denied, "{error}");
}

#[tokio::test]
async fn a_refused_key_is_fetched_once_more_and_then_it_is_over() {
    let lab = Lab::start().await;
    let bad = Lab::start().await.good_key.clone();
    lab.platform().key = bad;
    let error = lab.ssh().connect(lab.vm, PATIENCE).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unauthorized, "{error}");
    assert_eq!(lab.platform().key_requests, 2);
    // A VM that was restored meanwhile has another key.
    let ssh = lab.ssh();
    lab.platform().key = lab.good_key.clone();
    ssh.connect(lab.vm, PATIENCE).await.unwrap();
}

#[tokio::test]
async fn a_paused_vm_is_told_from_a_slow_one() {
    let lab = Lab::start().await;
    // Something that accepts connections and says nothing, like the edge in front of a paused VM.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let settings = lab.settings(&[("VERS_VM_CONNECT", &address)]);
    let ssh = Ssh::new(Api::new(settings).unwrap(), lab.options()).unwrap();
    lab.platform().state = "paused";
    let began = Instant::now();
    let error = ssh
        .connect(lab.vm, Duration::from_secs(60))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict, "{error}");
    assert!(error.to_string().contains("resume"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(30));
    // Running but silent: patience ends it.
    lab.platform().state = "running";
    let error = ssh
        .connect(lab.vm, Duration::from_secs(2))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
}

#[tokio::test]
async fn a_vm_that_boots_is_waited_for() {
    let lab = Lab::start().await;
    // Nothing listens yet.
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let settings = lab.settings(&[("VERS_VM_CONNECT", &free.to_string())]);
    let edge = lab.settings(&[]).vm_connect().unwrap();
    lab.platform().state = "booting";
    let ssh = Ssh::new(Api::new(settings).unwrap(), lab.options()).unwrap();
    let vm = lab.vm;
    let connecting = tokio::spawn(async move { ssh.connect(vm, PATIENCE).await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    let listener = tokio::net::TcpListener::bind(free).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut to = tokio::net::TcpStream::connect(edge).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
            });
        }
    });
    connecting.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_port_is_reached_through_the_vm() {
    let lab = Lab::start().await;
    let ssh = lab.ssh();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        all.reverse();
        stream.write_all(&all).await.unwrap();
    });
    let mut tunnel = ssh.forward(lab.vm, "127.0.0.1", port).await.unwrap();
    tunnel.write_all(b"abc").await.unwrap();
    tunnel.shutdown().await.unwrap();
    let mut answer = Vec::new();
    tunnel.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"cba");
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    assert_eq!(
        ssh.forward(lab.vm, "127.0.0.1", free)
            .await
            .unwrap_err()
            .kind(),
        Kind::Unavailable
    );
}

#[tokio::test]
async fn many_at_once_make_one_connection() {
    let lab = Lab::start().await;
    let ssh = lab.ssh();
    let all = futures::future::join_all((0..10).map(|_| ssh.connect(lab.vm, PATIENCE))).await;
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(lab.platform().key_requests, 1);
    ssh.spawn(lab.vm, Command::argv(["true"]))
        .await
        .unwrap()
        .wait()
        .await
        .unwrap();
}
