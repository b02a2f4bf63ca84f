//! Exact replacement in a file, on its bytes.
//!
//! What must never happen: a byte outside the match changes. So the file is never decoded. A model writes `\n`; where the
//! file has `\r\n`, that matches too, and the new text gets the line ends of what it replaces. A byte order mark stays
//! where it is. Every edit of a call is matched against the file as it was, so their order does not matter.

use std::borrow::Cow;
use std::ops::Range;

use memchr::memmem;
use pi_vers_sdk::declare::{JsonSchema, schemars};
use serde::Deserialize;

/// One replacement.
#[derive(Debug, Clone, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Edit {
    /// Exact text to find; must occur once in the original file
    pub old_text: String,
    /// New text to replace it with
    pub new_text: String,
}

/// A replacement that was found: bytes of the old file, and what takes their place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// In the old file.
    pub range: Range<usize>,
    /// With the file's line ends.
    pub with: Vec<u8>,
}

/// Why nothing was replaced. Numbers are places in the list of edits, from 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// There are no edits.
    Nothing,
    /// An old text is empty.
    Empty(usize),
    /// An old text does not occur.
    Missing(usize),
    /// An old text occurs more than once.
    Ambiguous(usize),
    /// Two old texts overlap.
    Overlap(usize, usize),
    /// The file would stay as it is.
    Same,
}

const BOM: &[u8] = b"\xef\xbb\xbf";

/// Finds every edit in `file`, in the file's order.
///
/// # Errors
/// A [`Refusal`] that names the edit it is about.
pub fn find(file: &[u8], edits: &[Edit]) -> Result<Vec<Change>, Refusal> {
    let bom = if file.starts_with(BOM) { BOM.len() } else { 0 };
    let body = Body::new(file.get(bom..).unwrap_or_default());
    let mut found = Vec::with_capacity(edits.len());
    for (i, edit) in edits.iter().enumerate() {
        // The mark is invisible: an edit may carry it or not.
        let old = lf(edit
            .old_text
            .strip_prefix('\u{feff}')
            .unwrap_or(&edit.old_text));
        let new = lf(edit
            .new_text
            .strip_prefix('\u{feff}')
            .unwrap_or(&edit.new_text));
        if old.is_empty() {
            return Err(Refusal::Empty(i));
        }
        let at = body.find_only(old.as_bytes()).map_err(|n| match n {
            Count::None => Refusal::Missing(i),
            Count::Several => Refusal::Ambiguous(i),
        })?;
        let with = body.with_line_ends(&at, &new);
        found.push((
            i,
            Change {
                range: at.start + bom..at.end + bom,
                with,
            },
        ));
    }
    found.sort_by_key(|(_, change)| change.range.start);
    for pair in found.windows(2) {
        if let [(i, a), (j, b)] = pair
            && b.range.start < a.range.end
        {
            return Err(Refusal::Overlap(*i.min(j), *i.max(j)));
        }
    }
    let changes: Vec<Change> = found.into_iter().map(|(_, change)| change).collect();
    if changes.is_empty() {
        return Err(Refusal::Nothing);
    }
    if changes
        .iter()
        .all(|change| file.get(change.range.clone()) == Some(&change.with))
    {
        return Err(Refusal::Same);
    }
    Ok(changes)
}

/// The file with these changes, which are in order and do not overlap.
#[must_use]
pub fn apply(file: &[u8], changes: &[Change]) -> Vec<u8> {
    let mut out = Vec::with_capacity(file.len());
    let mut from = 0;
    for change in changes {
        out.extend_from_slice(file.get(from..change.range.start).unwrap_or_default());
        out.extend_from_slice(&change.with);
        from = change.range.end;
    }
    out.extend_from_slice(file.get(from..).unwrap_or_default());
    out
}

impl Refusal {
    /// For the model. `several`: the call named a list of edits.
    #[must_use]
    pub fn explain(&self, path: &str, several: bool) -> String {
        let which = |i: &usize| {
            if several {
                format!("edits[{i}]")
            } else {
                "the exact text".into()
            }
        };
        match self {
            Self::Nothing => "Give oldText and newText, or a list of edits.".into(),
            Self::Empty(_) => format!("oldText must not be empty in {path}."),
            Self::Missing(i) => format!(
                "Could not find {} in {path}. The old text must match exactly including all whitespace and newlines.",
                which(i)
            ),
            Self::Ambiguous(i) if several => format!(
                "Found multiple occurrences of edits[{i}] in {path}. Please provide more context to make it unique."
            ),
            Self::Ambiguous(_) => format!(
                "Found multiple occurrences of the text in {path}. Please provide more context to make it unique."
            ),
            Self::Overlap(i, j) => {
                format!("edits[{i}] and edits[{j}] overlap in {path}. Merge them into one edit.")
            }
            Self::Same => {
                format!("No changes made to {path}. The replacement produced identical content.")
            }
        }
    }
}

