//! The same for bytes that come in pieces: an answer of a server that repeats the header it was sent.
//!
//! A value may be cut in two by the border of a piece. So what could be the beginning of a value at the end of a piece is held back until
//! the next one decides; everything else goes on at once. Values are found as they are and in the encodings of
//! [`Secrets::redact`], but not percent-encoded.

use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use memchr::memmem;

use super::{MARK, Secrets};

/// Takes the values of secrets out of a stream of bytes.
#[derive(Debug)]
pub struct Strainer {
    secrets: Arc<Secrets>,
    /// What may be the beginning of a value.
    back: Vec<u8>,
}

impl Strainer {
    /// For the values that are held now and later.
    pub fn new(secrets: Arc<Secrets>) -> Self {
        Self {
            secrets,
            back: Vec::new(),
        }
    }

    /// Takes a piece, and gives back what can go on.
    pub fn push(&mut self, piece: &[u8]) -> Bytes {
        let mut text = std::mem::take(&mut self.back);
        text.extend_from_slice(piece);
        let (mut clean, end) = self.strain(&text);
        let rest = text.get(end..).unwrap_or_default();
        let keep = self.undecided(rest);
        let (sure, back) = rest.split_at(rest.len() - keep);
        clean.extend_from_slice(sure);
        self.back = back.to_vec();
        clean.into()
    }

    /// The end of the stream: what was held back and is no value.
    pub fn finish(&mut self) -> Bytes {
        std::mem::take(&mut self.back).into()
    }

    /// The text up to the end of the last value in it, without values, and where that end is.
    fn strain(&self, text: &[u8]) -> (Vec<u8>, usize) {
        let held = self
            .secrets
            .0
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let (mut clean, mut from) = (Vec::with_capacity(text.len()), 0);
        // The first value from here on, the longest of those that begin there: they may overlap.
        while let Some(rest) = text.get(from..) {
            let found = held.forms.iter().filter_map(|form| {
                let at = memmem::find(rest, form)?;
                Some((at, form.len()))
            });
            let Some((at, length)) = found.min_by_key(|(at, length)| (*at, usize::MAX - length))
            else {
                break;
            };
            clean.extend_from_slice(rest.get(..at).unwrap_or_default());
            clean.extend_from_slice(MARK.as_bytes());
            from += at + length;
        }
        (clean, from)
    }

    /// How many bytes at the end could be the beginning of a value.
    fn undecided(&self, text: &[u8]) -> usize {
        let held = self
            .secrets
            .0
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let longest = held.forms.iter().map(|form| form.len()).max().unwrap_or(0);
        let most = longest.saturating_sub(1).min(text.len());
        (1..=most)
            .rev()
            .find(|count| {
                let end = text.get(text.len() - count..).unwrap_or_default();
                held.forms.iter().any(|form| form.starts_with(end))
            })
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn strainer() -> Strainer {
        let secrets = Secrets::new();
        secrets.insert("A", "hunter2-hunter2".into());
        secrets.insert("B", "2-hunter2-x".into());
        Strainer::new(Arc::new(secrets))
    }

    fn whole(pieces: &[&[u8]]) -> Vec<u8> {
        let mut strainer = strainer();
        let mut all: Vec<u8> = Vec::new();
        for piece in pieces {
            all.extend_from_slice(&strainer.push(piece));
        }
        all.extend_from_slice(&strainer.finish());
        all
    }

    #[test]
    fn a_value_cut_in_two_is_found_and_the_rest_is_as_it_was() {
        assert_eq!(
            whole(&[b"a hunter2-", b"hunt", b"er2 b hunter2-h"]),
            b"a [redacted] b hunter2-h"
        );
        // Nothing waits without a reason.
        assert_eq!(&strainer().push(b"data: 1\n\n")[..], b"data: 1\n\n");
    }

    proptest! {
        #[test]
        fn no_cutting_lets_a_value_through(
            before in "[a-z]{0,9}", after in "[ -~]{0,9}", cuts in proptest::collection::vec(1_usize..9, 0..12),
        ) {
            let text = format!("{before}hunter2-hunter2{after}hunter2-hunter2");
            let (mut rest, mut pieces) = (text.as_bytes(), Vec::new());
            for cut in cuts {
                let (piece, more) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = more;
            }
            pieces.push(rest);
            let clean = String::from_utf8(whole(&pieces)).unwrap();
            prop_assert!(!clean.contains("hunter2-hunter2"), "{clean}");
            prop_assert!(clean.starts_with(&before) || before.contains("hunter"), "{clean}");
        }
    }
}
