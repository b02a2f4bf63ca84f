//! What models and users read: the words that they know, wherever these are true.

pub use pi_vers_sdk::text::{end as last_bytes, first};

use crate::history::Past;
use crate::record::{Phase, Record};
use crate::time::iso;

/// Most bytes of what lieutenants said in one answer: what a model reads of a command's output, too.
pub const MAX_TEXT: usize = 50 * 1024;

/// The end of a text, at most this many characters; `...` says that something is before it.
#[must_use]
pub fn last_chars(text: &str, most: usize) -> String {
    let Some(skip) = text.chars().count().checked_sub(most).filter(|n| *n > 0) else {
        return text.into();
    };
    let from = text
        .char_indices()
        .nth(skip)
        .map_or(text.len(), |(at, _)| at);
    format!("...{}", text.get(from..).unwrap_or_default())
}

/// The end of a text, at most this many bytes: from the beginning of a line where there is one, after a `…`.
#[must_use]
pub fn last_lines(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.into();
    }
    let end = last_bytes(text, most);
    match end.split_once('\n') {
        Some((_, whole)) if !whole.trim().is_empty() => {
            format!("…\n{}", whole.trim_start_matches('\n'))
        }
        _ => format!("…{end}"),
    }
}

/// A text in one line.
#[must_use]
pub fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The system prompt of a lieutenant. The role stands in it as it was given.
#[must_use]
pub fn system_prompt(name: &str, role: &str) -> String {
    format!(
        "You are a lieutenant agent named \"{name}\".\nYour role: {role}\n\n\
         You are a persistent, long-lived agent session managed by a coordinator. You accumulate context across tasks and keep full memory \
         of your conversation.\nYou have access to all tools.\n\
         When you complete a task, end with a clear summary of what was done and any open questions or next steps.\n"
    )
}

/// `vers_lt_create`: it is ready.
#[must_use]
pub fn ready(record: &Record, remark: Option<&str>) -> String {
    let Record { name, role, .. } = record;
    let mut text = match &record.directory {
        Some(directory) => format!(
            "Lieutenant \"{name}\" is ready (local mode).\n  Workspace: {directory}/workspace\n  Role: {role}\n  Status: idle — waiting \
             for first task\n  Note: local LTs share your filesystem and don't survive session restart."
        ),
        None => format!(
            "Lieutenant \"{name}\" is ready.\n  VM: {}\n  Role: {role}\n  Status: idle — waiting for first task",
            record.place()
        ),
    };
    if let Some(remark) = remark {
        text.push_str(&format!("\n  Note: {remark}"));
    }
    text
}

/// `vers_lt_send`: it was taken.
#[must_use]
pub fn sent(name: &str, mode: &str, remark: Option<&str>, message: &str) -> String {
    let remark = remark.map(|r| format!(" ({r})")).unwrap_or_default();
    format!(
        "Sent to {name} ({mode}){remark}: \"{}\"",
        first(message, 120, "...")
    )
}

/// What one answer shows of a text, and how much of it is left out before.
fn shown(text: &str, tail: Option<usize>, most: usize, left_out: u64) -> String {
    if text.is_empty() {
        return "(no output yet)".into();
    }
    if let Some(tail) = tail {
        return last_bytes(&last_chars(text, tail), most).into();
    }
    let end = last_bytes(text, most);
    let missing = left_out + (text.len() - end.len()) as u64;
    match missing {
        0 => end.into(),
        missing => format!("[{missing} bytes before this are not shown]\n{end}"),
    }
}

/// `vers_lt_read` of what was said last.
#[must_use]
pub fn read(
    name: &str,
    status: &str,
    tasks: u64,
    output: &str,
    tail: Option<usize>,
    left_out: u64,
) -> String {
    format!(
        "[{name}] ({status}, {tasks} tasks):\n\n{}",
        shown(output, tail, MAX_TEXT, left_out)
    )
}

/// `vers_lt_read` of earlier runs: `past` with their numbers, oldest first, and `current`, what the run under way said so far. When none is
/// under way, what was said last is the newest of the past ones, and not told twice.
#[must_use]
pub fn read_history(
    status: &str,
    past: &[(u64, Past)],
    current: Option<&str>,
    tail: Option<usize>,
) -> String {
    let each = MAX_TEXT / (past.len() + 1);
    let mut blocks: Vec<String> = past
        .iter()
        .map(|(number, run)| {
            let failed = run
                .reason()
                .map(|why| format!(" (failed: {})", one_line(&why)))
                .unwrap_or_default();
            format!(
                "=== Response {number} ==={failed}\n{}",
                shown(&run.text, tail, each, run.left_out)
            )
        })
        .collect();
    blocks.push(match current {
        Some(text) => format!("=== Current ({status}) ===\n{}", shown(text, tail, each, 0)),
        None if past.is_empty() => format!("=== Current ({status}) ===\n(no output yet)"),
        None => format!("=== Current ({status}) ===\n(nothing since the response above)"),
    });
    blocks.join("\n\n")
}

