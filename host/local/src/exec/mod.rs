//! Commands and files of a VM over the SSH server inside it: what `/exec`, `/files` and `/logs` stand on.

mod command;
pub(crate) mod files;
mod registry;
mod ring;
mod session;

pub(crate) use command::Command;
pub(crate) use registry::Execs;
pub(crate) use ring::{Event, Reader, Stream};

/// The longest standard input, and the largest file, in bytes.
pub(crate) const MAX_FILE: usize = 32 << 20;
