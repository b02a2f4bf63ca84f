#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::TryStreamExt as _;
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

use super::*;

/// A granted directory `in` beside an `out` that nothing may touch.
struct Scene {
    _dir: tempfile::TempDir,
    inside: PathBuf,
    outside: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (inside, outside) = (dir.path().join("in"), dir.path().join("out"));
        std::fs::create_dir_all(inside.join("sub/deep")).unwrap();
        std::fs::create_dir_all(outside.join("empty")).unwrap();
        std::fs::write(inside.join("file"), "inside").unwrap();
        std::fs::write(inside.join("sub/file"), "sub").unwrap();
        std::fs::write(outside.join("secret"), "outside").unwrap();
        Self {
            _dir: dir,
            inside,
            outside,
        }
    }

    fn roots(&self) -> [Root; 2] {
        [true, false]
            .map(|kernel| Root::open_with(&self.inside, Access::ReadWrite, kernel).unwrap())
    }

    fn link(&self, target: impl AsRef<Path>, name: &str) {
        symlink(target, self.inside.join(name)).unwrap();
    }

    /// Everything outside: names, kinds, contents, times.
    fn outside_now(&self) -> BTreeMap<PathBuf, (u32, i64, i64, Vec<u8>)> {
        let mut all = BTreeMap::new();
        let mut todo = vec![self.outside.clone()];
        while let Some(path) = todo.pop() {
            let stat = path.symlink_metadata().unwrap();
            let content = if stat.is_file() {
                std::fs::read(&path).unwrap()
            } else {
                Vec::new()
            };
            if stat.is_dir() {
                todo.extend(
                    std::fs::read_dir(&path)
                        .unwrap()
                        .map(|entry| entry.unwrap().path()),
                );
            }
            all.insert(
                path,
                (stat.mode(), stat.mtime(), stat.mtime_nsec(), content),
            );
        }
        all
    }
}

fn data(text: impl Into<Bytes>) -> impl Stream<Item = Result<Bytes, Error>> + Send {
    futures::stream::iter([Ok(text.into())])
}

async fn content(root: &Root, path: &str) -> Result<Vec<u8>, Error> {
    root.read(path, 0, None)
        .try_fold(Vec::new(), async |mut all, chunk| {
            all.extend(chunk);
            Ok(all)
        })
        .await
}

async fn put(root: &Root, path: &str, text: &str) -> Result<u64, Error> {
    root.write(
        path,
        data(text.to_owned()),
        WriteOptions {
            parents: true,
            ..Default::default()
        },
    )
    .await
}

