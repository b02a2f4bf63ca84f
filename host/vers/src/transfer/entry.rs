//! What is copied, as both sides see it: a flat list in which a directory comes before what it holds.

use pi_vers_system::files::tree::{Name, Stretch, Time};

use crate::error::shown;

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// Made before what it holds; gets its mode and time last.
    Directory,
    /// Its bytes are fetched apart from the list.
    File { size: u64, sparse: bool },
    /// What it says.
    Link(Vec<u8>),
}

/// One entry of the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Relative to the source, parts joined by `/`; empty for the source itself.
    pub(super) path: Vec<u8>,
    pub(super) kind: Kind,
    /// Permission bits.
    pub(super) mode: u32,
    pub(super) modified: Time,
}

impl Entry {
    /// Bytes of its content, if it is a file.
    pub(super) fn size(&self) -> u64 {
        match self.kind {
            Kind::File { size, .. } => size,
            _ => 0,
        }
    }

    /// For a message.
    pub(super) fn shown(&self) -> String {
        path_shown(&self.path)
    }
}

pub(super) fn path_shown(path: &[u8]) -> String {
    if path.is_empty() {
        return "the source itself".to_owned();
    }
    shown(&String::from_utf8_lossy(path))
}

/// The parts of a relative path; `None` if one of them would lead elsewhere.
pub(super) fn parts(path: &[u8]) -> Option<Vec<Name>> {
    if path.is_empty() {
        return Some(Vec::new());
    }
    path.split(|byte| *byte == b'/').map(Name::new).collect()
}

/// What the source turned out to have.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) entries: Vec<Entry>,
    /// Devices, sockets, pipes.
    pub(super) left_out: u64,
}

impl Listing {
    pub(super) fn is_directory(&self) -> bool {
        matches!(self.entries.first(), Some(first) if first.kind == Kind::Directory)
    }
}

/// A small file, whole.
#[derive(Debug)]
pub(super) struct Content {
    /// Which entry it is of.
    pub(super) index: usize,
    pub(super) size: u64,
    pub(super) mode: u32,
    pub(super) modified: Time,
    /// Where the data belongs; holes lie between. Its lengths add up to that of `data`.
    pub(super) stretches: Vec<Stretch>,
    pub(super) data: bytes::Bytes,
}

/// On the way from the source of a batch to its sink.
#[derive(Debug)]
pub(super) enum Item {
    File(Content),
    /// There is no more. Without this the source has failed.
    End,
}

/// What a big file is, as far as it must not change until all of it has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) size: u64,
    pub(super) mode: u32,
    pub(super) modified: Time,
    pub(super) stretches: Vec<Stretch>,
    /// Bytes that come before the data where the source sends it, every time.
    pub(super) prefix: u64,
}

impl Head {
    /// Bytes that travel: the holes left out.
    pub(super) fn data(&self) -> u64 {
        self.stretches.iter().map(|(_, length)| length).sum()
    }

    /// The stretches that are left from this position in the data on.
    pub(super) fn rest(&self, mut position: u64) -> Vec<Stretch> {
        let mut rest = Vec::new();
        for (offset, length) in &self.stretches {
            if position >= *length {
                position -= length;
            } else {
                rest.push((offset + position, length - position));
                position = 0;
            }
        }
        rest
    }

    /// The position in the data that a file of this length has come to.
    pub(super) fn position(&self, written: u64) -> u64 {
        self.stretches
            .iter()
            .map(|(offset, length)| written.saturating_sub(*offset).min(*length))
            .sum()
    }
}

/// On the way from the source of a big file to its sink.
#[derive(Debug)]
pub(super) enum Piece {
    /// Comes first.
    Head(Head),
    Data(bytes::Bytes),
    /// There is no more. Without this the source has failed.
    End,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_that_lead_elsewhere_have_no_parts() {
        for bad in ["/", "/etc", "a/../b", "..", "./a", "a//b", "a/", "."] {
            assert_eq!(parts(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(parts(b"a/ b/\xff").unwrap().len(), 3);
        assert_eq!(parts(b"").unwrap().len(), 0);
    }

    proptest! {
        #[test]
        fn a_position_and_what_is_left_fit_together(lengths in prop::collection::vec((0u64..100, 1u64..100), 1..10), cut in 0u64..1000) {
            let mut at = 0;
            let stretches: Vec<_> = lengths
                .into_iter()
                .map(|(gap, length)| {
                    let start = at + gap;
                    at = start + length;
                    (start, length)
                })
                .collect();
            let head = Head { size: at, mode: 0, modified: Time::default(), stretches, prefix: 0 };
            let position = cut.min(head.data());
            let rest = head.rest(position);
            prop_assert_eq!(rest.iter().map(|(_, length)| length).sum::<u64>(), head.data() - position);
            if let Some((offset, _)) = rest.first() {
                // The file's length is the end of what was written, at most a hole before what comes next.
                prop_assert_eq!(head.position(*offset), position);
            }
            prop_assert_eq!(head.position(at), head.data());
        }
    }
}
