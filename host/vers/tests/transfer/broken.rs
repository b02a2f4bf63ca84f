//! Connections that break, and copies that are given up.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use vers_client::transfer::{self, Options, Progress};
use vers_client::{Api, Kind, Ssh};

use crate::lab::{eventually, marked};
use crate::tree::{Scene, assert_same, copy, litter, mode, noise, set_time, sparse};

/// Passes bytes on, and breaks each connection after some of them.
struct Saw {
    address: SocketAddr,
    cuts: Arc<AtomicUsize>,
    /// A connection lives for at most this many bytes; 0: for ever.
    most: Arc<AtomicU64>,
}

impl Saw {
    /// Between a scene's client and its VM.
    async fn before(scene: &mut Scene) -> Self {
        let saw = Self::start(scene.lab.edge).await;
        let settings = scene
            .lab
            .settings(&[("VERS_VM_CONNECT", &saw.address.to_string())]);
        scene.ssh = Ssh::new(Api::new(settings).unwrap(), scene.lab.options()).unwrap();
        saw
    }

    async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (cuts, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicU64::new(0)));
        let (cut, limit) = (cuts.clone(), most.clone());
        tokio::spawn(async move {
            let mut seed = 12_345u64;
            while let Ok((near, _)) = listener.accept().await {
                seed = seed
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                let most = limit.load(Ordering::Relaxed);
                let left = if most == 0 {
                    i64::MAX
                } else {
                    ((seed >> 33) % most) as i64 + 8_000
                };
                let cut = cut.clone();
                tokio::spawn(async move {
                    let far = TcpStream::connect(to).await.unwrap();
                    near.set_nodelay(true).unwrap();
                    far.set_nodelay(true).unwrap();
                    let left = Arc::new(std::sync::atomic::AtomicI64::new(left));
                    let (near_in, near_out) = near.into_split();
                    let (far_in, far_out) = far.into_split();
                    tokio::select! {
                        () = pass(near_in, far_out, left.clone()) => {}
                        () = pass(far_in, near_out, left.clone()) => {}
                    }
                    if left.load(Ordering::Relaxed) <= 0 {
                        cut.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        Self {
            address,
            cuts,
            most,
        }
    }
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    left: Arc<std::sync::atomic::AtomicI64>,
) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let before = left.fetch_sub(count as i64, Ordering::Relaxed);
        // The last stretch arrives in part.
        let some = count.min(usize::try_from(before).unwrap_or(0));
        if to.write_all(&buffer[..some]).await.is_err() || some < count {
            return;
        }
    }
}

fn build(scene: &Scene, name: &str) {
    let top = scene.here.join(name);
    for n in 0..200u64 {
        let dir = top.join(format!("d{}/e{}", n % 7, n % 3));
        std::fs::create_dir_all(&dir).unwrap();
        let file = dir.join(format!("f{n}"));
        std::fs::write(&file, noise((n as usize * 431) % 9000, n)).unwrap();
        mode(&file, 0o600 + (n as u32 % 0o177));
        set_time(&file, 1_000_000_000 + n as i64, n as i64 * 1_000_003);
    }
    std::fs::write(top.join("middle"), noise(1_500_000, 1)).unwrap();
    std::fs::write(top.join("big"), noise(7 << 20, 2)).unwrap();
    sparse(
        &top.join("holes"),
        90 << 20,
        &[
            (5 << 20, &noise(3_000_000, 3)),
            (80 << 20, &noise(2_000_001, 4)),
        ],
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_cuts_lose_nothing_and_leave_nothing() {
    let mut scene = Scene::start().await;
    let saw = Saw::before(&mut scene).await;
    build(&scene, "tree");
    let source = scene.here.join("tree");
    saw.most.store(3_000_000, Ordering::Relaxed);
    for round in 0.. {
        let (up, across, down) = (
            format!("up{round}"),
            format!("across{round}"),
            format!("down{round}"),
        );
        let one = copy(scene.local("tree"), scene.vm(&up)).await.unwrap();
        assert_same(&source, &scene.there.join(&up));
        let two = copy(scene.vm(&up), scene.vm(&across)).await.unwrap();
        assert_same(&source, &scene.there.join(&across));
        let three = copy(scene.vm(&across), scene.local(&down)).await.unwrap();
        assert_same(&source, &scene.here.join(&down));
        // Each once, however often it was sent.
        assert_eq!(
            (one.files, one.directories, &one, &one),
            (203, 29, &two, &three)
        );
        scene.assert_clean();
        for path in [
            scene.there.join(&up),
            scene.there.join(&across),
            scene.here.join(&down),
        ] {
            std::fs::remove_dir_all(path).unwrap();
        }
        let cuts = saw.cuts.load(Ordering::Relaxed);
        eprintln!("{cuts} cuts after {} copies", (round + 1) * 3);
        if cuts >= 200 {
            break;
        }
        assert!(round < 40, "only {cuts} cuts");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cuts_lose_nothing_where_there_is_no_gnu_find_either() {
    let mut scene = Scene::start().await;
    crate::basics::only_busybox(&scene, &[]);
    let saw = Saw::before(&mut scene).await;
    build(&scene, "tree");
    std::fs::remove_file(scene.here.join("tree/holes")).unwrap();
    let source = scene.there.join("tree");
    std::fs::rename(scene.here.join("tree"), &source).unwrap();
    saw.most.store(3_000_000, Ordering::Relaxed);
    for round in 0.. {
        let down = copy(scene.vm("tree"), scene.local("down")).await.unwrap();
        assert_eq!((down.files, down.directories), (202, 29));
        assert_same(&source, &scene.here.join("down"));
        scene.assert_clean();
        std::fs::remove_dir_all(scene.here.join("down")).unwrap();
        let cuts = saw.cuts.load(Ordering::Relaxed);
        if cuts >= 20 {
            break;
        }
        assert!(round < 20, "only {cuts} cuts");
    }
    // Given up in the midst of the small files, and of the big one.
    saw.most.store(0, Ordering::Relaxed);
    scene.ssh.disconnect(scene.lab.vm).await;
    for bytes in [100_000, 4_000_000] {
        let cancel = CancellationToken::new();
        let (progress, mut seen) = watch::channel(Progress::default());
        let copying = tokio::spawn(transfer::copy(
            scene.vm("tree"),
            scene.local("down"),
            Options::default(),
            progress,
            cancel.clone(),
        ));
        seen.wait_for(|seen| seen.bytes > bytes).await.unwrap();
        cancel.cancel();
        match copying.await.unwrap() {
            Err(error) => assert_eq!(error.kind(), Kind::Cancelled, "{error}"),
            // It was quicker.
            Ok(summary) => assert_eq!(summary.files, 202),
        }
        scene.assert_clean();
    }
    let home = scene.lab.dir.path().join("home");
    scene.ssh.disconnect(scene.lab.vm).await;
    eventually("no process is left", || {
        marked(home.to_str().unwrap()).is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_is_given_up_leaves_neither_names_nor_processes() {
    let scene = Scene::start().await;
    build(&scene, "tree");
    copy(scene.local("tree"), scene.vm("tree")).await.unwrap();
    let home = scene
        .lab
        .dir
        .path()
        .join("home")
        .to_str()
        .unwrap()
        .to_owned();
    for round in 0..18u64 {
        let (from, to) = match round % 3 {
            0 => (scene.local("tree"), scene.vm("cancelled")),
            1 => (scene.vm("tree"), scene.local("cancelled")),
            _ => (scene.vm("tree"), scene.vm("cancelled")),
        };
        let cancel = CancellationToken::new();
        let (progress, mut seen) = watch::channel(Progress::default());
        let copying = tokio::spawn(transfer::copy(
            from,
            to,
            Options::default(),
            progress,
            cancel.clone(),
        ));
        // When some of it has moved, a different amount each time.
        let _ = tokio::time::timeout(
            Duration::from_secs(20),
            seen.wait_for(|seen| seen.bytes > round * 700_000),
        )
        .await;
        match round % 4 {
            0 | 1 => {
                cancel.cancel();
                match copying.await.unwrap() {
                    Err(error) => assert_eq!(error.kind(), Kind::Cancelled, "{error}"),
                    // It was quicker.
                    Ok(summary) => assert_eq!(summary.files, 203),
                }
                // Not later: when it says so, it is so.
                scene.assert_clean();
            }
            2 => {
                // The connection is gone at that moment too.
                scene.lab.cut();
                cancel.cancel();
                let _ = copying.await.unwrap();
                eventually("nothing is left after a cut", || {
                    litter(&scene.there).is_empty() && litter(&scene.here).is_empty()
                })
                .await;
            }
            _ => {
                copying.abort();
                let _ = copying.await;
                eventually("nothing is left of what was dropped", || {
                    litter(&scene.there).is_empty() && litter(&scene.here).is_empty()
                })
                .await;
            }
        }
        let _ = std::fs::remove_dir_all(scene.here.join("cancelled"));
        let _ = std::fs::remove_dir_all(scene.there.join("cancelled"));
    }
    scene.ssh.disconnect(scene.lab.vm).await;
    eventually("no process is left", || marked(&home).is_empty()).await;
    scene.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vm_that_stays_away_is_given_up_in_time() {
    let mut scene = Scene::start().await;
    let saw = Saw::before(&mut scene).await;
    std::fs::write(scene.here.join("big"), noise(9 << 20, 2)).unwrap();
    // Too little for anything but the handshake.
    saw.most.store(1, Ordering::Relaxed);
    let options = Options {
        patience: Duration::from_secs(2),
        ..Options::default()
    };
    let begin = std::time::Instant::now();
    let error = crate::tree::copy_with(scene.local("big"), scene.vm("big"), options)
        .await
        .unwrap_err();
    assert!(
        matches!(error.kind(), Kind::Unavailable | Kind::TimedOut),
        "{error:?}"
    );
    assert!(begin.elapsed() < Duration::from_secs(100));
    scene.assert_clean();
}
