//! Standard input and output as a transport of the protocol's SDK.
//!
//! What a client sends is not trusted to be a message: a line that is none, or too long, is answered as the standard says and the
//! connection goes on; the SDK would be silent, and whoever sent it would wait. No id is served twice at a time and no more than
//! [`MOST`] requests are.
//!
//! The end of the input is told to [the one who ends everything](Stdio::new), and not to the SDK, which waits five seconds for calls first.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use rmcp::RoleServer;
use rmcp::model::{
    ClientJsonRpcMessage, ClientNotification, ClientRequest, ErrorCode, ErrorData, GetMeta as _,
    JsonRpcMessage, ProtocolVersion, RequestId, ServerNotification,
};
use rmcp::service::TxJsonRpcMessage;
use rmcp::transport::Transport;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::locked;
use super::stdio::Input;
use crate::wire::{self, Broken, Key, Lines, Outbox};

/// The longest line that is read: room for a file that somebody writes to a VM, as JSON.
pub(crate) const LONGEST: usize = 32 << 20;
/// Most requests under way.
const MOST: usize = 256;

/// See the module.
pub(crate) struct Stdio {
    lines: Lines<Input>,
    outbox: Arc<Outbox>,
    under_way: Arc<Mutex<HashSet<RequestId>>>,
    /// An answer that waits for room.
    refusal: Option<Vec<u8>>,
    /// The client has said which era it is of. Before that the SDK takes what is no request for the end.
    begun: bool,
    ended: CancellationToken,
}

impl Stdio {
    /// `ended` fires when the client says no more.
    pub(crate) fn new(input: Input, outbox: Arc<Outbox>, ended: CancellationToken) -> Self {
        Self {
            lines: Lines::new(input, LONGEST),
            outbox,
            under_way: Arc::default(),
            refusal: None,
            begun: false,
            ended,
        }
    }

