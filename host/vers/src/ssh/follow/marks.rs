//! What the script on the VM says in between: marked lines within the followed file's bytes.
//!
//! Two outputs of a command arrive in no order, so what the script says has to come on the same one as the data, and
//! the data may be anything. So each of its lines begins with a mark that is drawn anew for each start, from numbers
//! enough that no file has it by chance. A file that holds the mark of a running follow on purpose misleads that
//! follow, and nobody else.

use bytes::{Buf as _, Bytes, BytesMut};

/// Longer than anything that the script says.
const LONGEST: usize = 1024;

/// A stretch of what came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Of the file.
    Data(Bytes),
    /// What the script said.
    Said(String),
}

/// Takes the two apart.
#[derive(Debug)]
pub(super) struct Marks {
    mark: Vec<u8>,
    held: BytesMut,
}

impl Marks {
    /// `word` is what the script was given.
    pub(super) fn new(word: &str) -> Self {
        Self {
            mark: format!("\x1e{word} ").into_bytes(),
            held: BytesMut::new(),
        }
    }

    pub(super) fn feed(&mut self, data: &[u8]) {
        self.held.extend_from_slice(data);
    }

    /// The next piece that is certain. What may be the beginning of a mark waits for more.
    pub(super) fn next(&mut self) -> Option<Piece> {
        let (at, whole) = self.find()?;
        if at > 0 {
            return Some(Piece::Data(self.held.split_to(at).freeze()));
        }
        if !whole {
            return None;
        }
        let text = self.held.get(self.mark.len()..).unwrap_or_default();
        match text.iter().take(LONGEST).position(|byte| *byte == b'\n') {
            Some(end) => {
                let said = String::from_utf8_lossy(text.get(..end).unwrap_or_default()).into();
                self.held.advance(self.mark.len() + end + 1);
                Some(Piece::Said(said))
            }
            None if text.len() >= LONGEST => {
                let mark = self.mark.len();
                Some(Piece::Data(self.held.split_to(mark).freeze()))
            }
            None => None,
        }
    }

    /// Where the next mark begins and whether it is there in full; else the end of what is held. `None`: nothing is held.
    fn find(&self) -> Option<(usize, bool)> {
        let first = *self.mark.first()?;
        let mut from = 0;
        while let Some(rest) = self.held.get(from..).filter(|rest| !rest.is_empty()) {
            let Some(at) = rest.iter().position(|byte| *byte == first) else {
                break;
            };
            let there = rest.get(at..).unwrap_or_default();
            if there.starts_with(&self.mark) {
                return Some((from + at, true));
            }
            if self.mark.starts_with(there) {
                return Some((from + at, false));
            }
            from += at + 1;
        }
        (!self.held.is_empty()).then_some((self.held.len(), false))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Part {
        Data(Vec<u8>),
        Said(String),
    }

    proptest! {
        #[test]
        fn data_and_speech_come_apart_however_they_are_cut(
            parts in prop::collection::vec(prop_oneof![
                // Beginnings of marks are among the data.
                prop::collection::vec(prop_oneof![Just(0x1e), Just(b'w'), Just(b' '), any::<u8>()], 0..40).prop_map(Part::Data),
                "[a-z0-9 :.-]{0,30}".prop_map(Part::Said),
            ], 0..20),
            cuts in prop::collection::vec(1usize..50, 1..20),
        ) {
            let mark = b"\x1ewww ";
            let (mut stream, mut data, mut said) = (Vec::new(), Vec::new(), Vec::new());
            for part in &parts {
                match part {
                    Part::Data(bytes) => { stream.extend_from_slice(bytes); data.extend_from_slice(bytes); }
                    Part::Said(text) => {
                        said.push((data.len(), text.clone()));
                        stream.extend_from_slice(mark);
                        stream.extend_from_slice(text.as_bytes());
                        stream.push(b'\n');
                    }
                }
            }
            // A mark in the data itself is another test's matter.
            prop_assume!(!data.windows(mark.len()).any(|window| window == mark));
            let mut marks = Marks::new("www");
            let (mut got, mut heard) = (Vec::new(), Vec::new());
            let (mut rest, mut cuts) = (stream.as_slice(), cuts.iter().cycle());
            while !rest.is_empty() {
                let (piece, after) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                rest = after;
                marks.feed(piece);
                while let Some(piece) = marks.next() {
                    match piece {
                        Piece::Data(bytes) => got.extend_from_slice(&bytes),
                        Piece::Said(text) => heard.push((got.len(), text)),
                    }
                }
            }
            got.extend_from_slice(&marks.held);
            prop_assert_eq!(got, data);
            prop_assert_eq!(heard, said);
        }
    }

    #[test]
    fn what_is_held_is_bounded() {
        let mut marks = Marks::new("www");
        for _ in 0..10_000 {
            marks.feed(b"\x1ewww xxxxx");
            while marks.next().is_some() {}
        }
        assert!(marks.held.len() < 2 * LONGEST);
    }
}
