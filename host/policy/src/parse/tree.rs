//! Reading a spanned TOML tree, with messages that say what was expected.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::decision::brief;

/// A message and where in the text it belongs.
pub(super) struct Fault(pub(super) Range<usize>, pub(super) String);

pub(super) type Node<'a> = Spanned<DeValue<'a>>;
pub(super) type Result<T, E = Fault> = std::result::Result<T, E>;

pub(super) fn items<T>(
    node: &Node<'_>,
    what: &str,
    read: impl Fn(&Node<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    match node.get_ref() {
        DeValue::Array(nodes) => nodes.iter().map(read).collect(),
        _ => Err(expected(node, what)),
    }
}

pub(super) fn table<'n, 'a>(node: &'n Node<'a>, what: &str) -> Result<&'n DeTable<'a>> {
    match node.get_ref() {
        DeValue::Table(body) => Ok(body),
        _ => Err(expected(node, what)),
    }
}

pub(super) fn text<'n>(node: &'n Node<'_>, what: &str) -> Result<&'n str> {
    match node.get_ref() {
        DeValue::String(text) if !text.contains('\0') => Ok(text),
        _ => Err(expected(node, what)),
    }
}

pub(super) fn needed<'n, 'a>(
    node: &Node<'_>,
    body: &'n DeTable<'a>,
    key: &str,
) -> Result<&'n Node<'a>> {
    body.get(key)
        .ok_or_else(|| Fault(node.span(), format!("`{key}` is missing here")))
}

pub(super) fn expected(node: &Node<'_>, what: &str) -> Fault {
    let found = match node.get_ref() {
        DeValue::String(text) => brief(&format!("{:?}", text)),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(_) => "a number with a fraction".into(),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(_) => "a date".into(),
        DeValue::Array(_) => "a list".into(),
        DeValue::Table(_) => "a table".into(),
    };
    Fault(node.span(), format!("expected {what}, found {found}"))
}

pub(super) fn known_keys(body: &DeTable<'_>, known: &[&str], place: &str) -> Result<()> {
    match body
        .keys()
        .find(|key| !known.contains(&key.get_ref().as_ref()))
    {
        None => Ok(()),
        Some(key) => Err(Fault(
            key.span(),
            unknown("key", key.get_ref(), known, place),
        )),
    }
}

/// `unknown key "shel" in …: did you mean "shell"?`
pub(super) fn unknown(what: &str, word: &str, known: &[&str], place: &str) -> String {
    let near = known
        .iter()
        .map(|name| (distance(word, name), name))
        .filter(|(far, name)| *far <= 1 + name.len() / 4)
        .min();
    let word = brief(&format!("{word:?}"));
    match near {
        Some((_, name)) => format!("unknown {what} {word}: did you mean \"{name}\"?"),
        None => format!(
            "unknown {what} {word} in {place}: known are {}",
            known.join(", ")
        ),
    }
}

/// Edits from one word to the other.
fn distance(a: &str, b: &str) -> usize {
    if a.len() > 64 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut corner = i;
        let mut left = i + 1;
        for (cell, to) in row.iter_mut().skip(1).zip(b.chars()) {
            let next = (corner + usize::from(from != to))
                .min(left + 1)
                .min(*cell + 1);
            (corner, left) = (*cell, next);
            *cell = next;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(usize::MAX)
}
