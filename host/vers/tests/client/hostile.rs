//! Servers that are broken or mean to harm: they cost a typed error and bounded memory, and nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::edge::{Fault, Terminator, Way};
use crate::lab::{Lab, eventually};
use russh::server::{self, Auth, ChannelOpenHandle, Msg, Server as _, Session};
use russh::{Channel, ChannelId};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use vers_client::{Command, Exit, Kind};

/// Resident memory of this process, in bytes.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = text.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// Other tests of this process come and go beside; what would run away takes more than this.
const MUCH: usize = 400 << 20;

type Tls = TlsStream<TcpStream>;

/// Connects to a server that behaves like this once TLS is up, and says what came of it.
async fn meet<F>(
    lab: &Lab,
    patience: Duration,
    serve: impl Fn(Tls) -> F + Send + Sync + 'static,
) -> vers_client::Error
where
    F: Future<Output = ()> + Send + 'static,
{
    let edge = Terminator::new(lab.dir.path(), "*.vm.localhost")
        .serve(serve)
        .await;
    let ssh = lab.ssh_to(edge, patience);
    let began = Instant::now();
    let error = ssh.connect(lab.vm, patience).await.unwrap_err();
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "it was waited for"
    );
    error
}

/// Sends this for as long as somebody takes it; counts the bytes.
async fn without_end(mut tls: Tls, first: Vec<u8>, again: Vec<u8>, sent: Arc<AtomicUsize>) {
    if tls.write_all(&first).await.is_err() {
        return;
    }
    while tls.write_all(&again).await.is_ok() {
        sent.fetch_add(again.len(), Ordering::Relaxed);
    }
}

const BANNER: &[u8] = b"SSH-2.0-Fake\r\n";

/// A packet of the first, unencrypted kind.
fn packet(payload: &[u8]) -> Vec<u8> {
    let padding = 8 - (payload.len() + 5) % 8 + 8;
    let length = u32::try_from(payload.len() + padding + 1).unwrap();
    let mut packet = length.to_be_bytes().to_vec();
    packet.push(u8::try_from(padding).unwrap());
    packet.extend_from_slice(payload);
    packet.resize(packet.len() + padding, 0);
    packet
}

#[tokio::test]
async fn nonsense_at_any_phase_is_an_error_in_bounded_memory() {
    let lab = Lab::start().await;
    let before = resident();
    let after_banner = |rest: &[u8]| [BANNER, rest].concat();
    let mut openings: Vec<(&str, Vec<u8>, Vec<u8>)> = vec![
        ("endless line", b"SSH-2.0-".to_vec(), vec![b'x'; 65536]),
        (
            "endless lines",
            b"hello\r\n".to_vec(),
            b"hello\r\n".repeat(9000),
        ),
        ("zeros", vec![0; 100], vec![0; 65536]),
        (
            "a web server",
            b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
            vec![b'x'; 65536],
        ),
        (
            "an old protocol",
            b"SSH-1.5-Old\r\n".to_vec(),
            vec![b'x'; 65536],
        ),
        (
            "packet of 4 GiB",
            after_banner(&[0xff; 4]),
            vec![0xff; 65536],
        ),
        (
            "packet of 1 GiB",
            after_banner(&[0x40, 0, 0, 0]),
            vec![7; 65536],
        ),
        ("packet of nothing", after_banner(&[0; 16]), vec![0; 65536]),
        (
            "padding beyond the packet",
            after_banner(&[0, 0, 0, 12, 255]),
            vec![1; 65536],
        ),
        // Messages that come before their time, and one that never ends to come.
        (
            "ignored messages",
            BANNER.to_vec(),
            packet(b"\x02\0\0\0\x04abcd").repeat(1000),
        ),
        (
            "debug messages",
            BANNER.to_vec(),
            packet(b"\x04\x01\0\0\0\x01a\0\0\0\0").repeat(1000),
        ),
        (
            "logged in already",
            BANNER.to_vec(),
            packet(b"\x34").repeat(1000),
        ),
        (
            "channel data",
            BANNER.to_vec(),
            packet(b"\x5e\0\0\0\0\0\0\0\x04abcd").repeat(1000),
        ),
        (
            "key exchange of nothing",
            BANNER.to_vec(),
            packet(b"\x14").repeat(1000),
        ),
        (
            "key exchange of huge lists",
            BANNER.to_vec(),
            packet(&[[0x14].as_slice(), &[0; 16], &[0x7f; 60]].concat()).repeat(1000),
        ),
    ];
    // And what nobody thought of.
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..16 {
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed as u8
        })
        .take(4096)
        .collect();
        openings.push(("noise", after_banner(&noise), noise));
    }
    for (name, first, again) in openings {
        let sent = Arc::new(AtomicUsize::new(0));
        let counter = sent.clone();
        let error = meet(&lab, Duration::from_secs(1), move |tls| {
            without_end(tls, first.clone(), again.clone(), counter.clone())
        })
        .await;
        assert_eq!(error.kind(), Kind::Unavailable, "{name}: {error}");
        assert_eq!(error.to_string().lines().count(), 1, "{name}: {error}");
        // Nobody goes on reading it.
        let mut last = usize::MAX;
        eventually(&format!("{name}: it is left alone"), || {
            std::mem::replace(&mut last, sent.load(Ordering::Relaxed))
                == sent.load(Ordering::Relaxed)
        })
        .await;
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < MUCH, "{grown} bytes more");
}

