//! What an edit changed, in the form that pi's user interface renders: numbered lines with `+`, `-` or a blank in front, four lines
//! around each change, `...` for what is left out.
//!
//! The places of the changes are known, so only the lines they touch are compared; the rest of the file is counted, not copied.

use std::fmt::Write as _;
use std::ops::Range;

use memchr::{memchr, memchr_iter, memrchr};

use crate::edit::Change;

/// Unchanged lines shown on each side of a change.
const AROUND: usize = 4;
/// Above this product of line counts two blocks are shown as all removed, all added.
const MOST_CELLS: usize = 1_000_000;
/// A diff longer than this, in bytes, ends with `...`: it is for people.
const LONGEST: usize = 100_000;
/// What is shown of a line, in bytes.
const LONGEST_LINE: usize = 2_000;

/// A rendered diff.
#[derive(Debug, PartialEq, Eq)]
pub struct Diff {
    /// The lines.
    pub text: String,
    /// The first line that changed, in the new file, from 1.
    pub first_changed: u64,
}

/// Lines that changes touch: their bytes in the old file, and what they became.
struct Hunk {
    old: Range<usize>,
    new: Vec<u8>,
}

/// Renders changes, which are in order and do not overlap, to `file`.
#[must_use]
pub fn render(file: &[u8], changes: &[Change]) -> Diff {
    let hunks = hunks(file, changes);
    let removed: u64 = hunks
        .iter()
        .map(|h| newlines(file.get(h.old.clone()).unwrap_or_default()))
        .sum();
    let added: u64 = hunks.iter().map(|h| newlines(&h.new)).sum();
    let most = newlines(file) + 1 + added.saturating_sub(removed);
    let mut out = Render {
        width: most.to_string().len(),
        text: String::new(),
        old: 1,
        new: 1,
        first_changed: None,
    };
    let mut from = 0;
    for (i, hunk) in hunks.iter().enumerate() {
        out.gap(
            file.get(from..hunk.old.start).unwrap_or_default(),
            i > 0,
            true,
        );
        out.block(file.get(hunk.old.clone()).unwrap_or_default(), &hunk.new);
        from = hunk.old.end;
    }
    out.gap(file.get(from..).unwrap_or_default(), true, false);
    let mut text = out.text;
    if text.len() > LONGEST {
        text.truncate(text.floor_char_boundary(LONGEST));
        text.push_str("\n...");
    }
    while text.ends_with('\n') {
        text.pop();
    }
    Diff {
        text,
        first_changed: out.first_changed.unwrap_or(1),
    }
}

/// Widens changes to whole lines and joins those that share a line.
fn hunks(file: &[u8], changes: &[Change]) -> Vec<Hunk> {
    let mut hunks: Vec<Hunk> = Vec::new();
    for change in changes {
        let before = file.get(..change.range.start).unwrap_or_default();
        let start = memrchr(b'\n', before).map_or(0, |at| at + 1);
        let after = file.get(change.range.end..).unwrap_or_default();
        let end = change.range.end + memchr(b'\n', after).map_or(after.len(), |at| at + 1);
        let rest = file.get(change.range.end..end).unwrap_or_default();
        match hunks.last_mut() {
            Some(last) if start < last.old.end => {
                // The old line's rest behind the last change is in `new` already; it ends in what this change replaces.
                let shared = last.old.end - change.range.start;
                last.new.truncate(last.new.len() - shared);
                last.new.extend_from_slice(&change.with);
                last.new.extend_from_slice(rest);
                last.old.end = end;
            }
            _ => {
                let mut new = file
                    .get(start..change.range.start)
                    .unwrap_or_default()
                    .to_vec();
                new.extend_from_slice(&change.with);
                new.extend_from_slice(rest);
                hunks.push(Hunk {
                    old: start..end,
                    new,
                });
            }
        }
    }
    hunks
        .into_iter()
        .map(|hunk| trimmed(file, hunk))
        .filter(|hunk| !(hunk.old.is_empty() && hunk.new.is_empty()))
        .collect()
}

/// Without the lines at both ends that stay as they are.
fn trimmed(file: &[u8], mut hunk: Hunk) -> Hunk {
    let old = file.get(hunk.old.clone()).unwrap_or_default();
    let (old_lines, new_lines) = (whole_lines(old), whole_lines(&hunk.new));
    let same = |(a, b): &(&&[u8], &&[u8])| a == b;
    let head: Vec<usize> = old_lines
        .iter()
        .zip(&new_lines)
        .take_while(same)
        .map(|(a, _)| a.len())
        .collect();
    let rest = old_lines.len().min(new_lines.len()) - head.len();
    let tail = old_lines
        .iter()
        .rev()
        .zip(new_lines.iter().rev())
        .take(rest)
        .take_while(same)
        .map(|(a, _)| a.len());
    let (head, tail): (usize, usize) = (head.iter().sum(), tail.sum());
    hunk.old = hunk.old.start + head..hunk.old.end - tail;
    hunk.new = hunk
        .new
        .get(head..hunk.new.len() - tail)
        .unwrap_or_default()
        .to_vec();
    hunk
}

