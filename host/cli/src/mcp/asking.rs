//! Asking an older client while its request is under way.
//!
//! This runs in the handler of the request, because the SDK ties what a server asks to the request it serves.

use rmcp::RoleServer;
use rmcp::model::{CancelledNotificationParam, InputRequest, RequestId, ServerRequest};
use rmcp::service::{Peer, PeerRequestOptions};
use serde_json::Value;

use super::desk::Ask;
use super::question::Answers;

/// So often a client is asked that answers nonsense.
pub(crate) const TRIES: u32 = 3;

/// Asks one question after the other and hands the answers on. A question of which nobody knows the answer any more is taken back.
pub(crate) async fn inline(peer: &Peer<RoleServer>, mut ask: Ask, titled: bool) {
    let mut answers = Answers::new();
    for (key, request) in ask.questions.requests(titled) {
        let Some(answer) = one(peer, &mut ask, &key, request).await else {
            let _ = ask.reply.send(None);
            return;
        };
        answers.insert(key, answer);
    }
    let _ = ask.reply.send(Some(answers));
}

async fn one(
    peer: &Peer<RoleServer>,
    ask: &mut Ask,
    key: &str,
    request: InputRequest,
) -> Option<Value> {
    for _ in 0..TRIES {
        let answered = send(peer, ask, request.clone()).await?;
        if ask.questions.fits(key, &answered) {
            return Some(answered);
        }
    }
    None
}

async fn send(peer: &Peer<RoleServer>, ask: &mut Ask, request: InputRequest) -> Option<Value> {
    let request = match request {
        InputRequest::Elicitation(request) => ServerRequest::ElicitRequest(request),
        InputRequest::CreateMessage(request) => ServerRequest::CreateMessageRequest(request),
        InputRequest::ListRoots(request) => ServerRequest::ListRootsRequest(request),
        _ => return None,
    };
    let options = PeerRequestOptions::no_options();
    let sent = peer.send_cancellable_request(request, options).await;
    let sent = sent
        .inspect_err(|why| tracing::debug!("nobody was asked: {why}"))
        .ok()?;
    let taken_back = TakeBack {
        peer: peer.clone(),
        id: Some(sent.id.clone()),
    };
    let answered = tokio::select! {
        // The extension waits no more.
        () = ask.reply.closed() => return None,
        answered = sent.await_response() => answered,
    };
    taken_back.answered();
    match answered {
        Ok(result) => serde_json::to_value(result).ok(),
        Err(why) => {
            tracing::debug!("no answer: {why}");
            None
        }
    }
}

/// Tells the client that nobody waits for its answer any more, unless it was given.
struct TakeBack {
    peer: Peer<RoleServer>,
    id: Option<RequestId>,
}

impl TakeBack {
    fn answered(mut self) {
        self.id = None;
    }
}

impl Drop for TakeBack {
    fn drop(&mut self) {
        let Some(id) = self.id.take() else { return };
        let peer = self.peer.clone();
        // Ends when it is written, or with the connection.
        tokio::spawn(async move {
            let params = CancelledNotificationParam::new(Some(id), None);
            let _ = peer.notify_cancelled(params).await;
        });
    }
}
