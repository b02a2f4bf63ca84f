//! The rules of the house: what knows what, what the contract says of itself, what the pages promise.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests say what is wrong by a panic"
)]

mod arrows;
mod book;
mod contract;
mod page;
mod readme;
mod reference;
mod snippets;
