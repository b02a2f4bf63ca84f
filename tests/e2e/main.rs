//! End to end, through the shipped binary and the local platform.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests say what is wrong by a panic"
)]

mod agent;
mod background;
mod bad_input;
mod behaviour;
mod bridge;
mod chaos;
mod copy;
mod core;
mod desk;
mod guest;
mod lab;
mod lieutenant;
mod plan;
mod roundtrip;
mod script;
mod sdk;
mod secrets;
mod ssh;
mod survival;
mod swarm;
