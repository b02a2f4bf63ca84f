//! What a new project begins with, by language: data inside the binary, see `templates/`.
//!
//! A template is a directory `templates/LANGUAGE` with a `template.toml` and files that end with `.in`; the rest of a file's name is its
//! name in the project, and `gitignore.in` becomes `.gitignore`. In texts and names `{{name}}` is the extension's name and `{{crate}}` the same
//! as an identifier. A new language is a new directory, and nothing else.

use serde::Deserialize;

use super::name::Name;
use super::sdk;
use crate::failure::Failure;

include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

/// The head of a template.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    summary: String,
    #[serde(default)]
    parts: Vec<Part>,
}

/// What comes along besides the template's own files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Part {
    /// The contract, in `wit/`.
    Wit,
    /// The SDK for Rust, in `vendor/pi-vers-sdk`, with the versions of all it needs.
    Sdk,
}

/// A file of a project: its path in it, and its text.
pub(super) type File = (String, String);

/// The languages there are, each with what it is.
pub(super) fn languages() -> Vec<(&'static str, String)> {
    let heads = EMBEDDED.iter().filter_map(|(path, text)| {
        let language = path
            .strip_prefix("templates/")?
            .strip_suffix("/template.toml")?;
        let head: Head = toml::from_str(text).ok()?;
        Some((language, head.summary))
    });
    heads.collect()
}

/// The files of a new project.
pub(super) fn files(language: &str, name: &Name) -> Result<Vec<File>, Failure> {
    let prefix = format!("templates/{language}/");
    let own: Vec<(&str, &str)> = EMBEDDED
        .iter()
        .filter_map(|(path, text)| Some((path.strip_prefix(&prefix)?, *text)))
        .collect();
    let Some((_, head)) = own.iter().find(|(path, _)| *path == "template.toml") else {
        let known: Vec<&str> = languages().into_iter().map(|(known, _)| known).collect();
        return Err(Failure::usage(format!(
            "there is no template for {}",
            pi_vers_host::visible(language)
        ))
        .next(format!("--lang is one of {}", known.join(", "))));
    };
    let broken = |why: String| Failure::internal(format!("the template {language}: {why}"));
    let head: Head = toml::from_str(head).map_err(|why| broken(why.to_string()))?;
    let mut files = Vec::new();
    for (path, text) in own {
        let Some(path) = path.strip_suffix(".in") else {
            continue;
        };
        let path = match path {
            "gitignore" => ".gitignore",
            other => other,
        };
        files.push((fill(path, name), fill(text, name)));
    }
    for part in head.parts {
        match part {
            Part::Wit => files.extend(wit()),
            Part::Sdk => files.extend(sdk::files().map_err(broken)?),
        }
    }
    Ok(files)
}

fn wit() -> impl Iterator<Item = File> {
    EMBEDDED
        .iter()
        .filter(|(path, _)| path.starts_with("wit/"))
        .map(|(path, text)| ((*path).to_owned(), (*text).to_owned()))
}

fn fill(text: &str, name: &Name) -> String {
    text.replace("{{name}}", name.as_str())
        .replace("{{crate}}", &name.identifier())
}

/// A text inside the binary.
pub(super) fn embedded(path: &str) -> Result<&'static str, String> {
    let found = EMBEDDED.iter().find(|(known, _)| *known == path);
    found
        .map(|(_, text)| *text)
        .ok_or_else(|| format!("{path} is not in this binary"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_template_is_sound_and_has_what_a_project_needs() {
        let name = Name::new("my-tool").unwrap();
        let languages = languages();
        assert!(languages.iter().any(|(language, _)| *language == "rust"));
        for (language, summary) in languages {
            assert!(!summary.is_empty());
            let files = files(language, &name).unwrap();
            for needed in ["pi-vers.toml", "policy.toml", "README.md", ".gitignore"] {
                assert!(
                    files.iter().any(|(path, _)| path == needed),
                    "{language} has no {needed}"
                );
            }
            assert!(files.iter().any(|(path, _)| path.starts_with("tests/")));
            for (path, text) in &files {
                assert!(
                    !path.starts_with('/') && !path.contains("..") && !path.contains("{{"),
                    "{path}"
                );
                assert!(!text.contains("{{name}}") && !text.contains("{{crate}}"));
            }
        }
        assert!(files("cobol", &name).is_err());
    }
}
