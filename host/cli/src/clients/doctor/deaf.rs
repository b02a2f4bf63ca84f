//! A platform that takes every connection and never answers.

use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use crate::failure::Failure;

/// More connections at a time are not taken.
const MOST: usize = 64;

/// See the module. It ends when it is dropped.
#[derive(Debug)]
pub(super) struct Deaf {
    pub(super) url: String,
    open: watch::Receiver<usize>,
    task: JoinHandle<()>,
}

impl Drop for Deaf {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Deaf {
    pub(super) async fn start() -> Result<Self, Failure> {
        let failed = |why: std::io::Error| {
            Failure::internal(format!("cannot listen on this machine's loopback: {why}"))
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
        let url = format!("http://{}", listener.local_addr().map_err(failed)?);
        let (count, open) = watch::channel(0);
        let task = tokio::spawn(async move {
            let mut all = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept(), if all.len() < MOST => {
                        let Ok((mut stream, _)) = accepted else { return };
                        count.send_modify(|open| *open += 1);
                        all.spawn(async move {
                            let mut bytes = [0; 4096];
                            while stream.read(&mut bytes).await.is_ok_and(|read| read > 0) {}
                        });
                    }
                    Some(_) = all.join_next() => count.send_modify(|open| *open -= 1),
                }
            }
        });
        Ok(Self { url, open, task })
    }

    /// How many connections are open.
    pub(super) fn open(&self) -> usize {
        *self.open.borrow()
    }

    /// Whether it comes to this within the time.
    pub(super) async fn comes_to(&self, holds: impl Fn(usize) -> bool, within: Duration) -> bool {
        let mut open = self.open.clone();
        timeout(within, open.wait_for(|open| holds(*open)))
            .await
            .is_ok_and(|found| found.is_ok())
    }
}
