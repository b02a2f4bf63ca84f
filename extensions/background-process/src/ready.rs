//! When a process counts as ready: a line of its output holds the pattern.
//!
//! The pattern is looked for as it is written, and as a regular expression. Models write both, and most texts mean the same
//! either way; `ready (took 3s)` is meant literally, `port \d+` is not. What is no regular expression is a text. The engine takes time
//! linear in the text, and the pattern's and the line's size are bounded, so that no pattern stops the extension.

use regex_lite::{Regex, RegexBuilder};

/// Longest pattern, in bytes.
pub const MAX_PATTERN: usize = 1000;
/// Memory a compiled pattern may take, in bytes. With [`MAX_SEARCHED`] it bounds the work on one line: 20 ms were measured for
/// the worst that fits. A larger one counts as a text.
const MAX_PROGRAM: usize = 16 * 1024;
/// How much of a line is searched, in bytes.
const MAX_SEARCHED: usize = 2048;

/// A pattern that a line may hold.
#[derive(Debug)]
pub struct Pattern {
    text: String,
    regex: Option<Regex>,
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// When it is empty or too long.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("waitFor is empty: give the text that a ready process writes.".into());
        }
        if text.len() > MAX_PATTERN {
            return Err(format!(
                "waitFor has {} bytes: give {MAX_PATTERN} at most.",
                text.len()
            ));
        }
        let regex = RegexBuilder::new(text).size_limit(MAX_PROGRAM).build();
        Ok(Self {
            text: text.into(),
            regex: regex.ok(),
        })
    }

    /// Whether this line holds it.
    #[must_use]
    pub fn is_in(&self, line: &str) -> bool {
        let head = line.get(..line.floor_char_boundary(MAX_SEARCHED));
        let head = head.unwrap_or_default();
        line.contains(&self.text)
            || self
                .regex
                .as_ref()
                .is_some_and(|regex| regex.is_match(head))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn holds(pattern: &str, line: &str) -> bool {
        Pattern::parse(pattern).unwrap().is_in(line)
    }

    #[test]
    fn a_pattern_is_a_text_or_a_regular_expression() {
        for (pattern, line) in [
            ("Listening on", "[1] Listening on 0.0.0.0:80"),
            ("ready (took 3s)", "ready (took 3s)"),
            ("[ready", "x [ready]"),
            (r"port \d+$", "on port 8080"),
            ("(?i)started", "Server STARTED"),
            ("^ready", "ready"),
        ] {
            assert!(holds(pattern, line), "{pattern} in {line}");
        }
        for (pattern, line) in [
            ("ready", "Ready"),
            ("^ready", "not ready"),
            ("[ready", "ready"),
        ] {
            assert!(!holds(pattern, line), "{pattern} in {line}");
        }
    }

    #[test]
    fn hostile_patterns_cost_little() {
        let line = "a".repeat(16 * 1024);
        for pattern in [
            "(a*)*b",
            "(a|a)*b",
            "(?:a{1,100}){1,100}b",
            "((a{50}){50}){50}",
            "(?:a?){100}b",
            "(?:a?){200}b",
            "(?:a?){400}b",
            "(?:a{1,10}){1,10}b",
            "(?:a{1,18}){1,18}b",
            "(?:a{0,150}){2}b",
            "(?:.*a){100}b",
        ] {
            assert!(!holds(pattern, &line), "{pattern}");
        }
        assert!(Pattern::parse("").is_err());
        assert!(Pattern::parse(&"x".repeat(MAX_PATTERN + 1)).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_found_as_it_is_written(before in "\\PC{0,10}", text in "\\PC{1,30}", after in "\\PC{0,10}") {
            let line = format!("{before}{text}{after}");
            prop_assert!(holds(&text, &line));
        }
    }
}
