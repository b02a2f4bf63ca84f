//! The end of a command's output.
//!
//! A long output's end says how it went, so that is what is kept: [`MAX_LINES`] lines or [`MAX_BYTES`] bytes, whichever is
//! less. The buffer is cut only when it has twice that, so the work is linear in the output however small its pieces are.

use crate::limits::{MAX_BYTES, MAX_LINES, size};

/// Keeps the end of a text and counts the whole.
#[derive(Debug, Default)]
pub struct Tail {
    text: String,
    bytes: u64,
    newlines: u64,
}

/// What a tail shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The kept text.
    pub text: String,
    /// What was cut, if anything.
    pub cut: Option<Cut>,
}

/// What was cut from a text, and what is shown of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// The first line shown, from 1.
    pub first: u64,
    /// The last line, which is always shown.
    pub total: u64,
    /// Bytes shown.
    pub bytes: u64,
    /// Bytes of the whole.
    pub total_bytes: u64,
    /// Which limit cut it.
    pub by: By,
}

/// The limit that was reached first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// [`MAX_LINES`]
    Lines,
    /// [`MAX_BYTES`]
    Bytes,
    /// The last line alone is longer than [`MAX_BYTES`], and only its end is shown.
    Line,
}

impl Tail {
    /// Appends text.
    pub fn push(&mut self, text: &str) {
        self.bytes += text.len() as u64;
        self.newlines += memchr::memchr_iter(b'\n', text.as_bytes()).count() as u64;
        self.text.push_str(text);
        if self.text.len() > 2 * MAX_BYTES + 8 {
            // More than the limit stays, so that a line cut here can never look whole.
            let cut = self
                .text
                .ceil_char_boundary(self.text.len() - MAX_BYTES - 4);
            self.text.drain(..cut);
        }
    }

    /// How many lines there were.
    #[must_use]
    pub fn lines(&self) -> u64 {
        let open = !self.text.is_empty() && !self.text.ends_with('\n');
        self.newlines + u64::from(open)
    }

    /// Whether the whole no longer fits.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.bytes > MAX_BYTES as u64 || self.lines() > MAX_LINES
    }

    /// The end of the text, and what of it is missing.
    #[must_use]
    pub fn shown(&self) -> Shown {
        if !self.is_cut() {
            return Shown {
                text: self.text.clone(),
                cut: None,
            };
        }
        let total = self.lines();
        let (text, lines, by) = self.end();
        let cut = Cut {
            first: total - lines + 1,
            total,
            bytes: text.len() as u64,
            total_bytes: self.bytes,
            by,
        };
        Shown {
            text: text.to_owned(),
            cut: Some(cut),
        }
    }

    fn end(&self) -> (&str, u64, By) {
        let text = self.text.as_str();
        let mut start = text.len();
        let mut lines = 0;
        let by = loop {
            if lines == MAX_LINES {
                break By::Lines;
            }
            if start == 0 {
                break By::Bytes;
            }
            // The line before `start`, its own end aside, begins behind the line end before it.
            let before = text.as_bytes().get(..start).unwrap_or_default();
            let body = before.strip_suffix(b"\n").unwrap_or(before);
            let line = memchr::memrchr(b'\n', body).map_or(0, |at| at + 1);
            if text.len() - line > MAX_BYTES {
                break By::Bytes;
            }
            start = line;
            lines += 1;
        };
        if lines == 0 {
            let start = text.ceil_char_boundary(text.len() - MAX_BYTES);
            return (text.get(start..).unwrap_or_default(), 1, By::Line);
        }
        (text.get(start..).unwrap_or_default(), lines, by)
    }
}

impl Cut {
    /// The notice under the text; `whole` says where the whole is.
    #[must_use]
    pub fn notice(&self, whole: &str) -> String {
        let Self {
            first,
            total,
            bytes,
            ..
        } = self;
        match self.by {
            By::Lines => format!("[Showing lines {first}-{total} of {total}. {whole}]"),
            By::Bytes => {
                format!(
                    "[Showing lines {first}-{total} of {total} ({} limit). {whole}]",
                    size(MAX_BYTES as u64)
                )
            }
            By::Line => format!(
                "[Showing the last {} of line {total}. {whole}]",
                size(*bytes)
            ),
        }
    }

