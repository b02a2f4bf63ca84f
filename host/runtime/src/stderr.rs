//! The end of what a guest wrote to standard error: why it aborted, in its own words.
//!
//! A panic of Rust, a traceback of Python and the script runner's complaint about a script all end in a trap that says nothing. What
//! was written before says it. Only the end is kept, so a guest that writes without end costs a few KiB.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

/// Bytes that are kept.
const KEPT: usize = 4096;
/// Bytes that are taken at a time.
const AT_A_TIME: usize = 64 * 1024;
/// Characters that are shown.
const SHOWN: usize = 500;

/// Shared by the guest's stream and whoever reads it afterwards.
#[derive(Clone, Default)]
pub(crate) struct Stderr(Arc<Mutex<VecDeque<u8>>>);

impl Stderr {
    fn keep(&self, bytes: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let end = bytes
            .get(bytes.len().saturating_sub(KEPT)..)
            .unwrap_or_default();
        let over = (kept.len() + end.len()).saturating_sub(KEPT);
        let over = over.min(kept.len());
        kept.drain(..over);
        kept.extend(end);
    }

    /// The last of it on one line, if there is any. `clean` takes secrets out, before anything is cut.
    pub(crate) fn last(&self, clean: impl FnOnce(&str) -> String) -> Option<String> {
        let kept: Vec<u8> = {
            let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            kept.iter().copied().collect()
        };
        let text = clean(&String::from_utf8_lossy(&kept));
        let lines: Vec<&str> = text
            .lines()
            .map(str::trim)
            // Rust's advice is for who runs the program.
            .filter(|line| !line.is_empty() && !line.starts_with("note: run with `RUST_BACKTRACE"))
            .collect();
        let joined = crate::types::visible(&lines.join(" "));
        let count = joined.chars().count();
        let shown: String = joined.chars().skip(count.saturating_sub(SHOWN)).collect();
        (!shown.is_empty()).then_some(shown)
    }
}

impl IsTerminal for Stderr {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Stderr {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    fn async_stream(&self) -> Box<dyn tokio::io::AsyncWrite + Send + Sync> {
        // WASI 0.3 alone asks for this, and the host does not offer it.
        Box::new(tokio::io::sink())
    }
}

impl OutputStream for Stderr {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.keep(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(AT_A_TIME)
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Stderr {
    async fn ready(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_kept_and_shown_on_one_line() {
        let stderr = Stderr::default();
        assert_eq!(stderr.last(str::to_owned), None);
        stderr.keep("x".repeat(10_000).as_bytes());
        stderr.keep(
            b"\nthread panicked at a.rs:1:\n  oh \x1b[2J no\nnote: run with `RUST_BACKTRACE=1`\n",
        );
        let last = stderr.last(str::to_owned).unwrap_or_default();
        assert!(last.contains("thread panicked at a.rs:1: oh"), "{last}");
        assert!(
            last.chars().count() <= SHOWN && !last.contains('\x1b'),
            "{last}"
        );
        stderr.keep(&[b'y'; 5000]);
        assert!(
            stderr
                .last(str::to_owned)
                .is_some_and(|last| last.bytes().all(|b| b == b'y'))
        );
    }
}
