//! The bounds of what one call gives the model: pi's own, so that a VM reads like the machine at hand.

pub use pi_vers_sdk::text::size;

/// Most lines of a text result.
pub const MAX_LINES: u64 = 2000;
/// Most bytes of a text result.
pub const MAX_BYTES: usize = 50 * 1024;
/// Largest picture handed to the model, in bytes: with base64 it stays below the 5 MB that models take.
pub const MAX_IMAGE: u64 = 3_750_000;
/// Largest file that `edit` takes, in bytes: up to four copies of it are held, in a memory of 256 MiB by default.
pub const MAX_EDIT: usize = 32 << 20;
/// How far `read` counts a file's lines past the page it shows, in bytes.
pub const MAX_SCAN: u64 = 64 << 20;
/// How much of a command's output is saved to its log on the VM, in bytes.
pub const MAX_LOG: u64 = 64 << 20;
/// Longest script that travels in the argument vector, in bytes; a longer one is staged in a file.
pub const MAX_ARGUMENT: usize = 64 * 1024;
/// Longest matching line that `grep` shows, in characters.
pub const MAX_MATCH: usize = 500;
