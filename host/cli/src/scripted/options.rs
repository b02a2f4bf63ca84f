//! pi's own flags, as far as they mean something here; the others are taken and ignored, with their values.

use std::path::{Path, PathBuf};

/// What the flags say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) mode: Option<String>,
    pub(super) provider: Option<String>,
    pub(super) model: Option<String>,
    pub(super) no_session: bool,
    pub(super) session_dir: Option<PathBuf>,
    /// Go on with the session that is there.
    pub(super) resume: bool,
    pub(super) system_prompt: Option<String>,
    pub(super) append: Vec<String>,
    pub(super) version: bool,
}

/// Flags of pi that have a value and no meaning here.
const WITH_VALUE: [&str; 13] = [
    "--api-key",
    "--thinking",
    "--models",
    "--tools",
    "-t",
    "--extension",
    "-e",
    "--skill",
    "--prompt-template",
    "--theme",
    "--fork",
    "--export",
    "--name",
];

impl Options {
    /// Reads them. A flag without its value is as if it were not there, as in pi.
    pub(super) fn read(words: &[String]) -> Self {
        let mut read = Self::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().cloned();
            match word.as_str() {
                "--mode" => read.mode = value(),
                "--provider" => read.provider = value(),
                "--model" => read.model = value(),
                "--no-session" => read.no_session = true,
                "--session-dir" => read.session_dir = value().map(PathBuf::from),
                "--session" => {
                    // A session's file: ours is known by its directory.
                    read.session_dir = value()
                        .and_then(|file| Path::new(&file).parent().map(Path::to_owned))
                        .or(read.session_dir);
                    read.resume = true;
                }
                "--continue" | "-c" => read.resume = true,
                "--system-prompt" => read.system_prompt = value(),
                "--append-system-prompt" => read.append.extend(value()),
                "--version" | "-v" => read.version = true,
                other if WITH_VALUE.contains(&other) => drop(value()),
                _ => {}
            }
        }
        read
    }

    /// The system prompt: what is the name of a file is that file's text.
    pub(super) fn system_prompt(&self) -> String {
        let first = match &self.system_prompt {
            Some(given) => text_or_file(given),
            None => "You are a scripted agent.".to_owned(),
        };
        let parts = std::iter::once(first).chain(self.append.iter().map(|part| text_or_file(part)));
        parts.collect::<Vec<_>>().join("\n\n")
    }
}

fn text_or_file(given: &str) -> String {
    std::fs::read_to_string(given).unwrap_or_else(|_| given.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(line: &str) -> Options {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        Options::read(&words)
    }

    #[test]
    fn pis_flags_are_taken_and_the_others_ignored() {
        let options = read(
            "--mode rpc --no-session --session-dir /s --system-prompt P --append-system-prompt A \
             --append-system-prompt B --model m --provider p --thinking high --offline -c x --tools",
        );
        assert_eq!(
            (
                options.mode.as_deref(),
                options.model.as_deref(),
                options.provider.as_deref()
            ),
            (Some("rpc"), Some("m"), Some("p"))
        );
        assert!(options.no_session && options.resume);
        assert_eq!(options.session_dir, Some("/s".into()));
        assert_eq!(options.system_prompt(), "P\n\nA\n\nB");
        let options = read("--session /s/d/scripted-agent.json");
        assert_eq!(
            (options.session_dir, options.resume),
            (Some("/s/d".into()), true)
        );
    }

    #[test]
    fn a_system_prompt_may_be_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "from a file").unwrap();
        let words = [
            "--system-prompt".to_owned(),
            file.path().display().to_string(),
        ];
        assert_eq!(Options::read(&words).system_prompt(), "from a file");
    }

    proptest::proptest! {
        #[test]
        fn no_flags_panic(words in proptest::collection::vec("(--[a-z-]{0,16}|[a-z]{0,4})", 0..8)) {
            let _ = Options::read(&words);
        }
    }
}
