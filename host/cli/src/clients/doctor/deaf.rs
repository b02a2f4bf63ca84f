//! A platform that takes every connection and never answers, and remembers what is asked on those that are open.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use crate::failure::Failure;

/// More connections at a time are not taken.
const MOST: usize = 64;
/// So much of what is asked is kept: more than a request line.
const KEPT: usize = 1024;

/// What is asked on the connections that are open, by their numbers.
type Asked = BTreeMap<u64, Vec<u8>>;

/// See the module. It ends when it is dropped.
#[derive(Debug)]
pub(super) struct Deaf {
    pub(super) url: String,
    asked: watch::Receiver<Asked>,
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
        let (all, asked) = watch::channel(Asked::new());
        let task = tokio::spawn(async move {
            let mut open = JoinSet::new();
            let mut next = 0;
            loop {
                tokio::select! {
                    accepted = listener.accept(), if open.len() < MOST => {
                        let Ok((stream, _)) = accepted else { return };
                        next += 1;
                        open.spawn(hear(stream, next, all.clone()));
                    }
                    Some(_) = open.join_next() => {}
                }
            }
        });
        Ok(Self { url, asked, task })
    }

    /// Whether it comes to this within the time: a request that holds these words is under way, or none is.
    pub(super) async fn comes_to(&self, under_way: bool, words: &str, within: Duration) -> bool {
        let holds = |asked: &Asked| {
            let words = words.as_bytes();
            let has = |text: &Vec<u8>| text.windows(words.len()).any(|part| part == words);
            asked.values().any(has) == under_way
        };
        let mut asked = self.asked.clone();
        timeout(within, asked.wait_for(holds))
            .await
            .is_ok_and(|found| found.is_ok())
    }
}

/// Until the other side closes.
async fn hear(mut stream: TcpStream, number: u64, all: watch::Sender<Asked>) {
    let mut bytes = [0; KEPT];
    while let Ok(read @ 1..) = stream.read(&mut bytes).await {
        let read = bytes.get(..read).unwrap_or_default();
        all.send_modify(|all| {
            let kept = all.entry(number).or_default();
            let room = KEPT.saturating_sub(kept.len()).min(read.len());
            kept.extend_from_slice(read.get(..room).unwrap_or_default());
        });
    }
    all.send_modify(|all| {
        all.remove(&number);
    });
}
