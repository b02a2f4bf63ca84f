//! Ports of this machine that lead to a VM.

use std::net::SocketAddr;
use std::time::Duration;

use crate::lab::{Lab, eventually};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use vers_client::Kind;
use vers_client::ssh::Forward;

const DEADLINE: Duration = Duration::from_secs(30);

fn address(forward: &Forward) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], forward.local_port()))
}

async fn dial(forward: &Forward) -> TcpStream {
    TcpStream::connect(address(forward)).await.unwrap()
}

/// A server that answers with what it got, once it has got everything.
async fn after_the_end(bind: &str) -> u16 {
    let listener = TcpListener::bind(bind).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut all = Vec::new();
                stream.read_to_end(&mut all).await.unwrap();
                all.reverse();
                stream.write_all(&all).await.unwrap();
            });
        }
    });
    port
}

/// A server that sends back what it gets.
async fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    port
}

async fn exchange(forward: &Forward, data: &[u8]) -> std::io::Result<Vec<u8>> {
    let (mut from, mut to) = dial(forward).await.into_split();
    let data = data.to_vec();
    let sending = tokio::spawn(async move {
        let _ = to.write_all(&data).await;
        let _ = to.shutdown().await;
        to
    });
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(DEADLINE, from.read_to_end(&mut answer))
        .await
        .expect("no end");
    drop(sending.await);
    ended.map(|_| answer)
}

fn noise(length: usize) -> Vec<u8> {
    (0..length).map(|i| ((i * i) >> 7) as u8).collect()
}

#[tokio::test]
async fn either_side_ends_its_direction_alone() {
    let lab = Lab::start().await;
    let ssh = lab.ssh();
    let data = noise(1 << 20);
    let mut reversed = data.clone();
    reversed.reverse();
    // The client ends first, and the answer comes after that; on either of the VM's loopback addresses.
    for bind in ["127.0.0.1:0", "[::1]:0"] {
        let port = after_the_end(bind).await;
        let forward = ssh.forward_port(lab.vm, port, None).await.unwrap();
        assert!(exchange(&forward, &data).await.unwrap() == reversed);
    }
    let forward = ssh.forward_port(lab.vm, echo().await, None).await.unwrap();
    let all = futures::future::join_all((0..8).map(|_| exchange(&forward, &data))).await;
    assert!(all.into_iter().all(|answer| answer.unwrap() == data));
    // The server ends first, and takes what comes after that.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"bye").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        all
    });
    let forward = ssh.forward_port(lab.vm, port, None).await.unwrap();
    let mut stream = dial(&forward).await;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"bye");
    stream.write_all(&data).await.unwrap();
    stream.shutdown().await.unwrap();
    assert!(server.await.unwrap() == data);
}

#[tokio::test]
async fn a_broken_connection_is_no_end_and_the_next_one_works() {
    let lab = Lab::start().await;
    let forward = lab
        .ssh()
        .forward_port(lab.vm, echo().await, None)
        .await
        .unwrap();
    let mut stream = dial(&forward).await;
    stream.write_all(b"half").await.unwrap();
    let mut half = [0; 4];
    stream.read_exact(&mut half).await.unwrap();
    lab.cut();
    let ended = tokio::time::timeout(DEADLINE, stream.read(&mut half)).await;
    // The end of a part must not look like the end of the whole.
    assert!(ended.expect("no end").is_err());
    assert_eq!(exchange(&forward, b"again").await.unwrap(), b"again");
    // Nobody there is no empty answer.
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let nobody = lab
        .ssh()
        .forward_port(lab.vm, free.port(), None)
        .await
        .unwrap();
    assert!(exchange(&nobody, b"").await.is_err());
}

#[tokio::test]
async fn a_forward_ends_with_its_value_or_the_vm() {
    let lab = Lab::start().await;
    let ssh = lab.ssh();
    let port = echo().await;
    let forward = ssh.forward_port(lab.vm, port, None).await.unwrap();
    let local = forward.local_port();
    let taken = ssh.forward_port(lab.vm, port, Some(local)).await;
    assert_eq!(taken.unwrap_err().kind(), Kind::Conflict);
    let zero = ssh.forward_port(lab.vm, 0, None).await;
    assert_eq!(zero.unwrap_err().kind(), Kind::Invalid);

    let mut stream = dial(&forward).await;
    stream.write_all(b"x").await.unwrap();
    stream.read_exact(&mut [0]).await.unwrap();
    drop(forward);
    let ended = tokio::time::timeout(DEADLINE, stream.read(&mut [0])).await;
    assert!(!matches!(ended.expect("no end"), Ok(1..)));
    let listens = |port| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
    eventually("the port is closed", || !listens(local)).await;

    // The same port again, and its end is waited for.
    let forward = ssh.forward_port(lab.vm, port, Some(local)).await.unwrap();
    assert_eq!(forward.local_port(), local);
    assert_eq!(exchange(&forward, b"y").await.unwrap(), b"y");
    forward.close().await;
    assert!(!listens(local));

    for abandon in [false, true] {
        let forward = ssh.forward_port(lab.vm, port, None).await.unwrap();
        let local = forward.local_port();
        let mut stream = dial(&forward).await;
        stream.write_all(b"x").await.unwrap();
        stream.read_exact(&mut [0]).await.unwrap();
        if abandon {
            ssh.abandon(lab.vm).await;
        } else {
            ssh.disconnect(lab.vm).await;
        }
        let ended = tokio::time::timeout(DEADLINE, stream.read(&mut [0])).await;
        assert!(!matches!(ended.expect("no end"), Ok(1..)));
        eventually("the port is closed", || !listens(local)).await;
    }
}

#[tokio::test]
async fn connections_beyond_the_bound_wait_for_their_turn() {
    let lab = Lab::start().await;
    let ssh = lab.ssh();
    let forward = ssh.forward_port(lab.vm, echo().await, None).await.unwrap();
    let mut open = Vec::new();
    for _ in 0..64 {
        let mut stream = dial(&forward).await;
        stream.write_all(b"x").await.unwrap();
        stream.read_exact(&mut [0]).await.unwrap();
        open.push(stream);
    }
    let mut late = dial(&forward).await;
    late.write_all(b"x").await.unwrap();
    let early = tokio::time::timeout(Duration::from_millis(300), late.read_exact(&mut [0])).await;
    assert!(early.is_err());
    open.pop();
    let served = tokio::time::timeout(DEADLINE, late.read_exact(&mut [0])).await;
    served.expect("no turn").unwrap();
}

#[tokio::test]
async fn a_reader_that_stalls_does_not_lock_out_the_next() {
    let lab = Lab::start().await;
    let ssh = lab.ssh();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let flood = ssh.forward_port(lab.vm, port, None).await.unwrap();
    let _unread = dial(&flood).await;
    let (mut server, _) = listener.accept().await.unwrap();
    // Until nothing goes any more: what it holds back is bounded.
    let chunk = vec![b'x'; 1 << 20];
    let mut sent = 0;
    while let Ok(done) =
        tokio::time::timeout(Duration::from_secs(1), server.write_all(&chunk)).await
    {
        done.unwrap();
        sent += 1;
        assert!(sent < 100, "nothing holds the sender back");
    }
    // Commands go over other connections; a new local connection gets one of its own.
    let child = ssh
        .spawn(lab.vm, vers_client::Command::argv(["true"]))
        .await
        .unwrap();
    child.wait().await.unwrap();
    let other = ssh.forward_port(lab.vm, echo().await, None).await.unwrap();
    assert_eq!(exchange(&other, b"other").await.unwrap(), b"other");
}
