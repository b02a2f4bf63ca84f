//! The SDK for Rust as a package that stands by itself: what it inherits from its workspace is written out.

use toml_edit::{DocumentMut, InlineTable, Item, TableLike, Value};

use super::templates::{EMBEDDED, File, embedded};

/// Where it stands in a project. Its bindings are made from `../../wit`, which is the project's `wit/` from here.
const PLACE: &str = "vendor/pi-vers-sdk";

/// Its files, and a lock file with the versions that it was tested with: so a project builds where this binary was built, without a
/// network.
pub(super) fn files() -> Result<Vec<File>, String> {
    let manifest = standalone(
        embedded("sdk/Cargo.toml")?,
        embedded("extensions/Cargo.toml")?,
    )?;
    let mut files = vec![
        (format!("{PLACE}/Cargo.toml"), manifest),
        (
            "Cargo.lock".to_owned(),
            embedded("extensions/Cargo.lock")?.to_owned(),
        ),
    ];
    let sources = EMBEDDED
        .iter()
        .filter_map(|(path, text)| Some((path.strip_prefix("sdk/src/")?, *text)));
    files.extend(sources.map(|(path, text)| (format!("{PLACE}/src/{path}"), text.to_owned())));
    Ok(files)
}

/// A member's manifest without its workspace. What only its tests need is left out.
fn standalone(member: &str, workspace: &str) -> Result<String, String> {
    let read = |text: &str| -> Result<DocumentMut, String> {
        text.parse()
            .map_err(|why: toml_edit::TomlError| why.message().to_owned())
    };
    let (mut member, workspace) = (read(member)?, read(workspace)?);
    let inherited = |section: &str, key: &str| -> Result<Item, String> {
        let found = workspace
            .get("workspace")
            .and_then(|all| all.get(section)?.get(key));
        found
            .cloned()
            .ok_or_else(|| format!("the workspace has no {section}.{key}"))
    };
    member.remove("lints");
    member.remove("dev-dependencies");
    if let Some(targets) = member.get_mut("target").and_then(Item::as_table_like_mut) {
        for (_, target) in targets.iter_mut() {
            if let Some(target) = target.as_table_like_mut() {
                target.remove("dev-dependencies");
            }
        }
        let empty: Vec<String> = targets
            .iter()
            .filter(|(_, target)| target.as_table_like().is_none_or(|table| table.is_empty()))
            .map(|(key, _)| key.to_owned())
            .collect();
        for key in empty {
            targets.remove(&key);
        }
        if targets.is_empty() {
            member.remove("target");
        }
    }
    each(&mut member, "package", |key, _| inherited("package", key))?;
    each(&mut member, "dependencies", |key, own| {
        let mut from = inherited("dependencies", key)?;
        let more = own.iter().filter(|(key, _)| *key != "workspace");
        let more: Vec<(String, Value)> = more
            .filter_map(|(key, item)| Some((key.to_owned(), item.as_value()?.clone())))
            .collect();
        if more.is_empty() {
            return Ok(from);
        }
        let mut table = InlineTable::new();
        match from.as_value() {
            Some(Value::InlineTable(inner)) => table = inner.clone(),
            Some(version) => drop(table.insert("version", version.clone())),
            None => return Err(format!("{key} of the workspace is no single value")),
        }
        for (key, value) in more {
            table.insert(&key, value);
        }
        from = Item::Value(Value::InlineTable(table));
        Ok(from)
    })?;
    Ok(member.to_string())
}

/// Replaces each `KEY.workspace = true` of a section.
fn each(
    document: &mut DocumentMut,
    section: &str,
    inherited: impl Fn(&str, &dyn TableLike) -> Result<Item, String>,
) -> Result<(), String> {
    let table = document
        .get_mut(section)
        .and_then(Item::as_table_like_mut)
        .ok_or_else(|| format!("there is no [{section}]"))?;
    let mut found = Vec::new();
    for (key, item) in table.iter() {
        if let Some(own) = item.as_table_like()
            && own.get("workspace").and_then(Item::as_bool) == Some(true)
        {
            found.push((key.to_owned(), inherited(key, own)?));
        }
    }
    for (key, item) in found {
        table.insert(&key, item);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_sdk_stands_by_itself() {
        let files = files().unwrap();
        let (_, manifest) = files
            .iter()
            .find(|(path, _)| path.ends_with("Cargo.toml"))
            .unwrap();
        assert!(!manifest.contains("workspace"), "{manifest}");
        assert!(!manifest.contains("dev-dependencies"), "{manifest}");
        assert!(manifest.contains("inter-task-wakeup"), "{manifest}");
        assert!(
            files
                .iter()
                .any(|(path, _)| path == "vendor/pi-vers-sdk/src/lib.rs")
        );
    }

    #[test]
    fn features_of_a_member_are_added_to_those_of_its_workspace() {
        let member = "[package]\nname = \"a\"\nversion.workspace = true\n[dependencies]\nx = { workspace = true, optional = true }\ny.workspace = true\n";
        let workspace = "[workspace.package]\nversion = \"1.0.0\"\n[workspace.dependencies]\nx = \"2\"\ny = { version = \"3\", features = [\"z\"] }\n";
        let text = standalone(member, workspace).unwrap();
        let read: toml::Table = toml::from_str(&text).unwrap();
        let expected: toml::Table = "[package]\nname = \"a\"\nversion = \"1.0.0\"\n[dependencies]\nx = { version = \"2\", optional = true }\ny = { version = \"3\", features = [\"z\"] }\n".parse().unwrap();
        assert_eq!(read, expected);
        assert!(standalone(member, "[workspace.package]\nversion = \"1\"\n").is_err());
    }
}
