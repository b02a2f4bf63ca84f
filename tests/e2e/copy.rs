//! `vers_vm_copy`, to and from VMs and between them. Needs `files.copy` of the host.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use pi_vers_host::CallError;
use pi_vers_tests::{ids, text, without_ids};
use serde_json::{Value, json};

use crate::lab::Lab;

/// A tree with what a copy easily loses.
fn plant(at: &Path) {
    std::fs::create_dir_all(at.join("sub/empty")).unwrap();
    std::fs::write(at.join("a.txt"), "one\n").unwrap();
    std::fs::write(at.join("sub/b.sh"), "#!/bin/sh\necho two\n").unwrap();
    std::fs::set_permissions(at.join("sub/b.sh"), PermissionsExt::from_mode(0o750)).unwrap();
    std::fs::write(at.join("sub/odd \n'name'"), "three").unwrap();
    std::fs::write(at.join(".hidden"), "").unwrap();
    std::fs::create_dir(at.join("node_modules")).unwrap();
    std::fs::write(at.join("node_modules/big"), "x".repeat(10_000)).unwrap();
    symlink("../a.txt", at.join("sub/link")).unwrap();
}

/// Every name of a tree with its kind, mode and content.
fn listing(root: &Path) -> Vec<String> {
    let mut all = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory).unwrap().flatten() {
            let path = entry.path();
            let found = path.symlink_metadata().unwrap();
            let name = path.strip_prefix(root).unwrap().display().to_string();
            let mode = found.permissions().mode() & 0o777;
            all.push(if found.is_symlink() {
                format!("{name} -> {}", std::fs::read_link(&path).unwrap().display())
            } else if found.is_dir() {
                open.push(path);
                format!("{name}/ {mode:o}")
            } else {
                format!(
                    "{name} {mode:o} {}",
                    std::fs::read_to_string(&path).unwrap()
                )
            });
        }
    }
    all.sort();
    all
}

