//! Terminal output as text that can be shown anywhere.
//!
//! A program's output may hold what a terminal obeys: colours, titles, cursor moves, NULs. Neither a model nor a
//! user interface should get these raw. Escape sequences are left out, `\r\n` becomes `\n`, a lone `\r` (a progress
//! bar going back) becomes a line end, and any other control character becomes its visible picture (NUL: `␀`).
//! It works character by character and keeps its state between chunks.

/// Makes output printable, piece by piece.
#[derive(Debug, Default)]
pub struct Printable {
    state: State,
    after_cr: bool,
}

#[derive(Debug, Default, Clone, Copy)]
enum State {
    #[default]
    Text,
    /// After ESC.
    Escape,
    /// In a control sequence, `ESC [ …`, until its final character.
    Sequence,
    /// In a string, `ESC ] …`, until BEL or `ESC \`; carries how long it may still be.
    String(u16),
    /// After ESC and an intermediate character: one more belongs to it.
    Designator,
}

/// A string longer than this was none, or is not worth waiting for.
const LONGEST_STRING: u16 = 4096;

impl Printable {
    /// Appends the printable form of `text` to `out`.
    pub fn push(&mut self, text: &str, out: &mut String) {
        for c in text.chars() {
            self.put(c, out);
        }
    }

    /// The output has ended.
    pub fn finish(&mut self, out: &mut String) {
        if std::mem::take(&mut self.after_cr) {
            out.push('\n');
        }
    }

    fn put(&mut self, c: char, out: &mut String) {
        self.state = match (self.state, c) {
            (_, '\u{1b}') => State::Escape,
            (State::Text, _) => {
                self.text(c, out);
                State::Text
            }
            (State::Escape, '[') => State::Sequence,
            (State::Escape, ']' | 'P' | 'X' | '^' | '_') => State::String(LONGEST_STRING),
            (State::Escape, ' '..='/') => State::Designator,
            (State::Sequence, ' '..='?') => State::Sequence,
            (State::Escape | State::Sequence | State::Designator, ' '..='~') => State::Text,
            (State::String(_), '\u{7}') => State::Text,
            (State::String(left), _) if left > 0 && c != '\n' => State::String(left - 1),
            // What began like a sequence was none: the character counts again.
            _ => {
                self.text(c, out);
                State::Text
            }
        };
    }

    fn text(&mut self, c: char, out: &mut String) {
        if std::mem::take(&mut self.after_cr) && c != '\n' {
            out.push('\n');
        }
        match c {
            '\r' => self.after_cr = true,
            '\n' | '\t' => out.push(c),
            '\u{7f}' => out.push('␡'),
            '\0'..='\u{1f}' => out.push(char::from_u32(0x2400 + c as u32).unwrap_or('\u{fffd}')),
            '\u{80}'..='\u{9f}' => out.push('\u{fffd}'),
            _ => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn show(pieces: &[&str]) -> String {
        let mut printable = Printable::default();
        let mut out = String::new();
        for piece in pieces {
            printable.push(piece, &mut out);
        }
        printable.finish(&mut out);
        out
    }

    #[test]
    fn escape_sequences_are_left_out() {
        assert_eq!(show(&["\x1b[1;31mred\x1b[0m\x1b[2K."]), "red.");
        assert_eq!(
            show(&["\x1b]0;title\x07a\x1b]8;;http://x\x1b\\link"]),
            "alink"
        );
        assert_eq!(show(&["\x1b(Ba\x1b7b"]), "ab");
    }

    #[test]
    fn sequences_across_chunks_are_left_out_too() {
        assert_eq!(show(&["a\x1b", "[3", "1mb\x1b]0;t", "itle\x07c"]), "abc");
    }

    #[test]
    fn what_only_looks_like_a_sequence_does_not_eat_the_lines_after_it() {
        assert_eq!(show(&["\x1b]no end\nnext"]), "\nnext");
        assert_eq!(show(&["\x1b[1\nnext"]), "\nnext");
        assert_eq!(show(&["\x1b[é"]), "é");
    }

    #[test]
    fn line_ends_and_control_characters() {
        assert_eq!(show(&["a\r", "\nb\rc\r"]), "a\nb\nc\n");
        assert_eq!(show(&["\0\x07\x7f\u{85}\t"]), "␀␇␡\u{fffd}\t");
    }

    proptest! {
        #[test]
        fn nothing_a_terminal_obeys_comes_through(text in any::<String>(), cut in any::<prop::sample::Index>()) {
            let bounds: Vec<usize> = (0..=text.len()).filter(|i| text.is_char_boundary(*i)).collect();
            let (a, b) = text.split_at(*cut.get(&bounds));
            let out = show(&[a, b]);
            prop_assert!(out.chars().all(|c| !c.is_control() || c == '\n' || c == '\t'));
            prop_assert_eq!(out, show(&[&text]));
        }
    }
}
