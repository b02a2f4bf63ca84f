//! The signals that ask a process to end.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Failure;

/// See the module.
pub(crate) struct Signals([Signal; 3]);

impl Signals {
    /// Takes them over.
    pub(crate) fn watch() -> Result<Self, Failure> {
        let take = |kind| {
            signal(kind)
                .map_err(|why| Failure::internal(format!("cannot watch for signals: {why}")))
        };
        Ok(Self([
            take(SignalKind::terminate())?,
            take(SignalKind::interrupt())?,
            take(SignalKind::hangup())?,
        ]))
    }

    /// Waits for one. Cancel-safe.
    pub(crate) async fn any(&mut self) {
        let [terminate, interrupt, hangup] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