async fn fails(lab: &Lab, src: &str, dst: &str, more: Value) -> String {
    let mut arguments = json!({ "src": src, "dst": dst });
    arguments
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    lab.bench.failure("vers_vm_copy", arguments).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_goes_there_and_back_under_the_exact_name() {
    let lab = Lab::new().await;
    let vm = lab.vm.clone();
    let work = lab.scratch.work();
    std::fs::write(work.join("in.bin"), [0, 159, 146, 150, b'\n']).unwrap();
    std::fs::set_permissions(work.join("in.bin"), PermissionsExt::from_mode(0o640)).unwrap();

    // The beginning of the id is enough; missing directories are made.
    let (said, details) = lab
        .ok(
            "vers_vm_copy",
            json!({ "src": "in.bin", "dst": format!("vm:{}:/srv/new/out.bin", &vm[..8]) }),
        )
        .await;
    assert_eq!(
        said,
        format!("Copied in.bin → VM {vm}:/srv/new/out.bin (5B)")
    );
    assert_eq!(
        details,
        json!({ "copied": 1, "size": 5, "vmId": vm, "direction": "upload" })
    );
    assert_eq!(
        lab.bash("stat -c %a /srv/new/out.bin; od -An -tu1 /srv/new/out.bin")
            .await,
        "640\n   0 159 146 150  10\n"
    );
    let (said, details) = lab
        .ok(
            "vers_vm_copy",
            json!({ "src": format!("vm:{vm}:/srv/new/out.bin"), "dst": "deep/er/back.bin" }),
        )
        .await;
    assert_eq!(
        said,
        format!("Copied VM {vm}:/srv/new/out.bin → deep/er/back.bin (5B)")
    );
    assert_eq!(details["direction"], "download");
    assert_eq!(
        std::fs::read(work.join("deep/er/back.bin")).unwrap(),
        std::fs::read(work.join("in.bin")).unwrap()
    );
    // The home directory, by its sign and as the place where relative paths begin.
    lab.ok(
        "vers_vm_copy",
        json!({ "src": "in.bin", "dst": format!("vm:{vm}:~/h") }),
    )
    .await;
    lab.ok(
        "vers_vm_copy",
        json!({ "src": format!("vm:{vm}:h"), "dst": "h" }),
    )
    .await;
    assert_eq!(lab.bash("wc -c < /root/h").await, "5\n");
    // A local name that looks like a VM's.
    let odd = format!("vm:{vm}:x");
    std::fs::write(work.join(&odd), "odd").unwrap();
    lab.ok(
        "vers_vm_copy",
        json!({ "src": format!("./{odd}"), "dst": format!("vm:{vm}:/srv/odd") }),
    )
    .await;
    assert_eq!(lab.bash("cat /srv/odd").await, "odd");
    // The destination is never the directory to put it into.
    let into = fails(&lab, "in.bin", &format!("vm:{vm}:/srv/new"), json!({})).await;
    assert!(
        into.contains("dst is the exact name of the copy, not the directory to put it into."),
        "{into}"
    );
    assert_eq!(lab.bash("ls /srv/new").await, "out.bin\n");
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_goes_to_a_vm_to_another_and_back_and_is_the_same() {
    let lab = Lab::new().await;
    let (a, work) = (lab.vm.clone(), lab.scratch.work());
    let b = ids(&lab
        .ok("vers_vm_create", json!({ "wait_boot": true }))
        .await
        .0)[0]
        .clone();
    plant(&work.join("tree"));
    let (said, details) = lab
        .ok(
            "vers_vm_copy",
            json!({ "src": "tree", "dst": format!("vm:{a}:/srv/tree") }),
        )
        .await;
    assert_eq!(
        said,
        format!("Copied 5 file(s) from tree → VM {a}:/srv/tree")
    );
    assert_eq!(
        (&details["copied"], &details["links"], &details["vmId"]),
        (&json!(5), &json!(1), &json!(a))
    );
    let (said, details) = lab
        .ok(
            "vers_vm_copy",
            json!({ "src": format!("vm:{a}:/srv/tree"), "dst": format!("vm:{b}:/opt/t") }),
        )
        .await;
    assert_eq!(
        said,
        format!("Copied 5 file(s) from VM {a}:/srv/tree → VM {b}:/opt/t")
    );
    assert_eq!(
        (
            &details["srcVmId"],
            &details["dstVmId"],
            &details["direction"]
        ),
        (&json!(a), &json!(b), &json!("vm-to-vm"))
    );
    lab.ok(
        "vers_vm_copy",
        json!({ "src": format!("vm:{b}:/opt/t"), "dst": "back" }),
    )
    .await;
    assert_eq!(listing(&work.join("back")), listing(&work.join("tree")));

    // What is left out, and what stays in a directory that is there.
    std::fs::create_dir(work.join("part")).unwrap();
    std::fs::write(work.join("part/stays"), "s").unwrap();
    lab.ok(
        "vers_vm_copy",
        json!({ "src": format!("vm:{b}:/opt/t"), "dst": "part", "exclude": ["node_modules", "*.sh"] }),
    )
    .await;
    let names: Vec<String> = std::fs::read_dir(work.join("part"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(
        names.contains(&"stays".into())
            && names.contains(&"a.txt".into())
            && !names.contains(&"node_modules".into()),
        "{names:?}"
    );
    assert!(!work.join("part/sub/b.sh").exists() && work.join("part/sub/empty").is_dir());
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_copied_is_told_with_what_to_do() {
    let lab = Lab::new().await;
    let (vm, work) = (lab.vm.clone(), lab.scratch.work());
    std::fs::write(work.join("f"), "f").unwrap();
    plant(&work.join("tree"));
    assert_eq!(
        fails(&lab, "f", "g", json!({})).await,
        "Both paths are local. Use bash with cp instead."
    );
    let odd = fails(&lab, "vm:/srv/x", "g", json!({})).await;
    assert!(
        odd.starts_with("src begins with vm: and is no VM path: vm:/srv/x."),
        "{odd}"
    );
    for more in [
        json!({ "recursive": false }),
        json!({ "recursive": false, "exclude": ["x"] }),
    ] {
        let whole = fails(&lab, "tree", &format!("vm:{vm}:/srv/t"), more).await;
        assert_eq!(
            whole,
            "tree is a directory, and recursive is false. Leave recursive away to copy it with all it holds."
        );
    }
    let missing = fails(&lab, &format!("vm:{vm}:/srv/none"), "g", json!({})).await;
    assert!(
        missing.starts_with(&format!("No files found at /srv/none on VM {vm}")),
        "{missing}"
    );
    let missing = fails(&lab, "none", &format!("vm:{vm}:/srv/g"), json!({})).await;
    assert!(missing.starts_with("File not found: none"), "{missing}");
    let other = "00000000-0000-4000-8000-000000000000";
    let odd = fails(&lab, "f", "vm:zz:/x", json!({})).await;
    assert_eq!(odd, "Cannot find VM zz: \"zz\" cannot begin the id of a VM");
    for id in ["00000000", other] {
        assert_eq!(
            fails(&lab, "f", &format!("vm:{id}:/x"), json!({})).await,
            format!("There is no VM {id}. vers_vms lists them.")
        );
    }
    // Outside of the session's directory the policy has to say yes.
    match lab
        .bench
        .call(
            "vers_vm_copy",
            json!({ "src": "/etc/hostname", "dst": format!("vm:{vm}:/x") }),
        )
        .await
    {
        Err(CallError::Refused { message, .. }) => {
            assert!(
                message.contains("vers-vm-copy may not") && message.contains("files"),
                "{message}"
            )
        }
        other => panic!("{other:?}"),
    }
    let up = fails(&lab, "../f", &format!("vm:{vm}:/x"), json!({})).await;
    assert!(up.contains(".."), "{up}");
    // A paused VM is named as such.
    lab.ok("vers_vm_local", json!({})).await;
    lab.ok("vers_vm_state", json!({ "vmId": vm, "state": "Paused" }))
        .await;
    assert_eq!(
        fails(&lab, "f", &format!("vm:{vm}:/x"), json!({})).await,
        format!("VM {vm} is paused. Resume it with vers_vm_state, then try again.")
    );
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_given_up_leaves_nothing_half_made() {
    let lab = Lab::new().await;
    let (vm, work) = (lab.vm.clone(), lab.scratch.work());
    let big = std::fs::File::create(work.join("big")).unwrap();
    // No holes: they would be skipped.
    for _ in 0..256 {
        std::io::Write::write_all(&mut &big, &[7; 1 << 20]).unwrap();
    }
    let mut call = lab.bench.session.call(
        "vers_vm_copy",
        json!({ "src": "big", "dst": format!("vm:{vm}:/srv/big") }),
    );
    let mut updates = call.updates();
    updates.changed().await.expect("it shows how far it is");
    call.canceller().cancel();
    let outcome = call.outcome().await;
    assert!(
        matches!(outcome, Err(CallError::Cancelled { .. })),
        "{outcome:?}"
    );
    assert_eq!(lab.bash("ls -A /srv").await, "(no output)");
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_binary_copies() {
    let lab = Lab::new().await;
    std::fs::write(lab.scratch.work().join("f"), "f").unwrap();
    let line = lab
        .scratch
        .call(
            "vers_vm_copy",
            json!({ "src": "f", "dst": format!("vm:{}:/srv/f", lab.vm) }),
        )
        .await;
    assert_eq!(line["ok"], true, "{line}");
    assert_eq!(without_ids(&text(&line)), "Copied f → VM <id>:/srv/f (1B)");
    lab.end().await;
}
