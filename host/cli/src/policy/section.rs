//! A section of a policy file, changed without touching anything else in it.

use pi_vers_host::policy::Digest;
use toml_edit::{DocumentMut, Item, Table, Value};

/// The text of a policy with these lines in the section of an extension, bound to these bytes. `None` for the digest: to the shipped ones.
/// `base` is what a section begins with that is not there yet.
///
/// # Errors
/// What is wrong with the text or a line, in words.
pub(super) fn with(
    text: &str,
    name: &str,
    digest: Option<&Digest>,
    rules: &[String],
    base: Option<&str>,
) -> Result<String, String> {
    let mut document: DocumentMut = text.parse().map_err(said)?;
    let extensions = document.entry("extension").or_insert_with(|| {
        let mut table = Table::new();
        // No header of its own: it holds nothing but sections.
        table.set_implicit(true);
        Item::Table(table)
    });
    let extensions = extensions
        .as_table_like_mut()
        .ok_or("`extension` is no table")?;
    if extensions.get(name).is_none() {
        extensions.insert(name, Item::Table(first(name, base)?));
    }
    let section = extensions
        .get_mut(name)
        .and_then(Item::as_table_like_mut)
        .ok_or("its section is no table")?;
    let bound = digest.map_or_else(|| "shipped".to_owned(), ToString::to_string);
    put(section, "digest", Value::from(bound));
    for rule in rules {
        let lines: DocumentMut = rule
            .parse()
            .map_err(|why| format!("{rule}: {}", said(why)))?;
        if lines.is_empty() {
            return Err(format!(
                "`{rule}` is no line of a policy such as vms = [\"list\"]"
            ));
        }
        for (key, item) in lines.iter() {
            if key == "digest" {
                return Err(
                    "a grant is bound to the component that is given: leave `digest` out".into(),
                );
            }
            let new = item.as_value().cloned();
            let new = new.ok_or_else(|| format!("{key} has to be one line"))?;
            match (section.get_mut(key).and_then(Item::as_array_mut), new) {
                (Some(old), Value::Array(new)) => {
                    for value in new.iter() {
                        if !old.iter().any(|held| plain(held) == plain(value)) {
                            old.push(value.clone().decorated(" ", ""));
                        }
                    }
                }
                (_, new) => put(section, key, new),
            }
        }
    }
    Ok(document.to_string())
}

/// The same rules for these bytes: each section bound to them, whatever it was bound to.
///
/// # Errors
/// What is wrong with the text, in words.
pub(crate) fn bound(text: &str, digest: &Digest) -> Result<String, String> {
    let mut document: DocumentMut = text.parse().map_err(said)?;
    let sections = document
        .get_mut("extension")
        .and_then(Item::as_table_like_mut);
    for (_, section) in sections.into_iter().flat_map(|all| all.iter_mut()) {
        if let Some(section) = section.as_table_like_mut() {
            put(section, "digest", Value::from(digest.to_string()));
        }
    }
    Ok(document.to_string())
}

/// The lines of a section, each by itself and without its digest.
///
/// # Errors
/// What is wrong with the text, or that it has no such section, in words.
pub(super) fn rules(text: &str, name: &str) -> Result<Vec<String>, String> {
    let document: DocumentMut = text.parse().map_err(said)?;
    let section = document
        .get("extension")
        .and_then(|all| all.get(name)?.as_table_like())
        .ok_or_else(|| format!("it has no section [extension.{name}]"))?;
    let lines = section.iter().filter(|(key, _)| *key != "digest");
    lines
        .map(|(key, item)| {
            let value = item
                .as_value()
                .ok_or_else(|| format!("{key} has to be one line"))?;
            let mut value = value.clone();
            value.decor_mut().clear();
            Ok(format!("{key} = {value}"))
        })
        .collect()
}

/// What a new section begins with.
fn first(name: &str, base: Option<&str>) -> Result<Table, String> {
    let mut table = match base {
        None => Table::new(),
        Some(base) => {
            let base: DocumentMut = base.parse().map_err(said)?;
            let section = base.get("extension").and_then(|all| all.get(name));
            section
                .and_then(Item::as_table)
                .cloned()
                .unwrap_or_default()
        }
    };
    table.decor_mut().set_prefix("\n");
    // Where it stood in the other file says nothing here.
    table.set_position(None);
    Ok(table)
}

/// Sets a value where it stands, with the comments around it.
fn put(section: &mut dyn toml_edit::TableLike, key: &str, mut new: Value) {
    match section.get_mut(key).and_then(Item::as_value_mut) {
        Some(old) => {
            *new.decor_mut() = old.decor().clone();
            *old = new;
        }
        None => {
            new.decor_mut().clear();
            section.insert(key, Item::Value(new));
        }
    }
}

fn plain(value: &Value) -> String {
    let mut value = value.clone();
    value.decor_mut().clear();
    value.to_string()
}

fn said(why: toml_edit::TomlError) -> String {
    why.message().replace('\n', " ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn digest() -> Digest {
        Digest::of(b"bytes")
    }

    fn grant(text: &str, rules: &[&str]) -> Result<String, String> {
        let rules: Vec<String> = rules.iter().map(|rule| (*rule).to_owned()).collect();
        with(text, "x", Some(&digest()), &rules, None)
    }

    #[test]
    fn a_new_section_is_what_was_asked_for_and_parses() {
        let text = grant(
            "",
            &[
                "vms = [\"list\"]",
                "shell = { vms = \"own\", commands = [] }",
            ],
        )
        .unwrap();
        assert_eq!(
            text.trim_start(),
            format!(
                "[extension.x]\ndigest = \"{}\"\nvms = [\"list\"]\nshell = {{ vms = \"own\", commands = [] }}\n",
                digest()
            )
        );
        pi_vers_host::policy::Policy::parse(&text, "p").unwrap();
    }

    #[test]
    fn comments_stay_and_items_are_added_once() {
        let old = "# mine\n[extension.other]\ndigest = \"shipped\" # follows\n\n# about x\n[extension.x]\ndigest = \"sha256:old\" # its bytes\nvms = [\"list\"] # to see\nstore = false\n";
        let text = grant(old, &["vms = [\"get\", \"list\"]", "store = true"]).unwrap();
        let expected = old
            .replace("sha256:old", &digest().to_string())
            .replace("[\"list\"]", "[\"list\", \"get\"]")
            .replace("false", "true");
        assert_eq!(text, expected);
        assert_eq!(grant(&text, &["vms = [\"get\"]"]).unwrap(), text);
    }

    #[test]
    fn a_shipped_extension_begins_with_what_is_shipped() {
        let base = "# all\n[extension.x]\ndigest = \"sha256:1\"\nbus = [\"a\"]\n[extension.y]\ndigest = \"sha256:2\"\n";
        let rules = vec!["bus = [\"b\"]".to_owned()];
        let text = with("# mine\n", "x", None, &rules, Some(base)).unwrap();
        assert!(
            text.contains("digest = \"shipped\"\nbus = [\"a\", \"b\"]"),
            "{text}"
        );
        assert!(!text.contains("extension.y"), "{text}");
    }

    #[test]
    fn what_is_no_line_is_refused_in_words() {
        for rule in ["", "vms", "digest = \"shipped\"", "[vms]\nx = 1\n[[a]]\n"] {
            assert!(grant("", &[rule]).is_err(), "{rule}");
        }
    }
}
