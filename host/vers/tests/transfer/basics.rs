//! What a copy does, and what it refuses.

use std::path::Path;

use vers_client::Kind;
use vers_client::transfer::Options;

use crate::tree::{
    Scene, What, assert_same, blocks, copy, copy_with, describe, link, mode, name, noise, set_time,
    sparse,
};

/// A tree with something of everything.
fn build(top: &Path) {
    std::fs::create_dir_all(top.join("a/b/empty")).unwrap();
    std::fs::write(top.join("file"), "content").unwrap();
    mode(&top.join("file"), 0o751);
    set_time(&top.join("file"), 1_234_567_890, 123_456_789);
    std::fs::write(top.join("nothing"), "").unwrap();
    for (count, bad) in [
        &b"-rf"[..],
        b"new\nline",
        b"'quo\"te$(x)`y`",
        b"\xff\xfe\x81\x88",
        b" ",
        b"*",
        b".hidden",
        b"..x",
        b"a\\nb",
        b"[x]",
    ]
    .into_iter()
    .enumerate()
    {
        std::fs::write(top.join("a").join(name(bad)), format!("{count}")).unwrap();
    }
    std::fs::create_dir(top.join(name(b"\xf0dir\n"))).unwrap();
    std::fs::write(top.join(name(b"\xf0dir\n")).join("x"), "x").unwrap();
    let long = "l".repeat(200);
    std::fs::create_dir(top.join(&long)).unwrap();
    std::fs::write(top.join(&long).join(&long), long.as_bytes()).unwrap();
    link("nowhere", &top.join("dangling"));
    link("/etc", &top.join("absolute"));
    link("x".repeat(300), &top.join("a/long link"));
    link(name(b"\xff\n"), &top.join("a/odd"));
    set_time(&top.join("dangling"), 1_000_000_000, 5);
    sparse(
        &top.join("holes"),
        1 << 20,
        &[(65536, b"data"), (500_000, b"more")],
    );
    sparse(&top.join("only a hole"), 300_000, &[]);
    sparse(
        &top.join("big holes"),
        40 << 20,
        &[(0, b"start"), (30 << 20, &noise(100_000, 3))],
    );
    std::fs::write(top.join("a/big"), noise(9_000_001, 1)).unwrap();
    mode(&top.join("a/b"), 0o700);
    set_time(&top.join("a/b/empty"), 1, 0);
    set_time(&top.join("a/b"), -5, 700_000_000);
    set_time(&top.join("a"), 1_500_000_000, 1);
    set_time(top, 1_600_000_000, 999_999_999);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tree_with_everything_goes_up_across_and_down() {
    let scene = Scene::start().await;
    std::fs::create_dir(scene.here.join("tree")).unwrap();
    build(&scene.here.join("tree"));
    let up = copy(scene.local("tree"), scene.vm("x/up")).await.unwrap();
    assert_same(&scene.here.join("tree"), &scene.there.join("x/up"));
    let across = copy(scene.vm("x/up"), scene.vm("across")).await.unwrap();
    assert_same(&scene.here.join("tree"), &scene.there.join("across"));
    let down = copy(scene.vm("across"), scene.local("y/down"))
        .await
        .unwrap();
    assert_same(&scene.here.join("tree"), &scene.here.join("y/down"));
    let near = copy(scene.local("tree"), scene.local("near"))
        .await
        .unwrap();
    assert_same(&scene.here.join("tree"), &scene.here.join("near"));
    assert_eq!((&up, &up, &up), (&across, &down, &near));
    assert_eq!((up.files, up.directories, up.links), (18, 6, 4), "{up:?}");
    assert!(up.was_directory);
    for top in [
        scene.there.join("x/up"),
        scene.there.join("across"),
        scene.here.join("y/down"),
        scene.here.join("near"),
    ] {
        for (file, most) in [
            ("holes", 100_000),
            ("only a hole", 4096),
            ("big holes", 300_000),
        ] {
            assert!(
                blocks(&top.join(file)) <= most,
                "{file} in {top:?}: {}",
                blocks(&top.join(file))
            );
        }
    }
    // Again, into what is there.
    std::fs::write(scene.there.join("x/up/more"), "stays").unwrap();
    std::fs::write(scene.there.join("x/up/file"), "old").unwrap();
    copy(scene.local("tree"), scene.vm("x/up")).await.unwrap();
    std::fs::remove_file(scene.there.join("x/up/more")).unwrap();
    set_time(&scene.there.join("x/up"), 1_600_000_000, 999_999_999);
    assert_same(&scene.here.join("tree"), &scene.there.join("x/up"));
    std::fs::write(scene.here.join("y/down/file"), "old").unwrap();
    copy(scene.vm("across"), scene.local("y/down"))
        .await
        .unwrap();
    assert_same(&scene.here.join("tree"), &scene.here.join("y/down"));
    scene.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_copied_under_the_exact_name() {
    let scene = Scene::start().await;
    for size in [0, 1, 50 << 20, (50 << 20) + 1] {
        std::fs::write(scene.here.join("from"), noise(size, 7)).unwrap();
        set_time(&scene.here.join("from"), 1_700_000_000, 42);
        mode(&scene.here.join("from"), 0o640);
        let up = copy(scene.local("from"), scene.vm("new/dir/-file"))
            .await
            .unwrap();
        assert_eq!(
            (up.files, up.directories, up.bytes, up.was_directory),
            (1, 0, size as u64, false)
        );
        assert_same(&scene.here.join("from"), &scene.there.join("new/dir/-file"));
        copy(scene.vm("new/dir/-file"), scene.vm("other"))
            .await
            .unwrap();
        let down = copy(scene.vm("other"), scene.local("down/to"))
            .await
            .unwrap();
        assert_eq!(down, up);
        assert_same(&scene.here.join("from"), &scene.here.join("down/to"));
    }
    scene.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_beyond_four_gibibytes_are_right() {
    let scene = Scene::start().await;
    let data = noise(3 << 20, 5);
    let last = (5 << 30) + 12_345;
    sparse(
        &scene.here.join("from"),
        6 << 30,
        &[(1, b"begin"), (last, &data)],
    );
    set_time(&scene.here.join("from"), 5, 5);
    copy(scene.local("from"), scene.vm("up")).await.unwrap();
    copy(scene.vm("up"), scene.local("down")).await.unwrap();
    for path in [scene.there.join("up"), scene.here.join("down")] {
        use std::os::unix::fs::FileExt as _;
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 6 << 30);
        assert!(blocks(&path) < 8 << 20, "{path:?} {}", blocks(&path));
        let mut found = vec![0; data.len()];
        let file = std::fs::File::open(&path).unwrap();
        file.read_exact_at(&mut found, last).unwrap();
        assert_eq!(found, data);
        file.read_exact_at(&mut found[..5], 1).unwrap();
        assert_eq!(&found[..5], b"begin");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_with_one_file_or_none_is_a_directory() {
    let scene = Scene::start().await;
    std::fs::create_dir_all(scene.there.join("one")).unwrap();
    std::fs::write(scene.there.join("one/file"), "x").unwrap();
    std::fs::create_dir_all(scene.there.join("none")).unwrap();
    for (source, files) in [("one", 1), ("none", 0), ("one/", 1)] {
        let summary = copy(scene.vm(source), scene.local("down")).await.unwrap();
        assert_eq!(
            (summary.files, summary.was_directory),
            (files, true),
            "{source}"
        );
        assert_same(&scene.there.join(source), &scene.here.join("down"));
        copy(scene.local("down"), scene.vm("up")).await.unwrap();
        assert_same(&scene.here.join("down"), &scene.there.join("up"));
        std::fs::remove_dir_all(scene.here.join("down")).unwrap();
        std::fs::remove_dir_all(scene.there.join("up")).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_is_refused_with_a_clear_word() {
    let scene = Scene::start().await;
    for side in [&scene.here, &scene.there] {
        std::fs::create_dir_all(side.join("dir/sub")).unwrap();
        std::fs::write(side.join("file"), "f").unwrap();
        std::fs::create_dir_all(side.join("deep")).unwrap();
    }
    let both = [(true, false), (false, true), (true, true), (false, false)];
    let side = |local: bool, path: &str| {
        if local {
            scene.local(path)
        } else {
            scene.vm(path)
        }
    };
    for (from, to) in both {
        for (source, target, kind) in [
            ("missing", "new", Kind::NotFound),
            ("file", "dir", Kind::Conflict),
            ("dir", "file", Kind::Conflict),
            ("file", "file/inside", Kind::Other),
        ] {
            let error = copy(side(from, source), side(to, target))
                .await
                .unwrap_err();
            let right =
                error.kind() == kind || (kind == Kind::Other && error.kind() != Kind::Unavailable);
            assert!(right, "{source} to {target} ({from} {to}): {error:?}");
        }
        let options = Options {
            recursive: Some(false),
            ..Options::default()
        };
        let error = copy_with(side(from, "dir"), side(to, "new"), options)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{error}");
        // Deeper down: a directory where a file would come, a file and a link where a directory would.
        for (there_is_directory, make) in [(true, 0), (false, 1), (false, 2)] {
            let (source, target) = (
                if from { &scene.here } else { &scene.there },
                if to { &scene.here } else { &scene.there },
            );
            for top in [source.join("s"), target.join("t")] {
                let _ = std::fs::remove_dir_all(&top);
                std::fs::create_dir_all(&top).unwrap();
            }
            if there_is_directory {
                std::fs::write(source.join("s/x"), "file").unwrap();
                std::fs::create_dir(target.join("t/x")).unwrap();
            } else {
                std::fs::create_dir(source.join("s/x")).unwrap();
                std::fs::write(source.join("s/x/inner"), "inner").unwrap();
                match make {
                    1 => std::fs::write(target.join("t/x"), "file").unwrap(),
                    _ => link("../deep", &target.join("t/x")),
                }
            }
            let before = describe(&target.join("t"));
            let error = copy(side(from, "s"), side(to, "t")).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Conflict, "{from} {to} {make}: {error}");
            assert!(error.to_string().contains('x'), "{error}");
            let after = describe(&target.join("t"));
            assert_eq!(
                before.keys().collect::<Vec<_>>(),
                after.keys().collect::<Vec<_>>()
            );
            assert_eq!(std::fs::read_dir(target.join("deep")).unwrap().count(), 0);
        }
    }
    scene.assert_clean();
    assert!(!scene.here.join("new").exists() && !scene.there.join("new").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_at_the_top_are_followed_and_links_inside_replaced() {
    let scene = Scene::start().await;
    std::fs::create_dir_all(scene.here.join("s")).unwrap();
    std::fs::write(scene.here.join("s/x"), "new").unwrap();
    std::fs::write(scene.there.join("kept"), "kept").unwrap();
    std::fs::create_dir_all(scene.there.join("real")).unwrap();
    std::fs::create_dir_all(scene.there.join("elsewhere")).unwrap();
    link("real", &scene.there.join("to dir"));
    link("../kept", &scene.there.join("real/x"));
    copy(scene.local("s"), scene.vm("to dir")).await.unwrap();
    assert_eq!(std::fs::read(scene.there.join("real/x")).unwrap(), b"new");
    assert!(!scene.there.join("real/x").is_symlink());
    assert_eq!(std::fs::read(scene.there.join("kept")).unwrap(), b"kept");
    // A link to a directory inside is replaced by the file, not gone into.
    std::fs::remove_file(scene.there.join("real/x")).unwrap();
    link("../elsewhere", &scene.there.join("real/x"));
    copy(scene.local("s"), scene.vm("real")).await.unwrap();
    assert!(scene.there.join("real/x").is_file() && !scene.there.join("real/x").is_symlink());
    assert_eq!(
        std::fs::read_dir(scene.there.join("elsewhere"))
            .unwrap()
            .count(),
        0
    );
    // A file's own link is followed on both sides.
    link("kept", &scene.there.join("to file"));
    copy(scene.local("s/x"), scene.vm("to file")).await.unwrap();
    assert_eq!(std::fs::read(scene.there.join("kept")).unwrap(), b"new");
    assert!(scene.there.join("to file").is_symlink());
    copy(scene.vm("to file"), scene.local("down"))
        .await
        .unwrap();
    assert_eq!(std::fs::read(scene.here.join("down")).unwrap(), b"new");
    assert!(!scene.here.join("down").is_symlink());
    scene.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_excluded_stays_and_what_is_no_file_is_counted() {
    let scene = Scene::start().await;
    for top in [&scene.here, &scene.there] {
        std::fs::create_dir_all(top.join("s/target/deep")).unwrap();
        std::fs::create_dir_all(top.join("s/src")).unwrap();
        for file in [
            "s/target/deep/x",
            "s/src/a.o",
            "s/src/keep.o",
            "s/src/main.rs",
            "s/top",
        ] {
            std::fs::write(top.join(file), file).unwrap();
        }
        std::process::Command::new("mkfifo")
            .arg(top.join("s/pipe"))
            .status()
            .unwrap();
    }
    let exclude = ["target/", "*.o", "!keep.o", "/top"]
        .map(str::to_owned)
        .to_vec();
    for (from, to, at) in [
        (scene.local("s"), scene.vm("t"), scene.there.join("t")),
        (scene.vm("s"), scene.local("t"), scene.here.join("t")),
    ] {
        let options = Options {
            exclude: exclude.clone(),
            ..Options::default()
        };
        let summary = copy_with(from, to, options).await.unwrap();
        assert_eq!(
            (summary.files, summary.directories, summary.left_out),
            (2, 2, 1)
        );
        let names: Vec<_> = describe(&at)
            .into_keys()
            .map(|path| path.to_str().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["", "src", "src/keep.o", "src/main.rs"]);
        assert!(matches!(
            describe(&at)[Path::new("src/keep.o")],
            What::File { .. }
        ));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_cannot_be_read_is_named() {
    let scene = Scene::start().await;
    // Root may not read this one either: the kernel lets it be written only.
    let secret = Path::new("/proc/sys/vm/compact_memory");
    if std::fs::read(secret).is_ok() || !secret.exists() {
        // Where the kernel has none, a directory that cannot be listed stands for it.
        return a_directory_that_cannot_be_listed_is_named(&scene).await;
    }
    let root = pi_vers_system::files::Root::open(
        Path::new("/proc/sys/vm"),
        pi_vers_system::files::Access::ReadOnly,
    )
    .unwrap();
    let from = vers_client::transfer::Side::Local {
        root,
        path: "compact_memory".into(),
    };
    let error = copy(from, scene.vm("up")).await.unwrap_err();
    assert!(
        error.to_string().contains("compact_memory") && error.to_string().contains("denied"),
        "{error}"
    );
    let from = vers_client::transfer::Side::Vm {
        ssh: scene.ssh.clone(),
        vm: scene.lab.vm,
        path: secret.to_str().unwrap().into(),
    };
    let error = copy(from, scene.local("down")).await.unwrap_err();
    assert!(error.to_string().contains("compact_memory"), "{error}");
    scene.assert_clean();
    assert!(!scene.there.join("up").exists() && !scene.here.join("down").exists());
}

async fn a_directory_that_cannot_be_listed_is_named(scene: &Scene) {
    // A name that the VM's find cannot enter any more: a mount that is gone is hard to have here, so the listing itself fails.
    let home = scene.lab.dir.path().join("home");
    std::fs::create_dir(home.join("bin")).unwrap();
    std::fs::write(
        home.join(".bashrc"),
        format!("PATH={}:$PATH; export PATH\n", home.join("bin").display()),
    )
    .unwrap();
    let find = home.join("bin/find");
    std::fs::write(
        &find,
        "#!/bin/sh\n/usr/bin/find \"$@\"\necho \"find: './dark': Permission denied\" >&2\nexit 1\n",
    )
    .unwrap();
    mode(&find, 0o755);
    std::fs::create_dir_all(scene.there.join("s/dark")).unwrap();
    let error = copy(scene.vm("s"), scene.local("down")).await.unwrap_err();
    assert!(
        error.to_string().contains("./dark") && error.to_string().contains("denied"),
        "{error}"
    );
    scene.assert_clean();
}

/// A directory with all of busybox's programs.
fn busybox(bin: &Path) {
    let install = || {
        std::fs::create_dir_all(bin).unwrap();
        std::process::Command::new("busybox")
            .args(["--install", "-s"])
            .arg(bin)
            .status()
            .is_ok_and(|status| status.success())
    };
    if !install() {
        let _ = std::process::Command::new("sh")
            .args(["-c", "apt-get update -qq && apt-get install -y -qq busybox"])
            .output();
        assert!(
            install(),
            "this test needs busybox: apt-get install busybox"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vm_with_nothing_but_busybox_can_be_copied_to() {
    let scene = Scene::start().await;
    let home = scene.lab.dir.path().join("home");
    busybox(&home.join("bin"));
    std::fs::write(
        home.join(".bashrc"),
        format!("PATH={}; export PATH\n", home.join("bin").display()),
    )
    .unwrap();
    std::fs::create_dir(scene.here.join("tree")).unwrap();
    build(&scene.here.join("tree"));
    // Its tar and its touch know whole seconds.
    for (path, what) in describe(&scene.here.join("tree")) {
        let at = scene.here.join("tree").join(path);
        let (What::Directory { time, .. } | What::File { time, .. } | What::Link { time, .. }) =
            what
        else {
            continue;
        };
        // busybox gives links the time of their making.
        if !at.is_symlink() {
            set_time(&at, time.0, 0);
        }
    }
    let without_links = |top: &Path| {
        let mut all = describe(top);
        for what in all.values_mut() {
            if let What::Link { time, .. } = what {
                *time = (0, 0);
            }
        }
        all
    };
    for _ in 0..2 {
        copy(scene.local("tree"), scene.vm("up")).await.unwrap();
        let (from, to) = (
            without_links(&scene.here.join("tree")),
            without_links(&scene.there.join("up")),
        );
        assert_eq!(
            from.keys().collect::<Vec<_>>(),
            to.keys().collect::<Vec<_>>()
        );
        for (path, what) in &from {
            assert!(what == &to[path], "{path:?}");
        }
    }
    scene.assert_clean();
}

/// Gives the VM these of busybox's programs, and no others; no names: all.
pub fn only_busybox(scene: &Scene, programs: &[&str]) {
    let home = scene.lab.dir.path().join("home");
    let all = home.join("all");
    busybox(&all);
    let mut bin = all.clone();
    if !programs.is_empty() {
        bin = home.join("bin");
        std::fs::create_dir(&bin).unwrap();
        for program in programs {
            std::fs::rename(all.join(program), bin.join(program)).unwrap();
        }
    }
    std::fs::write(
        home.join(".bashrc"),
        format!("PATH={}; export PATH\n", bin.display()),
    )
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vm_with_nothing_but_busybox_can_be_copied_from() {
    let few = [
        "sh", "stat", "ls", "readlink", "head", "dd", "cat", "rm", "mv", "mkdir", "sleep", "kill",
        "ps", "rmdir",
    ];
    for programs in [&[][..], &few] {
        let scene = Scene::start().await;
        only_busybox(&scene, programs);
        let tree = scene.there.join("tree");
        std::fs::create_dir(&tree).unwrap();
        build(&tree);
        // More than are looked at by one process, and each of the patterns of hidden names.
        std::fs::create_dir(tree.join("many")).unwrap();
        for count in 0..250 {
            let prefix = ["", ".", "..", "..."][count % 4];
            let file = tree.join(format!("many/{prefix}{count}"));
            std::fs::write(&file, noise(count * 50, 9)).unwrap();
            set_time(&file, 1_000_000_000 + count as i64, 7);
        }
        std::fs::create_dir_all(tree.join("many/.d/..d/d")).unwrap();
        let summary = copy(scene.vm("tree"), scene.local("down")).await.unwrap();
        assert_same(&tree, &scene.here.join("down"));
        assert_eq!(
            (summary.files, summary.directories, summary.links),
            (268, 10, 4)
        );
        // Files, by the exact name and through a link.
        for source in ["tree/a/big", "tree/only a hole", "tree/nothing"] {
            copy(scene.vm(source), scene.local("file")).await.unwrap();
            assert_same(&scene.there.join(source), &scene.here.join("file"));
        }
        link("tree/file", &scene.there.join("to file"));
        copy(scene.vm("to file"), scene.local("file"))
            .await
            .unwrap();
        assert_same(&tree.join("file"), &scene.here.join("file"));
        // What is excluded, and what is no file.
        std::process::Command::new("mkfifo")
            .arg(tree.join("pipe"))
            .status()
            .unwrap();
        let options = Options {
            exclude: ["/a/", "many/*", "!/many/.d", "l*", "*hole*", "\u{f0}*"]
                .map(str::to_owned)
                .to_vec(),
            ..Options::default()
        };
        let summary = copy_with(scene.vm("tree"), scene.local("part"), options)
            .await
            .unwrap();
        assert_eq!(summary.left_out, 1);
        let part = describe(&scene.here.join("part"));
        assert!(
            part.contains_key(Path::new("many/.d/..d/d")) && !part.contains_key(Path::new("a")),
            "{:?}",
            part.keys()
        );
        let error = copy(scene.vm("missing"), scene.local("new"))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound, "{error}");
        scene.assert_clean();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vm_that_cannot_even_look_at_files_says_what_to_install() {
    let scene = Scene::start().await;
    only_busybox(&scene, &["sh", "cat"]);
    std::fs::create_dir(scene.there.join("tree")).unwrap();
    let error = copy(scene.vm("tree"), scene.local("down"))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("install"), "{error}");
    assert!(!scene.here.join("down").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_do_not_wait_behind_a_big_file() {
    let scene = Scene::start().await;
    let open = || scene.lab.traffic.open();
    std::fs::write(scene.here.join("small"), noise(100_000, 1)).unwrap();
    std::fs::write(scene.here.join("big"), noise(9_000_000, 2)).unwrap();
    copy(scene.local("small"), scene.vm("small")).await.unwrap();
    assert_eq!(open(), 1, "a handshake for a small file");
    copy(scene.local("big"), scene.vm("big")).await.unwrap();
    assert_eq!(open(), 2, "no connection for bulk data");
    // It is used again, both ways.
    copy(scene.vm("big"), scene.local("back")).await.unwrap();
    copy(scene.local("big"), scene.vm("more")).await.unwrap();
    assert_eq!(open(), 2);
    assert_same(&scene.here.join("big"), &scene.here.join("back"));
}