enum Count {
    None,
    Several,
}

/// A file without its mark, and the same with `\n` for every `\r\n`.
struct Body<'a> {
    raw: &'a [u8],
    text: Cow<'a, [u8]>,
}

impl<'a> Body<'a> {
    fn new(raw: &'a [u8]) -> Self {
        let mut ends = memmem::find_iter(raw, b"\r\n").peekable();
        if ends.peek().is_none() {
            return Self {
                raw,
                text: Cow::Borrowed(raw),
            };
        }
        let mut text = Vec::with_capacity(raw.len());
        let mut from = 0;
        for end in ends {
            text.extend_from_slice(raw.get(from..end).unwrap_or_default());
            from = end + 1;
        }
        text.extend_from_slice(raw.get(from..).unwrap_or_default());
        Self {
            raw,
            text: Cow::Owned(text),
        }
    }

    /// The one place of `old`, in `raw`.
    fn find_only(&self, old: &[u8]) -> Result<Range<usize>, Count> {
        let finder = memmem::Finder::new(old);
        let at = finder.find(&self.text).ok_or(Count::None)?;
        // From the next byte on, not from the end: occurrences that overlap are several, too.
        if finder
            .find(self.text.get(at + 1..).unwrap_or_default())
            .is_some()
        {
            return Err(Count::Several);
        }
        Ok(self.to_raw(at)..self.to_raw(at + old.len()))
    }

    /// A place in `text` as a place in `raw`: one more for each `\r` left out before it.
    fn to_raw(&self, place: usize) -> usize {
        if matches!(self.text, Cow::Borrowed(_)) {
            return place;
        }
        let left_out = memmem::find_iter(self.raw, b"\r\n")
            .enumerate()
            .take_while(|(before, at)| at - before < place)
            .count();
        place + left_out
    }

    /// `new` with the line ends of what it replaces; of the file, where that has none.
    fn with_line_ends(&self, range: &Range<usize>, new: &str) -> Vec<u8> {
        let replaced = self.raw.get(range.clone()).unwrap_or_default();
        if has_crlf_first(replaced).or_else(|| has_crlf_first(self.raw)) == Some(true) {
            new.replace('\n', "\r\n").into_bytes()
        } else {
            new.as_bytes().to_vec()
        }
    }
}

/// Whether the first line end is `\r\n`; none without a line end.
fn has_crlf_first(bytes: &[u8]) -> Option<bool> {
    let at = memchr::memchr(b'\n', bytes)?;
    Some(at > 0 && bytes.get(at - 1) == Some(&b'\r'))
}

