//! Arguments of a program against the options it is known for.
//!
//! Options are written as in a manual's synopsis, one text for each program:
//!
//! | written | means |
//! |---|---|
//! | `-abc` | each of these letters is an option without a value |
//! | `-k:` | takes a value, attached or as the next word |
//! | `-U?` | may have an attached value |
//! | `-#` | a number, as in `head -5` |
//! | `--all` | long, without a value |
//! | `--key=` | long, with a value after `=` |
//! | `--key:` | long, with a value after `=` or as the next word |
//! | `--color?` | long, may have a value after `=` |
//!
//! Long options count only if written out: programs know abbreviations, and which ones depends on their version.
//!
//! `:` is only for options whose value is never left out in any version: the word after it is not looked at, and it would be an
//! option if the value were optional. In doubt `=` or `?` is right: a value is then taken for an operand, which is harmless.

use super::Refusal;
use super::word::{Word, brief};

/// Arguments, taken apart.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    /// Options with their dashes, and their values.
    pub(super) options: Vec<(String, Option<Word>)>,
    pub(super) operands: Vec<Word>,
}

impl Parsed {
    pub(super) fn has(&self, names: &[&str]) -> bool {
        self.options
            .iter()
            .any(|(name, _)| names.contains(&name.as_str()))
    }

    pub(super) fn values(&self, names: &[&str]) -> impl Iterator<Item = &Word> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        self.options
            .iter()
            .filter(move |(name, _)| names.contains(name))
            .filter_map(|(_, value)| value.as_ref())
    }
}

/// Where options end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// They may stand among the operands.
    Mixed,
    /// The first operand ends them, and all after it belongs to that.
    First,
}

enum Takes {
    Nothing,
    Value,
    /// A value after `=`.
    Only,
    /// At most a value right behind it.
    Attached,
}

fn short(spec: &str, letter: char) -> Option<Takes> {
    for part in spec.split(' ') {
        let Some(letters) = part.strip_prefix('-').filter(|l| !l.starts_with('-')) else {
            continue;
        };
        if letters == "#" {
            if letter.is_ascii_digit() {
                return Some(Takes::Nothing);
            }
            continue;
        }
        if !letters.contains(letter) || letter == ':' || letter == '?' && letters.len() > 1 {
            continue;
        }
        return Some(if letters.ends_with(':') {
            Takes::Value
        } else if letters.ends_with('?') && letters.len() > 1 {
            Takes::Attached
        } else {
            Takes::Nothing
        });
    }
    None
}

fn long(spec: &str, name: &str) -> Option<Takes> {
    spec.split(' ').find_map(|part| {
        let known = part.strip_suffix([':', '=', '?']).unwrap_or(part);
        (known == name).then(|| match part.chars().next_back() {
            Some(':') => Takes::Value,
            Some('=') => Takes::Only,
            Some('?') => Takes::Attached,
            _ => Takes::Nothing,
        })
    })
}

/// Takes arguments apart.
///
/// # Errors
/// When one is, or could turn out to be, an option that is not in `spec`.
pub(super) fn parse(
    program: &str,
    spec: &str,
    order: Order,
    arguments: &[Word],
) -> Result<Parsed, Refusal> {
    let mut parsed = Parsed::default();
    let mut rest = arguments.iter();
    while let Some(word) = rest.next() {
        let text = word.exact();
        let ends = match text.as_deref() {
            Some("--") => true,
            Some("--end-of-options") => program.starts_with("git "),
            _ => false,
        };
        if ends {
            parsed.operands.extend(rest.cloned());
            break;
        }
        if !word.may_be_option() {
            parsed.operands.push(word.clone());
            if order == Order::First {
                parsed.operands.extend(rest.cloned());
                break;
            }
            continue;
        }
        let prefix = word.prefix();
        if prefix.starts_with("--") {
            let name = prefix.split('=').next().unwrap_or_default();
            let attached = prefix.len() > name.len();
            let takes = match text {
                Some(_) => long(spec, name),
                None if attached => long(spec, name),
                None => None,
            };
            match (takes, attached) {
                (Some(Takes::Nothing | Takes::Attached), false) => {
                    parsed.options.push((name.into(), None));
                }
                (Some(Takes::Value | Takes::Only | Takes::Attached), true) => {
                    let value = word.skip(name.chars().count() + 1);
                    one(program, name, &value)?;
                    parsed.options.push((name.into(), Some(value)));
                }
                (Some(Takes::Value), false) => {
                    let value = next(program, name, &mut rest)?;
                    parsed.options.push((name.into(), Some(value)));
                }
                (Some(Takes::Only), false) => {
                    return Err(Refusal::new(format!(
                        "the value of `{program} {name}` belongs right behind it: write `{name}=VALUE`"
                    )));
                }
                _ => return Err(unknown(program, word)),
            }
            continue;
        }
        if !prefix.starts_with('-') {
            return Err(unknown(program, word));
        }
        cluster(program, spec, word, &mut rest, &mut parsed)?;
    }
    Ok(parsed)
}

