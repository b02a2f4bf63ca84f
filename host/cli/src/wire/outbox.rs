//! What waits to be written to the shim.
//!
//! A shim that does not read must neither make this process grow nor hold a tool up. So there are two kinds of lines.
//! Answers and requests have to arrive: whoever sends one waits for room. Notices come from extensions that wait for
//! nothing: of those with a key the newest counts and takes the place of the one that waits; the others are few,
//! and beyond that they are dropped and the loss is logged.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// Bytes of answers and requests that wait.
const ROOM: u32 = 32 << 20;
/// What a line counts at least.
const LEAST: u32 = 1 << 10;
/// Bytes of notices that wait.
const NOTICES: usize = 8 << 20;
/// Notices without a key that wait.
const MOST_NOTICES: usize = 256;
/// Notices with a key that wait.
const MOST_KEYS: usize = 512;
/// So much is written at once.
const PIECE: usize = 64 << 10;

/// Which notices take each other's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Key {
    /// Those of the same text.
    Of(String),
    /// None.
    Alone,
}

/// Room for a line that has to arrive.
#[derive(Debug)]
pub(crate) struct Room {
    _held: OwnedSemaphorePermit,
}

impl From<OwnedSemaphorePermit> for Room {
    fn from(held: OwnedSemaphorePermit) -> Self {
        Self { _held: held }
    }
}

#[derive(Debug)]
struct Item {
    line: Vec<u8>,
    notice: Option<Key>,
    _room: Option<Room>,
}