fn lf(text: &str) -> Cow<'_, str> {
    if text.contains("\r\n") {
        Cow::Owned(text.replace("\r\n", "\n"))
    } else {
        Cow::Borrowed(text)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn edit(old: &str, new: &str) -> Edit {
        Edit {
            old_text: old.into(),
            new_text: new.into(),
        }
    }

    fn replace(file: &[u8], edits: &[Edit]) -> Result<Vec<u8>, Refusal> {
        find(file, edits).map(|changes| apply(file, &changes))
    }

    #[test]
    fn an_edit_adds_no_line_end() {
        assert_eq!(replace(b"a\nb", &[edit("b", "c")]).unwrap(), b"a\nc");
        assert_eq!(replace(b"a\nb\n", &[edit("b", "c")]).unwrap(), b"a\nc\n");
    }

    #[test]
    fn line_ends_of_the_file_are_kept() {
        assert_eq!(
            replace(b"a\r\nb\r\nc\r\n", &[edit("a\nb", "x\ny\nz")]).unwrap(),
            b"x\r\ny\r\nz\r\nc\r\n"
        );
        assert_eq!(
            replace(b"a\r\nb\r\nc", &[edit("b", "b1\nb2")]).unwrap(),
            b"a\r\nb1\r\nb2\r\nc"
        );
        assert_eq!(
            replace(b"a\r\nb\r\n", &[edit("\nb\n", "\nc\n")]).unwrap(),
            b"a\r\nc\r\n"
        );
        assert_eq!(
            replace(b"a\nb\n", &[edit("a\r\nb", "c\r\nd")]).unwrap(),
            b"c\nd\n"
        );
        // Mixed: the line ends of what is replaced count, and no other line changes.
        assert_eq!(
            replace(b"a\r\nb\nc\nd\r\n", &[edit("b\nc", "1\n2")]).unwrap(),
            b"a\r\n1\n2\nd\r\n"
        );
    }

    #[test]
    fn a_byte_order_mark_stays() {
        assert_eq!(
            replace(b"\xef\xbb\xbfa\nb", &[edit("a", "x")]).unwrap(),
            b"\xef\xbb\xbfx\nb"
        );
        assert_eq!(
            replace(b"\xef\xbb\xbfa\nb", &[edit("\u{feff}a", "\u{feff}x")]).unwrap(),
            b"\xef\xbb\xbfx\nb"
        );
    }

    #[test]
    fn malformed_text_and_lone_carriage_returns_stay() {
        assert_eq!(
            replace(b"\xff\r\xfe old \x00\xc3", &[edit("old", "new")]).unwrap(),
            b"\xff\r\xfe new \x00\xc3"
        );
    }

    #[test]
    fn refusals() {
        assert_eq!(
            replace(b"aXa", &[edit("a", "b")]),
            Err(Refusal::Ambiguous(0))
        );
        assert_eq!(
            replace(b"aaa", &[edit("aa", "b")]),
            Err(Refusal::Ambiguous(0))
        );
        assert_eq!(replace(b"abc", &[edit("x", "b")]), Err(Refusal::Missing(0)));
        assert_eq!(replace(b"abc", &[edit("", "b")]), Err(Refusal::Empty(0)));
        assert_eq!(replace(b"abc", &[edit("b", "b")]), Err(Refusal::Same));
        assert_eq!(replace(b"abc", &[]), Err(Refusal::Nothing));
        assert_eq!(
            replace(b"abcd", &[edit("bc", "x"), edit("ab", "y")]),
            Err(Refusal::Overlap(0, 1))
        );
    }

    #[test]
    fn several_edits_are_matched_against_the_original() {
        assert_eq!(
            replace(
                b"one two three",
                &[edit("three", "one"), edit("one", "two")]
            )
            .unwrap(),
            b"two two one"
        );
        assert_eq!(
            replace(b"abcd", &[edit("ab", "1"), edit("cd", "2")]).unwrap(),
            b"12"
        );
    }

    #[test]
    fn texts_of_refusals() {
        assert_eq!(
            Refusal::Missing(0).explain("a.rs", false),
            "Could not find the exact text in a.rs. The old text must match exactly including all whitespace and newlines."
        );
        assert_eq!(
            Refusal::Ambiguous(0).explain("a.rs", false),
            "Found multiple occurrences of the text in a.rs. Please provide more context to make it unique."
        );
        assert!(
            Refusal::Missing(2)
                .explain("a.rs", true)
                .contains("edits[2]")
        );
    }

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(
            prop_oneof![
                Just(b'\r'),
                Just(b'\n'),
                Just(b'a'),
                Just(0xff),
                any::<u8>()
            ],
            0..40,
        )
    }

    proptest! {
        /// `\u{1}` and `\u{2}` frame the old text, so that it occurs once.
        #[test]
        fn no_byte_outside_the_match_changes(
            before in bytes(), after in bytes(), old in "[ab\n]{0,6}", new in "[xy\n]{0,6}", crlf in any::<bool>()
        ) {
            let old = format!("\u{1}{old}\u{2}");
            let in_file = if crlf { old.replace('\n', "\r\n") } else { old.clone() };
            let clean = |side: Vec<u8>| -> Vec<u8> { side.into_iter().filter(|b| *b > 2).collect() };
            let (before, after) = (clean(before), clean(after));
            let file = [before.as_slice(), in_file.as_bytes(), after.as_slice()].concat();
            let changed = replace(&file, &[edit(&old, &new)]).unwrap();
            let middle = changed.strip_prefix(before.as_slice()).and_then(|rest| rest.strip_suffix(after.as_slice()));
            let middle = String::from_utf8(middle.unwrap().to_vec()).unwrap();
            prop_assert_eq!(middle.replace("\r\n", "\n"), new);
        }

        #[test]
        fn foreign_bytes_never_panic(file in bytes(), old in "[a\r\n\u{feff}]{0,3}", new in any::<String>()) {
            if let Ok(changes) = find(&file, &[edit(&old, &new)]) {
                prop_assert_eq!(changes.len(), 1);
                prop_assert!(apply(&file, &changes) != file);
            }
        }
    }
}
