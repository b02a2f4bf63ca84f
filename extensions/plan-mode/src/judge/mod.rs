//! Whether a shell command can change anything.
//!
//! The threat is a model that was told to look and not to touch, and touches: by mistake, or because a text it has read
//! told it to. So a command runs only if it is *shown* to read: its structure is understood completely, each program in it is known, each
//! option of that program is known to only read, and what is unknown until the shell runs (variables, patterns) cannot become an option that
//! does more. Everything else is refused, with the reason. There is no list of what is forbidden.
//!
//! What is accepted: simple commands joined by `;`, newlines, `&&`, `||` and pipes; `( )`, `{ }`, `if`, `while`, `until`, `for`; quotes;
//! `$name` and the plain forms of `${…}`; patterns; here-documents and here-strings; `<`, redirections to `/dev/null`, copies of descriptors.
//! What is refused whatever is in it: command and process substitution, arithmetic, functions, background jobs, `case`, `[[`, other
//! redirections, assignments that could change how a program behaves.
//!
//! What it does not protect from: the configuration of the user's own programs (`git`'s `core.fsmonitor`, a `PATH` with foreign
//! directories), servers that act on a GET, caches and access times that programs keep by themselves. A sandbox would; for that there is
//! the throw-away branch of a VM.
//!
//! Why not a crate: a parser for a judge has to refuse what it does not know, where a parser for a shell has to accept all that
//! bash accepts. `brush-parser` (the best kept one under a free licence; 280 KiB of Wasm by itself) leaves words as texts that need a second
//! parser for expansions, `yash-syntax` is under the GPL, and `tree-sitter-bash` is C code whose grammar repairs errors instead
//! of reporting them. What is needed here is a fifth of the grammar, and each of its forms has to be judged anyway.
//!
//! * `lex`: words, operators, redirections;
//! * `parse`: which commands there are;
//! * `options`: arguments against what a program is known for;
//! * `programs`: what is known about programs.

mod lex;
mod options;
mod parse;
mod programs;
mod word;

use std::collections::HashMap;

use parse::Part;
use word::{Kind, Piece, Word};

/// The longest script that is judged, in bytes.
const LONGEST: usize = 64 * 1024;
/// How many commands may start commands (`env nice timeout …`), one in the other.
const DEEPEST: usize = 8;

/// Why a command is refused: a phrase that names what is wrong and, where there is one, a way that is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal(String);

impl Refusal {
    pub(crate) fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refusal {}

/// Judges a script for bash. `Ok`: it only reads.
///
/// # Errors
/// The first reason why it may do more.
pub fn judge(script: &str) -> Result<(), Refusal> {
    if script.len() > LONGEST {
        return Err(Refusal::new("it is too long to be judged"));
    }
    let tokens = lex::lex(script)?;
    let parts = parse::parse(&tokens)?;
    let mut assigned = HashMap::new();
    count(&parts, &mut assigned);
    let mut walk = Walk {
        assigned,
        known: HashMap::new(),
    };
    walk.parts(&parts)
}

/// What is known of a loop's variable inside of the loop.
#[derive(Clone, Copy)]
enum Value {
    /// Inside quotes it does not begin with `-`.
    NoOption,
    /// The same without quotes: it has no space and no pattern either.
    Plain,
}

struct Walk {
    /// How often the script gives each variable a value.
    assigned: HashMap<String, usize>,
    known: HashMap<String, Value>,
}

fn count(parts: &[Part], assigned: &mut HashMap<String, usize>) {
    for part in parts {
        match part {
            Part::Simple { assignments, words } => {
                let mut names: Vec<String> =
                    assignments.iter().map(|(name, _)| name.clone()).collect();
                // `read NAME…`, however it is reached.
                if words.iter().any(|w| w.exact().as_deref() == Some("read")) {
                    names.extend(words.iter().filter_map(Word::exact));
                }
                for name in names {
                    *assigned.entry(name).or_default() += 1;
                }
            }
            Part::For { name, body, .. } => {
                *assigned.entry(name.clone()).or_default() += 1;
                count(body, assigned);
            }
        }
    }
}

impl Walk {
    fn parts(&mut self, parts: &[Part]) -> Result<(), Refusal> {
        parts.iter().try_for_each(|part| self.part(part))
    }