#[derive(Debug, Default)]
struct Waiting {
    queue: VecDeque<Item>,
    /// Of notices.
    bytes: usize,
    dropped: u64,
    finished: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Outbox {
    waiting: Mutex<Waiting>,
    room: Arc<Semaphore>,
    news: Notify,
    /// The other side is gone.
    gone: CancellationToken,
}

impl Outbox {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            waiting: Mutex::default(),
            room: Arc::new(Semaphore::new(ROOM as usize)),
            news: Notify::new(),
            gone: CancellationToken::new(),
        })
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fires when nothing can be written any more.
    pub(crate) fn gone(&self) -> &CancellationToken {
        &self.gone
    }

    /// Waits for room for about so many bytes; at once when nobody reads any more. Cancel-safe.
    pub(crate) async fn room(&self, bytes: usize) -> Option<Room> {
        let count = u32::try_from(bytes).unwrap_or(ROOM).clamp(LEAST, ROOM);
        tokio::select! {
            biased;
            () = self.gone.cancelled() => None,
            room = self.room.clone().acquire_many_owned(count) => room.ok().map(Room::from),
        }
    }

    /// Puts a line into room it has been given.
    pub(crate) fn put(&self, room: Room, line: Vec<u8>) {
        self.push(Item {
            line,
            notice: None,
            _room: Some(room),
        });
    }

    /// Sends a line that has to arrive. Returns when there was room for it.
    pub(crate) async fn send(&self, line: Vec<u8>) {
        if let Some(room) = self.room(line.len()).await {
            self.put(room, line);
        }
    }

    /// The same for who cannot wait, about something that somebody who could wait has sent: so there are not more of these
    /// than of those.
    pub(crate) fn send_small(&self, line: Vec<u8>) {
        self.push(Item {
            line,
            notice: None,
            _room: None,
        });
    }

    /// The same, if there is room now.
    pub(crate) fn try_send(&self, line: Vec<u8>) -> bool {
        let count = u32::try_from(line.len()).unwrap_or(ROOM).clamp(LEAST, ROOM);
        match self.room.clone().try_acquire_many_owned(count) {
            Ok(room) => {
                self.put(room.into(), line);
                true
            }
            Err(_) => false,
        }
    }

    /// Sends a notice. Never waits.
    pub(crate) fn notice(&self, key: Key, line: Vec<u8>) {
        let mut waiting = self.waiting();
        if key != Key::Alone
            && let Some(at) = waiting
                .queue
                .iter()
                .position(|item| item.notice.as_ref() == Some(&key))
            && let Some(old) = waiting.queue.remove(at)
        {
            waiting.bytes -= old.line.len();
        }
        let alike = |item: &&Item| {
            item.notice
                .as_ref()
                .is_some_and(|other| (*other == Key::Alone) == (key == Key::Alone))
        };
        let most = if key == Key::Alone {
            MOST_NOTICES
        } else {
            MOST_KEYS
        };
        if waiting.bytes + line.len() > NOTICES
            || waiting.queue.iter().filter(alike).count() >= most
        {
            waiting.dropped += 1;
            // Said at the first and then ever more rarely.
            if waiting.dropped.is_power_of_two() {
                tracing::warn!(
                    dropped = waiting.dropped,
                    "the harness does not read: notices are dropped"
                );
            }
            return;
        }
        waiting.bytes += line.len();
        drop(waiting);
        self.push(Item {
            line,
            notice: Some(key),
            _room: None,
        });
    }

    fn push(&self, item: Item) {
        let mut waiting = self.waiting();
        if !waiting.finished && !self.gone.is_cancelled() {
            waiting.queue.push_back(item);
            self.news.notify_one();
        }
    }

    /// Nothing more is taken; what waits is written.
    pub(crate) fn finish(&self) {
        self.waiting().finished = true;
        self.news.notify_one();
    }

    /// Writes until [`Outbox::finish`], or until the other side is gone.
    pub(crate) async fn write(&self, mut stream: impl AsyncWrite + Unpin) {
        let _gone = self.gone.clone().drop_guard();
        let mut piece = Vec::new();
        loop {
            let (rooms, finished) = self.take(&mut piece);
            if piece.is_empty() {
                if finished {
                    return;
                }
                self.news.notified().await;
                continue;
            }
            let written = async {
                stream.write_all(&piece).await?;
                stream.flush().await
            };
            if let Err(why) = written.await {
                tracing::debug!("the harness reads no more: {why}");
                return;
            }
            drop(rooms);
            piece.clear();
            piece.shrink_to(PIECE);
        }
    }

    /// Takes what can be written at once; its room is free when the rooms are dropped.
    fn take(&self, piece: &mut Vec<u8>) -> (Vec<Room>, bool) {
        let mut waiting = self.waiting();
        let mut rooms = Vec::new();
        while piece.len() < PIECE
            && let Some(item) = waiting.queue.pop_front()
        {
            if item.notice.is_some() {
                waiting.bytes -= item.line.len();
            }
            piece.extend_from_slice(&item.line);
            rooms.extend(item._room);
        }
        (rooms, waiting.finished)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::time::Duration;
    use tokio::io::AsyncReadExt as _;

    fn line(text: &str) -> Vec<u8> {
        format!("{text}\n").into_bytes()
    }

    async fn written(outbox: &Outbox) -> String {
        outbox.finish();
        let mut bytes = Vec::new();
        outbox.write(&mut bytes).await;
        String::from_utf8(bytes).unwrap()
    }

    #[tokio::test]
    async fn of_notices_with_a_key_only_the_newest_is_written() {
        let outbox = Outbox::new();
        outbox.notice(Key::Of("a".into()), line("a1"));
        outbox.notice(Key::Of("b".into()), line("b1"));
        outbox.send(line("answer")).await;
        outbox.notice(Key::Of("a".into()), line("a2"));
        outbox.notice(Key::Alone, line("n1"));
        outbox.notice(Key::Alone, line("n2"));
        assert_eq!(written(&outbox).await, "b1\nanswer\na2\nn1\nn2\n");
    }

    #[tokio::test]
    async fn notices_that_nobody_reads_do_not_grow() {
        let outbox = Outbox::new();
        for n in 0..100_000 {
            outbox.notice(Key::Alone, line(&n.to_string()));
            outbox.notice(Key::Of((n % 5000).to_string()), line("k"));
        }
        assert_eq!(
            written(&outbox).await.lines().count(),
            MOST_NOTICES + MOST_KEYS
        );
        let outbox = Outbox::new();
        for n in 0..20 {
            outbox.notice(Key::Of(n.to_string()), vec![b'x'; 1 << 20]);
        }
        assert!(written(&outbox).await.len() <= NOTICES);
    }

    #[tokio::test]
    async fn an_answer_waits_for_room_and_is_not_lost() {
        let outbox = Outbox::new();
        let big = vec![b'x'; 16 << 20];
        outbox.send(big.clone()).await;
        outbox.send(big.clone()).await;
        let late = outbox.send(line("last"));
        tokio::pin!(late);
        let waits = tokio::time::timeout(Duration::from_millis(20), &mut late).await;
        assert!(waits.is_err(), "there was room for 32 MiB and more");
        assert!(!outbox.try_send(line("none")));
        let (reader, writer) = tokio::io::duplex(1 << 20);
        let mut bytes = Vec::new();
        let mut reader = reader;
        let read = reader.read_to_end(&mut bytes);
        let writing = async {
            tokio::join!(outbox.write(writer), async {
                late.await;
                outbox.finish();
            });
        };
        let (read, ()) = tokio::join!(read, writing);
        read.unwrap();
        assert_eq!(bytes.len(), (32 << 20) + 5);
        assert!(bytes.ends_with(b"last\n"));
    }

    #[tokio::test]
    async fn nobody_waits_for_a_reader_that_is_gone() {
        let outbox = Outbox::new();
        let (reader, writer) = tokio::io::duplex(16);
        drop(reader);
        outbox.send(line("into the void")).await;
        outbox.write(writer).await;
        assert!(outbox.gone().is_cancelled());
        for _ in 0..10 {
            outbox.send(vec![0; 16 << 20]).await;
        }
    }
}
