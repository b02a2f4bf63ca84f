//! The list of extensions that somebody wants, and the lock that says which bytes they are.
//!
//! There are two lists. The user's, `extensions.toml` in the configuration directory, is loaded in every session. A project's, `[extensions]`
//! in its `pi-vers.toml`, is loaded where the project is the working directory, and of it only what this user has installed: a file that came
//! with somebody's repository cannot make bytes run. Each list has a lock beside it, sorted and written the same way each time, with the digest of
//! every extension; what is loaded are those bytes and no others.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pi_vers_host::policy::Digest;
use serde::{Deserialize, Serialize};
use toml_edit::{DocumentMut, Item, Table};

use super::sign::{Key, Signers};
use super::source::Source;
use crate::clients::file::Kept;
use crate::failure::{Code, Failure};
use crate::{dirs, setup};

/// The form of the lock that is written.
const VERSION: u32 = 1;
const HEADER: &str = "# Written by pi-vers: which bytes each extension is. Keep it with the list; do not change it by hand.\n";

/// Which list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scope {
    User,
    /// The project in this directory.
    Project(PathBuf),
}

impl Scope {
    fn list(&self) -> Result<PathBuf, Failure> {
        Ok(match self {
            Self::User => dirs::config()?.join("extensions.toml"),
            Self::Project(directory) => directory.join(setup::PROJECT),
        })
    }

    fn lock(&self) -> Result<PathBuf, Failure> {
        Ok(match self {
            Self::User => dirs::config()?.join("extensions.lock"),
            Self::Project(directory) => directory.join("pi-vers.lock"),
        })
    }

    /// Where relative paths of its sources begin.
    pub(super) fn base(&self) -> Result<PathBuf, Failure> {
        match self {
            Self::User => dirs::config(),
            Self::Project(directory) => Ok(directory.clone()),
        }
    }

    /// In words.
    pub(super) fn words(&self) -> &'static str {
        match self {
            Self::User => "your list",
            Self::Project(_) => "the project's list",
        }
    }
}

/// One that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) source: Source,
    /// The key it has to be signed by.
    pub(super) signed_by: Option<Key>,
}

/// One that is locked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Locked {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) source: String,
    pub(super) digest: String,
    /// What grants are bound to, where that is not the digest of these bytes alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bound: Option<String>,
    pub(super) size: u64,
    /// The key that signed these bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) signed_by: Option<String>,
    /// What it imports, so that an update can say what has changed.
    pub(super) imports: Vec<String>,
    /// The policy's keys that matter for what it imports and offers.
    pub(super) asks: Vec<String>,
    pub(super) tools: Vec<String>,
}

impl Locked {
    pub(super) fn digest(&self) -> Result<Digest, Failure> {
        self.read(&self.digest)
    }

    /// What its grants are bound to.
    pub(super) fn bound(&self) -> Result<Digest, Failure> {
        self.read(self.bound.as_ref().unwrap_or(&self.digest))
    }

