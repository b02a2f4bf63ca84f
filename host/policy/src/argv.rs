//! Argument patterns: which argument vectors a program may be started with.
//!
//! The threat is argument injection: `git log *` must not become `git log --output=/etc/x`, because for most
//! programs some option runs code or writes files. So a wildcard never stands for an option, and what is matched is
//! the argument vector, element by element, never a joined text that could be split otherwise later.
//!
//! | word | matches |
//! |---|---|
//! | `log`, `--oneline` | exactly this argument; options are always written out |
//! | `*` | exactly one operand: an argument that is not empty and begins with none of `-` `+` `@` |
//! | `--max-count=*` | this option with any value |
//! | `**` | any number of operands; last word only |
//! | `...` | everything else, options included; last word only, for programs where no option can do harm |
//! | `'a b'`, `"it's"` | exactly this text; `\"` and `\\` inside double quotes |
//!
//! A literal `--` is a word like any other, and operands after it still may not begin with `-`: `find`, `env` and
//! `xargs` go on reading options there (a file named `-x` can be written `./-x`). `+` is an option to `vim` and
//! `less`, `@` an argument file to `javac` and `gcc`; typographic dashes are options to PowerShell. Other stars
//! (`src/*`) are refused: a glob over text would also match `src/../../etc`.

use std::fmt;

/// A parsed pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ArgPattern {
    source: String,
    words: Vec<Word>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Word {
    Literal(String),
    /// `--name=`, then anything.
    Value(String),
    Operand,
    Operands,
    Rest,
}

/// Whether an argument can be taken for nothing but an operand.
fn is_operand(argument: &str) -> bool {
    !matches!(
        argument.chars().next(),
        None | Some(
            '-' | '+' | '@' | '\u{2010}'
                ..='\u{2015}' | '\u{2212}' | '\u{fe58}' | '\u{fe63}' | '\u{ff0d}'
        )
    )
}

impl ArgPattern {
    /// Reads a pattern; the error says what was expected.
    pub(crate) fn parse(source: &str) -> Result<Self, String> {
        let mut words = Vec::new();
        let mut rest = source.trim_start();
        while !rest.is_empty() {
            if let Some(Word::Operands | Word::Rest) = words.last() {
                return Err(
                    "`**` and `...` stand for all that follows: make them the last word".into(),
                );
            }
            let (text, plain, after) = split_word(rest)?;
            words.push(match text.as_str() {
                "*" if plain => Word::Operand,
                "**" if plain => Word::Operands,
                "..." if plain => Word::Rest,
                _ if plain && text.contains('*') => match text.strip_suffix("=*") {
                    Some(name) if name.starts_with('-') && !name.contains(['*', '=']) => Word::Value(format!("{name}=")),
                    _ => return Err(format!("`*` stands alone or ends an option's value (`--name=*`), found {text:?}: quote it if a star is meant")),
                },
                _ => Word::Literal(text),
            });
            rest = after.trim_start();
        }
        Ok(Self {
            source: source.to_owned(),
            words,
        })
    }

    /// The pattern for exactly these arguments.
    pub(crate) fn exactly(arguments: &[String]) -> String {
        let quote = |text: &String| match ArgPattern::parse(text) {
            Ok(Self { words, .. }) if words == [Word::Literal(text.clone())] => text.clone(),
            _ => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
        };
        arguments.iter().map(quote).collect::<Vec<_>>().join(" ")
    }

    /// Whether the first word is a literal, as a program's name has to be.
    pub(crate) fn names_program(&self) -> bool {
        matches!(self.words.first(), Some(Word::Literal(name)) if !name.is_empty())
    }

    /// Whether this argument vector matches.
    pub(crate) fn matches(&self, arguments: &[String]) -> bool {
        let mut arguments = arguments.iter();
        for word in &self.words {
            let matched = match word {
                Word::Operands => return arguments.all(|argument| is_operand(argument)),
                Word::Rest => return true,
                Word::Literal(text) => arguments.next() == Some(text),
                Word::Value(name) => arguments
                    .next()
                    .is_some_and(|argument| argument.starts_with(name)),
                Word::Operand => arguments
                    .next()
                    .is_some_and(|argument| is_operand(argument)),
            };
            if !matched {
                return false;
            }
        }
        arguments.next().is_none()
    }
}

impl fmt::Display for ArgPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

/// The first word without its quotes, whether nothing of it was quoted, and what follows.
fn split_word(text: &str) -> Result<(String, bool, &str), String> {
    let (mut word, mut plain, mut quote) = (String::new(), true, None);
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some('"'), '\\') => match chars.next() {
                Some((_, c @ ('"' | '\\'))) => word.push(c),
                _ => {
                    return Err(
                        "inside double quotes a backslash stands before `\"` or `\\` only".into(),
                    );
                }
            },
            (Some(_), c) => word.push(c),
            (None, '\'' | '"') => (quote, plain) = (Some(c), false),
            (None, c) if c.is_whitespace() => {
                return Ok((word, plain, text.get(at..).unwrap_or_default()));
            }
            (None, c) => word.push(c),
        }
    }
    match quote {
        Some(open) => Err(format!("the quote {open} is never closed")),
        None => Ok((word, plain, "")),
    }
}