/// What `vers_lt_status` tells of one.
#[derive(Debug, Clone)]
pub struct View<'a> {
    /// What is known.
    pub record: &'a Record,
    /// How it is now.
    pub phase: Phase,
    /// Another session looks after it.
    pub elsewhere: bool,
    /// Characters of its current or last output.
    pub output: usize,
    /// What it does now.
    pub activity: Option<&'a str>,
}

/// The status in words.
#[must_use]
pub fn status(view: &View<'_>) -> String {
    match view.elsewhere {
        true => "in another session".into(),
        false => view.phase.word().into(),
    }
}

/// One lieutenant of `vers_lt_status`.
#[must_use]
pub fn block(view: &View<'_>) -> String {
    let record = view.record;
    let place = match &record.vm {
        Some(vm) => vm.as_str(),
        None if record.is_local() => "local",
        None => "none yet",
    };
    let streaming = if view.phase == Phase::Working && !view.elsewhere {
        " (streaming...)"
    } else {
        ""
    };
    let mut text = format!(
        "{} {} [{}]\n  Role: {}\n  VM: {place}\n  Tasks: {}\n  Last active: {}\n  Output: {} chars{streaming}",
        view.phase.icon(),
        record.name,
        status(view),
        record.role,
        record.tasks,
        iso(record.active),
        view.output
    );
    if let Some(activity) = view.activity {
        text.push_str(&format!(
            "\n  Doing: {}",
            first(&one_line(activity), 80, "…")
        ));
    }
    if let Some(problem) = &record.problem {
        text.push_str(&format!("\n  Problem: {problem}"));
    }
    text
}

/// `vers_lt_destroy`: it is gone.
#[must_use]
pub fn destroyed(record: &Record) -> String {
    let tasks = record.tasks;
    match &record.vm {
        Some(vm) => format!(
            "{}: destroyed (VM {vm}, {tasks} tasks completed)",
            record.name
        ),
        None => format!(
            "{}: destroyed (local, {tasks} tasks completed)",
            record.name
        ),
    }
}

/// There is no lieutenant of this name.
#[must_use]
pub fn unknown(name: &str, known: &[String]) -> String {
    let list = match known {
        [] => "none".into(),
        known => known.join(", "),
    };
    format!(
        "Lieutenant '{}' not found. Available: {list}",
        name.escape_debug()
    )
}

/// There is one already.
#[must_use]
pub fn exists(name: &str) -> String {
    format!("Lieutenant '{name}' already exists. Destroy it first or use a different name.")
}

/// It is paused.
#[must_use]
pub fn is_paused(name: &str) -> String {
    format!("Lieutenant '{name}' is paused. Resume it first with vers_lt_resume.")
}

/// Another session has it.
#[must_use]
pub fn elsewhere(name: &str) -> String {
    format!(
        "Lieutenant '{name}' is looked after by another session that is running, which hears what it says. Use it there; when that session \
         has ended it is taken over here within two minutes."
    )
}

