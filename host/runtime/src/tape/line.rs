//! The lines of a tape, and what may stand in one.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The format that this host writes, and the only one it reads.
pub(super) const FORMAT: u32 = 1;

/// An extension of the recorded session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Loaded {
    pub(super) name: String,
    pub(super) digest: String,
}

/// Bytes: as text where they are UTF-8.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Data {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

impl Data {
    pub(super) fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self {
                text: Some(text.to_owned()),
                base64: None,
            },
            Err(_) => Self {
                text: None,
                base64: Some(STANDARD.encode(bytes)),
            },
        }
    }

    pub(super) fn bytes(&self) -> Result<Vec<u8>, String> {
        match (&self.text, &self.base64) {
            (Some(text), None) => Ok(text.clone().into_bytes()),
            (None, Some(encoded)) => STANDARD
                .decode(encoded)
                .map_err(|why| format!("its bytes are no base64: {why}")),
            _ => Err("its bytes are to be `text` or `base64`".into()),
        }
    }
}

/// One line. `n` numbers what the extension is asked and asks, from 1; `at` is the time of the session in microseconds; `by` is the
/// extension's name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "kebab-case")]
pub(super) enum Line {
    /// The first one.
    Tape {
        format: u32,
        contract: String,
        host: String,
        /// Milliseconds since 1970.
        started: u64,
        /// Of the random numbers that extensions get.
        seed: String,
        extensions: Vec<Loaded>,
    },
    /// The extension is called: a tool, a command, an event.
    Enter {
        n: u64,
        by: String,
        at: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        job: Value,
    },
    /// It returns.
    Return { n: u64, by: String, reply: Value },
    /// The call was given up.
    GiveUp { n: u64, by: String, why: String },
    /// The extension asks. `answer`: one that waits for nothing.
    Ask {
        n: u64,
        by: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        call: Option<u64>,
        what: String,
        with: Value,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        answer: Option<Value>,
    },
    /// It is answered.
    Answer {
        n: u64,
        by: String,
        at: u64,
        value: Value,
    },
    /// A piece of a stream that the ask `n` opened.
    Chunk {
        n: u64,
        by: String,
        at: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        data: Option<Data>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        item: Option<Value>,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        end: bool,
    },
    /// The future beside a stream.
    Done {
        n: u64,
        by: String,
        at: u64,
        value: Value,
    },
    /// The host took what the extension wrote into a stream of the ask `n`: so many bytes, of which `data` is what may be
    /// written down by now. `end`: it takes no more.
    Took {
        n: u64,
        by: String,
        at: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        data: Option<Data>,
        #[serde(default)]
        count: u64,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        end: bool,
    },
    /// What holds from here on, for questions that wait for nothing.
    State {
        by: String,
        what: String,
        with: Value,
        value: Value,
    },
    /// The extension's clock was set while it ran, at this read of it.
    Clock { by: String, reads: u64, at: u64 },
    /// The last one: the session ended as it should.
    End { lines: u64 },
}

/// What a wait of an extension is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Key {
    Enter(u64),
    Answer(u64),
    Chunk(u64),
    Done(u64),
    Took(u64),
}

impl Line {
    /// What this line brings to an extension, if it brings something.
    pub(super) fn delivery(&self) -> Option<(&str, Key, u64)> {
        match self {
            Self::Enter { n, by, at, .. } => Some((by, Key::Enter(*n), *at)),
            Self::Answer { n, by, at, .. } => Some((by, Key::Answer(*n), *at)),
            Self::Chunk { n, by, at, .. } => Some((by, Key::Chunk(*n), *at)),
            Self::Done { n, by, at, .. } => Some((by, Key::Done(*n), *at)),
            Self::Took { n, by, at, .. } => Some((by, Key::Took(*n), *at)),
            _ => None,
        }
    }

    /// Whose line it is.
    pub(super) fn by(&self) -> Option<&str> {
        match self {
            Self::Enter { by, .. }
            | Self::Return { by, .. }
            | Self::GiveUp { by, .. }
            | Self::Ask { by, .. }
            | Self::Answer { by, .. }
            | Self::Chunk { by, .. }
            | Self::Done { by, .. }
            | Self::Took { by, .. }
            | Self::State { by, .. }
            | Self::Clock { by, .. } => Some(by),
            Self::Tape { .. } | Self::End { .. } => None,
        }
    }

