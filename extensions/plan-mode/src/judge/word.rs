//! Words of a command, as far as they are known before the shell runs.

/// What a part of a word becomes when the shell runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    /// This text, and nothing else.
    Text {
        text: String,
        /// A quoted part is never a reserved word, an assignment or a pattern.
        quoted: bool,
    },
    /// Something that is only known then.
    Unknown(Kind),
}

/// How an unknown part behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// An expansion outside quotes: any number of words of any form. With the variable's name, if it is a plain one.
    Split(Option<String>),
    /// An expansion inside quotes: any text, but no further word.
    Whole(Option<String>),
    /// A pattern or a brace expansion: any number of words, each of which begins with what stands before it.
    Glob,
    /// One word's worth of text that cannot begin with `-`.
    Operand,
}

/// One word.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) pieces: Vec<Piece>,
}

impl Word {
    /// A word that is this text.
    pub(super) fn text(text: &str) -> Self {
        Self {
            pieces: vec![Piece::Text {
                text: text.into(),
                quoted: true,
            }],
        }
    }

    /// A word of one unknown part.
    pub(super) fn unknown(kind: Kind) -> Self {
        Self {
            pieces: vec![Piece::Unknown(kind)],
        }
    }

    pub(super) fn push(&mut self, c: char, quoted: bool) {
        if let Some(Piece::Text { text, quoted: q }) = self.pieces.last_mut()
            && *q == quoted
        {
            text.push(c);
            return;
        }
        let text = c.to_string();
        self.pieces.push(Piece::Text { text, quoted });
    }

    /// Quotes with nothing between them make a word, too.
    pub(super) fn push_empty(&mut self) {
        let text = String::new();
        self.pieces.push(Piece::Text { text, quoted: true });
    }

    /// The text, if the word is known.
    pub(super) fn exact(&self) -> Option<String> {
        let mut all = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text { text, .. } => all.push_str(text),
                Piece::Unknown(_) => return None,
            }
        }
        Some(all)
    }

    /// The text, if the word is known and has no quotes: only such a word can be a reserved one.
    pub(super) fn bare(&self) -> Option<&str> {
        match self.pieces.as_slice() {
            [
                Piece::Text {
                    text,
                    quoted: false,
                },
            ] => Some(text),
            _ => None,
        }
    }

    /// What the word surely begins with.
    pub(super) fn prefix(&self) -> String {
        let mut all = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text { text, .. } => all.push_str(text),
                Piece::Unknown(_) => break,
            }
        }
        all
    }

    /// Whether it may become more or fewer words than one.
    pub(super) fn is_many(&self) -> bool {
        self.pieces
            .iter()
            .any(|piece| matches!(piece, Piece::Unknown(Kind::Split(_) | Kind::Glob)))
    }

    /// Whether it holds an expansion outside quotes.
    pub(super) fn is_split(&self) -> bool {
        self.pieces
            .iter()
            .any(|piece| matches!(piece, Piece::Unknown(Kind::Split(_))))
    }

    /// Whether it may become a word that begins with `-`.
    pub(super) fn may_be_option(&self) -> bool {
        if self.is_split() {
            return true;
        }
        let prefix = self.prefix();
        if prefix.is_empty() {
            let unknown = self.pieces.iter().find_map(|piece| match piece {
                Piece::Unknown(kind) => Some(kind),
                Piece::Text { .. } => None,
            });
            return matches!(unknown, Some(Kind::Whole(_) | Kind::Glob));
        }
        prefix.starts_with('-') && prefix != "-"
            || prefix == "-" && self.pieces.iter().any(|p| matches!(p, Piece::Unknown(_)))
    }

    /// The word as a person would recognise it, shortened.
    pub(super) fn show(&self) -> String {
        let mut all = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text { text, .. } => all.push_str(text),
                Piece::Unknown(Kind::Split(Some(name)) | Kind::Whole(Some(name))) => {
                    all.push('$');
                    all.push_str(name);
                }
                Piece::Unknown(Kind::Glob) => all.push('*'),
                Piece::Unknown(_) => all.push('…'),
            }
        }
        brief(&all)
    }

    /// The word with its first `count` characters removed, which have to be known text.
    pub(super) fn skip(&self, count: usize) -> Self {
        let mut left = count;
        let mut pieces = Vec::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text { text, quoted } if left > 0 => {
                    let rest: String = text.chars().skip(left).collect();
                    left = left.saturating_sub(text.chars().count());
                    if !rest.is_empty() {
                        pieces.push(Piece::Text {
                            text: rest,
                            quoted: *quoted,
                        });
                    }
                }
                piece => pieces.push(piece.clone()),
            }
        }
        Self { pieces }
    }
}

/// A text for a message: one line, not long, without control characters.
pub(super) fn brief(text: &str) -> String {
    const MOST: usize = 60;
    let mut short: String = text
        .chars()
        .map(|c| if c.is_control() { '␣' } else { c })
        .take(MOST)
        .collect();
    if text.chars().nth(MOST).is_some() {
        short.push('…');
    }
    short
}