/// Every operation on every path is refused, by the kernel's resolution and by the walk, and nothing outside changes.
#[tokio::test]
async fn no_path_leads_out() {
    let scene = Scene::new();
    let out = scene.outside.to_str().unwrap();
    scene.link("../out", "up");
    scene.link("../out/secret", "up-file");
    scene.link("../out/nothing-yet", "up-new");
    scene.link(out, "abs");
    scene.link(format!("{out}/secret"), "abs-file");
    scene.link(&scene.inside, "abs-home");
    scene.link("abs", "chain");
    scene.link("chain", "chain2");
    scene.link("sub/../../out", "winding");
    scene.link("deep/../../../out", "sub/winding");
    scene.link("sub/deep", "short");
    scene.link("..", "parent");
    scene.link("../..", "sub/grandparent");
    scene.link("loop-b", "loop-a");
    scene.link("loop-a", "loop-b");
    scene.link("self", "self");
    scene.link("/proc/self/root", "proc-root");
    scene.link("/proc/self/cwd", "proc-cwd");
    scene.link("/proc/self/fd", "proc-fd");
    scene.link("/dev/null", "null-link");
    for n in 0..60 {
        scene.link(
            if n == 59 {
                "file".to_owned()
            } else {
                format!("many{}", n + 1)
            },
            &format!("many{n}"),
        );
    }
    let long = "x".repeat(300);
    let absolute = format!("{out}/secret");
    let deep = "a/".repeat(3000);
    let table = [
        "..",
        "../",
        "../out",
        "../out/secret",
        "../in/file",
        "./../out/secret",
        "sub/../../out/secret",
        "sub/..",
        "sub/../file",
        "sub/deep/../../../out/secret",
        "/",
        "//",
        "/etc/passwd",
        &absolute,
        "//etc/passwd",
        "../../../../../../etc/passwd",
        "up/secret",
        "up/",
        "up/new",
        "up/empty/new",
        "up-file",
        "up-new",
        "abs",
        "abs/secret",
        "abs-file",
        "abs-home/file",
        "chain/secret",
        "chain2/secret",
        "winding/secret",
        "sub/winding/secret",
        "short/../../../out/secret",
        "parent/out/secret",
        "sub/grandparent/out/secret",
        "loop-a",
        "loop-a/x",
        "self",
        "self/self",
        "proc-root/etc/passwd",
        "proc-cwd/Cargo.toml",
        "proc-fd/0",
        "null-link",
        "many0",
        "file\0",
        "\0",
        "sub/\0/../..",
        "..\0",
        &long,
        &deep,
        "file/../../out/secret",
        "up/../file",
    ];
    assert!(table.len() >= 30);
    let before = scene.outside_now();
    for root in scene.roots() {
        for path in table {
            let refused = |what: &str, error: Option<Error>| {
                let error = error.unwrap_or_else(|| panic!("{what} `{path}` was done"));
                assert!(
                    matches!(error.kind(), Kind::Denied | Kind::Invalid),
                    "{what} {path}: {error:?}"
                );
                assert!(error.message().chars().all(|c| !c.is_control()));
            };
            refused("stat", root.stat(path).await.err());
            refused("list", root.list(path).await.err());
            refused("read", content(&root, path).await.err());
            refused("write", put(&root, path, "gotcha").await.err());
            // A link itself may be removed, what it points at may not; so only paths beyond one are tried.
            if path.contains("..") || path.contains('/') && path != "up/" {
                refused("remove", root.remove(path).await.err());
            }
        }
        assert_eq!(scene.outside_now(), before);
    }
}

#[tokio::test]
async fn links_that_stay_beneath_are_followed() {
    let scene = Scene::new();
    scene.link("sub/file", "link");
    scene.link("../file", "sub/back");
    scene.link("sub/deep/..", "roundabout");
    scene.link("sub", "dir");
    scene.link("sub/born", "dangling");
    for root in scene.roots() {
        assert_eq!(content(&root, "link").await.unwrap(), b"sub");
        assert_eq!(content(&root, "sub/back").await.unwrap(), b"inside");
        assert_eq!(content(&root, "roundabout/back").await.unwrap(), b"inside");
        assert_eq!(content(&root, "./dir//file").await.unwrap(), b"sub");
        assert_eq!(root.stat("link").await.unwrap().kind, FileKind::File);
        put(&root, "dir/back", "inside").await.unwrap();
        put(&root, "dangling", "born").await.unwrap();
        assert!(
            scene.inside.join("sub/back").is_symlink()
                && scene.inside.join("dangling").is_symlink()
        );
        assert_eq!(content(&root, "sub/born").await.unwrap(), b"born");
        root.remove("sub/born").await.unwrap();
    }
    for root in scene.roots() {
        let _ = root.remove("link").await;
        assert_eq!(
            content(&root, "sub/file").await.unwrap(),
            b"sub",
            "only the link goes"
        );
    }
}

