//! This machine, as capabilities need it: processes, files, the store, secrets and HTTP, without any Wasm.
//!
//! Whether something is allowed has been decided before anything here is called. This crate enforces the
//! mechanism of that decision: a path stays beneath its directory, a program is absolute, an address that is
//! dialled is one that was judged, a process group that was stopped is gone.

mod error;
pub mod files;
pub mod http;
pub mod process;
pub mod secrets;
pub mod store;

pub use error::{Error, Kind};

/// Bytes as they come; ends after the first error. Nothing is read ahead of the consumer beyond one chunk.
pub type ByteStream = futures::stream::BoxStream<'static, Result<bytes::Bytes, Error>>;