    /// The cut for `details.truncation`, in pi's form.
    #[must_use]
    pub fn details(&self) -> serde_json::Value {
        serde_json::json!({
            "truncated": true,
            "truncatedBy": if self.by == By::Lines { "lines" } else { "bytes" },
            "totalLines": self.total,
            "totalBytes": self.total_bytes,
            "outputLines": self.total - self.first + 1,
            "outputBytes": self.bytes,
            "lastLinePartial": self.by == By::Line,
            "firstLineExceedsLimit": false,
            "maxLines": MAX_LINES,
            "maxBytes": MAX_BYTES,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn tail(pieces: &[&str]) -> Tail {
        let mut tail = Tail::default();
        for piece in pieces {
            tail.push(piece);
        }
        tail
    }

    #[test]
    fn a_short_output_is_whole() {
        let shown = tail(&["a\nb", "\n"]).shown();
        assert_eq!(
            shown,
            Shown {
                text: "a\nb\n".into(),
                cut: None
            }
        );
    }

    #[test]
    fn exactly_the_limits_is_not_cut() {
        assert!(!tail(&["x\n".repeat(2000).as_str()]).is_cut());
        assert!(tail(&["x\n".repeat(2000).as_str(), "y"]).is_cut());
        assert!(!tail(&["x".repeat(MAX_BYTES).as_str()]).is_cut());
    }

    #[test]
    fn many_lines_keep_the_last_2000() {
        let all: String = (1..=5000).map(|i| format!("{i}\n")).collect();
        let shown = tail(&[&all]).shown();
        let cut = shown.cut.unwrap();
        assert_eq!((cut.first, cut.total, cut.by), (3001, 5000, By::Lines));
        assert!(shown.text.starts_with("3001\n") && shown.text.ends_with("\n5000\n"));
        assert_eq!(
            cut.notice("Full output: /tmp/x"),
            "[Showing lines 3001-5000 of 5000. Full output: /tmp/x]"
        );
    }

    #[test]
    fn wide_lines_keep_whole_lines_within_the_bytes() {
        let line = format!("{}\n", "é".repeat(500));
        let shown = tail(&[&line.repeat(300)]).shown();
        let cut = shown.cut.unwrap();
        assert_eq!(cut.by, By::Bytes);
        assert!(shown.text.len() <= MAX_BYTES && shown.text.len() > MAX_BYTES - line.len());
        assert_eq!(shown.text.len() % line.len(), 0);
        assert_eq!(cut.total, 300);
    }

    #[test]
    fn one_endless_line_keeps_its_end() {
        let shown = tail(&["head\n", &"ü".repeat(80_000), "end"]).shown();
        let cut = shown.cut.unwrap();
        assert_eq!((cut.first, cut.total, cut.by), (2, 2, By::Line));
        assert!(shown.text.ends_with("üend") && shown.text.len() <= MAX_BYTES);
    }

    #[test]
    fn the_buffer_stays_bounded() {
        let mut tail = Tail::default();
        for _ in 0..100_000 {
            tail.push("0123456789\n");
            assert!(tail.text.len() <= 2 * MAX_BYTES + 8);
        }
        assert_eq!(tail.lines(), 100_000);
    }

    proptest! {
        #[test]
        fn the_shown_text_is_the_end_of_the_whole(
            pieces in proptest::collection::vec("[a-zé\n]{0,40}", 0..40), times in 1usize..120
        ) {
            let mut tail = Tail::default();
            let mut whole = String::new();
            for _ in 0..times {
                for piece in &pieces {
                    tail.push(piece);
                    whole.push_str(piece);
                }
            }
            let shown = tail.shown();
            prop_assert!(whole.ends_with(&shown.text));
            prop_assert!(shown.text.len() <= MAX_BYTES);
            prop_assert_eq!(tail.lines(), whole.lines().count() as u64);
            match shown.cut {
                None => prop_assert_eq!(shown.text, whole),
                Some(cut) if cut.by != By::Line => {
                    let first = usize::try_from(cut.first).unwrap() - 1;
                    let expected: Vec<&str> = whole.lines().skip(first).collect();
                    prop_assert_eq!(shown.text.lines().collect::<Vec<_>>(), expected);
                }
                Some(_) => {}
            }
        }
    }
}
