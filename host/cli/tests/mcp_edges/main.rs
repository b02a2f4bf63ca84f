//! `pi-vers mcp` at its edges: bad lines, ends at any moment, guests that only compute, real clients' openings, forged requests.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::zombie_processes,
    reason = "it is test code: a panic is how it says what is wrong"
)]

#[path = "../common/mod.rs"]
mod common;

mod busy;
mod ends;
mod http;
mod lines;
mod peer;
mod replay;
mod web;
