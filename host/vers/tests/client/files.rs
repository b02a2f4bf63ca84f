//! Files of a VM, against OpenSSH's SFTP server.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use crate::lab::{Lab, eventually};
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use sha2::{Digest as _, Sha256};
use vers_client::ssh::{FileKind, Files, WriteOptions};
use vers_client::{Error, Kind};

fn pieces(
    data: &[u8],
    size: usize,
) -> impl stream::Stream<Item = Result<Bytes, Error>> + Send + use<> {
    let parts: Vec<_> = data
        .chunks(size.max(1))
        .map(|part| Ok(Bytes::copy_from_slice(part)))
        .collect();
    stream::iter(parts)
}

async fn read(files: &Files, path: &str, offset: u64, len: Option<u64>) -> Result<Vec<u8>, Error> {
    let parts: Vec<Bytes> = files.read(path, offset, len).try_collect().await?;
    Ok(parts.concat())
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_bytes_under_any_name_come_back() {
    let lab = Lab::start().await;
    let files = lab.ssh().files(lab.vm);
    let dir = lab.dir.path().join("any");
    std::fs::create_dir(&dir).unwrap();
    let name = prop_oneof![
        Just("-n".to_owned()),
        Just("a b".to_owned()),
        Just("it's \"quoted\"".to_owned()),
        Just("line\nbreak".to_owned()),
        Just("$(x)`y`".to_owned()),
        Just("zażółć 💩".to_owned()),
        Just("~".to_owned()),
        Just("*".to_owned()),
        "[^/\0]{1,40}".prop_filter("a name", |name| name != "." && name != ".."),
    ];
    let content = prop_oneof![
        3 => prop::collection::vec(any::<u8>(), 0..2000),
        1 => (0usize..5 << 20, any::<u8>()).prop_map(|(size, seed)| (0..size).map(|i| (i as u8).wrapping_mul(31) ^ (i >> 8) as u8 ^ seed).collect()),
        1 => Just(b"\r\n\0\xff\xfe'EOF'\n".to_vec()),
    ];
    let handle = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || {
        let mut runner = TestRunner::new(Config {
            cases: 64,
            failure_persistence: None,
            ..Config::default()
        });
        runner
            .run(
                &(
                    name,
                    content,
                    1usize..300_000,
                    any::<prop::sample::Index>(),
                    any::<prop::sample::Index>(),
                ),
                |(name, content, piece, a, b)| {
                    let path = dir.join(&name);
                    // A name cannot be longer than the file system's.
                    prop_assume!(name.len() <= 255);
                    handle.block_on(async {
                        let path = path.to_str().unwrap();
                        let written = files
                            .write(path, pieces(&content, piece), WriteOptions::default())
                            .await
                            .unwrap();
                        assert_eq!(written, content.len() as u64);
                        assert!(std::fs::read(path).unwrap() == content);
                        assert!(read(&files, path, 0, None).await.unwrap() == content);
                        let (from, to) = (a.index(content.len() + 1), b.index(content.len() + 1));
                        let (from, to) = (from.min(to), from.max(to));
                        assert!(
                            read(&files, path, from as u64, Some((to - from) as u64))
                                .await
                                .unwrap()
                                == content[from..to]
                        );
                        assert_eq!(files.stat(path).await.unwrap().size, content.len() as u64);
                        assert_eq!(
                            files.list(dir.to_str().unwrap()).await.unwrap()[0].name,
                            name
                        );
                        files.remove(path).await.unwrap();
                    });
                    assert_eq!(names(&dir), Vec::<String>::new());
                    Ok(())
                },
            )
            .unwrap();
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn modes_and_links_survive_a_write() {
    let lab = Lab::start().await;
    let files = lab.ssh().files(lab.vm);
    let dir = lab.dir.path().join("dir");
    std::fs::create_dir(&dir).unwrap();
    let at = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let mode = |name: &str| {
        std::fs::metadata(dir.join(name))
            .unwrap()
            .permissions()
            .mode()
            & 0o7777
    };
    let put = async |name: &str, text: &str, options: WriteOptions| {
        files
            .write(&at(name), pieces(text.as_bytes(), 2), options)
            .await
    };

    put("new", "1", WriteOptions::default()).await.unwrap();
    assert_eq!(mode("new"), 0o644);
    std::os::unix::fs::chown(dir.join("new"), Some(12), Some(34)).unwrap();
    std::fs::set_permissions(dir.join("new"), std::fs::Permissions::from_mode(0o4751)).unwrap();
    put("new", "2", WriteOptions::default()).await.unwrap();
    assert_eq!(mode("new"), 0o4751);
    let stat = files.stat(&at("new")).await.unwrap();
    assert_eq!(
        (stat.uid, stat.gid, stat.kind, stat.name.as_str()),
        (12, 34, FileKind::File, "new")
    );
    put(
        "new",
        "3",
        WriteOptions {
            mode: Some(0o600),
            ..Default::default()
        },
    )
    .await
    .unwrap();
    assert_eq!(mode("new"), 0o600);

    std::fs::create_dir(dir.join("sub")).unwrap();
    symlink("../new", dir.join("sub/one")).unwrap();
    symlink(dir.join("sub/one"), dir.join("two")).unwrap();
    put("two", "through links", WriteOptions::default())
        .await
        .unwrap();
    assert_eq!(std::fs::read(dir.join("new")).unwrap(), b"through links");
    assert!(dir.join("two").is_symlink() && dir.join("sub/one").is_symlink());
    symlink("later", dir.join("dangling")).unwrap();
    put("dangling", "made", WriteOptions::default())
        .await
        .unwrap();
    assert_eq!(std::fs::read(dir.join("later")).unwrap(), b"made");
    symlink("circle", dir.join("circle")).unwrap();
    assert_eq!(
        put("circle", "", WriteOptions::default())
            .await
            .unwrap_err()
            .kind(),
        Kind::Conflict
    );
    let kinds: Vec<_> = files
        .list(&at(""))
        .await
        .unwrap()
        .into_iter()
        .map(|entry| (entry.name, entry.kind))
        .collect();
    assert!(
        kinds.contains(&("two".into(), FileKind::Link))
            && kinds.contains(&("sub".into(), FileKind::Directory))
    );
    // Nothing is left of the ways there.
    assert_eq!(
        names(&dir),
        ["circle", "dangling", "later", "new", "sub", "two"]
    );
}

#[tokio::test]
async fn a_write_replaces_what_was_expected_and_nothing_else() {
    let lab = Lab::start().await;
    let files = lab.ssh().files(lab.vm);
    let path = lab.dir.path().join("file");
    let at = path.to_str().unwrap();
    let expecting = |text: &[u8]| WriteOptions {
        expect_sha256: Some(Sha256::digest(text).into()),
        ..Default::default()
    };
    let error = files
        .write(at, pieces(b"x", 1), expecting(b""))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict, "{error}");
    std::fs::write(&path, "one").unwrap();
    files
        .write(at, pieces(b"two", 1), expecting(b"one"))
        .await
        .unwrap();
    let error = files
        .write(at, pieces(b"three", 1), expecting(b"one"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict, "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), b"two");
    // Somebody else writes while the new content comes in.
    let meddling = stream::once(async { Ok(Bytes::from_static(b"mine")) }).chain(stream::once({
        let path = path.clone();
        async move {
            std::fs::write(&path, "theirs").unwrap();
            Ok(Bytes::new())
        }
    }));
    let error = files
        .write(at, meddling, expecting(b"two"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict, "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), b"theirs");
}

#[tokio::test]
async fn a_write_that_fails_or_is_given_up_leaves_the_old_file_and_nothing_else() {
    let lab = Lab::start().await;
    let files = lab.ssh().files(lab.vm);
    let dir = lab.dir.path().join("dir");
    std::fs::create_dir(&dir).unwrap();
    let path = dir.join("file");
    std::fs::write(&path, "old").unwrap();
    let at = path.to_str().unwrap();
    let failing = stream::iter([
        Ok(Bytes::from(vec![1; 1 << 20])),
        Err(Error::new(Kind::Other, "the source broke")),
    ]);
    let error = files
        .write(at, failing, WriteOptions::default())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("the source broke"), "{error}");
    let endless = stream::iter([Ok(Bytes::from(vec![1; 1 << 20]))]).chain(stream::pending());
    let given_up = tokio::time::timeout(
        std::time::Duration::from_millis(300),
        files.write(at, endless, WriteOptions::default()),
    )
    .await;
    assert!(given_up.is_err());
    eventually("the temporary file is gone", || names(&dir) == ["file"]).await;
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
}

#[tokio::test]
async fn directories_are_made_moved_and_removed() {
    let lab = Lab::start().await;
    let files = lab.ssh().files(lab.vm);
    let root = lab.dir.path().to_str().unwrap();
    let deep = format!("{root}/a/b c/d");
    files.mkdir_all(&deep).await.unwrap();
    files.mkdir_all(&deep).await.unwrap();
    let inner = format!("{root}/e/f/file");
    assert_eq!(
        files
            .write(&inner, pieces(b"1", 1), WriteOptions::default())
            .await
            .unwrap_err()
            .kind(),
        Kind::NotFound
    );
    files
        .write(
            &inner,
            pieces(b"1", 1),
            WriteOptions {
                parents: true,
                ..Default::default()
            },
        )
        .await
        .unwrap();
    let error = files.mkdir_all(&format!("{inner}/g")).await.unwrap_err();
    assert!(
        matches!(error.kind(), Kind::Conflict | Kind::Other | Kind::NotFound),
        "{error:?}"
    );
    let other = format!("{root}/other");
    files
        .write(&other, pieces(b"2", 1), WriteOptions::default())
        .await
        .unwrap();
    files.rename(&other, &inner).await.unwrap();
    assert_eq!(read(&files, &inner, 0, None).await.unwrap(), b"2");
    files.remove(&deep).await.unwrap();
    assert!(
        files.remove(&format!("{root}/e")).await.is_err(),
        "it is not empty"
    );

    for path in [root.to_owned(), format!("{root}/"), format!("{root}/x/..")] {
        let error = files
            .write(&path, pieces(b"", 1), WriteOptions::default())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{error}");
    }
    assert_eq!(
        read(&files, root, 0, None).await.unwrap_err().kind(),
        Kind::Invalid
    );
    assert_eq!(
        read(&files, "/no/such", 0, None).await.unwrap_err().kind(),
        Kind::NotFound
    );
    assert_eq!(files.stat("a\0b").await.unwrap_err().kind(), Kind::Invalid);
    // Files without a length.
    assert!(
        !read(&files, "/proc/self/status", 0, None)
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn files_survive_a_cut_connection() {
    let lab = Lab::start().await;
    let ssh = lab.ssh();
    let files = ssh.files(lab.vm);
    let path = lab.dir.path().join("file");
    let at = path.to_str().unwrap();
    files
        .write(at, pieces(b"1", 1), WriteOptions::default())
        .await
        .unwrap();
    lab.cut();
    // The first use after a cut may notice it, the next one connects anew.
    let mut answer = read(&files, at, 0, None).await;
    if answer.is_err() {
        answer = read(&files, at, 0, None).await;
    }
    assert_eq!(answer.unwrap(), b"1");
    ssh.disconnect(lab.vm).await;
    assert_eq!(read(&files, at, 0, None).await.unwrap(), b"1");
    // More handles than OpenSSH's fit a text.
    let many = futures::future::join_all((0..300).map(|_| read(&files, at, 0, None))).await;
    assert!(many.into_iter().all(|answer| answer.unwrap() == b"1"));
}
