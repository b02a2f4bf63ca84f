//! Streams and futures as the contract has them, within one thread.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::future::{IntoFuture, poll_fn};
use std::rc::Rc;
use std::task::Poll;

use futures::channel::oneshot;
use futures::future::LocalBoxFuture;
use wit_bindgen::StreamResult;

use crate::bell::Bell;

struct Shared<T> {
    items: RefCell<VecDeque<T>>,
    ends: RefCell<Ends>,
    bell: Bell,
}

#[derive(Default)]
struct Ends {
    writer_gone: bool,
    reader_gone: bool,
}

/// The end of a stream that is read.
pub struct StreamReader<T>(Rc<Shared<T>>);

/// The end of a stream that is written.
pub struct StreamWriter<T>(Rc<Shared<T>>);

impl<T> fmt::Debug for StreamReader<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StreamReader")
    }
}

impl<T> fmt::Debug for StreamWriter<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StreamWriter")
    }
}

/// A new stream.
pub(crate) fn pipe<T>() -> (StreamWriter<T>, StreamReader<T>) {
    let shared = Rc::new(Shared {
        items: RefCell::default(),
        ends: RefCell::default(),
        bell: Bell::new(),
    });
    (StreamWriter(shared.clone()), StreamReader(shared))
}

impl<T> StreamReader<T> {
    /// Waits for items and appends as many as there are, up to the buffer's capacity.
    pub async fn read(&mut self, mut buffer: Vec<T>) -> (StreamResult, Vec<T>) {
        loop {
            let ring = self.0.bell.next();
            let room = buffer.capacity() - buffer.len();
            let taken = {
                let mut items = self.0.items.borrow_mut();
                let count = room.min(items.len());
                buffer.extend(items.drain(..count));
                count
            };
            if taken > 0 || room == 0 {
                self.0.bell.ring();
                return (StreamResult::Complete(taken), buffer);
            }
            if self.0.ends.borrow().writer_gone {
                return (StreamResult::Dropped, buffer);
            }
            ring.await;
        }
    }

    /// The next item; `None` at the end.
    pub async fn next(&mut self) -> Option<T> {
        let (_, mut one) = self.read(Vec::with_capacity(1)).await;
        one.pop()
    }

    /// All items, to the end.
    pub async fn collect(mut self) -> Vec<T> {
        let mut all = Vec::new();
        while let Some(item) = self.next().await {
            all.push(item);
        }
        all
    }
}

impl<T> StreamWriter<T> {
    /// Writes all of this, and returns what the reader did not take when it let go.
    pub async fn write_all(&mut self, values: Vec<T>) -> Vec<T> {
        self.push(values);
        loop {
            let ring = self.0.bell.next();
            if self.0.ends.borrow().reader_gone {
                return self.0.items.take().into();
            }
            if self.0.items.borrow().is_empty() {
                return Vec::new();
            }
            ring.await;
        }
    }

    /// Writes one; it comes back if the reader has let go.
    pub async fn write_one(&mut self, value: T) -> Option<T> {
        self.write_all(vec![value]).await.pop()
    }

    /// Writes without waiting for the reader.
    pub(crate) fn push(&self, values: impl IntoIterator<Item = T>) {
        self.0.items.borrow_mut().extend(values);
        self.0.bell.ring();
    }
}

impl<T> Drop for StreamReader<T> {
    fn drop(&mut self) {
        self.0.ends.borrow_mut().reader_gone = true;
        self.0.bell.ring();
    }
}

impl<T> Drop for StreamWriter<T> {
    fn drop(&mut self) {
        self.0.ends.borrow_mut().writer_gone = true;
        self.0.bell.ring();
    }
}

/// A value that comes later.
pub struct FutureReader<T>(LocalBoxFuture<'static, T>);

impl<T> fmt::Debug for FutureReader<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FutureReader")
    }
}

impl<T: 'static> FutureReader<T> {
    /// Of this value.
    pub(crate) fn ready(value: T) -> Self {
        Self(Box::pin(std::future::ready(value)))
    }

    /// Of what is sent; of nothing, ever, if nothing is.
    pub(crate) fn of(told: oneshot::Receiver<T>) -> Self {
        Self(Box::pin(async move {
            match told.await {
                Ok(value) => value,
                Err(oneshot::Canceled) => poll_fn(|_| Poll::Pending).await,
            }
        }))
    }
}

impl<T: 'static> IntoFuture for FutureReader<T> {
    type Output = T;
    type IntoFuture = LocalBoxFuture<'static, T>;

    fn into_future(self) -> Self::IntoFuture {
        self.0
    }
}
