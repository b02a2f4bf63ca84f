//! What an agent has said in a run: the end of it, bounded.

use crate::text;

/// The most that is kept, in bytes.
pub(crate) const MOST: usize = 256 * 1024;

/// A text of which the end is kept.
#[derive(Debug, Clone, Default)]
pub(crate) struct Said {
    text: String,
    left_out: u64,
    /// Where the message that is being written begins, in bytes of everything.
    message: u64,
}

impl Said {
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Adds to it.
    pub(crate) fn push(&mut self, more: &str) {
        self.text.push_str(more);
        // Not at each word: cutting moves what is left.
        if self.text.len() > 2 * MOST {
            self.cut();
        }
    }

    fn cut(&mut self) {
        let at = self.text.len() - self.end().len();
        self.text.drain(..at);
        self.left_out += at as u64;
    }

    /// Another message begins: on a line of its own.
    pub(crate) fn message(&mut self) {
        if !self.text.is_empty() && !self.text.ends_with('\n') {
            self.push("\n");
        }
        self.message = self.bytes();
    }

    /// The message that was being written is this one. An agent that streams has said it already; one that does not, or whose
    /// pieces were missed, has not.
    pub(crate) fn message_is(&mut self, text: &str) {
        let Some(begin) = self
            .message
            .checked_sub(self.left_out)
            .and_then(|begin| usize::try_from(begin).ok())
            .filter(|begin| self.text.is_char_boundary(*begin))
        else {
            return;
        };
        if self.text.get(begin..) != Some(text) {
            self.text.truncate(begin);
            self.push(text);
        }
        self.message = self.bytes();
    }

    /// Bytes in all, those that are no longer kept included.
    pub(crate) fn bytes(&self) -> u64 {
        self.left_out + self.text.len() as u64
    }

    /// The last [`MOST`] bytes.
    pub(crate) fn end(&self) -> &str {
        text::end(&self.text, MOST)
    }
}

#[cfg(all(test, not(target_family = "wasm")))]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_did_not_stream_is_there_once() {
        let mut said = Said::default();
        said.message();
        said.push("one");
        said.message_is("one");
        said.message();
        said.message_is("two");
        said.message();
        said.push("thr");
        said.message_is("three");
        assert_eq!(said.end(), "one\ntwo\nthree");
    }

    #[test]
    fn what_an_agent_says_is_bounded_and_counted() {
        let mut said = Said::default();
        said.message();
        let line = "ä".repeat(1000);
        for _ in 0..1000 {
            said.push(&line);
        }
        assert_eq!(said.bytes(), 2_000_000);
        assert!(said.end().len() <= MOST && said.text.len() <= 2 * MOST);
        // Its beginning is gone: what is left is not replaced by a guess.
        said.message_is("short");
        assert_eq!(said.bytes(), 2_000_000);
    }

    proptest::proptest! {
        #[test]
        fn bytes_count_everything(pieces in proptest::collection::vec("\\PC{0,40}", 0..40)) {
            let mut said = Said::default();
            for piece in &pieces {
                said.push(piece);
            }
            let all = pieces.concat();
            proptest::prop_assert_eq!(said.bytes(), all.len() as u64);
            proptest::prop_assert_eq!(said.end(), all);
        }
    }
}