/// Lines with their ends.
fn whole_lines(bytes: &[u8]) -> Vec<&[u8]> {
    bytes.split_inclusive(|b| *b == b'\n').collect()
}

struct Render {
    width: usize,
    text: String,
    old: u64,
    new: u64,
    first_changed: Option<u64>,
}

impl Render {
    /// Lines between changes: those next to a change are shown.
    fn gap(&mut self, bytes: &[u8], after_change: bool, before_change: bool) {
        let count = newlines(bytes) + u64::from(bytes.last().is_some_and(|b| *b != b'\n'));
        let head = if after_change { AROUND } else { 0 };
        let tail = if before_change { AROUND } else { 0 };
        if count <= (head + tail) as u64 {
            for line in lines(bytes) {
                self.same(line);
            }
            return;
        }
        for line in lines(bytes).take(head) {
            self.same(line);
        }
        let _ = writeln!(self.text, " {:width$} ...", "", width = self.width);
        let skipped = count - (head + tail) as u64;
        self.old += skipped;
        self.new += skipped;
        let mut last: Vec<&[u8]> = bytes
            .strip_suffix(b"\n")
            .unwrap_or(bytes)
            .rsplit(|b| *b == b'\n')
            .take(tail)
            .collect();
        last.reverse();
        for line in last {
            self.same(line);
        }
    }

    /// Lines that changes touched, compared line by line.
    fn block(&mut self, old: &[u8], new: &[u8]) {
        let (old, new): (Vec<&[u8]>, Vec<&[u8]>) = (lines(old).collect(), lines(new).collect());
        for step in compare(&old, &new) {
            match step {
                Step::Same(line) => self.same(line),
                Step::Removed(line) => {
                    self.first_changed.get_or_insert(self.new);
                    self.line('-', self.old, line);
                    self.old += 1;
                }
                Step::Added(line) => {
                    self.first_changed.get_or_insert(self.new);
                    self.line('+', self.new, line);
                    self.new += 1;
                }
            }
        }
    }

    fn same(&mut self, line: &[u8]) {
        self.line(' ', self.old, line);
        self.old += 1;
        self.new += 1;
    }

    fn line(&mut self, mark: char, number: u64, line: &[u8]) {
        if self.text.len() <= LONGEST {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let line = String::from_utf8_lossy(line.get(..LONGEST_LINE).unwrap_or(line));
            let _ = writeln!(
                self.text,
                "{mark}{number:width$} {line}",
                width = self.width
            );
        }
    }
}

fn newlines(bytes: &[u8]) -> u64 {
    memchr_iter(b'\n', bytes).count() as u64
}

