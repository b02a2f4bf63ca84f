//! What an author of extensions and their users do: new, build, test, add, update, lock; through the binary, with a real toolchain.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "it is test code: a panic is how it says what is wrong"
)]

#[path = "../common/mod.rs"]
mod common;

mod dev;
mod lists;
mod lock;
mod oci;
mod pages;
mod project;
mod scripts;
mod server;
mod url;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use common::{BINARY, Home};

/// A home with what cargo needs to find its crates and its compiler, without a network.
pub(crate) fn home() -> Home {
    let mut home = Home::new();
    let real = std::env::home_dir().unwrap();
    let known = |name: &str, below: &str| {
        std::env::var(name).unwrap_or_else(|_| real.join(below).display().to_string())
    };
    home.set("CARGO_HOME", &known("CARGO_HOME", ".cargo"));
    home.set("RUSTUP_HOME", &known("RUSTUP_HOME", ".rustup"));
    if let Ok(toolchain) = std::env::var("RUSTUP_TOOLCHAIN") {
        home.set("RUSTUP_TOOLCHAIN", &toolchain);
    }
    // All crates that the SDK needs were fetched to build the extensions inside the binary.
    home.set("CARGO_NET_OFFLINE", "true");
    home.set("CARGO_TARGET_DIR", &guests().display().to_string());
    home
}

/// Where the guests inside the binary were built: what they share with a project is not compiled again.
fn guests() -> PathBuf {
    let beside = Path::new(BINARY).ancestors().nth(2).unwrap().join("guests");
    std::env::var_os("PI_VERS_GUESTS_TARGET_DIR").map_or(beside, PathBuf::from)
}

/// A project `hello` as `new` makes it, built once for all tests.
pub(crate) struct Built {
    pub(crate) home: Home,
    pub(crate) said: String,
}

pub(crate) fn built() -> &'static Built {
    static BUILT: OnceLock<Built> = OnceLock::new();
    BUILT.get_or_init(|| {
        let home = home();
        let ran = home.run(["new", "hello", "--lang", "rust"]);
        assert_eq!(ran.code, 0, "{ran:?}");
        let ran = home.run(["build", "hello", "--json"]);
        assert_eq!(ran.code, 0, "{ran:?}");
        Built {
            said: ran.out,
            home,
        }
    })
}

impl Built {
    pub(crate) fn project(&self) -> PathBuf {
        self.home.path("work/hello")
    }

    pub(crate) fn wasm(&self) -> Vec<u8> {
        std::fs::read(self.project().join("build/hello.wasm")).unwrap()
    }
}

/// The same component with other bytes: a section that says nothing.
pub(crate) fn other(wasm: &[u8], text: &str) -> Vec<u8> {
    let name = b"note";
    let mut bytes = wasm.to_vec();
    let length = 1 + name.len() + text.len();
    assert!(length < 128);
    bytes.extend([0, length as u8, name.len() as u8]);
    bytes.extend(name);
    bytes.extend(text.as_bytes());
    bytes
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(bytes);
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}
