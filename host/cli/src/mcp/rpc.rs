//! JSON-RPC 2.0 as MCP has it: one message a line.
//!
//! What a client sends is not trusted to be one: a line that is none is answered as the standard says, with no id, and a
//! line that is too long is passed over without being held. The connection goes on after both.

use bytes::{Buf as _, BytesMut};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _};

pub(crate) const PARSE: i64 = -32700;
pub(crate) const INVALID_REQUEST: i64 = -32600;
pub(crate) const UNKNOWN_METHOD: i64 = -32601;
pub(crate) const INVALID_PARAMS: i64 = -32602;
pub(crate) const INTERNAL: i64 = -32603;
pub(crate) const UNKNOWN_RESOURCE: i64 = -32002;
pub(crate) const UNSUPPORTED_VERSION: i64 = -32022;

/// The longest line that is read: room for a file that somebody writes to a VM, as JSON.
pub(crate) const LONGEST: usize = 32 << 20;

const PIECE: usize = 64 << 10;

/// An id of a request: a string or a number, compared as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Id(String);

impl Id {
    fn of(value: &Value) -> Option<Self> {
        (value.is_string() || value.is_number()).then(|| Self(value.to_string()))
    }

    /// The id that a `requestId` or the like names.
    pub(crate) fn named(value: Option<&Value>) -> Option<Self> {
        value.and_then(Self::of)
    }

    pub(crate) fn value(&self) -> Value {
        serde_json::from_str(&self.0).unwrap_or_default()
    }
}

/// A request of the client.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) id: Id,
    pub(crate) method: String,
    pub(crate) params: Map<String, Value>,
}

/// What a line may hold.
#[derive(Debug)]
pub(crate) enum Message {
    Request(Request),
    Notification {
        method: String,
        params: Map<String, Value>,
    },
    /// The answer to a request of ours; `Err` has the error's message.
    Answer {
        id: Id,
        outcome: Result<Value, String>,
    },
}

/// Why a request has no result.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    pub(crate) code: i64,
    pub(crate) message: String,
    pub(crate) data: Option<Value>,
}

impl Fault {
    pub(crate) fn new(code: i64, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            data: None,
        }
    }

    pub(crate) fn params(message: impl Into<String>) -> Self {
        Self::new(INVALID_PARAMS, message)
    }

    pub(crate) fn with(mut self, data: Value) -> Self {
        self.data = Some(data);
        self
    }
}

/// Why a line is no message, and the id it has in spite of that.
pub(crate) type Misfit = Box<(Option<Id>, Fault)>;

/// Reads one line.
pub(crate) fn read(line: &[u8]) -> Result<Message, Misfit> {
    let value: Value = serde_json::from_slice(line)
        .map_err(|why| misfit(None, PARSE, format!("this is no JSON: {why}")))?;
    let Value::Object(mut object) = value else {
        let why = "a message is an object; batches are not supported";
        return Err(misfit(None, INVALID_REQUEST, why.to_owned()));
    };
    let raw = object.remove("id").filter(|id| !id.is_null());
    let id = raw.as_ref().and_then(Id::of);
    let invalid = |id: Option<Id>, why: &str| misfit(id, INVALID_REQUEST, why.to_owned());
    if raw.is_some() && id.is_none() {
        return Err(invalid(None, "an `id` is a string or a number"));
    }
    if object.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
        return Err(invalid(id, "`jsonrpc` is not \"2.0\""));
    }
    let params = match object.remove("params") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(params)) => params,
        Some(_) => {
            return Err(misfit(
                id,
                INVALID_PARAMS,
                "`params` is no object".to_owned(),
            ));
        }
    };
    match (object.remove("method"), id) {
        (Some(Value::String(method)), Some(id)) => {
            Ok(Message::Request(Request { id, method, params }))
        }
        (Some(Value::String(method)), None) => Ok(Message::Notification { method, params }),
        (Some(_), id) => Err(invalid(id, "`method` is no string")),
        (None, Some(id)) => {
            let outcome = match (object.remove("result"), object.remove("error")) {
                (Some(result), None) => Ok(result),
                (_, Some(error)) => {
                    let message = error.get("message").and_then(Value::as_str);
                    Err(message.unwrap_or("no reason is given").to_owned())
                }
                (None, None) => {
                    return Err(invalid(
                        Some(id),
                        "there is no `method`, `result` or `error`",
                    ));
                }
            };
            Ok(Message::Answer { id, outcome })
        }
        (None, None) => Err(invalid(None, "there is no `method`")),
    }
}

fn misfit(id: Option<Id>, code: i64, why: String) -> Misfit {
    Box::new((id, Fault::new(code, why)))
}

pub(crate) fn result(id: &Id, result: Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id.value(), "result": result })
}