    fn part(&mut self, part: &Part) -> Result<(), Refusal> {
        match part {
            Part::Simple { assignments, words } => {
                for (name, value) in assignments {
                    // For `read` alone: elsewhere a shell may keep it, and split differently from then on.
                    let reads = words.first().is_some_and(|w| w.bare() == Some("read"));
                    if words.is_empty() || name == "IFS" && !reads {
                        may_assign(name)?;
                    } else {
                        programs::environment(name, value)?;
                    }
                }
                let words: Vec<Word> = words.iter().map(|word| self.resolve(word)).collect();
                if words.is_empty() {
                    return Ok(());
                }
                command(&words, 0)
            }
            Part::For { name, words, body } => {
                may_assign(name)?;
                let value = (self.assigned.get(name) == Some(&1))
                    .then(|| value(words))
                    .flatten();
                if let Some(value) = value {
                    self.known.insert(name.clone(), value);
                }
                let judged = self.parts(body);
                self.known.remove(name);
                judged
            }
        }
    }

    /// The word with what is known of variables.
    fn resolve(&self, word: &Word) -> Word {
        let resolve = |piece: &Piece| match piece {
            Piece::Unknown(Kind::Whole(Some(name))) if self.known.contains_key(name) => {
                Piece::Unknown(Kind::Operand)
            }
            Piece::Unknown(Kind::Split(Some(name)))
                if matches!(self.known.get(name), Some(Value::Plain)) =>
            {
                Piece::Unknown(Kind::Operand)
            }
            piece => piece.clone(),
        };
        Word {
            pieces: word.pieces.iter().map(resolve).collect(),
        }
    }
}

/// What the variable of a loop over these words can be.
fn value(words: &[Word]) -> Option<Value> {
    let plain = |word: &Word| {
        word.exact().is_some_and(|text| {
            !text.is_empty()
                && !text.starts_with('-')
                && !text.contains([' ', '\t', '\n', '*', '?', '['])
        })
    };
    if words.is_empty() {
        return None;
    }
    if words.iter().all(plain) {
        return Some(Value::Plain);
    }
    // An empty text is not an option, but neither does it keep its place where it is not quoted.
    let safe = |word: &Word| {
        let prefix = word.prefix();
        !prefix.is_empty() && !prefix.starts_with('-') && !word.may_be_option()
    };
    words.iter().all(safe).then_some(Value::NoOption)
}

/// Variables of the shell alone. One in capitals, or one that programs know, may be exported already, and `__*` is the wrapper's.
fn may_assign(name: &str) -> Result<(), Refusal> {
    let known = ["path", "fpath", "cdpath", "manpath", "prompt", "histchars"];
    let fine = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .bytes()
            .all(|b| b == b'_' || b.is_ascii_lowercase() || b.is_ascii_digit())
        && !name.ends_with("_proxy")
        && !known.contains(&name);
    if fine {
        return Ok(());
    }
    Err(Refusal::new(format!(
        "the variable `{name}` may change how programs behave: use a name in small letters, such as `x`"
    )))
}

/// Judges one command: a program and its arguments.
fn command(words: &[Word], depth: usize) -> Result<(), Refusal> {
    if depth > DEEPEST {
        return Err(Refusal::new("too many commands that start commands"));
    }
    let Some((program, arguments)) = words.split_first() else {
        return Ok(());
    };
    let Some(name) = program.exact() else {
        return Err(Refusal::new(format!(
            "which program `{}` is, is only known when it runs",
            program.show()
        )));
    };
    programs::judge(&name, arguments, depth)
}

#[cfg(test)]
mod tests;