/// The end of a run, for the model: what the session is woken with.
#[must_use]
pub fn announcement(name: &str, past: &Past, late: bool) -> String {
    let (word, sign) = match past.is_error() {
        false => ("completed", "✅"),
        true => ("failed", "⚠️"),
    };
    let mut text = format!("[{name} {word}] {sign}");
    if late {
        text.push_str(&format!(
            " (at {}, while this session did not listen)",
            iso(past.at)
        ));
    }
    if let Some(reason) = past.reason() {
        text.push_str(&format!("\n{}", first(reason.trim(), 2000, "…")));
    }
    let summary = past.summary();
    if !summary.is_empty() {
        text.push_str(&format!("\n{summary}"));
    }
    text.push_str("\nUse vers_lt_read for the full output.");
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use pi_vers_sdk::agent::Outcome;
    use proptest::prelude::*;
    use serde_json::json;

    fn record() -> Record {
        let value = json!({ "name": "infra", "role": "Bob's \"infra\" $(x) `y`", "vm": "11112222-3333-4444-5555-666677778888", "phase": "idle",
            "tasks": 2, "created": 0, "active": 0, "session": "s" });
        serde_json::from_value(value).unwrap()
    }

    fn past(outcome: Outcome, text: &str) -> Past {
        Past {
            outcome,
            text: text.into(),
            left_out: 0,
            at: 0,
        }
    }

    #[test]
    fn defect_31_an_apostrophe_in_a_role_arrives_as_it_is() {
        let role = "Bob's 'infra' \"lead\" \\ $HOME `id`";
        let prompt = system_prompt("a", role);
        assert!(prompt.starts_with(&format!(
            "You are a lieutenant agent named \"a\".\nYour role: {role}\n"
        )));
        assert!(prompt.contains("end with a clear summary"));
    }

    #[test]
    fn creating_says_what_users_know_and_the_whole_id() {
        let mut record = record();
        record.role = "r".into();
        assert_eq!(
            ready(&record, None),
            "Lieutenant \"infra\" is ready.\n  VM: 11112222-3333-4444-5555-666677778888\n  Role: r\n  Status: idle — waiting for first task"
        );
        record.vm = None;
        record.directory = Some("/d".into());
        assert_eq!(
            ready(&record, None),
            "Lieutenant \"infra\" is ready (local mode).\n  Workspace: /d/workspace\n  Role: r\n  Status: idle — waiting for first task\n  \
             Note: local LTs share your filesystem and don't survive session restart."
        );
        assert_eq!(
            destroyed(&record),
            "infra: destroyed (local, 2 tasks completed)"
        );
    }

    #[test]
    fn sending_shows_the_first_120_characters() {
        assert_eq!(
            sent("a", "prompt", None, "hi"),
            "Sent to a (prompt): \"hi\""
        );
        let text = sent("a", "followUp", Some("why"), &"é".repeat(121));
        assert_eq!(
            text,
            format!("Sent to a (followUp) (why): \"{}...\"", "é".repeat(120))
        );
    }

    #[test]
    fn reading_shows_the_end_and_says_what_is_missing() {
        assert_eq!(
            read("a", "idle", 0, "", None, 0),
            "[a] (idle, 0 tasks):\n\n(no output yet)"
        );
        assert_eq!(
            read("a", "working", 1, "hello", Some(3), 0),
            "[a] (working, 1 tasks):\n\n...llo"
        );
        let long = read("a", "idle", 1, &"x".repeat(MAX_TEXT + 10), None, 7);
        assert!(
            long.contains("[17 bytes before this are not shown]") && long.len() < MAX_TEXT + 200
        );
    }

    #[test]
    fn a_history_tells_nothing_twice_and_stays_bounded() {
        let runs: Vec<(u64, Past)> = (1..=20)
            .map(|n| (n, past(Outcome::Done, &"x".repeat(16_000))))
            .collect();
        let text = read_history("idle", &runs, None, None);
        assert!(text.len() < MAX_TEXT + 2500, "{}", text.len());
        assert!(
            text.contains("=== Response 20 ===")
                && text.ends_with("=== Current (idle) ===\n(nothing since the response above)")
        );
        let failed = [(3, past(Outcome::Failed("no\nkey".into()), "t"))];
        assert_eq!(
            read_history("working", &failed, Some("now"), None),
            "=== Response 3 === (failed: no key)\nt\n\n=== Current (working) ===\nnow"
        );
    }

    #[test]
    fn a_status_names_all_that_is_known() {
        let record = record();
        let mut view = View {
            record: &record,
            phase: Phase::Working,
            elsewhere: false,
            output: 12,
            activity: None,
        };
        assert_eq!(
            block(&view),
            "⟳ infra [working]\n  Role: Bob's \"infra\" $(x) `y`\n  VM: 11112222-3333-4444-5555-666677778888\n  Tasks: 2\n  Last active: \
             1970-01-01T00:00:00Z\n  Output: 12 chars (streaming...)"
        );
        view.elsewhere = true;
        assert!(block(&view).starts_with("⟳ infra [in another session]"));
    }

    #[test]
    fn an_announcement_says_how_it_ended_by_the_outcome() {
        assert_eq!(
            announcement(
                "a",
                &past(Outcome::Done, "fixed the error, 0 failed"),
                false
            ),
            "[a completed] ✅\nfixed the error, 0 failed\nUse vers_lt_read for the full output."
        );
        assert_eq!(
            announcement("a", &past(Outcome::Failed("overloaded".into()), ""), true),
            "[a failed] ⚠️ (at 1970-01-01T00:00:00Z, while this session did not listen)\noverloaded\nUse vers_lt_read for the full output."
        );
    }

    #[test]
    fn who_is_not_there_is_said_with_who_is() {
        assert_eq!(
            unknown("x", &[]),
            "Lieutenant 'x' not found. Available: none"
        );
        assert_eq!(
            unknown("x", &["a".into(), "b".into()]),
            "Lieutenant 'x' not found. Available: a, b"
        );
    }

    proptest! {
        #[test]
        fn ends_of_texts_are_within_their_bounds(text in "\\PC{0,200}", most in 0usize..220) {
            prop_assert!(last_bytes(&text, most).len() <= most && text.ends_with(last_bytes(&text, most)));
            let chars = last_chars(&text, most);
            prop_assert!(chars.chars().count() <= most + 3);
            prop_assert!(last_lines(&text, most).len() <= most + 4);
            prop_assert!(first(&text, most, "…").chars().count() <= most + 1);
        }
    }
}