pub(crate) fn fault(id: Option<&Id>, fault: &Fault) -> Value {
    let mut error = json!({ "code": fault.code, "message": fault.message });
    if let (Some(error), Some(data)) = (error.as_object_mut(), &fault.data) {
        error.insert("data".into(), data.clone());
    }
    json!({ "jsonrpc": "2.0", "id": id.map(Id::value), "error": error })
}

pub(crate) fn notification(method: &str, params: Value) -> Value {
    json!({ "jsonrpc": "2.0", "method": method, "params": params })
}

pub(crate) fn request(id: &str, method: &str, params: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })
}

/// A line of the input.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Whole(Vec<u8>),
    /// It was longer than [`LONGEST`] and is gone.
    TooLong,
}

/// The lines of a stream.
#[derive(Debug)]
pub(crate) struct Lines<R> {
    stream: R,
    buffer: BytesMut,
    /// So much of the buffer has no line feed.
    searched: usize,
    longest: usize,
    /// The rest of a line that is too long is still to come.
    skipping: bool,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(crate) fn new(stream: R, longest: usize) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
            searched: 0,
            longest,
            skipping: false,
        }
    }

    /// The next line that holds anything; `None` at the end. A last line without its line feed is none. Cancel-safe.
    pub(crate) async fn next(&mut self) -> std::io::Result<Option<Line>> {
        loop {
            let fresh = self.buffer.get(self.searched..).unwrap_or_default();
            if let Some(at) = fresh.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(self.searched + at);
                self.buffer.advance(1);
                self.searched = 0;
                if std::mem::take(&mut self.skipping) || line.len() > self.longest {
                    return Ok(Some(Line::TooLong));
                }
                let line = line.trim_ascii();
                if !line.is_empty() {
                    return Ok(Some(Line::Whole(line.to_vec())));
                }
                continue;
            }
            self.searched = self.buffer.len();
            if self.searched > self.longest {
                self.skipping = true;
            }
            if self.skipping {
                self.buffer.clear();
                self.searched = 0;
            }
            self.buffer.reserve(PIECE);
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[tokio::test]
    async fn a_line_too_long_is_passed_over_and_the_next_one_is_read() {
        let mut input = vec![b'x'; 100];
        input.extend_from_slice(b"\n\n {} \r\nhalf");
        for piece in [1, 7, 200] {
            let reader = tokio_test_reader(&input, piece);
            let mut lines = Lines::new(reader, 10);
            assert_eq!(lines.next().await.unwrap(), Some(Line::TooLong));
            assert_eq!(
                lines.next().await.unwrap(),
                Some(Line::Whole(b"{}".to_vec()))
            );
            assert_eq!(lines.next().await.unwrap(), None);
        }
    }

    /// A stream that comes in pieces of this size.
    fn tokio_test_reader(input: &[u8], piece: usize) -> impl AsyncRead + Unpin + use<> {
        let pieces: Vec<_> = input
            .chunks(piece)
            .map(|piece| Ok::<_, std::io::Error>(bytes::Bytes::copy_from_slice(piece)))
            .collect();
        tokio_util::io::StreamReader::new(futures::stream::iter(pieces))
    }

    #[test]
    fn what_is_no_message_is_named_with_the_id_it_has() {
        for (line, code, id) in [
            ("nonsense", PARSE, None),
            ("[]", INVALID_REQUEST, None),
            (r#"{"id":1,"method":"a"}"#, INVALID_REQUEST, Some("1")),
            (
                r#"{"jsonrpc":"2.0","id":{},"method":"a"}"#,
                INVALID_REQUEST,
                None,
            ),
            (
                r#"{"jsonrpc":"2.0","id":"x","method":1}"#,
                INVALID_REQUEST,
                Some("\"x\""),
            ),
            (
                r#"{"jsonrpc":"2.0","id":2,"method":"a","params":[]}"#,
                INVALID_PARAMS,
                Some("2"),
            ),
            (r#"{"jsonrpc":"2.0","id":3}"#, INVALID_REQUEST, Some("3")),
        ] {
            let Err(misfit) = read(line.as_bytes()) else {
                panic!("{line} is taken for a message")
            };
            let (found, fault) = *misfit;
            assert_eq!(
                (fault.code, found),
                (code, id.map(|id| Id(id.into()))),
                "{line}"
            );
        }
    }

    #[test]
    fn ids_one_and_text_one_are_two() {
        let id = |value: Value| Id::of(&value).unwrap();
        assert_ne!(id(json!(1)), id(json!("1")));
        assert_eq!(id(json!("1")).value(), json!("1"));
    }

    proptest::proptest! {
        #[test]
        fn no_line_panics(line in "\\PC{0,200}") {
            let _ = read(line.as_bytes());
        }
    }
}
