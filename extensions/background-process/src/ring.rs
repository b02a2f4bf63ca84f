//! The newest lines of an output.
//!
//! Bytes come in chunks of any size. A line is kept whole, however many chunks it came in: characters are decoded across their
//! borders, and a line that has no end yet is kept apart until it has. What is kept is bounded in lines and in bytes, and what
//! was dropped for that is counted: a process that writes for days never costs more, and a reader knows what is missing.

use std::collections::VecDeque;

use pi_vers_sdk::printable::Printable;
use pi_vers_sdk::text::{Decoder, size};

/// Most lines kept of one output.
pub const MAX_LINES: usize = 2000;
/// Most bytes kept of one output.
pub const MAX_BYTES: usize = 256 * 1024;
/// Most bytes kept of one line; of a longer one, its beginning.
pub const MAX_LINE: usize = 16 * 1024;

/// The end of an output, in whole lines.
#[derive(Debug, Default)]
pub struct Ring {
    decoder: Decoder,
    printable: Printable,
    lines: VecDeque<String>,
    /// Of all lines kept.
    bytes: usize,
    /// A line without an end so far.
    open: String,
    /// Bytes of that line that did not fit.
    open_left_out: u64,
    dropped: u64,
}

/// What is shown of a ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Lines, oldest first.
    pub lines: Vec<String>,
    /// Lines that are gone for good: more came than are kept.
    pub dropped: u64,
    /// Lines asked for that are there and did not fit.
    pub unfit: u64,
}

impl Ring {
    /// Takes in what came. `line` sees every line that has got its end, and then the one that has none yet, if any.
    pub fn push(&mut self, bytes: &[u8], line: &mut dyn FnMut(&str)) {
        let mut decoded = String::new();
        self.decoder.push(bytes, &mut decoded);
        self.take(&decoded, line);
        if !self.open.is_empty() {
            line(&self.open);
        }
    }

    /// The output has ended: a last line without an end is one, too.
    pub fn finish(&mut self, line: &mut dyn FnMut(&str)) {
        let mut rest = String::new();
        self.decoder.finish(&mut rest);
        self.take(&rest, line);
        let mut end = String::new();
        self.printable.finish(&mut end);
        self.append(&end, line);
        if !self.open.is_empty() {
            self.close(line);
        }
    }

    /// The newest `most` lines, as far as they fit into `fits` bytes. At least one line, if there is one.
    #[must_use]
    pub fn last(&self, most: usize, fits: usize) -> Shown {
        let open = (!self.open.is_empty()).then(|| told(&self.open, self.open_left_out));
        let newest_first = open.into_iter().chain(self.lines.iter().rev().cloned());
        let (mut lines, mut bytes, mut unfit) = (Vec::new(), 0, 0);
        for line in newest_first.take(most) {
            bytes += line.len() + 1;
            if unfit == 0 && (bytes <= fits || lines.is_empty()) {
                lines.push(line);
            } else {
                unfit += 1;
            }
        }
        lines.reverse();
        Shown {
            lines,
            dropped: self.dropped,
            unfit,
        }
    }

    /// Lines that are gone for good.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn take(&mut self, decoded: &str, line: &mut dyn FnMut(&str)) {
        let mut text = String::new();
        self.printable.push(decoded, &mut text);
        self.append(&text, line);
    }

    fn append(&mut self, text: &str, line: &mut dyn FnMut(&str)) {
        for piece in text.split_inclusive('\n') {
            let (body, ended) = match piece.strip_suffix('\n') {
                Some(body) => (body, true),
                None => (piece, false),
            };
            let room = MAX_LINE.saturating_sub(self.open.len());
            // Once something was left out, nothing comes after it.
            let fits = match self.open_left_out {
                0 => body.floor_char_boundary(room),
                _ => 0,
            };
            self.open.push_str(body.get(..fits).unwrap_or_default());
            self.open_left_out += (body.len() - fits) as u64;
            if ended {
                self.close(line);
            }
        }
    }

    fn close(&mut self, line: &mut dyn FnMut(&str)) {
        let whole = told(
            &std::mem::take(&mut self.open),
            std::mem::take(&mut self.open_left_out),
        );
        line(&whole);
        self.bytes += whole.len();
        self.lines.push_back(whole);
        while self.lines.len() > MAX_LINES || self.bytes > MAX_BYTES {
            let Some(oldest) = self.lines.pop_front() else {
                return;
            };
            self.bytes -= oldest.len();
            self.dropped += 1;
        }
    }
}