#[tokio::test]
async fn silence_at_any_phase_is_given_up_and_leaves_nothing_open() {
    let lab = Lab::start().await;
    for opening in [
        b"".as_slice(),
        b"SSH-2.0",
        BANNER,
        b"SSH-2.0-Fake\r\n\0\0\x01",
    ] {
        let open = Arc::new(AtomicUsize::new(0));
        let count = open.clone();
        let error = meet(&lab, Duration::from_secs(3), move |mut tls| {
            let count = count.clone();
            async move {
                count.fetch_add(1, Ordering::Relaxed);
                let _ = tls.write_all(opening).await;
                let _ = tls.flush().await;
                // Reads what it is sent, up to the end.
                let _ = tls.read_to_end(&mut Vec::new()).await;
                count.fetch_sub(1, Ordering::Relaxed);
            }
        })
        .await;
        assert_eq!(error.kind(), Kind::Unavailable, "{error}");
        assert!(error.to_string().contains("running"), "{error}");
        // russh's session is a task that would wait for ever.
        eventually("the connection is closed", || {
            open.load(Ordering::Relaxed) == 0
        })
        .await;
    }
    // Before TLS.
    for greeting in [
        b"".as_slice(),
        b"\x16\x03\x03",
        b"SSH-2.0-OpenSSH\r\n",
        &[0xff; 64],
    ] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let mut all = Vec::new();
            while let Ok((mut tcp, _)) = listener.accept().await {
                let _ = tcp.write_all(greeting).await;
                all.push(tcp);
            }
        });
        let ssh = lab.ssh_to(address, Duration::from_secs(1));
        let error = ssh
            .connect(lab.vm, Duration::from_secs(1))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    }
}

/// Runs a command whose connection something happens to. It runs at most once, its output is exact or it is an error,
/// and the next one runs as if nothing had been.
async fn disturbed(lab: &Lab, way: Way, at: usize, fault: Fault) -> Result<(), vers_client::Error> {
    let ssh = lab.ssh_with(vers_client::SshOptions {
        patience: Duration::from_secs(20),
        ..lab.options()
    });
    lab.traffic.fault(way, at, fault);
    let ran = lab.dir.path().join(format!("ran-{way:?}-{at}-{fault:?}"));
    let script = format!("echo ran >>{}; echo output", ran.display());
    let name = format!("{fault:?} {way:?} {at}");
    let run = async {
        let mut child = ssh.spawn(lab.vm, Command::shell(script)).await?;
        let out = child.take_stdout().unwrap().collect(1000).await.0;
        let exit = child.wait().await?;
        assert_eq!(
            (exit, out.as_slice()),
            (Exit::Code(0), &b"output\n"[..]),
            "{name}"
        );
        Ok::<(), vers_client::Error>(())
    };
    let outcome = tokio::time::timeout(Duration::from_secs(60), run)
        .await
        .unwrap_or_else(|_| panic!("{name}: it hangs"));
    let runs = std::fs::read_to_string(&ran).unwrap_or_default();
    assert!(runs.len() <= 4, "{name}: it ran more than once");
    match &outcome {
        Ok(()) => assert_eq!(runs, "ran\n", "{name}"),
        // A changed byte of the key exchange may be a wrong signature or a foreign host key.
        Err(error) => assert!(
            matches!(
                error.kind(),
                Kind::Unavailable | Kind::Denied | Kind::Unauthorized | Kind::Other
            ),
            "{name}: {error}"
        ),
    }
    lab.traffic.freeze(false);
    let after = async || {
        let mut child = ssh.spawn(lab.vm, Command::argv(["echo", "after"])).await?;
        let out = child.take_stdout().unwrap().collect(1000).await.0;
        child.wait().await.map(|_| out)
    };
    // What the first command did not reach may happen to this one, once.
    let out = match after().await {
        Err(error) if error.kind() == Kind::Unavailable => after().await,
        once => once,
    };
    let out = out.unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(out, b"after\n", "{name}");
    ssh.disconnect(lab.vm).await;
    outcome
}

/// How much goes each way for a handshake and a command.
async fn recorded(lab: &Lab) -> (usize, usize) {
    let ssh = lab.ssh();
    let child = ssh.spawn(lab.vm, Command::argv(["true"])).await.unwrap();
    child.wait().await.unwrap();
    let passed = (lab.traffic.passed(Way::Down), lab.traffic.passed(Way::Up));
    ssh.disconnect(lab.vm).await;
    assert!(passed.0 > 1500 && passed.1 > 1500, "{passed:?}");
    passed
}