    /// Lets a message in, or says why not.
    fn admit(&self, message: &ClientJsonRpcMessage) -> Result<(), (RequestId, ErrorData)> {
        let mut all = locked(&self.under_way);
        match message {
            JsonRpcMessage::Request(request) => {
                let why = if all.contains(&request.id) {
                    "a request with this id is under way"
                } else if all.len() >= MOST {
                    "too many requests are under way"
                } else {
                    all.insert(request.id.clone());
                    return Ok(());
                };
                Err((request.id.clone(), ErrorData::invalid_request(why, None)))
            }
            JsonRpcMessage::Notification(notification) => {
                // It gets no answer, so its place is free.
                if let ClientNotification::CancelledNotification(cancelled) =
                    &notification.notification
                    && let Some(id) = &cancelled.params.request_id
                {
                    all.remove(id);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// Whether a message says which era its sender is of.
fn begins(message: &ClientJsonRpcMessage) -> bool {
    let JsonRpcMessage::Request(request) = message else {
        return false;
    };
    match &request.request {
        ClientRequest::InitializeRequest(_) => true,
        ClientRequest::PingRequest(_) | ClientRequest::DiscoverRequest(_) => false,
        other => {
            let newest = &ProtocolVersion::V_2026_07_28;
            other.get_meta().missing_required_keys(newest).is_empty()
        }
    }
}

fn refused(id: Option<RequestId>, why: ErrorData) -> Vec<u8> {
    // The standard wants the id to be there, as null where it is unknown.
    let id = serde_json::to_value(id).unwrap_or_default();
    wire::line(&serde_json::json!({ "jsonrpc": "2.0", "id": id, "error": why }))
}

/// Why a line is no message of the protocol.
fn diagnose(line: &[u8], why: &serde_json::Error) -> Vec<u8> {
    let invalid = |why: &str| ErrorData::invalid_request(why.to_owned(), None);
    let value: Value = match serde_json::from_slice(line) {
        Ok(value) => value,
        Err(why) => {
            let why = format!("this is no JSON: {why}");
            return refused(None, ErrorData::new(ErrorCode::PARSE_ERROR, why, None));
        }
    };
    let Value::Object(object) = value else {
        return refused(
            None,
            invalid("a message is an object; batches are not supported"),
        );
    };
    let id = object
        .get("id")
        .and_then(|id| serde_json::from_value(id.clone()).ok());
    let why = if object.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
        invalid("`jsonrpc` is not \"2.0\"")
    } else if object
        .get("method")
        .is_some_and(|method| !method.is_string())
    {
        invalid("`method` is no string")
    } else if object
        .get("params")
        .is_some_and(|params| !params.is_object() && !params.is_null())
    {
        ErrorData::invalid_params("`params` is no object", None)
    } else {
        tracing::debug!("a line is no message: {why}");
        invalid("this is no request, notification or answer of the protocol")
    };
    refused(id, why)
}

impl Transport<RoleServer> for Stdio {
    type Error = Infallible;

    fn send(
        &mut self,
        item: TxJsonRpcMessage<RoleServer>,
    ) -> impl Future<Output = Result<(), Infallible>> + Send + 'static {
        let key = match &item {
            JsonRpcMessage::Response(response) => {
                locked(&self.under_way).remove(&response.id);
                None
            }
            JsonRpcMessage::Error(error) => {
                if let Some(id) = &error.id {
                    locked(&self.under_way).remove(id);
                }
                None
            }
            JsonRpcMessage::Request(_) => None,
            JsonRpcMessage::Notification(one) => key(&one.notification),
        };
        let line = wire::line(&item);
        let outbox = self.outbox.clone();
        async move {
            match key {
                Some(key) => outbox.notice(key, line),
                None => outbox.send(line).await,
            }
            Ok(())
        }
    }

    /// Cancel-safe.
    async fn receive(&mut self) -> Option<ClientJsonRpcMessage> {
        loop {
            if let Some(line) = &self.refusal {
                let room = self.outbox.room(line.len()).await;
                if let (Some(room), Some(line)) = (room, self.refusal.take()) {
                    self.outbox.put(room, line);
                }
            }
            let line = match self.lines.next().await {
                Ok(Some(line)) => line,
                Err(Broken::TooLong(most)) => {
                    let why = format!("a line may have {} MiB, and this one had more", most >> 20);
                    self.refusal = Some(refused(None, ErrorData::invalid_request(why, None)));
                    continue;
                }
                end => {
                    if let Err(why) = end {
                        tracing::debug!("standard input: {why}");
                    }
                    self.ended.cancel();
                    return std::future::pending().await;
                }
            };
            let line = line.trim_ascii();
            if line.is_empty() {
                continue;
            }
            match serde_json::from_slice::<ClientJsonRpcMessage>(line) {
                Ok(message) => match self.admit(&message) {
                    Ok(()) => {
                        let request = matches!(message, JsonRpcMessage::Request(_));
                        self.begun |= begins(&message);
                        if self.begun || request {
                            return Some(message);
                        }
                    }
                    Err((id, why)) => self.refusal = Some(refused(Some(id), why)),
                },
                Err(why) => self.refusal = Some(diagnose(line, &why)),
            }
        }
    }

    async fn close(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

/// Notices wait for nobody: of those with a key the newest counts. `None`: it has to arrive.
fn key(notification: &ServerNotification) -> Option<Key> {
    Some(match notification {
        ServerNotification::ProgressNotification(progress) => {
            Key::Of(format!("progress {:?}", progress.params.progress_token))
        }
        ServerNotification::LoggingMessageNotification(_) => Key::Alone,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use proptest::prelude::*;

    fn diagnosed(line: &str) -> Value {
        let why = serde_json::from_slice::<ClientJsonRpcMessage>(line.as_bytes()).unwrap_err();
        serde_json::from_slice(&diagnose(line.as_bytes(), &why)).unwrap()
    }

    #[test]
    fn what_is_no_message_is_named_and_keeps_its_id() {
        for (line, code, id) in [
            ("nonsense", -32700, Value::Null),
            ("[]", -32600, Value::Null),
            ("{\"jsonrpc\":\"2.0\"}", -32600, Value::Null),
            (
                "{\"jsonrpc\":\"1.0\",\"id\":1,\"method\":\"ping\"}",
                -32600,
                1.into(),
            ),
            (
                "{\"jsonrpc\":\"2.0\",\"id\":\"a\",\"method\":7}",
                -32600,
                "a".into(),
            ),
        ] {
            let answer = diagnosed(line);
            assert_eq!(
                (&answer["error"]["code"], &answer["id"]),
                (&code.into(), &id),
                "{line}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_line_is_without_an_answer(line in "[\\[\\]{}\":,a-z0-9 ]{0,60}") {
            if let Err(why) = serde_json::from_slice::<ClientJsonRpcMessage>(line.as_bytes()) {
                let answer: Value = serde_json::from_slice(&diagnose(line.as_bytes(), &why)).unwrap();
                prop_assert!(answer["error"]["code"].is_i64());
                prop_assert!(answer.get("id").is_some());
            }
        }
    }
}
