//! What the targets share: one input at a time, from the engine or from files.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[cfg(feature = "engine")]
pub use libfuzzer_sys;

/// Makes a function of bytes a target.
#[cfg(feature = "engine")]
#[macro_export]
macro_rules! target {
    ($run:path) => {
        $crate::libfuzzer_sys::fuzz_target!(|data: &[u8]| $run(data));
    };
}

/// Makes a function of bytes a program that takes files and directories of them.
#[cfg(not(feature = "engine"))]
#[macro_export]
macro_rules! target {
    ($run:path) => {
        fn main() -> std::process::ExitCode {
            $crate::replay($run)
        }
    };
}

/// Runs every file among the arguments, and every file of every directory among them.
pub fn replay(run: fn(&[u8])) -> ExitCode {
    let mut seen = 0_usize;
    for path in std::env::args_os().skip(1).map(PathBuf::from) {
        for file in files(&path) {
            match std::fs::read(&file) {
                Ok(data) => {
                    seen += 1;
                    run(&data);
                }
                Err(_) => return ExitCode::FAILURE,
            }
        }
    }
    // Nothing looked at is nothing shown.
    if seen > 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn files(path: &Path) -> Vec<PathBuf> {
    match std::fs::read_dir(path) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        Err(_) => vec![path.to_owned()],
    }
}
