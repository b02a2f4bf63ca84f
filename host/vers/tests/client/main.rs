//! The client against servers: a stub of the REST API; and for commands and files a real OpenSSH server with its
//! default limits, behind a TLS terminator.
//!
//! Needs root, and `apt-get install openssh-server`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::mem_forget,
    unreachable_pub
)]

mod commands;
mod connect;
mod edge;
mod exact;
mod files;
mod follow;
mod forward;
mod hostile;
mod lab;
mod rest;
mod silence;
