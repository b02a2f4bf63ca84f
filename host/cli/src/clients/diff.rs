//! What changes in a file, as a unified diff.
//!
//! Beside our lines stand others, and configurations of clients hold keys: of another server, or of the account. A diff goes to
//! terminals, logs and bug reports, so no value is shown that is not one of ours; names and layout are, to say where the change is.

use std::collections::BTreeSet;
use std::ops::Range;

use jsonc_parser::{CollectOptions, ParseOptions, ast, parse_to_ast};
use serde_json::Value;
use similar::TextDiff;
use toml_edit::{Document, Item, TableLike, Value as Toml};

use super::document::Syntax;

/// What stands in place of a value.
const HIDDEN: &str = "\"…\"";

/// The texts of these values may be shown.
pub(crate) fn texts<'a>(values: impl IntoIterator<Item = &'a Value>) -> BTreeSet<String> {
    fn add(value: &Value, all: &mut BTreeSet<String>) {
        match value {
            Value::String(text) => {
                all.insert(text.clone());
            }
            Value::Array(values) => values.iter().for_each(|value| add(value, all)),
            Value::Object(members) => members.values().for_each(|value| add(value, all)),
            _ => {}
        }
    }
    let mut all = BTreeSet::new();
    values.into_iter().for_each(|value| add(value, &mut all));
    all
}

/// The diff from `old` to `new`, both of this syntax.
pub(crate) fn unified(
    syntax: Syntax,
    file: &std::path::Path,
    old: &str,
    new: &str,
    ours: &BTreeSet<String>,
) -> String {
    let (old, new) = (hide(syntax, old, ours), hide(syntax, new, ours));
    let name = file.display().to_string();
    TextDiff::from_lines(&old, &new)
        .unified_diff()
        .context_radius(2)
        .header(&name, &name)
        .to_string()
}

/// The text without the values of others. A text that can't be read is hidden as a whole.
fn hide(syntax: Syntax, text: &str, ours: &BTreeSet<String>) -> String {
    let mut ranges = Vec::new();
    let found = match syntax {
        Syntax::Toml => toml(text, ours, &mut ranges),
        _ => json(text, ours, &mut ranges),
    };
    if found.is_none() {
        return HIDDEN.to_owned();
    }
    ranges.sort_by_key(|range: &Range<usize>| range.start);
    let (mut hidden, mut at) = (String::with_capacity(text.len()), 0);
    for range in ranges {
        hidden.push_str(text.get(at..range.start).unwrap_or_default());
        hidden.push_str(HIDDEN);
        at = range.end;
    }
    hidden.push_str(text.get(at..).unwrap_or_default());
    hidden
}

fn json(text: &str, ours: &BTreeSet<String>, ranges: &mut Vec<Range<usize>>) -> Option<()> {
    let read = parse_to_ast(text, &CollectOptions::default(), &ParseOptions::default());
    if let Some(value) = &read.ok()?.value {
        json_value(value, ours, ranges);
    }
    Some(())
}

fn json_value(value: &ast::Value<'_>, ours: &BTreeSet<String>, ranges: &mut Vec<Range<usize>>) {
    match value {
        ast::Value::StringLit(text) if !ours.contains(text.value.as_ref()) => {
            ranges.push(text.range.start..text.range.end);
        }
        ast::Value::Object(object) => {
            for member in &object.properties {
                json_value(&member.value, ours, ranges);
            }
        }
        ast::Value::Array(array) => {
            for value in &array.elements {
                json_value(value, ours, ranges);
            }
        }
        _ => {}
    }
}

fn toml(text: &str, ours: &BTreeSet<String>, ranges: &mut Vec<Range<usize>>) -> Option<()> {
    let document = Document::parse(text).ok()?;
    toml_table(document.as_table(), ours, ranges);
    Some(())
}

fn toml_table(table: &dyn TableLike, ours: &BTreeSet<String>, ranges: &mut Vec<Range<usize>>) {
    for (_, item) in table.iter() {
        match item {
            Item::None => {}
            Item::Value(value) => toml_value(value, ours, ranges),
            Item::Table(inner) => toml_table(inner, ours, ranges),
            Item::ArrayOfTables(all) => {
                for inner in all.iter() {
                    toml_table(inner, ours, ranges);
                }
            }
        }
    }
}

fn toml_value(value: &Toml, ours: &BTreeSet<String>, ranges: &mut Vec<Range<usize>>) {
    match value {
        Toml::String(text) if !ours.contains(text.value()) => ranges.extend(value.span()),
        Toml::Array(values) => {
            for value in values {
                toml_value(value, ours, ranges);
            }
        }
        Toml::InlineTable(inner) => toml_table(inner, ours, ranges),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;
    use std::path::Path;

    const SECRET: &str = "s3cr3t";

    /// Regression: a diff of a client's configuration showed the keys of other servers.
    #[test]
    fn values_of_others_are_not_shown() {
        let ours = texts([&json!({ "command": "pi-vers", "args": ["mcp"] })]);
        let old = r#"{ "a": { "env": { "TOKEN": "s3cr3t" }, "args": ["s3cr3t"] }, "s": {} }"#;
        let new = r#"{ "a": { "env": { "TOKEN": "s3cr3t" }, "args": ["s3cr3t"] }, "s": { "command": "pi-vers", "args": ["mcp"] } }"#;
        let diff = unified(Syntax::Json, Path::new("f"), old, new, &ours);
        assert!(!diff.contains(SECRET), "{diff}");
        assert!(
            diff.contains("TOKEN") && diff.contains("\"pi-vers\""),
            "{diff}"
        );

        let old =
            "[a]\ntoken = 's3cr3t'\nmore = { x = [\"s3cr3t\"] }\nlong = \"\"\"\ns3cr3t\n\"\"\"\n";
        let new = format!("{old}\n[s]\ncommand = \"pi-vers\"\n");
        let diff = unified(Syntax::Toml, Path::new("f"), old, &new, &ours);
        assert!(!diff.contains(SECRET), "{diff}");
        assert!(diff.contains("+command = \"pi-vers\""), "{diff}");
    }

    #[test]
    fn only_the_changed_lines_and_two_around_them_are_shown() {
        let line = |n: usize| format!("k{n} = {n}\n");
        let old: String = (0..20).map(line).collect();
        let new = old.replace("k10 = 10", "k10 = 11");
        let diff = unified(Syntax::Toml, Path::new("f"), &old, &new, &BTreeSet::new());
        assert_eq!(
            diff,
            "--- f\n+++ f\n@@ -9,5 +9,5 @@\n k8 = 8\n k9 = 9\n-k10 = 10\n+k10 = 11\n k11 = 11\n k12 = 12\n"
        );
    }
}
