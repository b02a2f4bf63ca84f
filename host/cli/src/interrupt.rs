//! Ctrl-C and SIGTERM: the first cancels what runs, the second quits.

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::failure::{Code, Failure};
use crate::terminal::Terminal;

/// Watches for signals as long as it lives.
#[derive(Debug)]
pub(crate) struct Interrupts {
    count: watch::Receiver<u32>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Interrupts {
    /// Takes the signals over. `left` is told when the user quits: what then stays behind, and how to remove it.
    pub(crate) fn watch(terminal: Arc<Terminal>, left: Option<String>) -> Result<Self, Failure> {
        let take = |kind| {
            signal(kind).map_err(|why| Failure::internal(format!("cannot watch for Ctrl-C: {why}")))
        };
        let (mut interrupt, mut terminate) = (
            take(SignalKind::interrupt())?,
            take(SignalKind::terminate())?,
        );
        let (sender, count) = watch::channel(0);
        let task = tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                sender.send_modify(|count| *count += 1);
                if *sender.borrow() == 1 {
                    terminal.note("cancelling; once more to quit at once");
                    continue;
                }
                terminal.end_show();
                if let Some(left) = &left {
                    terminal.note(left);
                }
                pi_vers_system::process::kill_all();
                std::process::exit(i32::from(Code::Cancelled as u8));
            }
        });
        Ok(Self { count, task })
    }

    /// Whether the user has asked for the end.
    pub(crate) fn happened(&self) -> bool {
        *self.count.borrow() > 0
    }

    /// Resolves when the user asks for the end, at once if that has happened. Cancel-safe.
    pub(crate) async fn wait(&self) {
        let mut count = self.count.clone();
        if count.wait_for(|count| *count > 0).await.is_err() {
            // No watcher, no signal.
            std::future::pending::<()>().await;
        }
    }
}
