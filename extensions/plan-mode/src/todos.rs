//! A plan's steps: found in what the model says, and ticked off by it.

use serde::{Deserialize, Serialize};

/// The longest text of a step, in characters.
const LONGEST: usize = 50;
/// Shorter ones are no steps.
const SHORTEST: usize = 5;
/// More are no plan.
const MOST: usize = 100;

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Todo {
    /// Its number, from 1.
    pub step: usize,
    /// What is to be done.
    pub text: String,
    /// Whether it is done.
    #[serde(default)]
    pub completed: bool,
}

/// The steps below the last line that says `Plan:`.
#[must_use]
pub fn extract(message: &str) -> Vec<Todo> {
    let lines: Vec<&str> = message.lines().collect();
    let Some(header) = lines.iter().rposition(|line| is_header(line)) else {
        return Vec::new();
    };
    let steps = lines.iter().skip(header + 1).filter_map(|line| step(line));
    steps
        .take(MOST)
        .enumerate()
        .map(|(at, text)| Todo {
            step: at + 1,
            text,
            completed: false,
        })
        .collect()
}

fn is_header(line: &str) -> bool {
    let bare = line
        .trim()
        .trim_matches(|c: char| c == '*' || c == '#' || c == '_' || c.is_whitespace());
    bare.trim_end_matches([':', '*'])
        .eq_ignore_ascii_case("plan")
        && line.contains(':')
}

/// The text of a line such as `1. **Do** this`. One that is indented belongs to a step.
fn step(line: &str) -> Option<String> {
    let text = line.trim_start();
    if line.len() - text.len() > 3 {
        return None;
    }
    let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
    if rest.len() == text.len() {
        return None;
    }
    let rest = rest.strip_prefix(['.', ')'])?;
    let said = rest.trim_start();
    if rest.len() == said.len() {
        return None;
    }
    // A command or a path by itself is an example, not a step.
    if said.starts_with(['`', '/', '-']) {
        return None;
    }
    let clean = clean(said);
    (clean.chars().count() > SHORTEST).then_some(clean)
}

/// Without markup, of one line and not long.
fn clean(text: &str) -> String {
    let plain = text.replace("**", "").replace('`', "");
    let plain = plain.split_whitespace().collect::<Vec<_>>().join(" ");
    let plain = plain.trim_matches(|c| c == '*' || c == '_').trim();
    let mut chars = plain.chars();
    let mut clean: String = chars
        .next()
        .into_iter()
        .flat_map(char::to_uppercase)
        .chain(chars)
        .collect();
    if clean.chars().count() > LONGEST {
        clean = clean.chars().take(LONGEST - 3).collect();
        clean.push_str("...");
    }
    clean
}

/// Ticks off the steps that a text names as `[DONE:n]`. Whether one was not before.
pub fn mark(message: &str, todos: &mut [Todo]) -> bool {
    let mut news = false;
    for (at, _) in message.match_indices('[') {
        let rest = message.get(at + 1..).unwrap_or_default();
        let Some(number) = rest
            .get(..5)
            .filter(|word| word.eq_ignore_ascii_case("done:"))
            .and_then(|_| rest.get(5..)?.split_once(']'))
            .and_then(|(number, _)| number.trim().parse::<usize>().ok())
        else {
            continue;
        };
        for todo in todos.iter_mut().filter(|todo| todo.step == number) {
            news |= !todo.completed;
            todo.completed = true;
        }
    }
    news
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use proptest::prelude::*;

    fn texts(message: &str) -> Vec<String> {
        extract(message).into_iter().map(|todo| todo.text).collect()
    }

    #[test]
    fn steps_are_found_below_the_header() {
        let message = "I looked.\n1. not a step of it\n\n**Plan:**\n1. Read the **config** file\n2) write `main.rs`\n   - a detail\n     3. a detail with a number\n4. ok\n5. `cargo test`\n\nDone.";
        assert_eq!(texts(message), ["Read the config file", "Write main.rs"]);
        assert_eq!(extract(message)[1].step, 2);
        for header in ["Plan:", "plan:", "## Plan:", "**Plan**:", "  Plan: "] {
            assert_eq!(texts(&format!("{header}\n1. Something")), ["Something"]);
        }
        assert!(texts("My plan is this\n1. Something").is_empty());
        assert!(texts("1. Something").is_empty());
    }

    #[test]
    fn the_last_plan_counts() {
        assert_eq!(
            texts("Plan:\n1. Old step\n\nPlan:\n1. New step"),
            ["New step"]
        );
    }

    #[test]
    fn long_steps_are_cut() {
        let text = &texts(&format!("Plan:\n1. {}", "ü".repeat(80)))[0];
        assert_eq!(text.chars().count(), LONGEST);
        assert!(text.ends_with("..."));
    }

    #[test]
    fn steps_are_ticked_off() {
        let mut todos = extract("Plan:\n1. First thing\n2. Second thing\n3. Third thing");
        assert!(mark(
            "did it [DONE:1] and [done:3], not [DONE:x] [DONE:9] [DONE:2",
            &mut todos
        ));
        assert_eq!(
            todos.iter().map(|t| t.completed).collect::<Vec<_>>(),
            [true, false, true]
        );
        assert!(!mark("[DONE:1]", &mut todos));
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "(?s).{0,200}", more in "(Plan:\n|[0-9]+\\. |\\[DONE:|\\]|\n|ü|\\*\\*){0,30}") {
            let mut todos = extract(&format!("{text}{more}"));
            prop_assert!(todos.iter().all(|todo| todo.text.chars().count() <= LONGEST));
            mark(&text, &mut todos);
            mark(&more, &mut todos);
        }
    }
}
