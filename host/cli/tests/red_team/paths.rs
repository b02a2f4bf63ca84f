//! Paths and links that lead out of what was granted.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::raider::Raid;

const RULES: &str = "files = [{ path = \"in\", mode = \"ro\" }, { path = \"out\", mode = \"rw\" }]";

/// A working directory with things in it that lead elsewhere, and a secret beside it.
fn raid() -> Raid {
    let raid = Raid::new(RULES);
    raid.home.write("secret", "canary-beside");
    raid.home.write("work/secret", "canary-beside");
    raid.home.write("work/in/file", "inside");
    raid.home.write("work/out/file", "inside");
    for place in ["work/in", "work/out"] {
        let at = |name: &str| raid.home.path(place).join(name);
        symlink("../secret", at("up")).unwrap();
        symlink("..", at("parent")).unwrap();
        symlink("/", at("root")).unwrap();
        symlink(raid.home.path("secret"), at("absolute")).unwrap();
        symlink("up", at("chain")).unwrap();
        symlink("loop", at("loop")).unwrap();
        symlink("/proc/self/root", at("proc")).unwrap();
        symlink("file", at("good")).unwrap();
        symlink("deep/../../../secret", at("back")).unwrap();
        std::fs::create_dir(at("deep")).unwrap();
        symlink("../..", at("deep/out")).unwrap();
        let pipe = std::ffi::CString::new(at("pipe").to_str().unwrap()).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            pipe.as_c_str(),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o666),
            0,
        )
        .unwrap();
    }
    raid
}

/// Below `in` and `out`, each of them.
#[rustfmt::skip]
const PATHS: &[&str] = &[
    "../secret", "../../secret", "./../secret", "deep/../../secret", "//../secret", "x/../../secret", "..", "../", "../.", "./..", "up", "up/", "chain", "absolute", "parent/secret", "parent/../secret", "root/etc/passwd",
    "proc/etc/passwd", "back", "deep/out/secret", "deep/out/../secret", "loop", "loop/x", "pipe", "file/..", "file/../../secret", "file/x", "good/../../secret", "../in/../secret", "../out/../secret", "%2e%2e/secret",
    "..\u{0}/secret", "file\u{0}", "..\\secret", "~/secret", "\u{ff0e}\u{ff0e}/secret", "..%c0%afsecret", "parent/in/../../secret", "root", "root/proc/self/environ", "deep/out", "parent",
];

/// Whole paths.
#[rustfmt::skip]
const WHOLE: &[&str] = &[
    "/etc/passwd", "/proc/self/environ", "/proc/self/fd/0", "/dev/mem", "/dev/stdin", "~/secret", "~root/x", "", ".", "/", "//etc/passwd", "secret", "./secret", "in", "inx/file", "out/../in/../secret", "file:///etc/passwd", "C:\\x", "in\u{0}/file", "\u{0}",
];

#[test]
fn no_path_leads_out() {
    let raid = raid();
    let mut raids: Vec<Value> = Vec::new();
    for path in PATHS {
        for place in ["in", "out"] {
            raids.push(json!({ "what": "read", "text": format!("{place}/{path}") }));
        }
    }
    raids.extend(
        WHOLE
            .iter()
            .map(|path| json!({ "what": "read", "text": path })),
    );
    assert!(raids.len() >= 80);
    for (raid, told) in raids.iter().zip(raid.told(&raids)) {
        assert!(told.starts_with("refused: Error::"), "{raid}: {told}");
        assert!(!told.contains("canary"), "{raid}: {told}");
    }
    let mut raids: Vec<Value> = Vec::new();
    for path in PATHS {
        for place in ["in", "out"] {
            let text = format!("{place}/{path}");
            raids.push(json!({ "what": "write", "text": text, "argv": ["overwritten"] }));
        }
    }
    raids.extend(
        WHOLE
            .iter()
            .map(|path| json!({ "what": "write", "text": path, "argv": ["overwritten"] })),
    );
    for path in ["in/file", "in/new", "in/good", "in/deep/new"] {
        raids.push(json!({ "what": "write", "text": path, "argv": ["overwritten"] }));
        raids.push(json!({ "what": "remove", "text": path }));
    }
    for path in [
        "../secret",
        "parent/secret",
        "root/etc/hostname",
        "deep/out/secret",
    ] {
        raids.push(json!({ "what": "remove", "text": format!("out/{path}") }));
    }
    for (raid, told) in raids.iter().zip(raid.told(&raids)) {
        // A name with a percent sign or a backslash in it is a name.
        let plain = raid["text"].as_str().is_some_and(|path| {
            path.starts_with("out/") && path.contains(['%', '\\', '~', '\u{ff0e}'])
        });
        assert!(
            plain || told.starts_with("refused: Error::"),
            "{raid}: {told}"
        );
    }
    let read = |path: &str| std::fs::read_to_string(raid.home.path(path)).unwrap();
    assert_eq!(read("secret"), "canary-beside");
    assert_eq!(read("work/secret"), "canary-beside");
    assert_eq!(read("work/in/file"), "inside");
    assert_eq!(read("work/out/file"), "inside");
    assert!(!raid.home.path("work/in/new").exists());
    // What is granted works, links inside too.
    let told = raid.told(&[
        json!({ "what": "read", "text": "in/good" }),
        json!({ "what": "read", "text": "./in/./file" }),
        json!({ "what": "write", "text": "out/good", "argv": ["new"] }),
        json!({ "what": "write", "text": "out/made/deeper/x", "argv": ["new"] }),
        json!({ "what": "remove", "text": "out/up" }),
    ]);
    assert_eq!(told, ["inside", "inside", "written", "written", "removed"]);
    assert_eq!(read("work/out/file"), "new");
    assert_eq!(
        read("secret"),
        "canary-beside",
        "a link is removed, not what it leads to"
    );
}

#[test]
fn a_link_that_is_swapped_in_at_the_right_moment_leads_nowhere() {
    let raid = raid();
    let outside = raid.home.path("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("x"), "untouched").unwrap();
    let place = raid.home.path("work/out/swapped");
    let stop = Arc::new(AtomicBool::new(false));
    let swapping = {
        let (stop, place, outside) = (stop.clone(), place.clone(), outside.clone());
        std::thread::spawn(move || {
            let mut swaps = 0_u64;
            let remove = |path: &Path| {
                let _ = std::fs::remove_file(path);
                let _ = std::fs::remove_dir_all(path);
            };
            while !stop.load(Ordering::Relaxed) {
                remove(&place);
                let _ = std::fs::create_dir(&place);
                remove(&place);
                let _ = symlink(&outside, &place);
                swaps += 1;
            }
            swaps
        })
    };
    let raids: Vec<Value> = (0..1_500)
        .flat_map(|_| {
            [
                json!({ "what": "write", "text": "out/swapped/x", "argv": ["overwritten"] }),
                json!({ "what": "read", "text": "out/swapped/x" }),
                json!({ "what": "remove", "text": "out/swapped/x" }),
            ]
        })
        .collect();
    let told = raid.told(&raids);
    stop.store(true, Ordering::Relaxed);
    let swaps = swapping.join().unwrap();
    assert!(swaps > 100, "{swaps}");
    assert_eq!(
        std::fs::read_to_string(outside.join("x")).unwrap(),
        "untouched"
    );
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
    assert!(!told.iter().any(|told| told.contains("untouched")));
}