/// Lines without their ends; a final line end begins no other line.
fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let body = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    body.split(|b| *b == b'\n')
        .filter(move |_| !bytes.is_empty())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step<'a> {
    Same(&'a [u8]),
    Removed(&'a [u8]),
    Added(&'a [u8]),
}

/// The steps from `old` to `new`, by their longest common subsequence.
fn compare<'a>(old: &[&'a [u8]], new: &[&'a [u8]]) -> Vec<Step<'a>> {
    let mut steps = Vec::new();
    if old.len().saturating_mul(new.len()) > MOST_CELLS {
        steps.extend(old.iter().map(|line| Step::Removed(line)));
        steps.extend(new.iter().map(|line| Step::Added(line)));
    } else {
        subsequence(old, new, &mut steps);
    }
    steps
}

fn subsequence<'a>(old: &[&'a [u8]], new: &[&'a [u8]], steps: &mut Vec<Step<'a>>) {
    // `longest[i][j]`: length of the longest common subsequence of `old[i..]` and `new[j..]`.
    let row = new.len() + 1;
    let mut longest = vec![0u32; (old.len() + 1) * row];
    let at = |table: &[u32], i: usize, j: usize| table.get(i * row + j).copied().unwrap_or(0);
    for (i, a) in old.iter().enumerate().rev() {
        for (j, b) in new.iter().enumerate().rev() {
            let value = if a == b {
                at(&longest, i + 1, j + 1) + 1
            } else {
                at(&longest, i + 1, j).max(at(&longest, i, j + 1))
            };
            if let Some(cell) = longest.get_mut(i * row + j) {
                *cell = value;
            }
        }
    }
    let (mut i, mut j) = (0, 0);
    loop {
        match (old.get(i), new.get(j)) {
            (Some(a), Some(b)) if a == b => {
                steps.push(Step::Same(a));
                i += 1;
                j += 1;
            }
            (Some(a), b) if b.is_none() || at(&longest, i + 1, j) >= at(&longest, i, j + 1) => {
                steps.push(Step::Removed(a));
                i += 1;
            }
            (_, Some(b)) => {
                steps.push(Step::Added(b));
                j += 1;
            }
            (_, None) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::edit::{Edit, apply, find};
    use proptest::prelude::*;

    fn diff(file: &str, edits: &[(&str, &str)]) -> Diff {
        let edits: Vec<Edit> = edits
            .iter()
            .map(|(old, new)| Edit {
                old_text: (*old).into(),
                new_text: (*new).into(),
            })
            .collect();
        render(file.as_bytes(), &find(file.as_bytes(), &edits).unwrap())
    }

    #[test]
    fn a_change_with_its_surroundings() {
        let file: String = (1..=20).map(|i| format!("line {i}\n")).collect();
        let diff = diff(&file, &[("line 10\n", "ten\nand a half\n")]);
        assert_eq!(
            diff.text,
            "    ...\n  6 line 6\n  7 line 7\n  8 line 8\n  9 line 9\n-10 line 10\n+10 ten\n+11 and a half\n \
             11 line 11\n 12 line 12\n 13 line 13\n 14 line 14\n    ..."
        );
        assert_eq!(diff.first_changed, 10);
    }

    #[test]
    fn only_lines_that_differ_are_marked() {
        let diff = diff("a\nb\nc\nd\n", &[("b\nc\nd", "b\nX\nd")]);
        assert_eq!(diff.text, " 1 a\n 2 b\n-3 c\n+3 X\n 4 d");
        assert_eq!(diff.first_changed, 3);
    }

    #[test]
    fn two_changes_in_one_line_are_one_block() {
        let diff = diff("let a = b;\n", &[("a", "x"), ("b", "y")]);
        assert_eq!(diff.text, "-1 let a = b;\n+1 let x = y;");
    }

    #[test]
    fn a_removed_line_end_joins_lines() {
        assert_eq!(
            diff("a\nb\nc\n", &[("a\nb", "ab")]).text,
            "-1 a\n-2 b\n+1 ab\n 3 c"
        );
        assert_eq!(diff("a\nb", &[("\nb", "")]).text, " 1 a\n-2 b");
    }

    #[test]
    fn far_changes_leave_out_what_is_between() {
        let file: String = (1..=30).map(|i| format!("l{i}.\n")).collect();
        let text = diff(&file, &[("l2.", "two"), ("l25.", "twenty-five")]).text;
        assert_eq!(text.matches("...").count(), 2);
        assert!(
            text.contains("\n+25 twenty-five\n") && text.contains("\n+ 2 two\n"),
            "{text}"
        );
    }

    #[test]
    fn a_huge_diff_is_bounded() {
        let new = "x\n".repeat(100_000);
        assert!(diff("old\n", &[("old\n", &new)]).text.len() < LONGEST + 10);
    }

    /// Applies a rendered diff of a small file back: context and removed lines are the old file, context and added the new.
    fn sides(diff: &str) -> (Vec<String>, Vec<String>) {
        let (mut old, mut new) = (Vec::new(), Vec::new());
        for line in diff.split('\n').filter(|line| !line.trim().is_empty()) {
            let text = line
                .get(1..)
                .unwrap()
                .trim_start()
                .split_once(' ')
                .map_or("", |(_, text)| text)
                .to_owned();
            match line.as_bytes().first().unwrap() {
                b'-' => old.push(text),
                b'+' => new.push(text),
                _ => {
                    old.push(text.clone());
                    new.push(text);
                }
            }
        }
        (old, new)
    }

    proptest! {
        #[test]
        fn both_files_can_be_read_from_the_diff(
            lines in proptest::collection::vec("[ab]{1,2}", 1..=AROUND), at in any::<prop::sample::Index>(), len in 0usize..8, with in "[ab\n]{0,5}"
        ) {
            let file = lines.join("\n") + "\n";
            let start = at.index(file.len());
            let end = (start + len).min(file.len());
            let change = Change { range: start..end, with: with.into_bytes() };
            let new = apply(file.as_bytes(), std::slice::from_ref(&change));
            let new = String::from_utf8(new).unwrap();
            prop_assume!(new != file && !new.contains("\n\n") && !new.starts_with('\n'));
            let diff = render(file.as_bytes(), &[change]);
            let (old_side, new_side) = sides(&diff.text);
            prop_assert_eq!(old_side, file.lines().collect::<Vec<_>>());
            prop_assert_eq!(new_side, new.lines().collect::<Vec<_>>());
        }
    }
}