#[tokio::test]
async fn pipes_devices_and_sockets_are_seen_but_never_opened() {
    let scene = Scene::new();
    let fifo = scene.inside.join("fifo");
    rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(scene.inside.join("socket")).unwrap();
    // A writer that waits for a reader: it would go on if the pipe were opened, even for a moment.
    let opened = Arc::new(AtomicBool::new(false));
    let seen = opened.clone();
    let waiter = std::thread::spawn({
        let fifo = fifo.clone();
        move || {
            let _ = std::fs::OpenOptions::new().write(true).open(fifo);
            seen.store(true, Ordering::SeqCst);
        }
    });
    for root in scene.roots() {
        for path in ["fifo", "socket"] {
            assert_eq!(root.stat(path).await.unwrap().kind, FileKind::Other);
            assert_eq!(content(&root, path).await.unwrap_err().kind(), Kind::Denied);
            assert_eq!(
                put(&root, path, "x").await.unwrap_err().kind(),
                Kind::Denied
            );
            assert_eq!(root.remove(path).await.unwrap_err().kind(), Kind::Denied);
            assert_eq!(root.list(path).await.unwrap_err().kind(), Kind::Invalid);
        }
    }
    assert!(!opened.load(Ordering::SeqCst));
    drop(std::fs::OpenOptions::new().read(true).open(fifo));
    waiter.join().unwrap();
    for kernel in [true, false] {
        let dev = Root::open_with(Path::new("/dev"), Access::ReadOnly, kernel).unwrap();
        assert_eq!(
            content(&dev, "zero").await.unwrap_err().kind(),
            Kind::Denied
        );
    }
}

#[tokio::test]
async fn the_links_of_proc_are_not_followed() {
    for kernel in [true, false] {
        let root = Root::open_with(Path::new("/proc/self"), Access::ReadOnly, kernel).unwrap();
        for path in [
            "root/etc/passwd",
            "cwd/Cargo.toml",
            "exe",
            "fd/0",
            "task/../exe",
        ] {
            let error = content(&root, path).await.unwrap_err();
            assert!(
                matches!(error.kind(), Kind::Denied | Kind::NotFound),
                "{path}: {error:?}"
            );
        }
        assert!(!content(&root, "stat").await.unwrap().is_empty());
    }
}

/// While a directory is swapped for a link that leads out, again and again, no read and no write gets out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_swapped_for_a_link_gets_nobody_out() {
    let scene = Scene::new();
    let before = scene.outside_now();
    std::fs::create_dir(scene.inside.join("a")).unwrap();
    std::fs::write(scene.inside.join("a/secret"), "inside").unwrap();
    scene.link("../out", "b");
    let done = Arc::new(AtomicBool::new(false));
    let swapper = std::thread::spawn({
        let (a, b, done) = (scene.inside.join("a"), scene.inside.join("b"), done.clone());
        move || {
            let mut swaps = 0;
            while !done.load(Ordering::Relaxed) {
                let flags = rustix::fs::RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(CWD, &a, CWD, &b, flags).unwrap();
                swaps += 1;
            }
            swaps
        }
    });
    let mut read = 0;
    for root in scene.roots() {
        for _ in 0..2000 {
            if let Ok(content) = content(&root, "a/secret").await {
                assert_ne!(content, b"outside");
                read += 1;
            }
        }
        for _ in 0..300 {
            let _ = put(&root, "a/secret", "inside").await;
            let _ = root.remove("a/none").await;
        }
    }
    done.store(true, Ordering::Relaxed);
    assert!(
        swapper.join().unwrap() > 100 && read > 0,
        "there was no race"
    );
    assert_eq!(scene.outside_now(), before);
}

#[tokio::test]
async fn a_trailing_slash_means_a_directory() {
    let scene = Scene::new();
    for root in scene.roots() {
        assert_eq!(root.stat("sub/").await.unwrap().kind, FileKind::Directory);
        for path in ["file/", "file/."] {
            assert_eq!(root.stat(path).await.unwrap_err().kind(), Kind::Invalid);
            assert_eq!(
                content(&root, path).await.unwrap_err().kind(),
                Kind::Invalid
            );
            assert_eq!(
                put(&root, path, "x").await.unwrap_err().kind(),
                Kind::Invalid
            );
            assert_eq!(root.remove(path).await.unwrap_err().kind(), Kind::Invalid);
        }
        for path in ["", ".", "./", "sub", "sub/"] {
            assert_eq!(
                put(&root, path, "x").await.unwrap_err().kind(),
                Kind::Invalid
            );
            assert_eq!(
                content(&root, path).await.unwrap_err().kind(),
                Kind::Invalid
            );
        }
        assert_eq!(root.remove(".").await.unwrap_err().kind(), Kind::Invalid);
        assert_eq!(
            root.stat("missing").await.unwrap_err().kind(),
            Kind::NotFound
        );
        assert_eq!(
            root.write("no/where", data("x"), WriteOptions::default())
                .await
                .unwrap_err()
                .kind(),
            Kind::NotFound
        );
    }
}

