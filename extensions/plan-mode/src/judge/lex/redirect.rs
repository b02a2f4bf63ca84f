//! Redirections and here-documents: what they write, and where their texts end.

use super::{Document, Lexer, Token, refuse};
use crate::judge::Refusal;
use crate::judge::word::{Piece, Word};

impl Lexer {
    pub(super) fn redirection(&mut self, glued: bool) -> Result<(), Refusal> {
        if glued && let Some(Token::Word(word)) = self.tokens.last() {
            match word.bare() {
                // `2>`: the number is no word.
                Some(number) if number.bytes().all(|b| b.is_ascii_digit()) => {
                    self.tokens.pop();
                }
                _ if matches!(word.pieces.first(), Some(Piece::Unknown(_))) => {
                    return refuse("`{name}>` sets a variable: put a space before the redirection");
                }
                _ => {}
            }
        }
        match (self.rest.take(), self.rest.peek(0)) {
            (_, Some('(')) => {
                refuse("process substitution runs a command in a place that is not judged")
            }
            (Some('<'), Some('<')) => {
                self.rest.take();
                if self.rest.eat('<') {
                    self.target()?;
                    self.tokens.push(Token::Redirection);
                    return Ok(());
                }
                let tabs = self.rest.eat('-');
                self.here_document(tabs)
            }
            (Some('<'), Some('>')) => refuse("`<>` opens a file for writing"),
            (Some('<'), Some('&')) => {
                self.rest.take();
                let target = self.target()?;
                self.duplicate(&target)
            }
            (Some('<'), _) => {
                let target = self.target()?;
                if target.prefix().starts_with("/dev/tcp")
                    || target.prefix().starts_with("/dev/udp")
                {
                    return refuse("a redirection to the network");
                }
                self.tokens.push(Token::Redirection);
                Ok(())
            }
            (_, Some('&')) => {
                self.rest.take();
                let target = self.target()?;
                match target.exact().as_deref() {
                    Some("/dev/null") => self.writes(&target),
                    _ => self.duplicate(&target),
                }
            }
            (_, Some('>' | '|')) => {
                self.rest.take();
                let target = self.target()?;
                self.writes(&target)
            }
            _ => {
                let target = self.target()?;
                self.writes(&target)
            }
        }
    }

    /// A file that is written to: only `/dev/null` takes it and stays what it was.
    pub(super) fn writes(&mut self, target: &Word) -> Result<(), Refusal> {
        if target.exact().as_deref() == Some("/dev/null") {
            self.tokens.push(Token::Redirection);
            return Ok(());
        }
        refuse(format!(
            "`> {}` writes a file; only /dev/null may be written to",
            target.show()
        ))
    }

    fn duplicate(&mut self, target: &Word) -> Result<(), Refusal> {
        let ok = target.bare().is_some_and(|text| {
            let number = text.strip_suffix('-').unwrap_or(text);
            !text.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
        });
        if ok {
            self.tokens.push(Token::Redirection);
            return Ok(());
        }
        refuse(format!(
            "`>& {}` may write a file; only /dev/null may be written to",
            target.show()
        ))
    }

    pub(super) fn target(&mut self) -> Result<Word, Refusal> {
        while matches!(self.rest.peek(0), Some(' ' | '\t')) {
            self.rest.take();
        }
        match self.rest.peek(0) {
            None | Some('\n' | ';' | '&' | '|' | '(' | ')' | '<' | '>' | '#') => {
                refuse("a redirection without a target")
            }
            Some(_) => self.word(),
        }
    }

    fn here_document(&mut self, tabs: bool) -> Result<(), Refusal> {
        let end = self.target()?;
        let literal = end
            .pieces
            .iter()
            .any(|piece| matches!(piece, Piece::Text { quoted: true, .. }));
        let Some(text) = end.exact() else {
            return refuse("a here-document whose end is not known");
        };
        self.documents.push(Document {
            end: text,
            literal,
            tabs,
        });
        self.tokens.push(Token::Redirection);
        Ok(())
    }

    /// The texts of the here-documents of the line that has just ended.
    pub(super) fn documents(&mut self) -> Result<(), Refusal> {
        for document in std::mem::take(&mut self.documents) {
            loop {
                if self.rest.peek(0).is_none() {
                    return refuse("a here-document without an end");
                }
                let mut line = String::new();
                while let Some(c) = self.rest.take().filter(|c| *c != '\n') {
                    line.push(c);
                }
                let text = if document.tabs {
                    line.trim_start_matches('\t')
                } else {
                    line.as_str()
                };
                if text == document.end {
                    break;
                }
                // A backslash at a line's end would join the line with the one that may end the text.
                if !document.literal && (text.contains(['`', '\\']) || has_expansion(text)) {
                    return refuse(
                        "a here-document with expansions: quote its end word, as in <<'EOF'",
                    );
                }
            }
        }
        Ok(())
    }
}

/// `$x` is a text; `$(…)` and `${…}` may be more.
fn has_expansion(text: &str) -> bool {
    text.contains("$(") || text.contains("${") || text.contains("$[")
}
