#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use super::*;
use proptest::prelude::*;
use rustix::fs::{CWD, FileType, Mode, XattrFlags};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::time::{Duration, SystemTime};

/// Everything that a copy must have, by path. Inodes are numbered by their first path, so that hard links show.
fn describe(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut inodes = BTreeMap::new();
    let mut stack = vec![PathBuf::new()];
    let mut all = Vec::new();
    while let Some(rel) = stack.pop() {
        let path = root.join(&rel);
        if path.symlink_metadata().unwrap().is_dir() {
            for e in fs::read_dir(&path).unwrap() {
                stack.push(rel.join(e.unwrap().file_name()));
            }
        }
        all.push(rel);
    }
    all.sort();
    for rel in all {
        let path = root.join(&rel);
        let m = path.symlink_metadata().unwrap();
        let first = inodes.entry(m.ino()).or_insert_with(|| rel.clone()).clone();
        let contents = if m.is_file() {
            format!("{:?}", fs::read(&path).unwrap())
        } else if m.is_symlink() {
            format!("{:?}", fs::read_link(&path).unwrap())
        } else {
            String::new()
        };
        let mut names = vec![0u8; 4096];
        let n = rustix::fs::llistxattr(&path, &mut names[..]).unwrap();
        let mut xattrs = BTreeMap::new();
        for name in names[..n].split(|b| *b == 0).filter(|n| !n.is_empty()) {
            let mut value = vec![0u8; 4096];
            let n = rustix::fs::lgetxattr(&path, name, &mut value[..]).unwrap();
            xattrs.insert(name.to_vec(), value[..n].to_vec());
        }
        let size = if m.is_dir() { 0 } else { m.size() };
        let line = format!(
            "{:o} {} {} {size} {} {}.{} {first:?} {contents} {xattrs:?}",
            m.mode(),
            m.uid(),
            m.gid(),
            m.rdev(),
            m.mtime(),
            m.mtime_nsec()
        );
        found.insert(rel, line);
    }
    found
}

#[derive(Debug, Clone)]
enum Node {
    Dir(u32),
    File(Vec<u8>, u32),
    Symlink(Vec<u8>),
    Fifo,
    Socket,
    HardLink(usize),
    Xattr(usize, Vec<u8>),
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec((1u8..).prop_filter("no slash", |b| *b != b'/'), 1..12)
        .prop_filter("no dots", |n| n != b"." && n != b"..")
}

fn node() -> impl Strategy<Value = Node> {
    let mode = prop::sample::select(vec![0o755u32, 0o700, 0o644, 0o4755, 0o1777, 0o500]);
    prop_oneof![
        3 => mode.clone().prop_map(Node::Dir),
        4 => (proptest::collection::vec(any::<u8>(), 0..300), mode).prop_map(|(c, m)| Node::File(c, m)),
        1 => proptest::collection::vec(1u8.., 1..20).prop_map(Node::Symlink),
        1 => Just(Node::Fifo),
        1 => Just(Node::Socket),
        2 => any::<usize>().prop_map(Node::HardLink),
        2 => (any::<usize>(), proptest::collection::vec(any::<u8>(), 0..30)).prop_map(|(i, v)| Node::Xattr(i, v)),
    ]
}

/// Builds a tree; `parent` picks a directory that exists already.
fn build(root: &Path, nodes: &[(usize, Vec<u8>, Node)]) {
    let mut dirs = vec![root.to_path_buf()];
    let mut files: Vec<PathBuf> = Vec::new();
    let mut modes = Vec::new();
    for (parent, name, node) in nodes {
        let path = dirs[parent % dirs.len()].join(OsStr::from_bytes(name));
        let new = path.symlink_metadata().is_err();
        match node {
            Node::Xattr(i, value) if !files.is_empty() => {
                let file = &files[i % files.len()];
                rustix::fs::lsetxattr(file, "user.test", value, XattrFlags::empty()).unwrap();
            }
            _ if !new => {}
            Node::Dir(mode) => {
                fs::create_dir(&path).unwrap();
                modes.push((path.clone(), *mode | 0o500));
                dirs.push(path);
            }
            Node::File(contents, mode) => {
                fs::write(&path, contents).unwrap();
                modes.push((path.clone(), *mode | 0o400));
                files.push(path);
            }
            Node::Symlink(target) => {
                std::os::unix::fs::symlink(OsStr::from_bytes(target), &path).unwrap();
            }
            Node::Fifo => {
                rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o640), 0)
                    .unwrap();
            }
            Node::Socket => {
                rustix::fs::mknodat(CWD, &path, FileType::Socket, Mode::from_raw_mode(0o750), 0)
                    .unwrap();
            }
            Node::HardLink(i) if !files.is_empty() => {
                fs::hard_link(&files[i % files.len()], &path).unwrap();
            }
            Node::HardLink(_) | Node::Xattr(..) => {}
        }
    }
    for (path, mode) in modes.into_iter().rev() {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
}