fn cluster(
    program: &str,
    spec: &str,
    word: &Word,
    rest: &mut std::slice::Iter<'_, Word>,
    parsed: &mut Parsed,
) -> Result<(), Refusal> {
    let prefix = word.prefix();
    let whole = word.exact().is_some();
    let letters: Vec<char> = prefix.chars().skip(1).collect();
    if letters.is_empty() {
        return Err(unknown(program, word));
    }
    for (at, letter) in letters.iter().enumerate() {
        let name = format!("-{letter}");
        let last = at + 1 == letters.len();
        match short(spec, *letter) {
            // What follows is unknown: it would be more letters.
            Some(Takes::Nothing) if !last || whole => parsed.options.push((name, None)),
            Some(Takes::Attached) if last && whole => parsed.options.push((name, None)),
            Some(Takes::Value) if last && whole => {
                let value = next(program, &name, rest)?;
                parsed.options.push((name, Some(value)));
                return Ok(());
            }
            Some(Takes::Value | Takes::Attached) => {
                // The dash, the letters before, and this one.
                let value = word.skip(at + 2);
                one(program, &name, &value)?;
                parsed.options.push((name, Some(value)));
                return Ok(());
            }
            _ => return Err(unknown(program, word)),
        }
    }
    Ok(())
}

fn next(
    program: &str,
    option: &str,
    rest: &mut std::slice::Iter<'_, Word>,
) -> Result<Word, Refusal> {
    let Some(value) = rest.next() else {
        return Err(Refusal::new(format!(
            "`{program} {option}` lacks its value"
        )));
    };
    one(program, option, value)?;
    Ok(value.clone())
}

/// A value that becomes several words would shift all that follows.
fn one(program: &str, option: &str, value: &Word) -> Result<(), Refusal> {
    if value.is_many() {
        return Err(Refusal::new(format!(
            "the value of `{program} {option}` may become several words: put it in quotes"
        )));
    }
    Ok(())
}

fn unknown(program: &str, word: &Word) -> Refusal {
    if word.prefix().starts_with('-') {
        return Refusal::new(format!(
            "the option `{}` of `{program}` is not known to only read",
            word.show()
        ));
    }
    Refusal::new(format!(
        "`{}` may become an option of `{program}` when it runs: write it out, or put it in quotes behind `--`",
        word.show()
    ))
}

/// The arguments as texts, for programs that are judged by their exact form.
///
/// # Errors
/// When one is not known before it runs.
pub(super) fn exact(program: &str, arguments: &[Word]) -> Result<Vec<String>, Refusal> {
    arguments
        .iter()
        .map(|word| {
            word.exact().ok_or_else(|| {
                Refusal::new(format!(
                    "`{program}` is only judged with arguments that are written out, and `{}` is not",
                    word.show()
                ))
            })
        })
        .collect()
}

/// A refusal of a form of a program.
pub(super) fn form(program: &str, why: &str) -> Refusal {
    Refusal::new(format!("`{}` {why}", brief(program)))
}
