//! A page of a text file: the lines from `offset` on, within the limits, and how many lines the file has.
//!
//! The file comes as a stream and only the page is kept. Lines are counted as editors count them: a final line end
//! does not begin another line, and a last line without one counts. Bytes decide what a line is; text is made from the
//! whole page, so nothing is cut inside a character.

use memchr::{memchr, memchr_iter};

use crate::limits::{MAX_BYTES, MAX_LINES, MAX_SCAN, size};

/// Collects a page while the file streams by.
#[derive(Debug)]
pub struct Pager {
    offset: u64,
    limit: u64,
    kept: Vec<u8>,
    /// Length of `kept` at the start of the open line.
    line_start: usize,
    /// Whole lines in `kept`.
    lines: u64,
    /// Line ends seen in the file.
    newlines: u64,
    /// Whether the file's last byte so far is no line end.
    open: bool,
    scanned: u64,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before or in the page.
    Taking,
    /// In the page's first line, which is too long to be shown; its bytes so far.
    Long(u64),
    /// The page is settled; what follows is only counted.
    Full(Full),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Full {
    Asked,
    Lines,
    Bytes,
    Long(u64),
}

/// What `read` shows.
#[derive(Debug, PartialEq, Eq)]
pub enum Page {
    /// Text, with the notice about what follows if there is more.
    Text {
        /// For the model.
        text: String,
        /// `details.truncation` in pi's form, where a limit cut it.
        truncation: Option<serde_json::Value>,
    },
    /// The file has no bytes.
    Empty,
    /// The file ends before `offset`; carries its number of lines.
    Beyond(u64),
    /// The line at `offset` alone is longer than a page; carries its number and its bytes.
    LongLine(u64, u64),
}

impl Pager {
    /// A page from line `offset` (1-based), of at most `limit` lines.
    #[must_use]
    pub fn new(offset: Option<u64>, limit: Option<u64>) -> Self {
        Self {
            offset: offset.unwrap_or(1).max(1),
            limit: limit.unwrap_or(u64::MAX).max(1),
            kept: Vec::new(),
            line_start: 0,
            lines: 0,
            newlines: 0,
            open: false,
            scanned: 0,
            state: State::Taking,
        }
    }

    /// Whether more of the file could change the page; counting ends [`MAX_SCAN`] bytes into the file.
    #[must_use]
    pub fn wants_more(&self) -> bool {
        self.state == State::Taking || self.scanned < MAX_SCAN
    }

    /// The next bytes of the file.
    pub fn push(&mut self, mut bytes: &[u8]) {
        self.scanned += bytes.len() as u64;
        self.open = bytes.last().map_or(self.open, |last| *last != b'\n');
        while !bytes.is_empty() && !matches!(self.state, State::Full(_)) {
            let end = memchr(b'\n', bytes);
            let (line, rest) = bytes.split_at(end.map_or(bytes.len(), |at| at + 1));
            self.take(line, end.is_some());
            bytes = rest;
        }
        self.newlines += memchr_iter(b'\n', bytes).count() as u64;
    }

    /// A piece of one line, with its end if that has come.
    fn take(&mut self, line: &[u8], ended: bool) {
        let text = line.len() - usize::from(ended);
        if let State::Long(before) = self.state {
            self.state = self.long(before + text as u64, ended);
        } else if self.newlines + 1 >= self.offset {
            if self.lines >= self.limit {
                self.state = State::Full(Full::Asked);
            } else if self.lines >= MAX_LINES {
                self.state = State::Full(Full::Lines);
            } else if self.kept.len() + text <= MAX_BYTES {
                self.kept.extend_from_slice(line);
                if ended {
                    self.lines += 1;
                    self.line_start = self.kept.len();
                }
            } else if self.lines == 0 {
                self.state = self.long((self.kept.len() + text) as u64, ended);
                self.kept.clear();
            } else {
                self.kept.truncate(self.line_start);
                self.state = State::Full(Full::Bytes);
            }
        }
        self.newlines += u64::from(ended);
    }