/// What the async functions do, in this thread.
fn snap(from: &Path, previous: Option<&Path>, to: &Path) -> SnapshotStats {
    copy::snapshot(from, previous, to, &AtomicBool::new(false)).unwrap()
}

/// Waits until files changed before now are settled for a snapshot.
fn settle() {
    std::thread::sleep(manifest::RACY + Duration::from_millis(50));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn a_snapshot_is_the_tree(nodes in proptest::collection::vec((any::<usize>(), name(), node()), 0..40)) {
        let temp = tempfile::tempdir().unwrap();
        let (from, to) = (temp.path().join("upper"), temp.path().join("copy"));
        fs::create_dir(&from).unwrap();
        build(&from, &nodes);
        let before = describe(&from);
        let stats = snap(&from, None, &to);
        prop_assert_eq!(&describe(&to), &before);
        prop_assert_eq!(describe(&from), before);
        prop_assert_eq!(stats.shared, 0);
        remove::remove_tree(&from).unwrap();
        remove::remove_tree(&to).unwrap();
        prop_assert!(!from.exists() && !to.exists());
    }
}

#[test]
fn unchanged_files_are_shared_with_the_previous_snapshot_and_changed_ones_are_not() {
    let temp = tempfile::tempdir().unwrap();
    let at = |n: &str| temp.path().join(n);
    fs::create_dir_all(at("upper/d")).unwrap();
    for (name, text) in [
        ("same", "1"),
        ("d/changed", "1"),
        ("replaced", "1"),
        ("gone", "1"),
    ] {
        fs::write(at("upper").join(name), text).unwrap();
    }
    fs::hard_link(at("upper/same"), at("upper/d/link")).unwrap();
    settle();
    let first = snap(&at("upper"), None, &at("one"));
    assert_eq!((first.files, first.shared), (5, 0));
    fs::write(at("upper/d/changed"), "2").unwrap();
    fs::write(at("upper/new"), "3").unwrap();
    fs::write(at("upper/r"), "4").unwrap();
    fs::rename(at("upper/r"), at("upper/replaced")).unwrap();
    fs::remove_file(at("upper/gone")).unwrap();
    let second = snap(&at("upper"), Some(&at("one")), &at("two"));
    assert_eq!(second.shared, 1, "{second:?}");
    assert_eq!(second.bytes_copied + 3 * second.reflinked, 3, "{second:?}");
    assert_eq!(describe(&at("two")), describe(&at("upper")));
    let inode = |p: &str| fs::metadata(at(p)).unwrap().ino();
    assert_eq!(inode("one/same"), inode("two/same"));
    assert_eq!(inode("two/same"), inode("two/d/link"));
    assert_ne!(inode("two/same"), inode("upper/same"));
    assert_eq!(fs::read_to_string(at("one/d/changed")).unwrap(), "1");
    // A third one shares with the second what the second shared with the first.
    settle();
    let third = snap(&at("upper"), Some(&at("two")), &at("three"));
    assert_eq!(inode("one/same"), inode("three/same"));
    assert!(third.shared >= 1);
}

#[test]
fn a_file_written_just_before_a_snapshot_is_not_trusted_the_next_time() {
    let temp = tempfile::tempdir().unwrap();
    let at = |n: &str| temp.path().join(n);
    fs::create_dir(at("upper")).unwrap();
    fs::write(at("upper/f"), "1").unwrap();
    snap(&at("upper"), None, &at("one"));
    let second = snap(&at("upper"), Some(&at("one")), &at("two"));
    assert_eq!(second.shared, 0, "{second:?}");
}

#[test]
fn a_broken_manifest_costs_only_copies() {
    let temp = tempfile::tempdir().unwrap();
    let at = |n: &str| temp.path().join(n);
    fs::create_dir(at("upper")).unwrap();
    fs::write(at("upper/f"), "1").unwrap();
    settle();
    snap(&at("upper"), None, &at("one"));
    fs::write(at("one.manifest"), b"vers-manifest 1\n1 2 x").unwrap();
    assert_eq!(snap(&at("upper"), Some(&at("one")), &at("two")).shared, 0);
    assert_eq!(describe(&at("upper")), describe(&at("two")));
}

