//! The reading side: a tape is somebody's file, and is checked line by line before anything runs.

use std::collections::HashSet;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;

use super::TapeError;
use super::line::{FORMAT, Key, Line};

/// Bytes of one line, at most.
pub(super) const LONGEST_LINE: usize = 64 << 20;

/// Bytes of a whole tape, at most.
const LARGEST: u64 = 1 << 30;

/// A line with its place in the file.
pub(super) struct Item {
    pub(super) number: usize,
    pub(super) line: Line,
    /// It has happened in the replay.
    pub(super) met: bool,
}

/// A tape that was read.
pub(super) struct Read {
    pub(super) head: Line,
    pub(super) items: Vec<Item>,
    /// Its last line is there.
    pub(super) whole: bool,
}

/// Reads and checks a tape.
pub(super) fn read(path: &Path) -> Result<Read, TapeError> {
    let unread = |why: std::io::Error| TapeError::File {
        path: path.to_owned(),
        what: format!("cannot be read: {why}"),
    };
    let wrong = |number: usize, what: String| TapeError::Line {
        path: path.to_owned(),
        line: number,
        what,
    };
    let file = std::fs::File::open(path).map_err(unread)?;
    if !file.metadata().map_err(unread)?.is_file() {
        return Err(TapeError::File {
            path: path.to_owned(),
            what: "is no regular file".into(),
        });
    }
    let mut source = BufReader::new(file.take(LARGEST + 1));
    let (mut head, mut items, mut whole) = (None, Vec::new(), false);
    let mut numbers = Numbers::default();
    let mut total = 0_u64;
    for number in 1_usize.. {
        let mut text = Vec::new();
        let most = u64::try_from(LONGEST_LINE).unwrap_or(u64::MAX);
        let count = source
            .by_ref()
            .take(most)
            .read_until(b'\n', &mut text)
            .map_err(unread)?;
        if count == 0 {
            break;
        }
        total = total.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        if total > LARGEST {
            return Err(wrong(
                number,
                format!("the tape has more than {} MiB", LARGEST >> 20),
            ));
        }
        if text.pop() != Some(b'\n') {
            let what = match count >= LONGEST_LINE {
                true => format!("it has more than {} MiB", LONGEST_LINE >> 20),
                false => "it is cut off: whoever wrote it was stopped in the middle, or the file was damaged".into(),
            };
            return Err(wrong(number, what));
        }
        let line: Line = serde_json::from_slice(&text)
            .map_err(|why| wrong(number, format!("it is no line of a tape: {why}")))?;
        if whole {
            return Err(wrong(number, "it comes after the last line".into()));
        }
        match (&line, head.is_some()) {
            (Line::Tape { format, .. }, false) if *format == FORMAT => head = Some(line),
            (Line::Tape { format, .. }, false) => {
                let what = format!(
                    "the tape has format {format}, and this host reads {FORMAT}: record it anew"
                );
                return Err(wrong(number, what));
            }
            (_, false) => return Err(wrong(number, "it is not the head of a tape".into())),
            (Line::Tape { .. }, true) => {
                return Err(wrong(number, "it is a second head".into()));
            }
            (Line::End { lines }, true) => {
                if usize::try_from(*lines).ok() != number.checked_sub(1) {
                    let what = format!(
                        "it says that {lines} lines come before it: some were taken out or put in"
                    );
                    return Err(wrong(number, what));
                }
                whole = true;
            }
            (_, true) => {
                numbers.check(&line).map_err(|what| wrong(number, what))?;
                items.push(Item {
                    number,
                    line,
                    met: false,
                });
            }
        }
    }
    let head = head.ok_or_else(|| TapeError::File {
        path: path.to_owned(),
        what: "is empty".into(),
    })?;
    Ok(Read { head, items, whole })
}

/// Which numbers were given: an answer needs its ask, before it and once.
#[derive(Default)]
struct Numbers {
    asks: HashSet<u64>,
    calls: HashSet<u64>,
    once: HashSet<Key>,
    returned: HashSet<u64>,
    ended: HashSet<u64>,
    /// Streams that take no more.
    full: HashSet<u64>,
}