#[tokio::test]
async fn a_list_is_sorted_and_follows_no_link() {
    let scene = Scene::new();
    scene.link("../out/secret", "a-link");
    for root in scene.roots() {
        let list = root.list("").await.unwrap();
        let names: Vec<_> = list
            .iter()
            .map(|entry| (entry.name.as_str(), entry.kind))
            .collect();
        assert_eq!(
            names,
            [
                ("a-link", FileKind::Link),
                ("file", FileKind::File),
                ("sub", FileKind::Directory)
            ]
        );
        assert_eq!((list[1].size, list[1].mode), (6, 0o644));
    }
}

#[tokio::test]
async fn ranges_are_exact() {
    let scene = Scene::new();
    let all: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
    std::fs::write(scene.inside.join("big"), &all).unwrap();
    let root = &scene.roots()[0];
    for (offset, len) in [
        (0, None),
        (0, Some(0)),
        (1, Some(1)),
        (131_071, Some(2)),
        (299_999, None),
        (300_000, None),
        (u64::from(u32::MAX), Some(5)),
        (7, Some(u64::MAX)),
    ] {
        let got: Vec<Bytes> = root.read("big", offset, len).try_collect().await.unwrap();
        let start = usize::try_from(offset).unwrap().min(all.len());
        let end = start
            + usize::try_from(len.unwrap_or(u64::MAX))
                .unwrap_or(usize::MAX)
                .min(all.len() - start);
        assert!(got.concat() == all[start..end], "{offset} {len:?}");
    }
}

#[tokio::test]
async fn modes_are_kept_given_or_0644() {
    let scene = Scene::new();
    let mode = |path: &str| {
        scene
            .inside
            .join(path)
            .metadata()
            .unwrap()
            .permissions()
            .mode()
            & 0o7777
    };
    std::fs::set_permissions(
        scene.inside.join("file"),
        std::fs::Permissions::from_mode(0o4751),
    )
    .unwrap();
    let root = &scene.roots()[0];
    assert_eq!(put(root, "file", "1").await.unwrap(), 1);
    assert_eq!(mode("file"), 0o751, "kept, but never as set-user-id");
    put(root, "new/and/deep", "1").await.unwrap();
    assert_eq!(mode("new/and/deep"), 0o644);
    let private = WriteOptions {
        mode: Some(0o600),
        ..Default::default()
    };
    root.write("file", data("1"), private).await.unwrap();
    assert_eq!(mode("file"), 0o600);
    let setuid = WriteOptions {
        mode: Some(0o4755),
        ..Default::default()
    };
    assert_eq!(
        root.write("file", data("1"), setuid)
            .await
            .unwrap_err()
            .kind(),
        Kind::Invalid
    );
}

#[tokio::test]
async fn a_read_only_root_is_not_written() {
    let scene = Scene::new();
    let root = Root::open(&scene.inside, Access::ReadOnly).unwrap();
    assert_eq!(
        put(&root, "file", "x").await.unwrap_err().kind(),
        Kind::Denied
    );
    assert_eq!(root.remove("file").await.unwrap_err().kind(), Kind::Denied);
    assert_eq!(content(&root, "file").await.unwrap(), b"inside");
}

