//! Where a command's output begins: behind whatever root's profile printed, at the mark that the frame prints.

use bytes::{Buf as _, Bytes, BytesMut};

use super::command::{NO_DIRECTORY, START, START_END};

/// How much of a noisy profile is kept, for the error if nothing follows.
const KEPT: usize = 4096;
/// Digits of a process id.
const LONGEST_PID: usize = 20;

/// What a stretch of output came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Scan {
    /// The mark is not complete yet.
    More,
    /// The command has started with this process id (0 on standard error, where none is given); this is its output.
    Started(u32, Bytes),
    /// Its directory could not be entered.
    NoDirectory,
}

/// Looks for the mark on one output.
#[derive(Debug)]
pub(super) struct StartScanner {
    kept: BytesMut,
    /// Whether the process id follows the mark.
    with_pid: bool,
}

impl StartScanner {
    pub(super) fn new(with_pid: bool) -> Self {
        Self {
            kept: BytesMut::new(),
            with_pid,
        }
    }

    /// What came before the mark, as far as it was kept.
    pub(super) fn noise(&self) -> String {
        crate::error::shown(&String::from_utf8_lossy(&self.kept))
    }

    pub(super) fn feed(&mut self, data: &[u8]) -> Scan {
        self.kept.extend_from_slice(data);
        if find(&self.kept, NO_DIRECTORY).is_some() {
            return Scan::NoDirectory;
        }
        if let Some(at) = find(&self.kept, START) {
            let tail = self.kept.get(at + START.len()..).unwrap_or_default();
            if !self.with_pid {
                let skip = at + START.len();
                self.kept.advance(skip);
                return Scan::Started(0, self.kept.split().freeze());
            }
            if let Some(end) = tail.iter().position(|b| *b == START_END) {
                let pid = tail
                    .get(..end)
                    .and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok())
                    .unwrap_or(0);
                let skip = at + START.len() + end + 1;
                self.kept.advance(skip);
                return Scan::Started(pid, self.kept.split().freeze());
            }
            if tail.len() <= LONGEST_PID {
                return Scan::More;
            }
        }
        // A mark may be cut in two: its beginning stays.
        if self.kept.len() > 2 * KEPT {
            let surplus = self.kept.len() - KEPT;
            self.kept.advance(surplus);
        }
        Scan::More
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn output_behind_the_mark_is_exact_however_it_is_cut(
            noise in prop::collection::vec(0x20u8.., 0..20_000),
            output in prop::collection::vec(any::<u8>(), 0..100),
            cuts in prop::collection::vec(1usize..5000, 1..20),
            pid in 1u32..,
        ) {
            let mut stream = noise;
            stream.extend_from_slice(START);
            stream.extend_from_slice(pid.to_string().as_bytes());
            stream.push(START_END);
            stream.extend_from_slice(&output);
            let mut scanner = StartScanner::new(true);
            let (mut rest, mut cuts, mut got) = (stream.as_slice(), cuts.iter().cycle(), None);
            while !rest.is_empty() {
                let (piece, after) = rest.split_at((*cuts.next().unwrap_or(&1)).min(rest.len()));
                rest = after;
                if let Scan::Started(id, first) = scanner.feed(piece) {
                    prop_assert_eq!(id, pid);
                    got = Some([first.as_ref(), rest].concat());
                    break;
                }
            }
            prop_assert_eq!(got.as_deref(), Some(output.as_slice()));
        }
    }

    #[test]
    fn a_missing_directory_is_told() {
        let mut scanner = StartScanner::new(true);
        assert_eq!(scanner.feed(b"motd\x1evers-no"), Scan::More);
        assert_eq!(scanner.feed(b"dir \x1e"), Scan::NoDirectory);
    }

    #[test]
    fn noise_is_bounded() {
        let mut scanner = StartScanner::new(true);
        for _ in 0..100 {
            assert_eq!(scanner.feed(&[b'x'; 32 << 10]), Scan::More);
        }
        assert!(scanner.kept.len() <= 2 * KEPT);
    }
}
