//! Connections that say nothing: dead paths, paused VMs, a platform that is gone; and those that nobody uses.

use std::time::{Duration, Instant};

use crate::lab::{Lab, eventually, marked};
use futures::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use vers_client::{Api, Command, Exit, Kind, Ssh, SshOptions};

const PATIENCE: Duration = Duration::from_secs(20);

/// Says how long something took, for the record.
fn took(what: &str, began: Instant) -> Duration {
    let took = began.elapsed();
    eprintln!("measured: {what}: {took:?}");
    took
}

#[tokio::test]
async fn a_dead_path_is_noticed_within_seconds_while_a_command_runs() {
    let lab = Lab::start().await;
    let ssh = lab.ssh();
    let child = ssh
        .spawn(lab.vm, Command::argv(["sleep", "1000"]))
        .await
        .unwrap();
    lab.traffic.freeze(true);
    let began = Instant::now();
    let error = tokio::time::timeout(Duration::from_secs(30), child.wait())
        .await
        .expect("a dead path is not noticed")
        .unwrap_err();
    took("a dead path is noticed", began);
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    assert!(
        error.to_string().contains("path is dead") && error.to_string().contains("unknown"),
        "{error}"
    );
    // Not without having asked.
    assert!(lab.platform().state_requests > 0);
    lab.traffic.freeze(false);
    let child = ssh.spawn(lab.vm, Command::argv(["true"])).await.unwrap();
    assert_eq!(child.wait().await.unwrap(), Exit::Code(0));
}

#[tokio::test]
async fn a_vm_that_is_paused_for_a_moment_keeps_its_commands() {
    let lab = Lab::start().await;
    let ssh = lab.ssh();
    let mut child = ssh
        .spawn(
            lab.vm,
            Command::shell("read -r line; echo got $line").with_stdin(),
        )
        .await
        .unwrap();
    lab.platform().state = "paused";
    lab.traffic.freeze(true);
    // Well beyond the silence that a dead path is given.
    assert!(
        tokio::time::timeout(Duration::from_secs(10), child.wait())
            .await
            .is_err(),
        "its command was given up"
    );
    assert!(lab.platform().state_requests > 0);
    lab.traffic.freeze(false);
    lab.platform().state = "running";
    let mut stdin = child.take_stdin().unwrap();
    stdin.write_all(b"it\n").await.unwrap();
    let out = child.take_stdout().unwrap();
    assert_eq!(out.collect(100).await.0, b"got it\n");
    assert_eq!(child.wait().await.unwrap(), Exit::Code(0));
}

#[tokio::test]
async fn the_start_of_a_command_on_a_vm_paused_elsewhere_fails_at_once() {
    let lab = Lab::start().await;
    let ssh = lab.ssh();
    let run = || ssh.spawn(lab.vm, Command::argv(["true"]));
    run().await.unwrap().wait().await.unwrap();
    lab.platform().state = "paused";
    lab.traffic.freeze(true);
    // It was heard just now: it is told what to run, and what becomes of that nobody knows.
    let error = run().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    assert!(error.to_string().contains("then is unknown"), "{error}");
    // With a channel that lies ready, and then with none.
    for _ in 0..4 {
        let began = Instant::now();
        let error = run().await.unwrap_err();
        let took = took("a command for a paused VM is refused", began);
        assert_eq!(error.kind(), Kind::Conflict, "{error}");
        assert!(error.to_string().contains("resume"), "{error}");
        assert!(took < Duration::from_secs(10));
    }
    lab.traffic.freeze(false);
    lab.platform().state = "running";
    run().await.unwrap().wait().await.unwrap();
}

#[tokio::test]
async fn an_unused_connection_of_a_paused_vm_is_given_up() {
    let lab = Lab::start().await;
    let ssh = lab.ssh();
    ssh.connect(lab.vm, PATIENCE).await.unwrap();
    lab.platform().state = "paused";
    lab.traffic.freeze(true);
    eventually("it is given up", || !ssh.is_connected(lab.vm)).await;
    let error = ssh.connect(lab.vm, PATIENCE).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict, "{error}");
}

