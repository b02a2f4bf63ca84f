//! Copies between this machine and a VM, against a real OpenSSH server whose "VM" is this machine.
//!
//! Needs root, `apt-get install openssh-server`, GNU tar and find.
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

mod basics;
mod broken;
#[path = "../client/edge.rs"]
mod edge;
mod hostile;
#[path = "../client/lab.rs"]
mod lab;

mod random;
mod tree;
