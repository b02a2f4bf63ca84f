//! What a script runs: its simple commands, wherever they stand.
//!
//! Whether a part runs once, often or never does not matter, since each of them has to be harmless. So lists, pipelines, groups,
//! `if` and `while` are all sequences; only `for` is kept, because it says what its variable can be.

use super::Refusal;
use super::lex::Token;
use super::word::{Piece, Word};

/// How deep groups may lie in each other.
const DEEPEST: usize = 40;

/// One part of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    Simple {
        assignments: Vec<(String, Word)>,
        words: Vec<Word>,
    },
    For {
        name: String,
        words: Vec<Word>,
        body: Vec<Part>,
    },
}

/// The parts of a script.
pub(super) fn parse(tokens: &[Token]) -> Result<Vec<Part>, Refusal> {
    let mut parser = Parser {
        tokens,
        at: 0,
        depth: 0,
    };
    let mut parts = Vec::new();
    parser.list(&[], &mut parts)?;
    match parser.peek() {
        None => Ok(parts),
        Some(_) => Err(Refusal::new("its structure is not understood")),
    }
}

struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
    depth: usize,
}

fn unclear<T>(what: &str) -> Result<T, Refusal> {
    Err(Refusal::new(format!(
        "its structure is not understood: {what}"
    )))
}

/// Words that end a list, if somebody waits for them.
const ENDS: [&str; 8] = ["then", "elif", "else", "fi", "do", "done", "}", "esac"];

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&'a Token> {
        self.tokens.get(self.at)
    }

    fn bare(&self) -> Option<&'a str> {
        match self.peek() {
            Some(Token::Word(word)) => word.bare(),
            _ => None,
        }
    }

    /// Commands until one of these words, a `)`, or the end. The word itself is left.
    fn list(&mut self, ends: &[&str], parts: &mut Vec<Part>) -> Result<(), Refusal> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return unclear("too deep");
        }
        loop {
            while matches!(self.peek(), Some(Token::Separator)) {
                self.at += 1;
            }
            match self.peek() {
                None | Some(Token::Close) => break,
                Some(Token::Joint) => return unclear("a command is missing"),
                _ => {}
            }
            if let Some(word) = self.bare().filter(|word| ENDS.contains(word)) {
                if ends.contains(&word) {
                    break;
                }
                return unclear(&format!("`{word}` without its beginning"));
            }
            self.command(parts)?;
            match self.peek() {
                None | Some(Token::Close) => break,
                Some(Token::Separator | Token::Joint) => self.at += 1,
                Some(_) => return unclear("something follows a command"),
            }
        }
        self.depth -= 1;
        Ok(())
    }

    fn expect(&mut self, word: &str) -> Result<(), Refusal> {
        if self.bare() == Some(word) {
            self.at += 1;
            return Ok(());
        }
        unclear(&format!("`{word}` is missing"))
    }

    fn redirections(&mut self) {
        while matches!(self.peek(), Some(Token::Redirection)) {
            self.at += 1;
        }
    }

    fn command(&mut self, parts: &mut Vec<Part>) -> Result<(), Refusal> {
        loop {
            match self.bare() {
                Some("!") => self.at += 1,
                Some("time") => {
                    self.at += 1;
                    if self.bare() == Some("-p") {
                        self.at += 1;
                    }
                }
                _ => break,
            }
        }
        if matches!(self.peek(), Some(Token::Open)) {
            self.at += 1;
            self.list(&[], parts)?;
            if !matches!(self.peek(), Some(Token::Close)) {
                return unclear("`)` is missing");
            }
            self.at += 1;
            self.redirections();
            return Ok(());
        }
        match self.bare() {
            Some("{") => {
                self.at += 1;
                self.list(&["}"], parts)?;
                self.expect("}")?;
            }
            Some("if") => {
                self.at += 1;
                self.list(&["then"], parts)?;
                self.expect("then")?;
                loop {
                    self.list(&["elif", "else", "fi"], parts)?;
                    match self.bare() {
                        Some("elif") => {
                            self.at += 1;
                            self.list(&["then"], parts)?;
                            self.expect("then")?;
                        }
                        Some("else") => {
                            self.at += 1;
                            self.list(&["fi"], parts)?;
                        }
                        _ => break,
                    }
                }
                self.expect("fi")?;
            }
            Some("while" | "until") => {
                self.at += 1;
                self.list(&["do"], parts)?;
                self.expect("do")?;
                self.list(&["done"], parts)?;
                self.expect("done")?;
            }
            Some("for") => {
                self.at += 1;
                let part = self.for_loop()?;
                parts.push(part);
            }
            Some(word @ ("case" | "select" | "function" | "[[" | "coproc")) => {
                return Err(Refusal::new(format!(
                    "`{word}` is not judged{}",
                    if word == "[[" {
                        ": use `[ … ]` instead"
                    } else {
                        ""
                    }
                )));
            }
            _ => {
                let part = self.simple()?;
                parts.push(part);
                return Ok(());
            }
        }
        self.redirections();
        Ok(())
    }

    fn for_loop(&mut self) -> Result<Part, Refusal> {
        let Some(name) = self.bare().map(str::to_owned) else {
            return unclear("`for` without a name");
        };
        self.at += 1;
        let mut words = Vec::new();
        self.separators();
        if self.bare() == Some("in") {
            self.at += 1;
            while let Some(Token::Word(word)) = self.peek() {
                words.push(word.clone());
                self.at += 1;
            }
            if !matches!(self.peek(), Some(Token::Separator)) {
                return unclear("`for` without `do`");
            }
        }
        self.separators();
        self.expect("do")?;
        let mut body = Vec::new();
        self.list(&["done"], &mut body)?;
        self.expect("done")?;
        Ok(Part::For { name, words, body })
    }

    fn separators(&mut self) {
        while matches!(self.peek(), Some(Token::Separator)) {
            self.at += 1;
        }
    }

    fn simple(&mut self) -> Result<Part, Refusal> {
        let mut assignments = Vec::new();
        let mut words = Vec::new();
        loop {
            match self.peek() {
                Some(Token::Redirection) => {}
                Some(Token::Word(word)) => match assignment(word) {
                    Some(assigned) if words.is_empty() => assignments.push(assigned),
                    _ => words.push(word.clone()),
                },
                Some(Token::Open) => {
                    return unclear("a function or `(` in the middle of a command");
                }
                _ => break,
            }
            self.at += 1;
        }
        Ok(Part::Simple { assignments, words })
    }
}

/// `NAME=value`, as the shell sees it.
fn assignment(word: &Word) -> Option<(String, Word)> {
    let Some(Piece::Text {
        text,
        quoted: false,
    }) = word.pieces.first()
    else {
        return None;
    };
    let (name, _) = text.split_once('=')?;
    let plain = name.strip_suffix('+').unwrap_or(name);
    is_name(plain).then(|| (plain.to_owned(), word.skip(name.chars().count() + 1)))
}

/// Whether a text can be a variable's name.
pub(super) fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c == '_' || c.is_ascii_alphabetic())
        && text.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric())
}
