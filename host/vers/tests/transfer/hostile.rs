//! A VM that lies: its find and its tar say what the tests want.

use std::path::{Path, PathBuf};

use vers_client::{Error, Kind};

use crate::tree::{Scene, copy, describe, link, mode};

fn header(name: &[u8], kind: u8, link: &[u8], size: u64) -> Vec<u8> {
    let mut block = vec![0u8; 512];
    block[..name.len()].copy_from_slice(name);
    block[100..108].copy_from_slice(b"0000644\0");
    block[108..116].copy_from_slice(b"0000000\0");
    block[116..124].copy_from_slice(b"0000000\0");
    block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    block[136..148].copy_from_slice(b"00000000000\0");
    block[148..156].copy_from_slice(b"        ");
    block[156] = kind;
    block[157..157 + link.len()].copy_from_slice(link);
    block[257..265].copy_from_slice(b"ustar  \0");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

fn file(name: &[u8], content: &[u8]) -> Vec<u8> {
    let mut entry = header(name, b'0', b"", content.len() as u64);
    entry.extend_from_slice(content);
    entry.resize(entry.len().next_multiple_of(512), 0);
    entry
}

fn listed(kind: &str, path: &[u8], link: &[u8]) -> Vec<u8> {
    let size = if kind == "f" { 4 } else { 0 };
    let mut record = format!("{kind}\x00644\0{size}\x008\x000.0000000000\0").into_bytes();
    record.extend_from_slice(path);
    record.push(0);
    record.extend_from_slice(link);
    record.push(0);
    record
}

struct Liar {
    scene: Scene,
    bin: PathBuf,
    outside: PathBuf,
}

impl Liar {
    async fn start() -> Self {
        let scene = Scene::start().await;
        let home = scene.lab.dir.path().join("home");
        let bin = home.join("bin");
        std::fs::create_dir(&bin).unwrap();
        std::fs::write(
            home.join(".bashrc"),
            format!("PATH={}:$PATH; export PATH\n", bin.display()),
        )
        .unwrap();
        std::fs::create_dir(scene.there.join("tree")).unwrap();
        let outside = scene.here.join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("kept"), "kept").unwrap();
        Self {
            scene,
            bin,
            outside,
        }
    }

    fn say(&self, program: &str, what: &[u8]) {
        let at = self.bin.join(program);
        std::fs::write(self.bin.join(format!("{program}.says")), what).unwrap();
        std::fs::write(
            &at,
            format!(
                "#!/bin/sh\ncat '{}'\n",
                self.bin.join(format!("{program}.says")).display()
            ),
        )
        .unwrap();
        mode(&at, 0o755);
    }

    /// Copies what the liar says into `target`; nothing else may have changed.
    async fn copy(
        &self,
        find: &[Vec<u8>],
        tar: &[Vec<u8>],
    ) -> Result<vers_client::transfer::Summary, Error> {
        self.say("find", &find.concat());
        let mut archive = tar.concat();
        archive.extend_from_slice(&[0; 1024]);
        self.say("tar", &archive);
        let _ = std::fs::remove_dir_all(self.scene.here.join("target"));
        let outside = describe(&self.outside);
        let outcome = copy(self.scene.vm("tree"), self.scene.local("target")).await;
        assert_eq!(describe(&self.outside), outside);
        let mut left: Vec<_> = std::fs::read_dir(&self.scene.here)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        left.retain(|name| name != "target" && name != "outside");
        assert_eq!(left, Vec::<std::ffi::OsString>::new());
        self.scene.assert_clean();
        outcome
    }
}