/// Every so many bytes of a handshake with a command, another phase in each round.
const STRIDE: usize = 97;

#[tokio::test]
async fn a_connection_cut_at_any_byte_runs_nothing_twice_and_hangs_nowhere() {
    let lab = Lab::start().await;
    let (down, up) = recorded(&lab).await;
    let (mut lost, mut count) = (0, 0);
    for (way, total) in [(Way::Down, down), (Way::Up, up)] {
        for at in (0..total).step_by(STRIDE) {
            count += 1;
            lost += usize::from(disturbed(&lab, way, at, Fault::Cut).await.is_err());
        }
    }
    eprintln!("measured: {count} cuts, {lost} commands lost");
    // In the handshake it is simply made again; in the command it is not.
    assert!(lost > 0 && lost < count, "{lost} of {count}");
}

#[tokio::test]
async fn a_byte_changed_anywhere_never_changes_an_output() {
    let lab = Lab::start().await;
    let (down, up) = recorded(&lab).await;
    let mut failed = 0;
    for (way, total) in [(Way::Down, down), (Way::Up, up)] {
        for at in (0..total).step_by(3 * STRIDE) {
            // A lab of its own knows no host key that a changed byte could contradict.
            let _ = std::fs::remove_file(lab.dir.path().join("known_hosts.json"));
            failed += usize::from(disturbed(&lab, way, at, Fault::Flip).await.is_err());
        }
    }
    assert!(failed > 0);
}

#[tokio::test]
async fn a_connection_that_stalls_in_the_middle_is_given_up() {
    let lab = Lab::start().await;
    let (down, up) = recorded(&lab).await;
    // The handshake has its own times, longer than a test may take: the command's part, from the login on.
    for (way, total) in [(Way::Down, down), (Way::Up, up)] {
        let began = Instant::now();
        let _ = disturbed(&lab, way, total - 200, Fault::Stall).await;
        assert!(began.elapsed() < Duration::from_secs(45));
    }
}

/// An SSH server that lets everybody in, and answers every command with a start mark and output without end.
#[derive(Clone)]
struct Flood {
    sent: Arc<AtomicUsize>,
}

impl server::Server for Flood {
    type Handler = Self;

    fn new_client(&mut self, _: Option<std::net::SocketAddr>) -> Self {
        self.clone()
    }
}

impl server::Handler for Flood {
    type Error = russh::Error;

    async fn auth_publickey(
        &mut self,
        _: &str,
        _: server::VerifiedPublicKey<'_>,
    ) -> Result<Auth, Self::Error> {
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_success(channel)?;
        let handle = session.handle();
        let sent = self.sent.clone();
        // The control shell is number 0; it starts and then says nothing.
        let control = String::from_utf8_lossy(command).contains("trap ''");
        tokio::spawn(async move {
            let started = b"\x1evers-start 4242\x1e".as_slice();
            if handle.data(channel, started).await.is_err() || control {
                return;
            }
            let data = bytes::Bytes::from(vec![b'x'; 32768]);
            while handle.data(channel, data.clone()).await.is_ok() {
                sent.fetch_add(data.len(), Ordering::Relaxed);
            }
        });
        Ok(())
    }
}

#[tokio::test]
async fn a_vm_that_floods_and_does_not_stop_costs_bounded_memory_and_a_limit_error() {
    let lab = Lab::start().await;
    let sent = Arc::new(AtomicUsize::new(0));
    let flood = Flood { sent: sent.clone() };
    let key = russh::keys::PrivateKey::random(
        &mut russh::keys::key::safe_rng(),
        russh::keys::Algorithm::Ed25519,
    )
    .unwrap();
    let config = Arc::new(server::Config {
        keys: vec![key],
        ..server::Config::default()
    });
    let edge = Terminator::new(lab.dir.path(), "*.vm.localhost")
        .serve(move |tls| {
            let (config, handler) = (config.clone(), flood.clone().new_client(None));
            async move {
                if let Ok(session) = server::run_stream(config, tls, handler).await {
                    let _ = session.await;
                }
            }
        })
        .await;
    let ssh = lab.ssh_to(edge, Duration::from_secs(10));
    let before = resident();
    let mut child = ssh.spawn(lab.vm, Command::argv(["yes"])).await.unwrap();
    let out = child.take_stdout().unwrap();
    let error = tokio::time::timeout(Duration::from_secs(60), child.wait())
        .await
        .expect("a flood without end")
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Limit, "{error}");
    let grown = resident().saturating_sub(before);
    assert!(grown < MUCH, "{grown} bytes more");
    assert!(out.collect(1 << 30).await.0.len() < 100 << 20);
    drop(child);
    let mut last = usize::MAX;
    eventually("nobody takes it any more", || {
        std::mem::replace(&mut last, sent.load(Ordering::Relaxed)) == sent.load(Ordering::Relaxed)
    })
    .await;
}
