//! The red team: guests and their bytes against the shipped binary. docs/threats.md says which threat each test stands for.
//!
//! What a guest saw is what counts: the fixture `raider` tells what became of each of its attacks, and the tests look at what the attack
//! would have left, a file, a process, a connection, besides.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::zombie_processes,
    reason = "it is test code: a panic is how it says what is wrong"
)]

#[path = "../common/mod.rs"]
mod common;

mod arguments;
mod bombs;
mod cancels;
mod grants;
mod loops;
mod machines;
mod malformed;
mod patch;
mod paths;
mod processes;
mod raider;
mod raw;
mod secrets;
mod session;
mod texts;
mod urls;
mod web;
