//! The platform as its users meet it: over HTTP and TLS, with real sandboxes. Needs what a tier needs (root, or user
//! namespaces); without, every test fails and says what is missing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod detached;
mod edge;
mod errors;
mod exec;
mod lab;
mod login;
mod vms;
