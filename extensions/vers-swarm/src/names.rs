//! What the agents of a swarm are called.
//!
//! A label is what models say, a directory that results are collected into, and a label of the VM. So it is one plain word, and no
//! two agents of a session have the same: an agent whose name is taken away could not be reached any more, and its VM would run on.

use std::collections::HashSet;

/// Characters of a label.
const LONGEST: usize = 63;
/// What agents without a label are called, before their number.
const DEFAULT: &str = "agent-";

/// The labels of `count` new agents: those that are given, then `agent-N`, counting on from the highest number there is.
///
/// # Errors
/// What is wrong with the given ones, and what to do.
pub fn choose(count: usize, given: &[String], taken: &[String]) -> Result<Vec<String>, String> {
    if given.len() > count {
        return Err(format!(
            "{} labels for {count} agent(s): give at most one for each.",
            given.len()
        ));
    }
    let mut seen: HashSet<&str> = taken.iter().map(String::as_str).collect();
    for label in given {
        if !is_label(label) {
            return Err(format!(
                "{label:?} is no label: write 1 to {LONGEST} letters, digits, '.', '_' or '-', a letter or a digit first."
            ));
        }
        if !seen.insert(label) {
            return Err(if taken.contains(label) {
                format!(
                    "Agent '{label}' is in the swarm already. Choose another label, or tear the swarm down first."
                )
            } else {
                format!("The label '{label}' is given twice: each agent needs its own.")
            });
        }
    }
    let numbers = given.iter().chain(taken).filter_map(|label| number(label));
    let next = numbers.max().unwrap_or(0).saturating_add(1);
    let more = (next..).take(count - given.len());
    let more = more.map(|number| format!("{DEFAULT}{number}"));
    Ok(given.iter().cloned().chain(more).collect())
}

/// A label that nobody has, like this one: for an agent that was found and whose own is taken.
#[must_use]
pub fn like(label: &str, taken: &[String]) -> String {
    let label = if is_label(label) { label } else { "agent" };
    if !taken.iter().any(|known| known == label) {
        return label.to_owned();
    }
    let stem: String = label.chars().take(LONGEST - 8).collect();
    let mut others = (2_u32..).map(|number| format!("{stem}-{number}"));
    others
        .find(|other| !taken.contains(other))
        .unwrap_or_default()
}

fn is_label(text: &str) -> bool {
    text.len() <= LONGEST
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

fn number(label: &str) -> Option<u32> {
    label.strip_prefix(DEFAULT)?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn own(labels: &[&str]) -> Vec<String> {
        labels.iter().map(|label| (*label).to_owned()).collect()
    }

    #[test]
    fn default_labels_count_on_instead_of_colliding() {
        assert_eq!(choose(2, &[], &[]).unwrap(), ["agent-1", "agent-2"]);
        assert_eq!(
            choose(2, &[], &own(&["agent-1", "agent-7", "tests"])).unwrap(),
            ["agent-8", "agent-9"]
        );
        assert_eq!(
            choose(3, &own(&["agent-4"]), &[]).unwrap(),
            ["agent-4", "agent-5", "agent-6"]
        );
    }

    #[test]
    fn duplicate_labels_are_refused_among_themselves_and_against_the_swarm() {
        let twice = choose(2, &own(&["a", "a"]), &[]).unwrap_err();
        assert_eq!(
            twice,
            "The label 'a' is given twice: each agent needs its own."
        );
        let taken = choose(1, &own(&["a"]), &own(&["a"])).unwrap_err();
        assert!(
            taken.starts_with("Agent 'a' is in the swarm already."),
            "{taken}"
        );
    }

    #[test]
    fn what_is_no_label_is_refused() {
        for label in ["", ".", "-a", "a/b", "a b", "ä", "a\n", &"a".repeat(64)] {
            let why = choose(1, &own(&[label]), &[]).unwrap_err();
            assert!(why.contains("is no label"), "{why}");
        }
        let why = choose(1, &own(&["a", "b"]), &[]).unwrap_err();
        assert!(why.starts_with("2 labels for 1 agent(s)"), "{why}");
    }

    proptest! {
        #[test]
        fn labels_are_always_as_many_as_agents_and_never_twice(
            count in 0_usize..12,
            given in proptest::collection::hash_set("[a-z]{1,3}|agent-[0-9]{1,10}", 0..6),
            taken in proptest::collection::hash_set("[a-z]{1,3}|agent-[0-9]{1,10}", 0..6),
        ) {
            let given: Vec<String> = given.into_iter().collect();
            let taken: Vec<String> = taken.into_iter().collect();
            if let Ok(labels) = choose(count, &given, &taken) {
                let all: HashSet<&String> = labels.iter().chain(&taken).collect();
                prop_assert_eq!(all.len(), count + taken.len());
                prop_assert!(labels.iter().all(|label| is_label(label)));
            }
        }

        #[test]
        fn a_name_like_another_is_free(label in "\\PC{0,80}", taken in proptest::collection::vec("[a-c](-[2-4])?", 0..6)) {
            let label = like(&label, &taken);
            prop_assert!(is_label(&label) && !taken.contains(&label));
        }
    }
}
