//! What the tests share.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::path::Path;

use pi_vers_policy::{Decision, Denial, Digest, Grants, Lookup, Policy, Vm};

pub fn digest() -> Digest {
    Digest::of(b"component")
}

pub fn text(body: &str) -> String {
    format!("[extension.x]\ndigest = \"{}\"\n{body}\n", digest())
}

pub fn policy(body: &str) -> Policy {
    Policy::parse(&text(body), "policy.toml").unwrap_or_else(|error| panic!("{error}\n{body}"))
}

/// The grants of this section, in a session at /work with home /home/me.
pub fn grants(body: &str) -> Grants {
    granted(&policy(body))
}

pub fn granted(policy: &Policy) -> Grants {
    match policy.grants("x", &digest()) {
        Lookup::Granted(grants) => grants.at(Path::new("/work"), Some(Path::new("/home/me"))),
        other => panic!("{other:?}"),
    }
}

pub fn denial(decision: Decision) -> Denial {
    match decision {
        Decision::Deny(denial) => denial,
        other => panic!("not denied: {other:?}"),
    }
}

pub const ID: &str = "0a0b0c0d-0000-4000-8000-000000000001";
pub const OTHER: &str = "0a0b0c0d-0000-4000-8000-000000000002";

pub fn vm<'a>(id: &'a str, labels: &'a [(String, String)], own: bool) -> Vm<'a> {
    Vm { id, labels, own }
}

pub fn labels(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

pub fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
