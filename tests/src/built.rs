//! What has to be built before a test can run: the binary and guests.
//!
//! Cargo tells a test where the binaries of its own package are, and no others. Its lock on the target directory is free
//! again once tests run, so they ask it to build; after a whole build that is a second.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The root of the repository.
#[must_use]
pub fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    root.canonicalize().expect("the repository is there")
}

/// The target directory that this test or benchmark was built in.
#[must_use]
pub fn target() -> PathBuf {
    // <target>/<profile>/deps/<test>, or <target>/<profile>/<binary>
    let program = std::env::current_exe().expect("a program has a file");
    let levels = if program
        .parent()
        .is_some_and(|directory| directory.ends_with("deps"))
    {
        3
    } else {
        2
    };
    program
        .ancestors()
        .nth(levels)
        .expect("cargo puts programs into <target>/<profile>")
        .to_owned()
}

/// The shipped binary, `pi-vers`; or the one that `PI_VERS_TEST_BINARY` names, for example of a release.
pub fn binary() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        if let Some(given) = std::env::var_os("PI_VERS_TEST_BINARY") {
            return given.into();
        }
        let mut build = cargo(&root());
        build
            .args([
                "build",
                "--release",
                "--locked",
                "-p",
                "pi-vers",
                "--target-dir",
            ])
            .arg(target());
        run(&mut build, "the binary");
        target().join("release/pi-vers")
    })
}

/// The component of an extension that is inside the binary, as its build made it.
#[must_use]
pub fn shipped(name: &str) -> PathBuf {
    binary();
    component(
        &std::env::var_os("PI_VERS_GUESTS_TARGET_DIR")
            .map_or_else(|| target().join("guests"), PathBuf::from),
        name,
    )
}

/// The component of a guest that is there for tests: all of them are built at once.
pub fn fixture(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let guests = BUILT.get_or_init(|| {
        let guests = target().join("fixtures");
        let mut build = cargo(&root().join("extensions"));
        build
            .args([
                "build",
                "--release",
                "--locked",
                "--target",
                "wasm32-wasip2",
                "-p",
                "unruly",
                "-p",
                "crew",
                "-p",
                "showcase",
                "-p",
                "conformance",
                "--target-dir",
            ])
            .arg(&guests);
        run(&mut build, "the guests for tests");
        guests
    });
    component(guests, name)
}

fn component(target: &Path, name: &str) -> PathBuf {
    target
        .join("wasm32-wasip2/release")
        .join(format!("{}.wasm", name.replace('-', "_")))
}

/// A cargo that knows nothing of the one that runs this test.
pub fn cargo(directory: &Path) -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(directory);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if (text.starts_with("CARGO")
            && text != "CARGO_HOME"
            && !text.starts_with("CARGO_NET_")
            && !text.starts_with("CARGO_REGISTR"))
            || ["RUSTFLAGS", "MAKEFLAGS"].contains(&&*text)
        {
            cargo.env_remove(&name);
        }
    }
    cargo
}

/// Runs a command to its end.
///
/// # Panics
/// With all it said, when it fails.
pub fn run(command: &mut Command, what: &str) {
    let output = command
        .output()
        .unwrap_or_else(|why| panic!("{what}: {command:?} does not start: {why}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{what}: {command:?} failed:\n{}\n{said}",
        String::from_utf8_lossy(&output.stdout)
    );
}