/// A line, and what is missing at its end.
fn told(line: &str, left_out: u64) -> String {
    match left_out {
        0 => line.to_owned(),
        _ => format!("{line} [{} of this line left out]", size(left_out)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ring(chunks: &[&[u8]], finish: bool) -> (Ring, Vec<String>) {
        let (mut ring, mut seen) = (Ring::default(), Vec::new());
        for chunk in chunks {
            ring.push(chunk, &mut |line| seen.push(line.to_owned()));
        }
        if finish {
            ring.finish(&mut |line| seen.push(line.to_owned()));
        }
        (ring, seen)
    }

    fn lines(ring: &Ring) -> Vec<String> {
        ring.last(usize::MAX, usize::MAX).lines
    }

    #[test]
    fn partial_lines_and_characters_are_not_split_at_chunk_borders() {
        let (kept, _) = ring(&[b"one\ntw", b"o \xe2\x82", b"\xac\nthr"], false);
        assert_eq!(lines(&kept), ["one", "two €", "thr"]);
        let (kept, _) = ring(&[b"a\r", b"\nb\r\n", b"\x1b[3", b"1mred\x1b[0m"], true);
        assert_eq!(lines(&kept), ["a", "b", "red"]);
        let (kept, _) = ring(&[b"", b"\n\n", b"x\xff"], true);
        assert_eq!(lines(&kept), ["", "", "x\u{fffd}"]);
    }

    #[test]
    fn every_line_is_seen_whole_and_the_open_one_as_it_grows() {
        let (_, seen) = ring(&[b"a\nb", b"c", b"\n"], true);
        assert_eq!(seen, ["a", "b", "bc", "bc"]);
    }

    #[test]
    fn lines_beyond_the_bound_are_dropped_and_counted() {
        let text: String = (0..MAX_LINES + 5).map(|n| format!("{n}\n")).collect();
        let (kept, _) = ring(&[text.as_bytes()], true);
        let shown = kept.last(2, usize::MAX);
        assert_eq!(
            shown,
            Shown {
                lines: vec![(MAX_LINES + 3).to_string(), (MAX_LINES + 4).to_string()],
                dropped: 5,
                unfit: 0
            }
        );
        assert_eq!(lines(&kept).len(), MAX_LINES);
    }

    #[test]
    fn a_long_line_keeps_its_beginning_and_says_what_is_missing() {
        let long = "é".repeat(MAX_LINE);
        let (kept, _) = ring(&[long.as_bytes(), b"\nnext"], true);
        let kept = lines(&kept);
        assert!(
            kept.first()
                .is_some_and(|line| line.ends_with(" [16.0KB of this line left out]"))
        );
        assert_eq!(kept.last().map(String::as_str), Some("next"));
    }

    #[test]
    fn what_does_not_fit_is_told_and_the_newest_line_always_comes() {
        let (kept, _) = ring(&[b"aaaa\nbbbb\ncccc\n"], true);
        let shown = kept.last(3, 10);
        assert_eq!(
            (shown.lines, shown.unfit),
            (vec!["bbbb".to_owned(), "cccc".to_owned()], 1)
        );
        let shown = kept.last(3, 0);
        assert_eq!((shown.lines, shown.unfit), (vec!["cccc".to_owned()], 2));
        assert_eq!(kept.last(0, 10).lines, Vec::<String>::new());
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_lines(bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), any::<u8>()], 0..200), cuts in proptest::collection::vec(0usize..200, 0..8)) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.sort_unstable();
            let mut chunks = Vec::new();
            let mut from = 0;
            for cut in cuts {
                chunks.push(bytes.get(from..cut).unwrap_or_default());
                from = cut;
            }
            chunks.push(bytes.get(from..).unwrap_or_default());
            let (pieces, _) = ring(&chunks, true);
            let (whole, _) = ring(&[&bytes], true);
            prop_assert_eq!(lines(&pieces), lines(&whole));
        }

        #[test]
        fn memory_is_bounded_whatever_comes(sizes in proptest::collection::vec((0usize..40_000, any::<bool>()), 0..60)) {
            let mut kept = Ring::default();
            for (size, end) in sizes {
                let mut chunk = vec![b'x'; size];
                if end { chunk.push(b'\n'); }
                kept.push(&chunk, &mut |_| {});
                prop_assert!(kept.bytes <= MAX_BYTES && kept.lines.len() <= MAX_LINES && kept.open.len() <= MAX_LINE);
                prop_assert_eq!(kept.bytes, kept.lines.iter().map(String::len).sum::<usize>());
            }
        }
    }
}