fn top() -> Vec<u8> {
    listed("d", b"", b"")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_lead_out_are_refused_wherever_they_stand() {
    let liar = Liar::start().await;
    let absolute = liar.outside.join("new");
    let absolute = absolute.to_str().unwrap().as_bytes();
    for bad in [
        &b"../outside/new"[..],
        b"..",
        b"a/../../outside/new",
        b"a//b",
        b"./x",
        b"a/",
        absolute,
    ] {
        let error = liar
            .copy(&[top(), listed("f", bad, b"")], &[file(bad, b"evil")])
            .await
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Denied, "{bad:?}: {error}");
        assert!(!liar.scene.here.join("target").exists());
        // The list is honest, the archive is not.
        let mut dotted = b"./".to_vec();
        dotted.extend_from_slice(bad);
        for name in [bad, &dotted] {
            let error = liar
                .copy(&[top(), listed("f", b"good", b"")], &[file(name, b"evil")])
                .await
                .unwrap_err();
            assert!(
                error.to_string().contains("not asked for"),
                "{bad:?}: {error}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_goes_through_a_link_that_came_before() {
    let liar = Liar::start().await;
    let list = [
        top(),
        listed("l", b"a", b"../outside"),
        listed("f", b"a/new", b""),
    ];
    let error = liar
        .copy(&list, &[file(b"./a/new", b"evil")])
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict, "{error}");
    // The other way round, and with a directory.
    let list = [
        top(),
        listed("d", b"a", b""),
        listed("l", b"a", b"../outside"),
        listed("f", b"a/new", b""),
    ];
    let error = liar
        .copy(&list, &[file(b"./a/new", b"evil")])
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict, "{error}");
    // A link that is in the target already.
    let list = [top(), listed("d", b"a", b""), listed("f", b"a/kept", b"")];
    liar.copy(&list, &[file(b"./a/kept", b"good")])
        .await
        .unwrap();
    std::fs::remove_dir_all(liar.scene.here.join("target/a")).unwrap();
    link("../outside", &liar.scene.here.join("target/a"));
    let error = copy(liar.scene.vm("tree"), liar.scene.local("target"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict, "{error}");
    assert_eq!(std::fs::read(liar.outside.join("kept")).unwrap(), b"kept");
    // A file in the place of a link replaces the link.
    let list = [
        top(),
        listed("l", b"f", b"../outside/kept"),
        listed("f", b"f", b""),
    ];
    liar.copy(&list, &[file(b"./f", b"good")]).await.unwrap();
    assert!(!liar.scene.here.join("target/f").is_symlink());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_holds_the_files_that_were_asked_for_and_nothing_else() {
    let liar = Liar::start().await;
    let list = || [top(), listed("f", b"one", b""), listed("f", b"two", b"")];
    let inside = |name: &str| liar.scene.here.join("target").join(name);
    let refused = |outcome: Result<_, Error>| {
        let error: Error = outcome
            .map(|_: vers_client::transfer::Summary| ())
            .unwrap_err();
        assert!(error.to_string().contains("not asked for"), "{error}");
    };
    // Twice, in another order, another name.
    refused(
        liar.copy(&list(), &[file(b"./one", b"1111"), file(b"./one", b"2222")])
            .await,
    );
    assert_eq!(std::fs::read(inside("one")).unwrap(), b"1111");
    refused(
        liar.copy(&list(), &[file(b"./two", b"2222"), file(b"./one", b"1111")])
            .await,
    );
    refused(liar.copy(&list(), &[file(b"./three", b"3333")]).await);
    refused(liar.copy(&list(), &[b"no archive at all".repeat(40)]).await);
    // Devices, pipes, links and hard links in the place of files are not made.
    for kind in *b"1234567" {
        let odd = header(b"./one", kind, b"../outside/kept", 0);
        let outcome = liar.copy(&list(), &[odd, file(b"./two", b"2222")]).await;
        let one = std::fs::symlink_metadata(inside("one"));
        assert!(one.is_err() || kind == b'7', "{}", char::from(kind));
        assert!(outcome.is_ok(), "{outcome:?}");
        assert_eq!(std::fs::read(inside("two")).unwrap(), b"2222");
    }
    // It says that it is endless.
    let error = liar
        .copy(&list(), &[header(b"./one", b'0', b"", 7 << 30)])
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict, "{error}");
    assert!(!Path::new(&inside("one")).exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vm_without_gnu_find_is_believed_no_more() {
    let liar = Liar::start().await;
    // Its shell answers the scripts that list and read.
    let shell = liar.bin.join("sh");
    let lies = liar.bin.display();
    let script = format!(
        "#!/bin/sh\ncase $2 in *'find . -printf'*) exit 69 ;; *'walk()'*) exec cat '{lies}/list.says' ;;\n\
         *'read -r line'*) cat '{lies}/pack.says'; [ ! -e '{lies}/endless' ] || exec yes ;; *) exec /bin/sh \"$@\" ;; esac\n"
    );
    std::fs::write(&shell, script).unwrap();
    mode(&shell, 0o755);
    let copy_lies = async |list: &[Vec<u8>], files: &str| {
        std::fs::write(liar.bin.join("list.says"), list.concat()).unwrap();
        std::fs::write(liar.bin.join("pack.says"), files).unwrap();
        let _ = std::fs::remove_dir_all(liar.scene.here.join("target"));
        let outside = describe(&liar.outside);
        let outcome = copy(liar.scene.vm("tree"), liar.scene.local("target")).await;
        assert_eq!(describe(&liar.outside), outside);
        liar.scene.assert_clean();
        outcome
    };
    let list = [top(), listed("f", b"one", b""), listed("f", b"two", b"")];
    let frame = |number, size: u64, data, end| {
        format!("{number}\0f\x00644\0{size}\0{size}\x000.0\0{data}{end}\0")
    };
    let (one, two) = (frame("1", 4, "1111", "1"), frame("2", 4, "2222", "2"));
    let summary = copy_lies(&list, &format!("{one}{two}0\0")).await.unwrap();
    assert_eq!((summary.files, summary.bytes), (2, 8));
    for bad in ["../outside/new", "..", "a//b", "./x", "/new"] {
        let list = [top(), listed("f", bad.as_bytes(), b"")];
        let error = copy_lies(&list, &format!("{one}0\0")).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Denied, "{bad}: {error}");
    }
    for (files, says) in [
        // Twice, in another order, another one, more than there is.
        (format!("{one}{one}0\0"), "not asked for"),
        (format!("{two}{one}0\0"), "not asked for"),
        (frame("3", 4, "3333", "3"), "not asked for"),
        (format!("{one}{two}0\0{two}"), "not asked for"),
        // Longer and shorter than it says, and far too long.
        (frame("1", 4, "11111", "1"), "changes"),
        (frame("1", 4, "11", "1") + &two, "changes"),
        (frame("1", 7 << 30, "", "1"), "changes"),
    ] {
        let error = copy_lies(&list, &files).await.unwrap_err();
        assert!(error.to_string().contains(says), "{files:?}: {error}");
    }
    // What never ends.
    std::fs::write(liar.bin.join("endless"), "").unwrap();
    for files in ["", &one, &format!("{one}{two}0\0")] {
        let error = copy_lies(&list, files).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Other, "{error}");
    }
}
