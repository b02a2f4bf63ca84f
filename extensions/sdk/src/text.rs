//! Text out of bytes that come in pieces, and sizes in words.
//!
//! A character may lie across two chunks, so decoding each chunk by itself turns it into U+FFFD
//! twice. [`Decoder`] keeps the unfinished character (at most three bytes) for the next chunk.
//! Malformed input becomes U+FFFD exactly as `String::from_utf8_lossy` does it on the whole.

/// An incremental, lossy UTF-8 decoder.
#[derive(Debug, Default)]
pub struct Decoder {
    pending: Vec<u8>,
}

impl Decoder {
    /// A decoder at the start of a text.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Decodes the next bytes onto the end of `out`.
    pub fn push(&mut self, bytes: &[u8], out: &mut String) {
        let joined;
        let bytes = if self.pending.is_empty() {
            bytes
        } else {
            let mut all = std::mem::take(&mut self.pending);
            all.extend_from_slice(bytes);
            joined = all;
            &joined
        };
        let whole = bytes.len() - unfinished(bytes);
        let (now, later) = bytes.split_at(whole);
        for chunk in now.utf8_chunks() {
            out.push_str(chunk.valid());
            if !chunk.invalid().is_empty() {
                out.push(char::REPLACEMENT_CHARACTER);
            }
        }
        self.pending.extend_from_slice(later);
    }

    /// The input has ended: an unfinished character becomes U+FFFD.
    pub fn finish(&mut self, out: &mut String) {
        if !self.pending.is_empty() {
            self.pending.clear();
            out.push(char::REPLACEMENT_CHARACTER);
        }
    }
}

/// How many bytes at the end are the beginning of a character that more bytes could finish: 0 to 3.
fn unfinished(bytes: &[u8]) -> usize {
    let tail = bytes.len().saturating_sub(3);
    let mut left = bytes.get(tail..).unwrap_or_default();
    while !left.is_empty() {
        match std::str::from_utf8(left) {
            // `error_len` is none only when the input ended inside a character that was right so far.
            Err(e) if e.error_len().is_none() && e.valid_up_to() == 0 => return left.len(),
            _ => left = left.get(1..).unwrap_or_default(),
        }
    }
    0
}

/// The last `most` bytes of a text, from the beginning of a character on.
#[must_use]
pub fn end(text: &str, most: usize) -> &str {
    let mut from = text.len().saturating_sub(most);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    text.get(from..).unwrap_or_default()
}

/// The first `count` characters of a text, with `more` after them when there are more.
#[must_use]
pub fn first(text: &str, count: usize, more: &str) -> String {
    match text.char_indices().nth(count) {
        Some((to, _)) => format!("{}{more}", text.get(..to).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// A size in words: `512B`, `50.0KB`, `1.5MB`.
#[must_use]
#[allow(clippy::cast_precision_loss, reason = "shown with one decimal")]
pub fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes}B"),
        1024..1_048_576 => format!("{:.1}KB", bytes as f64 / 1024.0),
        _ => format!("{:.1}MB", bytes as f64 / 1_048_576.0),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn decode(chunks: &[&[u8]]) -> String {
        let mut decoder = Decoder::new();
        let mut out = String::new();
        for chunk in chunks {
            decoder.push(chunk, &mut out);
        }
        decoder.finish(&mut out);
        out
    }

    #[test]
    fn sizes_read_well() {
        assert_eq!(size(0), "0B");
        assert_eq!(size(1023), "1023B");
        assert_eq!(size(50 * 1024), "50.0KB");
        assert_eq!(size(3 << 20), "3.0MB");
    }

    #[test]
    fn characters_across_chunk_borders_stay_whole() {
        assert_eq!(
            decode(&[b"gr\xc3", b"\xbc\xc3\x9f \xf0\x9f", b"\xa6", b"\x80"]),
            "grüß 🦀"
        );
    }

    #[test]
    fn an_unfinished_character_at_the_end_is_replaced_once() {
        assert_eq!(decode(&[b"a\xf0\x9f\xa6"]), "a\u{fffd}");
        assert_eq!(decode(&[b"a\xf0", b"\x9f", b"\xa6"]), "a\u{fffd}");
    }

    #[test]
    fn malformed_bytes_do_not_wait_for_more() {
        let mut out = String::new();
        Decoder::new().push(b"a\xffb\x80", &mut out);
        assert_eq!(out, "a\u{fffd}b\u{fffd}");
    }

    proptest! {
        #[test]
        fn any_split_decodes_like_the_whole(bytes in proptest::collection::vec(any::<u8>(), 0..64), cuts in proptest::collection::vec(0usize..64, 0..6)) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(bytes.len())).collect();
            cuts.sort_unstable();
            let mut chunks = Vec::new();
            let mut from = 0;
            for cut in cuts {
                chunks.push(bytes.get(from..cut).unwrap());
                from = cut;
            }
            chunks.push(bytes.get(from..).unwrap());
            prop_assert_eq!(decode(&chunks), String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn valid_text_survives_any_split(text in "\\PC{0,24}", cut in 0usize..96) {
            let cut = cut.min(text.len());
            let (a, b) = text.as_bytes().split_at(cut);
            prop_assert_eq!(decode(&[a, b]), text);
        }
    }
}