#[tokio::test]
async fn a_platform_that_is_gone_is_not_waited_for() {
    let lab = Lab::start().await;
    let free = || {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let api = format!("http://{}", free());
    let options = || SshOptions {
        patience: Duration::from_secs(60),
        ..lab.options()
    };
    // Before its key was ever had.
    let settings = lab.settings(&[("VERS_BASE_URL", &api)]);
    let ssh = Ssh::new(Api::new(settings).unwrap(), options()).unwrap();
    let began = Instant::now();
    let error = ssh.connect(lab.vm, PATIENCE).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    assert!(took("without platform and key", began) < Duration::from_secs(12));

    // The VM's side is gone, the platform is there: it may be booting, and patience decides.
    let settings = lab.settings(&[("VERS_VM_CONNECT", &free())]);
    let ssh = Ssh::new(Api::new(settings).unwrap(), options()).unwrap();
    lab.platform().state = "booting";
    let error = ssh
        .connect(lab.vm, Duration::from_secs(2))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    assert!(
        error.to_string().contains("refused") && error.to_string().contains("booting"),
        "{error}"
    );
}

#[tokio::test]
async fn a_connection_that_nobody_uses_is_closed_and_one_in_use_is_not() {
    let lab = Lab::start().await;
    let ssh = lab.ssh_with(SshOptions {
        idle: Duration::from_millis(400),
        ..lab.options()
    });
    let mark = format!("LAB_MARK={}", uuid::Uuid::new_v4());
    let (name, value) = mark.split_once('=').unwrap();
    let mut child = ssh
        .spawn(
            lab.vm,
            Command::shell("read -r line; echo $line")
                .env(name, value)
                .with_stdin(),
        )
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert!(ssh.is_connected(lab.vm), "closed under a running command");
    drop(child.take_stdin());
    assert_eq!(child.wait().await.unwrap(), Exit::Code(0));
    eventually("it is closed", || !ssh.is_connected(lab.vm)).await;

    // A file that is being read counts as use, although nobody reads just now.
    let size = 20 << 20;
    let path = lab.dir.path().join("file");
    std::fs::write(&path, vec![7; size]).unwrap();
    let mut content = Box::pin(ssh.files(lab.vm).read(path.to_str().unwrap(), 0, None));
    let mut read = content.next().await.unwrap().unwrap().len();
    tokio::time::sleep(Duration::from_millis(1200)).await;
    while let Some(data) = content.next().await {
        read += data.unwrap().len();
    }
    assert_eq!(read, size);
    drop(content);
    eventually("it is closed", || !ssh.is_connected(lab.vm)).await;
    assert!(marked(&mark).is_empty());
    let child = ssh.spawn(lab.vm, Command::argv(["true"])).await.unwrap();
    child.wait().await.unwrap();
}

#[tokio::test]
async fn a_tunnel_keeps_its_connection_for_as_long_as_it_lives() {
    let lab = Lab::start().await;
    let ssh = lab.ssh_with(SshOptions {
        idle: Duration::from_millis(300),
        ..lab.options()
    });
    let echo = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = echo.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = echo.accept().await.unwrap();
        let (mut reader, mut writer) = stream.split();
        let _ = tokio::io::copy(&mut reader, &mut writer).await;
    });
    let mut tunnel = ssh.forward(lab.vm, "127.0.0.1", port).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1000)).await;
    tunnel.write_all(b"still there").await.unwrap();
    let mut answer = [0; 11];
    tunnel.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"still there");
    assert_eq!(lab.traffic.open(), 1);
    drop(tunnel);
    eventually("its connection is closed", || lab.traffic.open() == 0).await;
}

#[tokio::test]
async fn connections_come_and_go_and_leave_no_task_and_no_socket() {
    let lab = Lab::start().await;
    let ssh = lab.ssh();
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let mut settled = None;
    for round in 0..8 {
        // More at once than one connection serves.
        let commands = (0..12).map(|_| async {
            let child = ssh
                .spawn(lab.vm, Command::argv(["sleep", "0.1"]))
                .await
                .unwrap();
            child.wait().await.unwrap()
        });
        futures::future::join_all(commands).await;
        // By a goodbye, by a cut, and without waiting for anybody.
        match round % 3 {
            0 => ssh.disconnect(lab.vm).await,
            1 => lab.cut(),
            _ => ssh.abandon(lab.vm).await,
        }
        eventually("all are closed", || {
            lab.traffic.open() == 0 && !ssh.is_connected(lab.vm)
        })
        .await;
        // The platform's own client keeps a connection or two; from the second round on nothing is new.
        if round == 1 {
            tokio::time::sleep(Duration::from_millis(500)).await;
            settled = Some(tasks());
        }
        if let Some(settled) = settled {
            eventually("the tasks have ended", || tasks() <= settled).await;
        }
    }
}
