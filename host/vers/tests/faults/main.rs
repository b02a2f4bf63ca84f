//! Following and forwarding through a network that fails on purpose: nothing is lost, nothing is doubled, nothing is
//! wrong, nothing is left.
//!
//! Needs root, and `apt-get install openssh-server`, like the tests of the client.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::mem_forget,
    dead_code,
    unreachable_pub
)]

#[path = "../client/edge.rs"]
mod edge;
#[path = "../../../../tests/src/faults.rs"]
mod faults;
mod follow;
mod forward;
#[path = "../client/lab.rs"]
mod lab;
mod story;

use vers_client::{Api, Ssh};

use faults::Faults;
use lab::Lab;

/// The same faults each time.
const SEED: u64 = 0x5eed;

/// One test at a time: each counts what its process has open.
pub static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A client that reaches the lab's VM only through the failing network.
pub fn ssh(lab: &Lab, faults: &Faults) -> Ssh {
    let settings = lab.settings(&[("VERS_VM_CONNECT", &faults.address().to_string())]);
    Ssh::new(Api::new(settings).unwrap(), lab.options()).unwrap()
}

/// Everything that runs on the lab's VM has this in its environment.
pub fn of_vm(lab: &Lab) -> String {
    format!("HOME={}", lab.dir.path().join("home").display())
}

/// Descriptors that this process has open.
pub fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}