#[tokio::test]
async fn a_write_that_breaks_off_leaves_the_old_content_and_no_litter() {
    let scene = Scene::new();
    let root = &scene.roots()[0];
    let failing = futures::stream::iter([
        Ok(Bytes::from("half")),
        Err(Error::new(Kind::Cancelled, "no more")),
    ]);
    assert_eq!(
        root.write("file", failing, WriteOptions::default())
            .await
            .unwrap_err()
            .kind(),
        Kind::Cancelled
    );
    let endless =
        futures::stream::iter([Ok(Bytes::from("half"))]).chain(futures::stream::pending());
    let write = root.write("file", endless, WriteOptions::default());
    assert!(
        tokio::time::timeout(std::time::Duration::from_millis(100), write)
            .await
            .is_err()
    );
    assert_eq!(content(root, "file").await.unwrap(), b"inside");
    assert_eq!(root.list("").await.unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_see_the_old_or_the_new_content() {
    let scene = Scene::new();
    let root = scene.roots()[0].clone();
    let versions = ["a".repeat(300_000), "b".repeat(200_000)];
    put(&root, "file", &versions[0]).await.unwrap();
    let writer = tokio::spawn({
        let (root, versions) = (root.clone(), versions.clone());
        async move {
            for n in 0..60 {
                let chunks = versions[n % 2]
                    .as_bytes()
                    .chunks(50_000)
                    .map(|chunk| Ok(Bytes::copy_from_slice(chunk)));
                let chunks: Vec<_> = chunks.collect();
                root.write(
                    "file",
                    futures::stream::iter(chunks),
                    WriteOptions::default(),
                )
                .await
                .unwrap();
            }
        }
    });
    while !writer.is_finished() {
        // Somebody else's reader, which knows nothing of us.
        let seen = std::fs::read(scene.inside.join("file")).unwrap();
        assert!(
            versions.iter().any(|version| version.as_bytes() == seen),
            "a part was seen"
        );
    }
    writer.await.unwrap();
}

#[tokio::test]
async fn an_unexpected_content_is_a_conflict() {
    let scene = Scene::new();
    let root = &scene.roots()[0];
    let expect = |text: &str| WriteOptions {
        expect_sha256: Some(Sha256::digest(text).into()),
        ..Default::default()
    };
    assert_eq!(
        root.write("file", data("new"), expect("inside"))
            .await
            .unwrap(),
        3
    );
    assert_eq!(
        root.write("file", data("x"), expect("inside"))
            .await
            .unwrap_err()
            .kind(),
        Kind::Conflict
    );
    assert_eq!(
        root.write("missing", data("x"), expect(""))
            .await
            .unwrap_err()
            .kind(),
        Kind::Conflict
    );
    // Changed while the data came.
    let meanwhile = scene.inside.join("file");
    let late = futures::stream::once(async move {
        std::fs::write(meanwhile, "theirs").unwrap();
        Ok(Bytes::from("ours"))
    });
    assert_eq!(
        root.write("file", late, expect("new"))
            .await
            .unwrap_err()
            .kind(),
        Kind::Conflict
    );
    assert_eq!(content(root, "file").await.unwrap(), b"theirs");
    assert_eq!(root.list("").await.unwrap().len(), 2, "no litter");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_who_expect_the_same_content_one_succeeds() {
    let scene = Scene::new();
    let root = scene.roots()[0].clone();
    let write = async |n: u32| {
        let options = WriteOptions {
            expect_sha256: Some(Sha256::digest("inside").into()),
            ..Default::default()
        };
        root.write("file", data(format!("winner {n}")), options)
            .await
    };
    let results = futures::future::join_all((0..16).map(write)).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
}

proptest! {
    /// Whatever the path, the kernel and the walk agree, and nothing outside is touched.
    #[test]
    fn the_kernel_and_the_walk_agree(parts in prop::collection::vec(prop::sample::select(vec!["sub", "deep", "file", "up", "abs", "dir", "back", "", ".", "..", "none", "dot", "é"]), 1..7)) {
        let scene = Scene::new();
        scene.link("../out", "up");
        scene.link(&scene.outside, "abs");
        scene.link("sub", "dir");
        scene.link("..", "sub/up");
        scene.link("../file", "sub/back");
        scene.link(".", "dot");
        let path = parts.join("/");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let before = scene.outside_now();
        let kinds = scene.roots().map(|root| runtime.block_on(async {
            (root.stat(&path).await.map_err(|error| error.kind()), content(&root, &path).await.map_err(|error| error.kind()))
        }));
        prop_assert_eq!(&kinds[0], &kinds[1], "{}", path);
        if let Ok(content) = &kinds[0].1 {
            prop_assert!(content == b"inside" || content == b"sub");
        }
        let _ = runtime.block_on(put(&scene.roots()[0], &path, "x"));
        prop_assert_eq!(scene.outside_now(), before);
    }
}
