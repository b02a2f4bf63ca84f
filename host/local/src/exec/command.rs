//! From an argument vector to the one string that SSH carries.
//!
//! The string is read by the login shell inside, so everything that came from outside is in single quotes. `env` sets
//! variables (a shell's `export` refuses some names) and `sh -c 'exec "$@"'` keeps it from taking a program name with `=`
//! in it for another variable.

use crate::manager::Fault;
use std::collections::BTreeMap;

/// What to run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Command {
    pub(crate) argv: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) working_dir: Option<String>,
    pub(crate) stdin: Option<String>,
    /// `None`: no limit.
    pub(crate) timeout: Option<std::time::Duration>,
}

/// The kernel's limit for one argument is 128 KiB; this one is for all of them together.
const MAX_COMMAND: usize = 120 << 10;

/// Refuses what cannot be run at all.
pub(crate) fn check(command: &Command) -> Result<(), Fault> {
    let invalid = |why: &str| Err(Fault::Invalid(why.to_owned()));
    if command.argv.first().is_none_or(String::is_empty) {
        return invalid("command must name a program");
    }
    let texts = || {
        command
            .argv
            .iter()
            .chain(command.env.keys())
            .chain(command.env.values())
            .chain(&command.working_dir)
    };
    if texts().any(|t| t.contains('\0')) {
        return invalid("command, env and working_dir must not contain NUL characters");
    }
    if command.env.keys().any(|k| k.is_empty() || k.contains('=')) {
        return invalid("names in env must not be empty nor contain '='");
    }
    if texts().map(|t| quote(t).len() + 1).sum::<usize>() > MAX_COMMAND {
        return Err(Fault::TooLarge(format!(
            "command, env and working_dir have more than {MAX_COMMAND} bytes together; send the data as stdin or as a file"
        )));
    }
    Ok(())
}

fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

impl Command {
    /// The string for an SSH `exec` request.
    pub(crate) fn line(&self) -> String {
        let mut line = String::new();
        if let Some(dir) = &self.working_dir {
            // Not `cd --`: a name that starts with a dash is made a path instead, which every shell understands.
            let dir = if dir.starts_with('/') {
                dir.clone()
            } else {
                format!("./{dir}")
            };
            line.push_str("cd ");
            line.push_str(&quote(&dir));
            line.push_str(" && ");
        }
        line.push_str("exec env");
        for (key, value) in &self.env {
            line.push(' ');
            line.push_str(&quote(&format!("{key}={value}")));
        }
        line.push_str(r#" sh -c 'exec "$@"' sh"#);
        for word in &self.argv {
            line.push(' ');
            line.push_str(&quote(word));
        }
        line
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )]
    use super::*;
    use proptest::prelude::*;

    fn run(command: &Command) -> Vec<u8> {
        let output = std::process::Command::new("sh")
            .arg("-c")
            .arg(command.line())
            .output()
            .unwrap();
        output.stdout
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_word_arrives_as_it_was(words in proptest::collection::vec("[^\\x00]{0,20}", 0..6), value in "[^\\x00]{0,20}") {
            let command = Command {
                argv: ["printf", r"%s\0"].into_iter().map(String::from).chain(words.clone()).collect(),
                env: [("A B'".to_owned(), value)].into(),
                ..Default::default()
            };
            let mut expected: Vec<u8> = words.iter().flat_map(|w| [w.as_bytes(), b"\0"].concat()).collect();
            if words.is_empty() {
                expected = b"\0".to_vec();
            }
            prop_assert_eq!(run(&command), expected);
        }
    }

    #[test]
    fn variables_and_directory_reach_the_program() {
        let dir = tempfile::tempdir().unwrap();
        let command = Command {
            argv: ["sh", "-c", r#"printf '%s|%s' "$X" "$PWD""#]
                .map(String::from)
                .into(),
            env: [("X".to_owned(), "it's $HOME `x`".to_owned())].into(),
            working_dir: Some(dir.path().to_str().unwrap().to_owned()),
            ..Default::default()
        };
        assert_eq!(
            run(&command),
            format!("it's $HOME `x`|{}", dir.path().display()).into_bytes()
        );
    }

    #[test]
    fn a_program_with_an_equals_sign_is_not_a_variable() {
        let command = Command {
            argv: vec!["A=B".into(), "true".into()],
            ..Default::default()
        };
        let status = std::process::Command::new("sh")
            .arg("-c")
            .arg(command.line())
            .output()
            .unwrap()
            .status;
        assert_eq!(status.code(), Some(127));
    }

    #[test]
    fn what_cannot_be_run_is_refused() {
        let with = |argv: &[&str]| Command {
            argv: argv.iter().map(|s| (*s).to_owned()).collect(),
            ..Default::default()
        };
        assert!(check(&with(&["true", ""])).is_ok());
        assert!(check(&with(&[])).is_err());
        assert!(check(&with(&[""])).is_err());
        assert!(check(&with(&["a\0b"])).is_err());
        assert!(matches!(
            check(&with(&["echo", &"x".repeat(MAX_COMMAND)])),
            Err(Fault::TooLarge(_))
        ));
        assert!(
            check(&Command {
                env: [("A=B".to_owned(), String::new())].into(),
                ..with(&["true"])
            })
            .is_err()
        );
    }
}
