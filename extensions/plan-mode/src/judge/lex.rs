//! The words and operators of a script, with every redirection judged.
//!
//! It knows the part of bash's grammar that can be judged. What it does not know is an error, so it cannot
//! disagree with bash about where a word ends: the forms where shells differ are not among those it accepts.

mod redirect;

use super::Refusal;
use super::word::{Kind, Piece, Word};

/// One token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    Word(Word),
    /// `;` or a line's end.
    Separator,
    /// `&&`, `||`, `|`, `|&`.
    Joint,
    Open,
    Close,
    /// A redirection that writes nothing: judged here, and of no further interest.
    Redirection,
}

/// Splits a script into tokens.
pub(super) fn lex(script: &str) -> Result<Vec<Token>, Refusal> {
    let mut lexer = Lexer {
        rest: Chars {
            all: script.chars().collect(),
            at: 0,
        },
        tokens: Vec::new(),
        documents: Vec::new(),
        glued: false,
    };
    lexer.run()?;
    Ok(lexer.tokens)
}

/// Characters with two of look-ahead.
struct Chars {
    all: Vec<char>,
    at: usize,
}

impl Chars {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.all.get(self.at + ahead).copied()
    }
    fn take(&mut self) -> Option<char> {
        let c = self.peek(0)?;
        self.at += 1;
        Some(c)
    }
    fn eat(&mut self, c: char) -> bool {
        let found = self.peek(0) == Some(c);
        if found {
            self.at += 1;
        }
        found
    }
}

/// A here-document whose text is still to come.
struct Document {
    end: String,
    literal: bool,
    tabs: bool,
}

struct Lexer {
    rest: Chars,
    tokens: Vec<Token>,
    documents: Vec<Document>,
    /// Whether the last token is a word that ended right here.
    glued: bool,
}

fn refuse<T>(why: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::new(why))
}

impl Lexer {
    fn run(&mut self) -> Result<(), Refusal> {
        while let Some(c) = self.rest.peek(0) {
            let glued = std::mem::take(&mut self.glued);
            match c {
                ' ' | '\t' => {
                    self.rest.take();
                }
                '\\' if self.rest.peek(1) == Some('\n') => {
                    self.rest.take();
                    self.rest.take();
                }
                '\n' => {
                    self.rest.take();
                    self.tokens.push(Token::Separator);
                    self.documents()?;
                }
                '#' => {
                    while self.rest.peek(0).is_some_and(|c| c != '\n') {
                        self.rest.take();
                    }
                }
                ';' => {
                    self.rest.take();
                    if matches!(self.rest.peek(0), Some(';' | '&')) {
                        return refuse("`case` is not judged");
                    }
                    self.tokens.push(Token::Separator);
                }
                '&' => self.ampersand()?,
                '|' => {
                    self.rest.take();
                    let _ = self.rest.eat('|') || self.rest.eat('&');
                    self.tokens.push(Token::Joint);
                }
                '(' if glued => {
                    return refuse("a function, an array or an extended pattern is not judged");
                }
                '(' => {
                    self.rest.take();
                    if self.rest.peek(0) == Some('(') {
                        return refuse("arithmetic is not judged: it can run commands");
                    }
                    self.tokens.push(Token::Open);
                }
                ')' => {
                    self.rest.take();
                    self.tokens.push(Token::Close);
                }
                '<' | '>' => self.redirection(glued)?,
                _ => {
                    let word = self.word()?;
                    self.tokens.push(Token::Word(word));
                    self.glued = true;
                }
            }
        }
        if self.documents.is_empty() {
            Ok(())
        } else {
            refuse("a here-document without its text")
        }
    }

    fn ampersand(&mut self) -> Result<(), Refusal> {
        self.rest.take();
        if self.rest.eat('&') {
            self.tokens.push(Token::Joint);
            return Ok(());
        }
        if self.rest.eat('>') {
            self.rest.eat('>');
            let target = self.target()?;
            return self.writes(&target);
        }
        refuse("`&` starts a background job")
    }

    fn word(&mut self) -> Result<Word, Refusal> {
        let mut word = Word::default();
        while let Some(c) = self.rest.peek(0) {
            match c {
                ' ' | '\t' | '\n' | ';' | '&' | '|' | '(' | ')' | '<' | '>' => break,
                '\\' => {
                    self.rest.take();
                    match self.rest.take() {
                        Some('\n') => return refuse("a word that goes on in the next line"),
                        Some(c) => word.push(c, true),
                        None => return refuse("a backslash at the end"),
                    }
                }
                '\'' => {
                    self.rest.take();
                    word.push_empty();
                    loop {
                        match self.rest.take() {
                            Some('\'') => break,
                            Some(c) => word.push(c, true),
                            None => return refuse("a quote without its end"),
                        }
                    }
                }
                '"' => {
                    self.rest.take();
                    word.push_empty();
                    self.double_quoted(&mut word)?;
                }
                '$' => self.dollar(&mut word, false)?,
                '`' => return command_substitution(),
                '*' | '?' => {
                    self.rest.take();
                    word.pieces.push(Piece::Unknown(Kind::Glob));
                }
                '[' | '{' | '}' if word.pieces.is_empty() && is_end(self.rest.peek(1)) => {
                    self.rest.take();
                    word.push(c, false);
                }
                // No pattern, but a word that the parser knows and refuses.
                '[' if word.pieces.is_empty()
                    && self.rest.peek(1) == Some('[')
                    && is_end(self.rest.peek(2)) =>
                {
                    self.rest.take();
                    self.rest.take();
                    word.push('[', false);
                    word.push('[', false);
                }
                // What `find` and `xargs` replace.
                '{' if self.rest.peek(1) == Some('}') && self.no_more_braces() => {
                    self.rest.take();
                    self.rest.take();
                    word.push('{', false);
                    word.push('}', false);
                }
                '[' | '{' | '}' => {
                    self.rest.take();
                    word.pieces.push(Piece::Unknown(Kind::Glob));
                }
                '\0' => return refuse("a NUL character"),
                c => {
                    self.rest.take();
                    word.push(c, false);
                }
            }
        }
        Ok(word)
    }

