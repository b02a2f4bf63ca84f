//! The writing side: one line, one write, and no value of a secret in it.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use pi_vers_system::secrets::{Secrets, Strainer};
use serde_json::Value;

use super::line::{Data, Line};
use super::read::LONGEST_LINE;
use crate::outgoing::clean_json;

/// See the module.
pub(super) struct Recorder {
    file: File,
    lines: u64,
    secrets: Arc<Secrets>,
    /// A value may be cut in two by the border of a piece: one for each stream and direction.
    strainers: HashMap<(u64, bool), Strainer>,
    /// What was last written of each question that waits for nothing.
    pub(super) states: HashMap<String, Value>,
    broken: Option<String>,
    /// The last line is written.
    closed: bool,
}

/// Lists of numbers that are shorter are numbers, and no bytes.
const FEWEST_BYTES: usize = 6;

/// Takes the values of secrets out of all texts, and out of lists of bytes.
pub(super) fn clean(secrets: &Arc<Secrets>, value: &mut Value) {
    clean_json(secrets, value);
    bytes(secrets, value);
}

fn bytes(secrets: &Arc<Secrets>, value: &mut Value) {
    match value {
        Value::Array(items) => {
            let raw: Option<Vec<u8>> = items
                .iter()
                .map(|item| item.as_u64().and_then(|byte| u8::try_from(byte).ok()))
                .collect();
            match raw {
                Some(raw) if raw.len() >= FEWEST_BYTES => {
                    let mut strainer = Strainer::new(secrets.clone());
                    let mut kept = strainer.push(&raw).to_vec();
                    kept.extend_from_slice(&strainer.finish());
                    if kept != raw {
                        *items = kept.into_iter().map(Value::from).collect();
                    }
                }
                _ => items.iter_mut().for_each(|item| bytes(secrets, item)),
            }
        }
        Value::Object(members) => members
            .values_mut()
            .for_each(|member| bytes(secrets, member)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

impl Recorder {
    /// Makes the file, which must not be there.
    pub(super) fn create(
        path: &Path,
        secrets: Arc<Secrets>,
        head: &Line,
    ) -> Result<Self, std::io::Error> {
        let file = std::fs::OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        let mut this = Self {
            file,
            lines: 0,
            secrets,
            strainers: HashMap::new(),
            states: HashMap::new(),
            broken: None,
            closed: false,
        };
        this.write(head.clone());
        match this.broken.take() {
            None => Ok(this),
            Some(why) => Err(std::io::Error::other(why)),
        }
    }

    /// Why the tape is not whole, if it is not.
    pub(super) fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    /// Bytes of a stream, as they may be written down. What could be the beginning of a secret goes with the next piece.
    pub(super) fn strain(&mut self, n: u64, incoming: bool, piece: &[u8], end: bool) -> Data {
        let secrets = &self.secrets;
        let strainer = self
            .strainers
            .entry((n, incoming))
            .or_insert_with(|| Strainer::new(secrets.clone()));
        let mut clean = strainer.push(piece).to_vec();
        if end {
            clean.extend_from_slice(&strainer.finish());
            self.strainers.remove(&(n, incoming));
        }
        // What is only percent-encoded.
        match std::str::from_utf8(&clean) {
            Ok(text) => Data::of(self.secrets.redact(text).as_bytes()),
            Err(_) => Data::of(&clean),
        }
    }

    /// Appends a line. What goes wrong is kept for the end: the session goes on without its tape.
    pub(super) fn write(&mut self, mut line: Line) {
        if self.broken.is_some() || self.closed {
            return;
        }
        match &mut line {
            Line::Enter { job: value, .. }
            | Line::Return { reply: value, .. }
            | Line::Answer { value, .. }
            | Line::Done { value, .. } => clean(&self.secrets, value),
            Line::Ask { with, answer, .. } => {
                clean(&self.secrets, with);
                answer
                    .iter_mut()
                    .for_each(|value| clean(&self.secrets, value));
            }
            Line::State { with, value, .. } => {
                clean(&self.secrets, with);
                clean(&self.secrets, value);
            }
            Line::Chunk { item, .. } => item
                .iter_mut()
                .for_each(|value| clean(&self.secrets, value)),
            Line::Tape { .. }
            | Line::GiveUp { .. }
            | Line::Took { .. }
            | Line::Clock { .. }
            | Line::End { .. } => {}
        }
        let number = self.lines + 1;
        let text = match serde_json::to_string(&line) {
            Ok(text) => text,
            Err(why) => {
                self.broken = Some(format!("line {number} could not be written: {why}"));
                return;
            }
        };
        if text.len() >= LONGEST_LINE {
            self.broken = Some(format!(
                "line {number} would have more than {} MiB",
                LONGEST_LINE >> 20
            ));
            return;
        }
        if let std::borrow::Cow::Owned(_) = self.secrets.redact(&text) {
            self.broken = Some(format!(
                "line {number} would have held the value of a secret, spread over its parts"
            ));
            return;
        }
        if let Err(why) = self.file.write_all(format!("{text}\n").as_bytes()) {
            self.broken = Some(format!("line {number} could not be written: {why}"));
            return;
        }
        self.lines = number;
    }

    /// Writes the last line.
    pub(super) fn finish(&mut self) {
        self.write(Line::End { lines: self.lines });
        self.closed = true;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const SECRET: &str = "correct-horse-battery";

    fn recorder(path: &Path) -> Recorder {
        let secrets = Secrets::new();
        secrets.insert("CANARY", SECRET.into());
        let head = Line::End { lines: 0 };
        Recorder::create(path, Arc::new(secrets), &head).unwrap()
    }

    proptest! {
        #[test]
        fn a_secret_cut_by_the_borders_of_pieces_is_not_on_the_tape(
            before in "[a-z ]{0,20}", after in "[a-z ]{0,20}", cuts in proptest::collection::vec(0_usize..64, 0..6),
        ) {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("tape");
            let mut recorder = recorder(&path);
            let text = format!("{before}{SECRET}{after}");
            let mut cuts: Vec<usize> = cuts.into_iter().map(|at| at.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let mut written = Vec::new();
            for pair in cuts.windows(2) {
                let data = recorder.strain(7, false, text.get(pair[0]..pair[1]).unwrap().as_bytes(), false);
                written.extend(data.bytes().unwrap());
                recorder.write(Line::Chunk { n: 7, by: "x".into(), at: 0, data: Some(data), item: None, end: false });
            }
            let data = recorder.strain(7, false, b"", true);
            written.extend(data.bytes().unwrap());
            prop_assert_eq!(String::from_utf8(written).unwrap(), format!("{before}[redacted]{after}"));
            prop_assert_eq!(recorder.broken(), None);
            prop_assert!(!std::fs::read_to_string(&path).unwrap().contains(SECRET));
        }
    }

    #[test]
    fn a_secret_is_on_no_line_whatever_holds_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tape");
        let mut recorder = recorder(&path);
        let raw: Vec<u8> = SECRET.bytes().collect();
        let with =
            json!({ SECRET: 1, "bytes": raw, "inner": json!({ "key": SECRET }).to_string() });
        recorder.write(Line::Ask {
            n: 1,
            by: "x".into(),
            call: None,
            what: "store.set".into(),
            with,
            answer: Some(json!({ "Err": SECRET })),
        });
        assert_eq!(recorder.broken(), None);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains(SECRET));
        let numbers = SECRET.bytes().map(|byte| byte.to_string());
        assert!(!text.contains(&numbers.collect::<Vec<_>>().join(",")));
    }

    #[test]
    fn a_tape_is_its_owners_alone_and_overwrites_nothing() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tape");
        drop(recorder(&path));
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = Recorder::create(&path, Arc::default(), &Line::End { lines: 0 });
        assert!(again.is_err());
    }
}
