//! `pi-vers bridge`, with a scripted shim for the harness.

mod end;
mod guest;
mod protocol;
pub(crate) mod shim;
mod vms;