    fn read(&self, text: &str) -> Result<Digest, Failure> {
        text.parse()
            .map_err(|_| Failure::usage(format!("the lock has no digest for {}", self.name)))
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LockFile {
    version: u32,
    #[serde(default)]
    extension: Vec<Locked>,
}

/// A list with its lock, as they were read.
#[derive(Debug)]
pub(super) struct List {
    pub(super) scope: Scope,
    pub(super) wanted: BTreeMap<String, Wanted>,
    pub(super) locked: BTreeMap<String, Locked>,
    pub(super) signers: Signers,
    list: Kept,
    lock: Kept,
}

fn broken(file: &Kept, why: impl std::fmt::Display) -> Failure {
    let why = why.to_string();
    let why = why.lines().next().unwrap_or_default();
    Failure::new(
        Code::Usage,
        "list",
        format!("{}: {why}", file.path.display()),
    )
}

/// Names that stand in the list: those that an extension may have, and nothing that is a path.
pub(super) fn named(name: &str) -> Result<(), String> {
    let plain = (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
        && name
            .bytes()
            .next()
            .is_some_and(|first| first.is_ascii_alphanumeric());
    match plain {
        true => Ok(()),
        false => Err(format!(
            "{} is no name: use 1 to 64 letters, digits, -, _ and ., beginning with a letter or digit",
            pi_vers_host::visible(name)
        )),
    }
}

impl List {
    /// Reads a list; one that is not there is empty.
    pub(super) fn read(scope: Scope) -> Result<Self, Failure> {
        let (list, lock) = (Kept::read(&scope.list()?)?, Kept::read(&scope.lock()?)?);
        let text = list.text.clone().unwrap_or_default();
        let document: toml::Table =
            toml::from_str(&text).map_err(|why| broken(&list, why.message()))?;
        let mut signers = match scope {
            Scope::User => BTreeMap::new(),
            // Whom to trust is the user's to say.
            Scope::Project(_) => Self::read(Scope::User)?.signers,
        };
        if scope == Scope::User {
            for key in document.keys() {
                if !["extensions", "signers"].contains(&key.as_str()) {
                    return Err(broken(
                        &list,
                        format!("it has [extensions] and [signers], and no {key}"),
                    ));
                }
            }
            for (name, key) in table(&document, "signers").map_err(|why| broken(&list, why))? {
                let key = key.as_str().ok_or_else(|| "is no text".to_owned());
                let key = key.and_then(Key::parse);
                let key = key.map_err(|why| broken(&list, format!("the signer {name}: {why}")))?;
                signers.insert(name.clone(), key);
            }
        }
        let mut wanted = BTreeMap::new();
        for (name, entry) in table(&document, "extensions").map_err(|why| broken(&list, why))? {
            named(name).map_err(|why| broken(&list, why))?;
            let entry = wanted_of(entry, &signers)
                .map_err(|why| broken(&list, format!("extensions.{name}: {why}")))?;
            wanted.insert(name.clone(), entry);
        }
        let text = lock
            .text
            .clone()
            .unwrap_or_else(|| format!("version = {VERSION}\n"));
        let file: LockFile = toml::from_str(&text).map_err(|why| broken(&lock, why.message()))?;
        if file.version != VERSION {
            return Err(broken(
                &lock,
                format!(
                    "it has the form {}, and this pi-vers knows {VERSION}",
                    file.version
                ),
            ));
        }
        let mut locked = BTreeMap::new();
        for one in file.extension {
            named(&one.name).map_err(|why| broken(&lock, why))?;
            one.digest()?;
            one.bound()?;
            if locked.insert(one.name.clone(), one).is_some() {
                return Err(broken(&lock, "it names an extension twice"));
            }
        }
        Ok(Self {
            scope,
            wanted,
            locked,
            signers,
            list,
            lock,
        })
    }

    /// Adds to the list, or changes what it says.
    pub(super) fn want(&mut self, name: &str, wanted: Wanted) -> Result<(), Failure> {
        let mut document = self.document()?;
        let entry = match &wanted.signed_by {
            None => toml_edit::value(wanted.source.to_string()),
            Some(key) => {
                let mut table = toml_edit::InlineTable::new();
                table.insert("source", wanted.source.to_string().into());
                table.insert("signed-by", key.text().into());
                toml_edit::value(table)
            }
        };
        let extensions = document
            .entry("extensions")
            .or_insert_with(|| Item::Table(Table::new()))
            .as_table_like_mut()
            .ok_or_else(|| broken(&self.list, "`extensions` is no table"))?;
        extensions.insert(name, entry);
        self.write_list(&document)?;
        self.wanted.insert(name.to_owned(), wanted);
        Ok(())
    }

    /// Takes out of the list and of the lock.
    pub(super) fn forget(&mut self, name: &str) -> Result<(), Failure> {
        let mut document = self.document()?;
        if let Some(extensions) = document
            .get_mut("extensions")
            .and_then(Item::as_table_like_mut)
        {
            extensions.remove(name);
        }
        self.write_list(&document)?;
        self.wanted.remove(name);
        self.locked.remove(name);
        self.write_lock()
    }

    fn document(&self) -> Result<DocumentMut, Failure> {
        let text = self.list.text.clone().unwrap_or_default();
        text.parse()
            .map_err(|why: toml_edit::TomlError| broken(&self.list, why.message()))
    }

    fn write_list(&mut self, document: &DocumentMut) -> Result<(), Failure> {
        let text = document.to_string();
        if self.list.text.as_ref() != Some(&text) {
            self.list.write_plainly(&text)?;
            self.list.text = Some(text);
        }
        Ok(())
    }

    /// The lock as it would be written.
    pub(super) fn lock_text(&self) -> Result<String, Failure> {
        let file = LockFile {
            version: VERSION,
            extension: self.locked.values().cloned().collect(),
        };
        let text = toml::to_string(&file)
            .map_err(|why| Failure::internal(format!("the lock cannot be written: {why}")))?;
        Ok(format!("{HEADER}{text}"))
    }

    /// Whether writing would change the lock's file.
    pub(super) fn lock_differs(&self) -> Result<bool, Failure> {
        if self.lock.text.is_none() && self.locked.is_empty() {
            return Ok(false);
        }
        Ok(self.lock.text.as_deref() != Some(self.lock_text()?.as_str()))
    }

    pub(super) fn write_lock(&mut self) -> Result<(), Failure> {
        if self.lock_differs()? {
            let text = self.lock_text()?;
            self.lock.write_plainly(&text)?;
            self.lock.text = Some(text);
        }
        Ok(())
    }

    /// What is wanted and locked as something else, or not at all; and what is locked and not wanted.
    pub(super) fn differences(&self) -> Vec<String> {
        let mut all = Vec::new();
        for (name, wanted) in &self.wanted {
            match self.locked.get(name) {
                None => all.push(format!("{name} is not locked")),
                Some(locked) if locked.source != wanted.source.to_string() => all.push(format!(
                    "{name} is locked from {}, and wanted from {}",
                    locked.source, wanted.source
                )),
                Some(locked) => {
                    let key = wanted.signed_by.as_ref().map(Key::text);
                    if key.is_some() && key != locked.signed_by {
                        all.push(format!(
                            "{name} has to be signed by another key than it is locked with"
                        ));
                    }
                }
            }
        }
        let spare = self
            .locked
            .keys()
            .filter(|name| !self.wanted.contains_key(*name));
        all.extend(spare.map(|name| format!("{name} is locked and not wanted")));
        all
    }
}

fn table<'a>(
    document: &'a toml::Table,
    key: &str,
) -> Result<impl Iterator<Item = (&'a String, &'a toml::Value)>, String> {
    match document.get(key) {
        None => Ok(None.into_iter().flatten()),
        Some(toml::Value::Table(table)) => Ok(Some(table).into_iter().flatten()),
        Some(_) => Err(format!("`{key}` is no table")),
    }
}

fn wanted_of(entry: &toml::Value, signers: &Signers) -> Result<Wanted, String> {
    match entry {
        toml::Value::String(source) => Ok(Wanted {
            source: Source::parse(source)?,
            signed_by: None,
        }),
        toml::Value::Table(table) => {
            let unknown = |key: &&String| !["source", "signed-by"].contains(&key.as_str());
            if let Some(key) = table.keys().find(unknown) {
                return Err(format!("it has source and signed-by, and no {key}"));
            }
            let text = |key: &str| {
                table
                    .get(key)
                    .map(|value| value.as_str().ok_or(format!("{key} is no text")))
            };
            let source = text("source").ok_or("source is missing")??;
            let signed_by = match text("signed-by") {
                Some(key) => Some(key_of(key?, signers)?),
                None => None,
            };
            Ok(Wanted {
                source: Source::parse(source)?,
                signed_by,
            })
        }
        _ => Err("it is neither a source nor a table with one".into()),
    }
}

/// A signer by name, or a key itself.
pub(super) fn key_of(text: &str, signers: &Signers) -> Result<Key, String> {
    match signers.get(text) {
        Some(key) => Ok(key.clone()),
        None => Key::parse(text).map_err(|why| {
            format!(
                "{} is neither a signer of extensions.toml nor a key: {why}",
                pi_vers_host::visible(text)
            )
        }),
    }
}

/// Whether the project here has a list, without reading more of it than that.
pub(super) fn has_project_list(directory: &Path) -> bool {
    let text = std::fs::read_to_string(directory.join(setup::PROJECT)).unwrap_or_default();
    toml::from_str::<toml::Table>(&text).is_ok_and(|table| table.contains_key("extensions"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn list(text: &str, lock: &str) -> Result<List, Failure> {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("pi-vers.toml"), text).unwrap();
        if !lock.is_empty() {
            std::fs::write(root.path().join("pi-vers.lock"), lock).unwrap();
        }
        List::read(Scope::Project(root.path().to_owned()))
    }

    fn locked(name: &str) -> String {
        format!(
            "[[extension]]\nname = \"{name}\"\nversion = \"1\"\nsource = \"a.wasm\"\ndigest = \"sha256:{}\"\nsize = 1\nimports = []\nasks = []\ntools = []\n",
            "0".repeat(64)
        )
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused_in_list_and_lock() {
        for name in ["../a", "a/b", ".a", "-a", "", "a b", "\u{202e}a"] {
            assert!(named(name).is_err(), "{name:?}");
            let text = format!("[extensions]\n\"{name}\" = \"a.wasm\"\n");
            assert!(list(&text, "").is_err(), "{name:?}");
            let lock = format!("version = 1\n{}", locked(name));
            assert!(list("", &lock).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_lock_is_the_same_however_it_came_about() {
        let one = list("", &format!("version = 1\n{}{}", locked("b"), locked("a"))).unwrap();
        let two = list("", &format!("version = 1\n{}{}", locked("a"), locked("b"))).unwrap();
        assert_eq!(one.lock_text().unwrap(), two.lock_text().unwrap());
        assert_eq!(
            list("", &one.lock_text().unwrap()).unwrap().locked,
            one.locked
        );
        assert!(list("", &format!("version = 1\n{}{}", locked("a"), locked("a"))).is_err());
        assert!(list("", "version = 2\n").is_err());
    }

    #[test]
    fn what_differs_is_named() {
        let lock = format!("version = 1\n{}{}", locked("a"), locked("old"));
        let text = "[extensions]\na = \"b.wasm\"\nnew = { source = \"https://example.com/x\" }\n";
        let found = list(text, &lock).unwrap().differences();
        assert_eq!(found.len(), 3, "{found:?}");
        for wrong in [
            "[extensions]\na = 7\n",
            "[extensions]\na = { source = \"a\", sha = 1 }\n",
            "[extensions]\na = { source = \"a\", signed-by = \"nobody\" }\n",
            "extensions = 1\n",
            "[extensions]\na = \"http://example.com/x\"\n",
        ] {
            assert!(list(wrong, "").is_err(), "{wrong}");
        }
    }
}