    fn long(&self, bytes: u64, ended: bool) -> State {
        if ended {
            State::Full(Full::Long(bytes))
        } else {
            State::Long(bytes)
        }
    }

    /// The page. `complete`: the file has ended, rather than [`Self::wants_more`].
    #[must_use]
    pub fn finish(mut self, complete: bool) -> Page {
        let total = self.newlines + u64::from(self.open);
        if let State::Long(bytes) | State::Full(Full::Long(bytes)) = self.state {
            return Page::LongLine(self.offset, bytes);
        }
        if self.offset > total.max(1) {
            return Page::Beyond(total);
        }
        if self.scanned == 0 {
            return Page::Empty;
        }
        let shown = self.lines + u64::from(self.kept.len() > self.line_start);
        let last = self.offset + shown - 1;
        if last == total && complete {
            return Page::Text {
                text: lossy(&self.kept),
                truncation: None,
            };
        }
        if self.kept.ends_with(b"\n") {
            self.kept.pop();
        }
        let bytes = self.kept.len();
        let first = self.offset;
        let at_least = if complete { "" } else { "at least " };
        let notice = format!(
            "\n\n[Showing lines {first}-{last} of {at_least}{total}. Use offset={} to continue.]",
            last + 1
        );
        let by = match self.state {
            State::Full(Full::Lines) => Some("lines"),
            State::Full(Full::Bytes) => Some("bytes"),
            _ => None,
        };
        let truncation = by.map(|by| {
            serde_json::json!({
                "truncated": true,
                "truncatedBy": by,
                "totalLines": total,
                "outputLines": shown,
                "outputBytes": bytes,
                "lastLinePartial": false,
                "firstLineExceedsLimit": false,
                "maxLines": MAX_LINES,
                "maxBytes": MAX_BYTES,
            })
        });
        Page::Text {
            text: lossy(&self.kept) + &notice,
            truncation,
        }
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What to say instead of a line that is longer than a page.
#[must_use]
pub fn long_line(path: &str, line: u64, bytes: u64) -> String {
    format!(
        "[Line {line} is {}, exceeds {} limit. Use bash: sed -n '{line}p' {} | head -c {MAX_BYTES}]",
        size(bytes),
        size(MAX_BYTES as u64),
        crate::paths::quoted(path)
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn page(file: &[u8], offset: Option<u64>, limit: Option<u64>) -> Page {
        let mut pager = Pager::new(offset, limit);
        pager.push(file);
        pager.finish(true)
    }

    fn text(file: &str, offset: u64, limit: Option<u64>) -> String {
        match page(file.as_bytes(), Some(offset), limit) {
            Page::Text { text, .. } => text,
            other => unreachable!("{other:?}"),
        }
    }

    #[test]
    fn a_whole_file_comes_byte_for_byte() {
        for file in ["a\nb\n", "a\nb", "\n", "\n\nx", "a\r\nb\r\n"] {
            assert_eq!(text(file, 1, None), file);
        }
        assert_eq!(page(b"", None, None), Page::Empty);
    }

    #[test]
    fn a_final_line_end_is_not_another_line() {
        assert_eq!(
            text("a\nb\nc\n", 1, Some(2)),
            "a\nb\n\n[Showing lines 1-2 of 3. Use offset=3 to continue.]"
        );
        assert_eq!(
            text("a\nb\nc", 1, Some(2)),
            "a\nb\n\n[Showing lines 1-2 of 3. Use offset=3 to continue.]"
        );
        assert_eq!(text("a\nb\nc\n", 3, Some(9)), "c\n");
        assert_eq!(text("a\nb\nc", 3, None), "c");
        assert_eq!(text("a\nb\nc\n", 2, Some(2)), "b\nc\n");
    }

    #[test]
    fn the_continuation_hint_never_skips_a_line() {
        let file: String = (1..=4500).map(|i| format!("{i}\n")).collect();
        let first = text(&file, 1, None);
        assert!(
            first.ends_with(
                "\n2000\n\n[Showing lines 1-2000 of 4500. Use offset=2001 to continue.]"
            )
        );
        let second = text(&file, 2001, None);
        assert!(second.starts_with("2001\n"));
        assert!(second.ends_with(
            "\n4000\n\n[Showing lines 2001-4000 of 4500. Use offset=4001 to continue.]"
        ));
        assert!(text(&file, 4001, None).ends_with("\n4500\n"));
    }

    #[test]
    fn beyond_the_end_says_how_long_the_file_is() {
        assert_eq!(page(b"a\nb\n", Some(3), None), Page::Beyond(2));
        assert_eq!(page(b"a\nb", Some(3), None), Page::Beyond(2));
        assert_eq!(page(b"", Some(2), None), Page::Beyond(0));
        assert_eq!(text("a\nb", 2, None), "b");
    }

    #[test]
    fn wide_lines_end_the_page_at_a_line_border() {
        let file = format!("{}\n", "x".repeat(999)).repeat(100);
        let shown = text(&file, 1, None);
        assert!(
            shown.contains("[Showing lines 1-51 of 100. Use offset=52 to continue.]"),
            "{}",
            &shown[shown.len() - 90..]
        );
    }

    #[test]
    fn a_line_longer_than_a_page_is_named_with_its_length() {
        let long = "y".repeat(60_000);
        assert_eq!(
            page(format!("a\n{long}\nb").as_bytes(), Some(2), None),
            Page::LongLine(2, 60_000)
        );
        assert_eq!(page(long.as_bytes(), None, None), Page::LongLine(1, 60_000));
        let before = text(&format!("a\n{long}\n"), 1, None);
        assert_eq!(
            before,
            "a\n\n[Showing lines 1-1 of 2. Use offset=2 to continue.]"
        );
        assert!(long_line("it's.txt", 2, 60_000).contains(r"sed -n '2p' 'it'\''s.txt'"));
    }

    #[test]
    fn a_page_of_a_file_too_long_to_count_says_at_least() {
        let mut pager = Pager::new(None, Some(1));
        pager.push(b"a\nb\nc\n");
        match pager.finish(false) {
            Page::Text { text, .. } => assert!(
                text.ends_with("[Showing lines 1-1 of at least 3. Use offset=2 to continue.]")
            ),
            other => unreachable!("{other:?}"),
        }
    }

    proptest! {
        #[test]
        fn any_chunks_and_any_window_agree_with_plain_splitting(
            file in "[ab\r\n]{0,80}", offset in 1u64..12, limit in proptest::option::of(1u64..6), step in 1usize..9
        ) {
            let mut pager = Pager::new(Some(offset), limit);
            for chunk in file.as_bytes().chunks(step) {
                pager.push(chunk);
            }
            let lines: Vec<&str> = file.split_inclusive('\n').collect();
            let from = usize::try_from(offset).unwrap() - 1;
            match pager.finish(true) {
                Page::Empty => prop_assert!(file.is_empty() && offset == 1),
                Page::Beyond(n) => prop_assert!(n == lines.len() as u64 && (from >= lines.len())),
                Page::LongLine(..) => prop_assert!(false),
                Page::Text { text, truncation } => {
                    let take = limit.map_or(usize::MAX, |l| usize::try_from(l).unwrap());
                    let wanted: String = lines.iter().skip(from).take(take).copied().collect();
                    let more = from.saturating_add(take) < lines.len();
                    prop_assert!(truncation.is_none());
                    if more {
                        let wanted = wanted.strip_suffix('\n').unwrap();
                        let last = from + take;
                        prop_assert_eq!(text, format!("{wanted}\n\n[Showing lines {offset}-{last} of {}. Use offset={} to continue.]", lines.len(), last + 1));
                    } else {
                        prop_assert_eq!(text, wanted);
                    }
                }
            }
        }
    }
}