#[test]
fn holes_stay_holes() {
    let temp = tempfile::tempdir().unwrap();
    let at = |n: &str| temp.path().join(n);
    fs::create_dir(at("upper")).unwrap();
    let file = fs::File::create(at("upper/sparse")).unwrap();
    file.set_len(1 << 40).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"end", (1 << 39) + 5).unwrap();
    let stats = snap(&at("upper"), None, &at("copy"));
    assert!(stats.bytes_copied < 1 << 20);
    let copy = fs::File::open(at("copy/sparse")).unwrap();
    assert_eq!(copy.metadata().unwrap().len(), 1 << 40);
    let mut end = [0; 3];
    std::os::unix::fs::FileExt::read_exact_at(&copy, &mut end, (1 << 39) + 5).unwrap();
    assert_eq!(&end, b"end");
}

#[test]
fn a_cancelled_snapshot_stops() {
    let temp = tempfile::tempdir().unwrap();
    fs::create_dir(temp.path().join("upper")).unwrap();
    fs::write(temp.path().join("upper/f"), "1").unwrap();
    let stopped = copy::snapshot(
        &temp.path().join("upper"),
        None,
        &temp.path().join("to"),
        &AtomicBool::new(true),
    );
    assert!(stopped.is_err());
    assert!(!temp.path().join("to/f").exists());
}

#[test]
fn an_existing_target_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    fs::create_dir(temp.path().join("upper")).unwrap();
    fs::create_dir(temp.path().join("to")).unwrap();
    let refused = copy::snapshot(
        &temp.path().join("upper"),
        None,
        &temp.path().join("to"),
        &AtomicBool::new(false),
    );
    assert!(refused.is_err());
}

#[test]
fn overlay_marks_are_kept_where_privilege_allows() {
    if !rustix::process::geteuid().is_root() {
        // An ordinary user's layers carry `user.overlay.*`, which the property test's attributes stand for.
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let at = |n: &str| temp.path().join(n);
    fs::create_dir_all(at("upper/opaque")).unwrap();
    rustix::fs::lsetxattr(
        at("upper/opaque"),
        "trusted.overlay.opaque",
        b"y",
        XattrFlags::empty(),
    )
    .unwrap();
    rustix::fs::mknodat(
        CWD,
        at("upper/whiteout"),
        FileType::CharacterDevice,
        Mode::empty(),
        0,
    )
    .unwrap();
    std::os::unix::fs::chown(at("upper/opaque"), Some(1234), Some(4321)).unwrap();
    snap(&at("upper"), None, &at("copy"));
    assert_eq!(describe(&at("upper")), describe(&at("copy")));
}

#[test]
fn removing_does_not_follow_links_and_opens_closed_directories() {
    let temp = tempfile::tempdir().unwrap();
    let at = |n: &str| temp.path().join(n);
    fs::create_dir_all(at("tree/closed/inner")).unwrap();
    fs::create_dir(at("outside")).unwrap();
    fs::write(at("outside/f"), "1").unwrap();
    fs::write(at("tree/closed/inner/f"), "1").unwrap();
    std::os::unix::fs::symlink(at("outside"), at("tree/link")).unwrap();
    for d in ["tree/closed/inner", "tree/closed"] {
        fs::set_permissions(at(d), fs::Permissions::from_mode(0o000)).unwrap();
    }
    remove::remove_tree(&at("tree")).unwrap();
    assert!(!at("tree").exists());
    assert!(at("outside/f").exists());
    remove::remove_tree(&at("tree")).expect("removed already");
    fs::write(at("file"), "1").unwrap();
    remove::remove_tree(&at("file")).unwrap();
    assert!(!at("file").exists());
}

#[test]
fn deep_trees_are_copied_and_removed_without_recursion() {
    let temp = tempfile::tempdir().unwrap();
    let mut path = temp.path().join("upper");
    fs::create_dir(&path).unwrap();
    for _ in 0..700 {
        path.push("d");
        fs::create_dir(&path).unwrap();
    }
    let (from, to) = (temp.path().join("upper"), temp.path().join("copy"));
    assert_eq!(snap(&from, None, &to).dirs, 700);
    remove::remove_tree(&from).unwrap();
    remove::remove_tree(&to).unwrap();
}

#[tokio::test]
async fn the_async_functions_do_the_same() {
    let temp = tempfile::tempdir().unwrap();
    let (from, to) = (temp.path().join("upper"), temp.path().join("copy"));
    fs::create_dir(&from).unwrap();
    fs::write(from.join("f"), "text").unwrap();
    let stats = snapshot(&from, None, &to).await.unwrap();
    assert_eq!(stats.files, 1);
    assert_eq!(describe(&from), describe(&to));
    remove_tree(&to).await.unwrap();
    assert!(!to.exists());
    let _ = SystemTime::now();
}