    /// What it says, for people.
    pub(super) fn words(&self) -> String {
        let what = match self {
            Self::Tape { .. } => "the head of the tape".into(),
            Self::Enter { by, job, .. } => format!("{by} is called: {job}"),
            Self::Return { n, by, reply } => format!("{by} returns from call {n}: {reply}"),
            Self::GiveUp { n, by, why } => format!("call {n} of {by} is given up ({why})"),
            Self::Ask { by, what, with, .. } => format!("{by} asks {what} {with}"),
            Self::Answer { n, by, value, .. } => format!("the answer to ask {n} of {by}: {value}"),
            Self::Chunk {
                n, by, end: true, ..
            } => format!("{by} reads the end of the stream of ask {n}"),
            Self::Chunk { n, by, .. } => format!("{by} reads the stream of ask {n}"),
            Self::Done { n, by, .. } => format!("{by} waits for the outcome of ask {n}"),
            Self::Took {
                n, by, end: true, ..
            } => format!("the stream of ask {n} takes no more of {by}"),
            Self::Took { n, by, .. } => format!("{by} writes into the stream of ask {n}"),
            Self::State { by, what, .. } => format!("{by} looks at {what}"),
            Self::Clock { by, .. } => format!("{by} reads the clock"),
            Self::End { .. } => "the end of the session".into(),
        };
        brief(&what)
    }
}

/// The longest quotation in a message, in characters.
const LONGEST: usize = 300;

/// A text cut to what a message has room for, with every control character visible.
pub(super) fn brief(text: &str) -> String {
    let text = crate::types::visible(text);
    match text.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}\u{2026}", text.get(..at).unwrap_or_default()),
        None => text,
    }
}

/// Where two values differ first: a path, and both.
pub(super) fn difference(recorded: &Value, now: &Value) -> Option<String> {
    fn walk(recorded: &Value, now: &Value, path: &mut String) -> Option<(String, Value, Value)> {
        let length = path.len();
        let found = match (recorded, now) {
            (Value::Object(old), Value::Object(new)) => {
                let names = old
                    .keys()
                    .chain(new.keys().filter(|name| !old.contains_key(*name)));
                names.cloned().collect::<Vec<_>>().iter().find_map(|name| {
                    path.push('/');
                    path.push_str(name);
                    let null = Value::Null;
                    let found = walk(
                        old.get(name).unwrap_or(&null),
                        new.get(name).unwrap_or(&null),
                        path,
                    );
                    path.truncate(length);
                    found
                })
            }
            (Value::Array(old), Value::Array(new)) => {
                (0..old.len().max(new.len())).find_map(|index| {
                    path.push_str(&format!("/{index}"));
                    let null = Value::Null;
                    let found = walk(
                        old.get(index).unwrap_or(&null),
                        new.get(index).unwrap_or(&null),
                        path,
                    );
                    path.truncate(length);
                    found
                })
            }
            _ if recorded == now => None,
            _ => Some((path.clone(), recorded.clone(), now.clone())),
        };
        path.truncate(length);
        found
    }
    let (path, old, new) = walk(recorded, now, &mut String::new())?;
    let place = if path.is_empty() {
        String::new()
    } else {
        format!("at {path} ")
    };
    let (old, new) = shortened(&old, &new);
    Some(format!("{place}recorded {old}, now {new}"))
}

/// Two values from where they begin to differ.
fn shortened(old: &Value, new: &Value) -> (String, String) {
    /// Characters before the difference that are shown.
    const BEFORE: usize = 40;
    match (old, new) {
        (Value::String(old), Value::String(new)) => {
            let same = old
                .chars()
                .zip(new.chars())
                .take_while(|(old, new)| old == new)
                .count();
            let skip = same.saturating_sub(BEFORE);
            let show = |text: &str| {
                let rest: String = text.chars().skip(skip).collect();
                let lead = if skip > 0 { "\u{2026}" } else { "" };
                brief(&format!("{lead}{}", Value::String(rest)))
            };
            (show(old), show(new))
        }
        _ => (brief(&old.to_string()), brief(&new.to_string())),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn the_first_difference_is_named_by_its_place() {
        let old = json!({ "command": { "argv": ["a", "b"] }, "x": 1 });
        let new = json!({ "command": { "argv": ["a", "c"] }, "x": 2 });
        assert_eq!(
            difference(&old, &new).unwrap(),
            "at /command/argv/1 recorded \"b\", now \"c\""
        );
        assert_eq!(difference(&old, &old), None);
        assert!(difference(&json!("a"), &json!(["a"])).is_some());
    }

    proptest! {
        #[test]
        fn bytes_stay_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let line = serde_json::to_string(&Data::of(&bytes)).unwrap();
            let read: Data = serde_json::from_str(&line).unwrap();
            prop_assert_eq!(read.bytes().unwrap(), bytes);
        }
    }
}
