//! What a process is said to be: the words that models and users read.

use serde_json::{Map, Value};

use crate::ring::{MAX_BYTES, MAX_LINES, Shown};
use pi_vers_sdk::text::size;

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this code.
    Exited(i32),
    /// By a signal, by name without the prefix: `KILL`.
    Signaled(String),
    /// It was stopped, and its own word of it was not heard.
    Stopped,
    /// Nobody knows, and why: the connection to its VM broke.
    Lost(String),
}

/// The word for a state; none is still running.
#[must_use]
pub fn state(ended: Option<&Ended>) -> String {
    match ended {
        None => "RUNNING".into(),
        Some(Ended::Exited(code)) => format!("EXITED({code})"),
        Some(Ended::Signaled(name)) => format!("SIGNALED({name})"),
        Some(Ended::Stopped) => "STOPPED".into(),
        Some(Ended::Lost(_)) => "LOST".into(),
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exited (code: {code})"),
            Self::Signaled(name) => write!(f, "ended (signal: {name})"),
            Self::Stopped => f.write_str("was stopped"),
            Self::Lost(why) => write!(f, "is lost: whether it still runs is unknown ({why})"),
        }
    }
}

impl Ended {
    /// Puts the end into a result's details.
    pub fn tell(&self, details: &mut Map<String, Value>) {
        match self {
            Self::Exited(code) => details.insert("exitCode".into(), (*code).into()),
            Self::Signaled(name) => details.insert("signal".into(), name.as_str().into()),
            Self::Stopped => details.insert("stopped".into(), true.into()),
            Self::Lost(why) => details.insert("lost".into(), why.as_str().into()),
        };
    }
}

/// A command in one line of a list.
#[must_use]
pub fn one_line(command: &str) -> String {
    const MOST: usize = 200;
    let line = command.trim().replace(['\n', '\r', '\t'], " ");
    match line.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
        None => line,
    }
}

/// An output with its heading; `(empty)` where there is none.
#[must_use]
pub fn section(heading: &str, shown: &Shown) -> String {
    let mut text = format!("--- {heading} ---");
    if shown.dropped > 0 {
        text.push_str(&format!(
            "\n[{} earlier line(s) dropped: the newest {MAX_LINES} lines, {} at most, are kept]",
            shown.dropped,
            size(MAX_BYTES as u64)
        ));
    }
    if shown.unfit > 0 {
        text.push_str(&format!(
            "\n[{} line(s) before these did not fit here]",
            shown.unfit
        ));
    }
    if shown.lines.is_empty() {
        text.push_str("\n(empty)");
    }
    for line in &shown.lines {
        text.push('\n');
        text.push_str(line);
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn states_are_words_that_say_how_it_ended() {
        for (ended, word, sentence) in [
            (Ended::Exited(3), "EXITED(3)", "exited (code: 3)"),
            (
                Ended::Signaled("KILL".into()),
                "SIGNALED(KILL)",
                "ended (signal: KILL)",
            ),
            (Ended::Stopped, "STOPPED", "was stopped"),
            (
                Ended::Lost("reset".into()),
                "LOST",
                "is lost: whether it still runs is unknown (reset)",
            ),
        ] {
            assert_eq!(
                (state(Some(&ended)).as_str(), ended.to_string().as_str()),
                (word, sentence)
            );
        }
        assert_eq!(state(None), "RUNNING");
        let mut details = Map::new();
        Ended::Exited(3).tell(&mut details);
        assert_eq!(Value::Object(details), json!({ "exitCode": 3 }));
    }

    #[test]
    fn a_command_is_one_line_in_a_list() {
        assert_eq!(one_line("  a\n\tb  "), "a  b");
        assert_eq!(one_line(&"é".repeat(300)).chars().count(), 201);
    }

    #[test]
    fn what_is_missing_is_said() {
        let shown = Shown {
            lines: vec!["a".into(), String::new()],
            dropped: 7,
            unfit: 2,
        };
        assert_eq!(
            section("stdout (last 4)", &shown),
            "--- stdout (last 4) ---\n[7 earlier line(s) dropped: the newest 2000 lines, 256.0KB at most, are kept]\n[2 line(s) before these did not fit here]\na\n"
        );
        let nothing = Shown {
            lines: Vec::new(),
            dropped: 0,
            unfit: 0,
        };
        assert_eq!(section("stderr", &nothing), "--- stderr ---\n(empty)");
    }
}
