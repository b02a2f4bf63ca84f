//! What came of the scripts: for people as differences, for programs as one JSON object a line.

use std::path::Path;

use pi_vers_host::visible;
use serde_json::{Value, json};
use similar::{ChangeTag, TextDiff};

use super::matching::Mismatch;
use super::run::{Report, Wrong};
use crate::terminal::{Style, Terminal};

/// Longest value that is shown.
const LONGEST: usize = 2_000;

/// Says what came of one script.
pub(super) fn script(terminal: &Terminal, path: &Path, report: &Report, json: bool) {
    if json {
        terminal.line(json_of(path, report).to_string());
        return;
    }
    let name = visible(&path.display().to_string());
    if report.failures.is_empty() {
        let left_out = match report.left_out {
            0 => String::new(),
            count => format!(", {count} lines for fakes left out"),
        };
        terminal.line(format!(
            "{}  {name}  {} steps{left_out}, {} ms",
            terminal.styled(Style::Good, "ok    "),
            report.steps,
            report.millis
        ));
        return;
    }
    for wrong in &report.failures {
        terminal.line(format!(
            "{}  {name}:{}  {}",
            terminal.styled(Style::Bad, "FAILED"),
            wrong.line,
            visible(&wrong.what)
        ));
        for mismatch in &wrong.mismatches {
            for line in differences(terminal, mismatch) {
                terminal.line(format!("        {line}"));
            }
        }
        if let Some(came) = wrong.came.as_ref() {
            terminal.line(format!("        all that came: {}", shown(came)));
        }
    }
}

/// Says that a script is none.
pub(super) fn unreadable(terminal: &Terminal, path: &Path, why: &str, json: bool) {
    let name = path.display().to_string();
    if json {
        let line = json!({ "script": name, "ok": false, "failures": [{ "line": Value::Null, "what": why }] });
        terminal.line(line.to_string());
    } else {
        let failed = terminal.styled(Style::Bad, "FAILED");
        terminal.line(format!("{failed}  {}:{}", visible(&name), visible(why)));
    }
}

fn shown(value: &Value) -> String {
    let text = visible(&value.to_string()).replace('\n', " ");
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

fn differences(terminal: &Terminal, mismatch: &Mismatch) -> Vec<String> {
    let place = match mismatch.path.as_str() {
        "" => "/",
        path => path,
    };
    if let (Value::String(wanted), Some(Value::String(came))) =
        (&mismatch.expected, &mismatch.actual)
        && (wanted.contains('\n') || came.contains('\n'))
    {
        let mut lines = vec![format!("{}:", visible(place))];
        let diff = TextDiff::from_lines(wanted.as_str(), came.as_str());
        for change in diff.iter_all_changes() {
            let text = visible(change.value().trim_end_matches('\n'));
            lines.push(match change.tag() {
                ChangeTag::Delete => terminal.styled(Style::Bad, &format!("  - {text}")),
                ChangeTag::Insert => terminal.styled(Style::Good, &format!("  + {text}")),
                ChangeTag::Equal => format!("    {text}"),
            });
        }
        if wanted.ends_with('\n') != came.ends_with('\n') {
            lines.push("  (one ends with a line feed, the other does not)".into());
        }
        return lines;
    }
    let came = mismatch
        .actual
        .as_ref()
        .map_or_else(|| "nothing".to_owned(), shown);
    vec![format!(
        "{}: expected {}, came {}",
        visible(place),
        terminal.styled(Style::Bad, &shown(&mismatch.expected)),
        terminal.styled(Style::Good, &came)
    )]
}

fn json_of(path: &Path, report: &Report) -> Value {
    let failure = |wrong: &Wrong| {
        let problems = wrong
            .mismatches
            .iter()
            .map(|one| json!({ "path": one.path, "expected": one.expected, "actual": one.actual }));
        json!({ "line": wrong.line, "what": wrong.what, "problems": problems.collect::<Vec<_>>(), "came": wrong.came })
    };
    json!({
        "script": path.display().to_string(),
        "ok": report.failures.is_empty(),
        "steps": report.steps,
        "left_out": report.left_out,
        "ms": report.millis,
        "failures": report.failures.iter().map(failure).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_several_lines_are_shown_line_by_line() {
        let terminal = Terminal::new(true);
        let mismatch = Mismatch {
            path: "/text".into(),
            expected: json!("a\nb\nc\n"),
            actual: Some(json!("a\nx\nc")),
        };
        let text = differences(&terminal, &mismatch).join("\n");
        assert!(text.contains("- b") && text.contains("+ x"), "{text}");
        let mismatch = Mismatch {
            path: String::new(),
            expected: json!({ "contains": "a" }),
            actual: None,
        };
        let text = differences(&terminal, &mismatch).join("\n");
        assert!(
            text.contains("came nothing") && text.starts_with("/: "),
            "{text}"
        );
    }

    #[test]
    fn what_an_extension_said_cannot_move_the_cursor() {
        assert!(!shown(&json!("\u{1b}[2J\u{202e}")).contains('\u{202e}'));
    }
}
