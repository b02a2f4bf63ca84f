//! Figures for people: `cargo test --release -p vers-client --test transfer speed -- --nocapture --ignored`.
use crate::tree::{Scene, copy, noise};
use std::time::Instant;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn speed() {
    let scene = Scene::start().await;
    let shm = tempfile::Builder::new().tempdir_in("/dev/shm").unwrap();
    let scene = Scene {
        here: shm.path().join("here"),
        there: shm.path().join("there"),
        ..scene
    };
    std::fs::create_dir(&scene.here).unwrap();
    std::fs::create_dir(&scene.there).unwrap();
    for n in 0..2000u64 {
        let dir = scene.here.join(format!("small/d{:02}", n % 50));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(
            dir.join(format!("f{n}")),
            noise(3000 + (n as usize * 37) % 2000, n),
        )
        .unwrap();
    }
    std::fs::write(scene.here.join("big"), noise(500 << 20, 9)).unwrap();
    scene
        .ssh
        .connect(scene.lab.vm, std::time::Duration::from_secs(5))
        .await
        .unwrap();
    let mut report: std::collections::BTreeMap<&str, Vec<u128>> = Default::default();
    for _ in 0..5 {
        for (what, from, to) in [
            ("small up", scene.local("small"), scene.vm("small")),
            ("small up again", scene.local("small"), scene.vm("small")),
            ("small down", scene.vm("small"), scene.local("down")),
            ("small down again", scene.vm("small"), scene.local("down")),
            ("small across", scene.vm("small"), scene.vm("across")),
            ("big up", scene.local("big"), scene.vm("big")),
            ("big down", scene.vm("big"), scene.local("bigdown")),
        ] {
            let begin = Instant::now();
            let summary = copy(from, to).await.unwrap();
            report
                .entry(what)
                .or_default()
                .push(begin.elapsed().as_millis());
            assert!(summary.files == 2000 || summary.files == 1);
        }
        // The floor: a bare command's output and input over the same connections.
        let mut command =
            vers_client::Command::argv(["cat", scene.there.join("big").to_str().unwrap()]);
        let begin = Instant::now();
        let mut child = scene
            .ssh
            .spawn(scene.lab.vm, command.clone())
            .await
            .unwrap();
        let mut out = child.take_stdout().unwrap();
        let mut n = 0;
        while let Some(data) = out.next().await {
            n += data.len();
        }
        child.wait().await.unwrap();
        assert_eq!(n, 500 << 20);
        report
            .entry("raw down")
            .or_default()
            .push(begin.elapsed().as_millis());
        command = vers_client::Command::argv(["dd", "bs=64k", "of=/dev/null"]).with_stdin();
        let begin = Instant::now();
        let mut child = scene.ssh.spawn(scene.lab.vm, command).await.unwrap();
        let mut stdin = child.take_stdin().unwrap();
        let block = noise(256 << 10, 1);
        for _ in 0..2000 {
            tokio::io::AsyncWriteExt::write_all(&mut stdin, &block)
                .await
                .unwrap();
        }
        drop(stdin);
        child.wait().await.unwrap();
        report
            .entry("raw up")
            .or_default()
            .push(begin.elapsed().as_millis());
        for path in ["small", "across"] {
            std::fs::remove_dir_all(scene.there.join(path)).unwrap();
        }
        std::fs::remove_dir_all(scene.here.join("down")).unwrap();
        for path in [scene.there.join("big"), scene.here.join("bigdown")] {
            std::fs::remove_file(path).unwrap();
        }
    }
    for (what, mut times) in report {
        times.sort();
        eprintln!(
            "{what}: {} ms (min {}, max {})",
            times[2], times[0], times[4]
        );
    }
}
