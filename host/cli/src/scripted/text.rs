//! Text from bytes that come in pieces, and the end of a text that is too long.

/// Output that a tool hands back, as pi's `bash` does it.
pub(super) const MOST_OUTPUT: usize = 50 << 10;

/// Decodes UTF-8 across the borders of pieces; what is none becomes `�`.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    /// The beginning of a character.
    held: Vec<u8>,
}

impl Decoder {
    /// The text that is complete with this piece.
    pub(super) fn push(&mut self, bytes: &[u8]) -> String {
        self.held.extend_from_slice(bytes);
        let keep = match std::str::from_utf8(&self.held) {
            Ok(_) => 0,
            Err(_) => unfinished(&self.held),
        };
        let rest = self.held.split_off(self.held.len() - keep);
        let whole = std::mem::replace(&mut self.held, rest);
        String::from_utf8_lossy(&whole).into_owned()
    }

    /// What is left at the end.
    pub(super) fn finish(self) -> String {
        String::from_utf8_lossy(&self.held).into_owned()
    }
}

/// How many bytes at the end begin a character that is not complete.
fn unfinished(bytes: &[u8]) -> usize {
    for back in 1..=bytes.len().min(3) {
        let Some(byte) = bytes.get(bytes.len() - back) else {
            return 0;
        };
        let length = match byte {
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            0x80..=0xbf => continue,
            _ => return 0,
        };
        return if length > back { back } else { 0 };
    }
    0
}

/// Keeps the end of a text, at most so many bytes; says whether something was left out.
pub(super) fn keep_end(text: &mut String, most: usize) -> bool {
    if text.len() <= most {
        return false;
    }
    let mut cut = text.len() - most;
    while !text.is_char_boundary(cut) {
        cut += 1;
    }
    text.drain(..cut);
    true
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn text_is_the_same_however_it_comes(
            bytes in prop_oneof![any::<String>().prop_map(String::into_bytes), proptest::collection::vec(any::<u8>(), 0..64)],
            size in 1_usize..5,
        ) {
            let mut decoder = Decoder::default();
            let mut text = String::new();
            for piece in bytes.chunks(size) {
                text += &decoder.push(piece);
            }
            text += &decoder.finish();
            // How many marks stand for a broken stretch depends on the pieces.
            let plain = |text: &str| text.replace('\u{fffd}', "");
            prop_assert_eq!(plain(&text), plain(&String::from_utf8_lossy(&bytes)));
            if let Ok(whole) = std::str::from_utf8(&bytes) {
                prop_assert_eq!(text, whole);
            }
        }

        #[test]
        fn the_end_is_kept(text in "[aä漢🦀]{0,40}", most in 0_usize..60) {
            let mut kept = text.clone();
            let cut = keep_end(&mut kept, most);
            prop_assert!(kept.len() <= most && text.ends_with(&kept));
            prop_assert_eq!(cut, text.len() > most);
            prop_assert!(!cut || most < 4 || kept.len() + 3 >= most);
        }
    }
}
