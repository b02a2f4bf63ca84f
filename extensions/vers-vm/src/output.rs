//! A command's output while it comes: shown to the user, its end kept for the model, the whole saved on the VM once it is too
//! long to show.

use std::cell::Cell;
use std::rc::Rc;

use futures::channel::oneshot;
use futures::future::{Either, select};
use pi_vers_sdk::harness::timers;
use pi_vers_sdk::printable::Printable;
use pi_vers_sdk::stream::{StreamReader, StreamWriter};
use pi_vers_sdk::system::files;
use pi_vers_sdk::text::Decoder;
use pi_vers_sdk::{Error, ToolCall, call, outcome, stream, task};
use serde_json::{Value, json};

use crate::limits::{MAX_LOG, size};
use crate::remote;
use crate::tail::Tail;
use crate::wrapper::Names;

/// How often the user sees news, in milliseconds.
const NEWS: u64 = 100;
/// Raw output kept before a log is begun, in bytes: escape sequences count here and nowhere else.
const MOST_HEAD: usize = 1 << 20;

/// A command's output: shown while it comes, its end kept, the whole saved on the VM once it is too long to show.
pub(crate) struct Output<'a> {
    call: Option<&'a ToolCall>,
    decoder: Decoder,
    printable: Printable,
    tail: Tail,
    log: Log,
    /// Pieces taken in so far.
    pub(crate) taken: Rc<Cell<u64>>,
    /// When the user is to see what is new; none if nothing is.
    news: Option<u64>,
    shown_at: u64,
}

impl<'a> Output<'a> {
    pub(crate) fn new(call: Option<&'a ToolCall>, vm: &str, key: &str) -> Self {
        Self {
            call,
            decoder: Decoder::new(),
            printable: Printable::default(),
            tail: Tail::default(),
            log: Log {
                vm: vm.into(),
                path: Names::log(key),
                bytes: 0,
                state: LogState::Head(Vec::new()),
            },
            taken: Rc::default(),
            news: None,
            shown_at: 0,
        }
    }

    /// Takes a stream in to its end. The user sees news at once, then at most every [`NEWS`] milliseconds.
    pub(crate) async fn read(&mut self, stdout: &mut StreamReader<u8>) {
        let mut buffer = Vec::new();
        loop {
            let read = stream::next(stdout, std::mem::take(&mut buffer));
            futures::pin_mut!(read);
            let bytes = match self.news {
                None => read.await,
                Some(due) => {
                    let rest = timers::sleep(due.saturating_sub(timers::ticks()));
                    futures::pin_mut!(rest);
                    match select(read, rest).await {
                        Either::Left((bytes, _)) => bytes,
                        Either::Right((_, read)) => {
                            self.show();
                            read.await
                        }
                    }
                }
            };
            let Some(bytes) = bytes else { return };
            self.take(&bytes).await;
            buffer = bytes;
        }
    }

    async fn take(&mut self, bytes: &[u8]) {
        self.taken.set(self.taken.get() + 1);
        let mut decoded = String::new();
        self.decoder.push(bytes, &mut decoded);
        self.append(&decoded);
        self.log.take(bytes, self.tail.is_cut()).await;
        let due = self.shown_at + NEWS;
        if timers::ticks() >= due {
            self.show();
        } else {
            self.news = Some(due);
        }
    }

    fn append(&mut self, decoded: &str) {
        let mut text = String::new();
        self.printable.push(decoded, &mut text);
        self.tail.push(&text);
    }

    fn show(&mut self) {
        self.news = None;
        self.shown_at = timers::ticks();
        if let Some(call) = self.call {
            call::show(call, self.tail.shown().text);
        }
    }

    /// The text for the model, and the details.
    pub(crate) async fn finish(mut self, aborted: bool) -> (String, Value) {
        let mut rest = String::new();
        self.decoder.finish(&mut rest);
        self.append(&rest);
        let mut last = String::new();
        self.printable.finish(&mut last);
        self.tail.push(&last);
        let path = self.log.path.clone();
        let saved = if aborted {
            None
        } else {
            self.log.finish().await
        };
        let shown = self.tail.shown();
        let Some(cut) = shown.cut else {
            return (shown.text, json!({}));
        };
        let whole = match &saved {
            Some(Ok(None)) => format!("Full output: {path}"),
            Some(Ok(Some(bytes))) => format!("The first {} of the output: {path}", size(*bytes)),
            Some(Err(why)) => format!("The full output could not be saved: {why}"),
            None => "The full output was not saved".into(),
        };
        let mut details = json!({ "truncation": cut.details() });
        if let (Some(Ok(_)), Some(details)) = (&saved, details.as_object_mut()) {
            details.insert("fullOutputPath".into(), Value::String(path));
        }
        (format!("{}\n\n{}", shown.text, cut.notice(&whole)), details)
    }
}

/// The whole of an output, in a file on the VM, from the moment it is too long to be shown.
struct Log {
    vm: String,
    path: String,
    bytes: u64,
    state: LogState,
}

enum LogState {
    /// Short so far: kept here.
    Head(Vec<u8>),
    /// Being written.
    Open(
        Option<StreamWriter<u8>>,
        oneshot::Receiver<Result<u64, Error>>,
    ),
}

impl Log {
    async fn take(&mut self, bytes: &[u8], cut: bool) {
        if let LogState::Head(head) = &mut self.state {
            head.extend_from_slice(bytes);
            if !cut && head.len() <= MOST_HEAD {
                return;
            }
            let head = std::mem::take(head);
            self.open();
            self.write(head).await;
        } else {
            self.write(bytes.to_vec()).await;
        }
    }

    fn open(&mut self) {
        let (writer, reader) = stream::pipe();
        let (tell, told) = oneshot::channel();
        let at = remote::at(&self.vm, &self.path);
        task::spawn(async move {
            // Nobody listens any more when the call was given up.
            let _ = tell.send(files::write(at, reader, remote::private()).await);
        });
        self.state = LogState::Open(Some(writer), told);
    }

    async fn write(&mut self, mut bytes: Vec<u8>) {
        self.bytes += bytes.len() as u64;
        let over = self.bytes.saturating_sub(MAX_LOG);
        if let LogState::Open(open, _) = &mut self.state
            && let Some(writer) = open
        {
            let fits = (bytes.len() as u64).saturating_sub(over);
            bytes.truncate(usize::try_from(fits).unwrap_or(usize::MAX));
            let rest = writer.write_all(bytes).await;
            if over > 0 || !rest.is_empty() {
                *open = None;
            }
        }
    }

    /// None: there was no need for a log. Otherwise whether it was written, and how much of the output if not all.
    async fn finish(self) -> Option<Result<Option<u64>, String>> {
        let LogState::Open(writer, told) = self.state else {
            return None;
        };
        drop(writer);
        Some(match told.await {
            Ok(Ok(written)) => Ok((written < self.bytes).then_some(written)),
            Ok(Err(error)) => Err(outcome::explain(&error)),
            Err(oneshot::Canceled) => Err("the write was given up".into()),
        })
    }
}
