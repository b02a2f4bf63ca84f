//! Every input that is kept, once: the seeds of the fuzz targets, and whatever they once fell over.

#![allow(clippy::unwrap_used, clippy::panic, reason = "it is test code")]

use std::path::Path;
use std::process::Command;

fn replay(target: &str, program: &str) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target);
    let ran = Command::new(program).arg(&corpus).output().unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{target}: {:?} {said}", ran.status);
}

macro_rules! replays {
    ($($target:ident = $program:literal)*) => {
        $(#[test]
        fn $target() {
            replay(stringify!($target), env!(concat!("CARGO_BIN_EXE_", $program)));
        })*
    };
}

replays! {
    component = "fuzz-component"
    policy = "fuzz-policy"
    arguments = "fuzz-arguments"
    frames = "fuzz-frames"
    rest = "fuzz-rest"
    sftp = "fuzz-sftp"
    tar = "fuzz-tar"
}