impl Numbers {
    fn check(&mut self, line: &Line) -> Result<(), String> {
        match line {
            Line::Ask { n, .. } => {
                if self.calls.contains(n) || !self.asks.insert(*n) {
                    return Err(format!("the number {n} is taken"));
                }
            }
            Line::Enter { n, .. } => {
                if self.asks.contains(n) || !self.calls.insert(*n) {
                    return Err(format!("the number {n} is taken"));
                }
            }
            Line::Return { n, .. } => {
                if !self.calls.contains(n) || !self.returned.insert(*n) {
                    return Err(format!("no call {n} is open"));
                }
            }
            Line::GiveUp { n, .. } if !self.calls.contains(n) => {
                return Err(format!("no call {n} is open"));
            }
            Line::Answer { n, .. } | Line::Done { n, .. } => {
                let key = line.delivery().map_or(Key::Answer(*n), |(_, key, _)| key);
                if !self.asks.contains(n) || !self.once.insert(key) {
                    return Err(format!("no ask {n} is open"));
                }
            }
            Line::Chunk { n, data, end, .. } => {
                if !self.asks.contains(n) || self.ended.contains(n) {
                    return Err(format!("no stream {n} is open"));
                }
                if let Some(data) = data {
                    data.bytes()?;
                }
                if *end {
                    self.ended.insert(*n);
                }
            }
            Line::Took { n, data, end, .. } => {
                if !self.asks.contains(n) || self.full.contains(n) {
                    return Err(format!("no stream of ask {n} is open"));
                }
                if let Some(data) = data {
                    data.bytes()?;
                }
                if *end {
                    self.full.insert(*n);
                }
            }
            Line::GiveUp { .. }
            | Line::State { .. }
            | Line::Clock { .. }
            | Line::Tape { .. }
            | Line::End { .. } => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const HEAD: &str = r#"{"line":"tape","format":1,"contract":"0.1.0","host":"x","started":0,"seed":"00","extensions":[]}"#;

    fn why(text: &str) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        read(file.path())
            .err()
            .map_or_else(|| "fine".into(), |why| why.to_string())
    }

    #[test]
    fn what_is_wrong_with_a_tape_is_told_with_its_line() {
        let ask = r#"{"line":"ask","n":1,"by":"x","what":"store.get","with":{}}"#;
        let answer = r#"{"line":"answer","n":1,"by":"x","at":1,"value":null}"#;
        let table = [
            (format!("{HEAD}\n{ask}\n{answer}\n"), "fine"),
            (String::new(), "is empty"),
            (format!("{HEAD}\n{ask}\n{answer}"), "line 3: it is cut off"),
            (format!("{HEAD}\n{answer}\n"), "line 2: no ask 1 is open"),
            (
                format!("{HEAD}\n{ask}\n{answer}\n{answer}\n"),
                "line 4: no ask 1 is open",
            ),
            (format!("{HEAD}\n{ask}\n{ask}\n"), "line 3: the number 1"),
            (format!("{HEAD}\n{{}}\n"), "line 2: it is no line of a tape"),
            (format!("{ask}\n"), "line 1: it is not the head"),
            (format!("{HEAD}\n{HEAD}\n"), "line 2: it is a second head"),
            (
                HEAD.replace("\"format\":1", "\"format\":2") + "\n",
                "line 1: the tape has format 2",
            ),
            (
                format!("{HEAD}\n{ask}\n{{\"line\":\"end\",\"lines\":3}}\n"),
                "line 3: it says that 3 lines",
            ),
            (
                format!("{HEAD}\n{{\"line\":\"end\",\"lines\":1}}\n{ask}\n"),
                "line 3: it comes after the last",
            ),
        ];
        for (text, expected) in table {
            let why = why(&text);
            assert!(why.contains(expected), "{why:?} should say {expected:?}");
        }
    }
}
