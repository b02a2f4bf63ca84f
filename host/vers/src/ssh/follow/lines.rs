//! Bytes of a growing file made into lines.

use super::Followed;

/// The most bytes of text that a line has. What is left out is counted.
pub(super) const LONGEST: usize = 1 << 20;

/// The line that is being written.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// Where it begins.
    begin: u64,
    /// How much of it came, with what was not kept.
    length: u64,
    /// Its beginning.
    kept: Vec<u8>,
    last: u8,
}

impl Lines {
    /// Expects the byte at this offset next, which begins a line.
    pub(super) fn at(begin: u64) -> Self {
        Self {
            begin,
            ..Self::default()
        }
    }

    /// The offset of the next byte.
    pub(super) fn offset(&self) -> u64 {
        self.begin + self.length
    }

    /// Takes what came next and hands over the lines that it ends.
    pub(super) fn feed(&mut self, data: &[u8], mut line: impl FnMut(Followed)) {
        for part in data.split_inclusive(|byte| *byte == b'\n') {
            match part.strip_suffix(b"\n") {
                None => self.add(part),
                Some(text) => {
                    self.add(text);
                    line(self.end(1));
                }
            }
        }
    }

    /// A last line that has no end.
    pub(super) fn rest(&mut self) -> Option<Followed> {
        (self.length > 0).then(|| self.end(0))
    }

    fn add(&mut self, text: &[u8]) {
        // One more than is handed over: a `\r` at that place may belong to the end.
        let room = LONGEST + 1 - self.kept.len();
        self.kept
            .extend_from_slice(text.get(..room).unwrap_or(text));
        self.length += text.len() as u64;
        self.last = text.last().copied().unwrap_or(self.last);
    }

    fn end(&mut self, newline: u64) -> Followed {
        let return_too = u64::from(newline == 1 && self.length > 0 && self.last == b'\r');
        let length = self.length - return_too;
        self.kept
            .truncate(usize::try_from(length).unwrap_or(usize::MAX));
        let (text, used) = decode(&self.kept, length > self.kept.len() as u64);
        let (offset, next) = (self.begin, self.begin + self.length + newline);
        let kept = std::mem::take(&mut self.kept);
        *self = Self::at(next);
        // A buffer of usual size serves the next line too.
        if kept.capacity() <= 64 << 10 {
            self.kept = kept;
            self.kept.clear();
        }
        Followed::Line {
            offset,
            next,
            text,
            left_out: length - used as u64,
        }
    }
}

/// At most [`LONGEST`] bytes of text, with whole characters, and how many bytes went into it. What is no UTF-8 is
/// replaced; but not a character at the end that is incomplete because the rest of it was not `kept`.
fn decode(bytes: &[u8], more: bool) -> (String, usize) {
    let mut text = String::with_capacity(bytes.len().min(LONGEST));
    let mut used = 0;
    for chunk in bytes.utf8_chunks() {
        let valid = chunk.valid();
        if text.len() + valid.len() > LONGEST {
            let end = valid.floor_char_boundary(LONGEST - text.len());
            text.push_str(valid.get(..end).unwrap_or_default());
            return (text, used + end);
        }
        text.push_str(valid);
        used += valid.len();
        let invalid = chunk.invalid().len();
        let cut = more && used + invalid == bytes.len();
        if invalid == 0 || cut || text.len() + '\u{fffd}'.len_utf8() > LONGEST {
            break;
        }
        text.push('\u{fffd}');
        used += invalid;
    }
    (text, used)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    fn line(followed: &Followed) -> (u64, u64, &str, u64) {
        match followed {
            Followed::Line {
                offset,
                next,
                text,
                left_out,
            } => (*offset, *next, text, *left_out),
            other => panic!("{other:?}"),
        }
    }

    proptest! {
        #[test]
        fn lines_are_those_of_the_whole_however_it_is_cut(
            data in prop::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), Just(0xe2), Just(0x82), Just(0xac), any::<u8>()], 0..400),
            cuts in prop::collection::vec(1usize..30, 1..10),
        ) {
            let mut lines = Lines::default();
            let mut got = Vec::new();
            let (mut rest, mut cuts) = (data.as_slice(), cuts.iter().cycle());
            while !rest.is_empty() {
                let (piece, after) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                rest = after;
                lines.feed(piece, |line| got.push(line));
                prop_assert_eq!(lines.offset() as usize, data.len() - rest.len());
            }
            let unfinished = lines.rest();
            let mut at = 0;
            for (number, part) in data.split_inclusive(|b| *b == b'\n').enumerate() {
                let followed = got.get(number).or(unfinished.as_ref()).unwrap();
                let (offset, next, text, left_out) = line(followed);
                let bare = part.strip_suffix(b"\n").map_or(part, |bare| bare.strip_suffix(b"\r").unwrap_or(bare));
                prop_assert_eq!((offset, next, left_out), (at, at + part.len() as u64, 0));
                prop_assert_eq!(text, String::from_utf8_lossy(bare));
                at = next;
            }
            prop_assert_eq!(at as usize, data.len());
        }
    }

    #[test]
    fn a_long_line_is_cut_at_a_character_and_counted() {
        for (unit, end) in [("x", "\n"), ("\u{20ac}", "\r\n"), ("\u{1f600}", "\n")] {
            for length in [LONGEST - 1, LONGEST, LONGEST + 1, 3 * LONGEST] {
                let whole = unit.repeat(length / unit.len());
                let mut lines = Lines::at(5);
                let mut got = Vec::new();
                for chunk in format!("{whole}{end}").as_bytes().chunks(32_001) {
                    lines.feed(chunk, |line| got.push(line));
                }
                assert_eq!(got.len(), 1);
                let (offset, next, text, left_out) = line(&got[0]);
                assert_eq!((offset, next), (5, 5 + (whole.len() + end.len()) as u64));
                assert!(whole.starts_with(text) && text.len() <= LONGEST);
                assert!(text.len() > LONGEST - 4 || text.len() == whole.len());
                assert_eq!(text.len() as u64 + left_out, whole.len() as u64);
                assert!(lines.kept.capacity() <= 64 << 10);
            }
        }
        // Replacements are longer than what they stand for.
        let mut lines = Lines::default();
        let mut got = Vec::new();
        lines.feed(&[vec![0xff; LONGEST], vec![b'\n']].concat(), |line| {
            got.push(line);
        });
        let (_, _, text, left_out) = line(&got[0]);
        assert_eq!(text.chars().count(), LONGEST / 3);
        assert_eq!(left_out as usize, LONGEST - LONGEST / 3);
    }
}