    /// Whether behind `{}` the word has nothing that could make it a brace expansion after all.
    fn no_more_braces(&self) -> bool {
        let rest = self.rest.all.iter().skip(self.rest.at + 2);
        rest.take_while(|c| !is_end(Some(**c)))
            .all(|c| !matches!(c, '{' | '}' | ',' | '\\' | '\'' | '"'))
    }

    fn double_quoted(&mut self, word: &mut Word) -> Result<(), Refusal> {
        loop {
            match self.rest.peek(0) {
                None => return refuse("a quote without its end"),
                Some('"') => {
                    self.rest.take();
                    return Ok(());
                }
                Some('`') => return command_substitution(),
                Some('$') => self.dollar(word, true)?,
                Some('\\') => {
                    self.rest.take();
                    match self.rest.take() {
                        Some('\n') => {}
                        Some(c @ ('$' | '`' | '"' | '\\')) => word.push(c, true),
                        Some(c) => {
                            word.push('\\', true);
                            word.push(c, true);
                        }
                        None => return refuse("a quote without its end"),
                    }
                }
                Some(c) => {
                    self.rest.take();
                    word.push(c, true);
                }
            }
        }
    }

    fn dollar(&mut self, word: &mut Word, quoted: bool) -> Result<(), Refusal> {
        self.rest.take();
        let variable = |name: Option<String>| {
            Piece::Unknown(if quoted {
                Kind::Whole(name)
            } else {
                Kind::Split(name)
            })
        };
        match self.rest.peek(0) {
            Some('(') if self.rest.peek(1) == Some('(') => {
                refuse("arithmetic is not judged: it can run commands")
            }
            Some('(') => command_substitution(),
            Some('[') => refuse("arithmetic is not judged: it can run commands"),
            Some('{') => {
                self.rest.take();
                let name = self.parameter()?;
                word.pieces.push(match name {
                    Some(name) => variable(Some(name)),
                    None => Piece::Unknown(Kind::Split(None)),
                });
                Ok(())
            }
            Some('\'') if !quoted => {
                self.rest.take();
                word.push_empty();
                self.ansi(word)
            }
            Some('"') if !quoted => refuse("`$\"…\"` is not judged"),
            Some(c) if c == '_' || c.is_ascii_alphabetic() => {
                let name = self.name();
                word.pieces.push(variable(Some(name)));
                Ok(())
            }
            Some(c) if c.is_ascii_digit() || "@*#?$!-".contains(c) => {
                self.rest.take();
                let kind = match c {
                    '#' | '?' | '$' => Kind::Operand,
                    _ => Kind::Split(None),
                };
                word.pieces.push(Piece::Unknown(kind));
                Ok(())
            }
            _ => {
                word.push('$', true);
                Ok(())
            }
        }
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(c) = self
            .rest
            .peek(0)
            .filter(|c| *c == '_' || c.is_ascii_alphanumeric())
        {
            name.push(c);
            self.rest.take();
        }
        name
    }

    /// What follows `${`: a plain name, or one with a length, default or trim that can run nothing. `Some`: as `$NAME`.
    fn parameter(&mut self) -> Result<Option<String>, Refusal> {
        let length = self.rest.peek(0) == Some('#') && self.rest.peek(1) != Some('}');
        if length {
            self.rest.take();
        }
        let name = self.name();
        let mut rest = String::new();
        loop {
            match self.rest.take() {
                Some('}') => break,
                Some(c) if c.is_ascii_alphanumeric() || " ./*_-:,%#+".contains(c) => rest.push(c),
                _ => return refuse("this form of `${…}` is not judged"),
            }
        }
        let trims = rest.starts_with(['%', '#']) || rest.starts_with(":-") || rest.starts_with('-');
        match (rest.is_empty(), trims) {
            (true, _) if !name.is_empty() && !length => Ok(Some(name)),
            (true, _) if !name.is_empty() => Ok(None),
            (false, true) if !name.is_empty() && !length => Ok(None),
            _ => refuse("this form of `${…}` is not judged"),
        }
    }

    fn ansi(&mut self, word: &mut Word) -> Result<(), Refusal> {
        loop {
            match self.rest.take() {
                None => return refuse("a quote without its end"),
                Some('\'') => return Ok(()),
                Some('\\') => match self.rest.take() {
                    Some('n') => word.push('\n', true),
                    Some('t') => word.push('\t', true),
                    Some('r') => word.push('\r', true),
                    Some(c @ ('\\' | '"')) => word.push(c, true),
                    // Not `\'`: for a shell that does not know this form, the text would end there.
                    _ => return refuse("this escape in `$'…'` is not judged"),
                },
                Some(c) => word.push(c, true),
            }
        }
    }
}

fn command_substitution<T>() -> Result<T, Refusal> {
    refuse("command substitution is not judged: run the inner command by itself first")
}

fn is_end(c: Option<char>) -> bool {
    c.is_none_or(|c| " \t\n;&|()<>".contains(c))
}
