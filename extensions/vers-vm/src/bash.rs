//! `bash` on the active VM. How a command runs there is told in [`crate::wrapper`].

use std::cell::Cell;
use std::rc::Rc;

use futures::channel::oneshot;
use futures::future::{Either, select};
use pi_vers_sdk::harness::timers;
use pi_vers_sdk::platform::shell;
use pi_vers_sdk::system::files::{self, WriteOptions};
use pi_vers_sdk::system::process::{Child, Command, Exit, OutputMode, Program};
use pi_vers_sdk::text::Decoder;
use pi_vers_sdk::wit_bindgen::{self, StreamReader, StreamWriter};
use pi_vers_sdk::{Content, Error, ToolCall, ToolError, ToolResult, call, digest, outcome, stream};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::limits::{MAX_ARGUMENT, MAX_LOG, size};
use crate::printable::Printable;
use crate::remote::{self, Notices, attempt};
use crate::session;
use crate::tail::Tail;
use crate::wrapper::{self, Names, Script};

/// How often the user sees news, in milliseconds.
const NEWS: u64 = 100;
/// After a command's end: how long its output may be silent before it counts as ended, in milliseconds.
const SILENCE: u64 = 250;
/// How often it is looked for silence.
const MOST_LOOKS: u32 = 8;
/// Raw output kept before a log is begun, in bytes: escape sequences count here and nowhere else.
const MOST_HEAD: usize = 1 << 20;
/// Longest timeout, in seconds: 30 days.
const LONGEST_TIMEOUT: f64 = 2_592_000.0;

#[derive(Deserialize)]
struct Args {
    command: String,
    timeout: Option<f64>,
}

/// Seconds a command may run, and whether the call asked for that.
#[derive(Debug, Clone, Copy)]
struct Timeout {
    seconds: f64,
    asked: bool,
}

/// Runs one call.
pub(crate) async fn run(call: &ToolCall, vm: &str) -> Result<ToolResult, ToolError> {
    let args: Args = call::arguments(call).map_err(ToolError::Capability)?;
    if args.command.contains('\0') {
        return Err(outcome::failed(
            "The command contains a NUL character, which no shell takes.",
        ));
    }
    let timeout = Timeout::of(args.timeout)?;
    let mut notices = Notices::default();
    let result = run_script(call, vm, &args.command, timeout, &mut notices).await;
    notices.lead(result)
}

async fn run_script(
    call: &ToolCall,
    vm: &str,
    script: &str,
    timeout: Timeout,
    notices: &mut Notices,
) -> Result<ToolResult, ToolError> {
    let key = digest::short_name(&call.id(), 16);
    let names = session::names();
    let staged = (script.len() > MAX_ARGUMENT).then(|| names.staged(&key));
    session::forget_directory(vm);
    let begun = timers::ticks();
    let child = attempt(vm, notices, async || {
        let script = match &staged {
            Some(file) => {
                write(vm, file, script.as_bytes().to_vec()).await?;
                Script::Staged(file)
            }
            None => Script::Here(script),
        };
        shell::spawn(
            vm.into(),
            command(wrapper::argv(&names, script), timeout),
            None,
        )
        .await
    })
    .await
    .map_err(|e| remote::failed("Cannot run the command", vm, e))?;

    let mut output = Output::new(Some(call), vm, &key);
    let ended = follow(&child, &mut output).await;
    session::forget_directory(vm);
    let ran = timers::ticks().saturating_sub(begun);
    conclude(vm, output, ended, timeout, ran).await
}

/// Passes the output on until the command has ended.
async fn follow(child: &Child, output: &mut Output<'_>) -> Result<Exit, Error> {
    let mut stdout = child.stdout()?;
    let taken = output.taken.clone();
    let reading = output.read(&mut stdout);
    let ended = child.wait();
    futures::pin_mut!(ended, reading);
    let exit = match select(reading.as_mut(), ended).await {
        Either::Left(((), ended)) => return ended.await,
        Either::Right((exit, _)) => exit,
    };
    // What the command wrote is here or on its way. A background process may hold the output open, or write into it, for ever: so
    // silence ends it, and at the latest a number of looks.
    for _ in 0..MOST_LOOKS {
        let before = taken.get();
        let silence = timers::sleep(SILENCE);
        futures::pin_mut!(silence);
        match select(reading.as_mut(), silence).await {
            Either::Right((Ok(()), _)) if taken.get() != before => {}
            _ => break,
        }
    }
    exit
}

async fn conclude(
    vm: &str,
    output: Output<'_>,
    ended: Result<Exit, Error>,
    timeout: Timeout,
    ran: u64,
) -> Result<ToolResult, ToolError> {
    let call = output.call;
    let (text, details) = output.finish(matches!(ended, Err(Error::Cancelled))).await;
    let shown = if text.is_empty() {
        "(no output)"
    } else {
        &text
    };
    let partial = if text.is_empty() {
        String::new()
    } else {
        format!("\n\nPartial output:\n{text}")
    };
    let failed = |message: String| Err(outcome::failed_with(message, &details));
    match ended {
        Ok(Exit::Code(0)) => Ok(outcome::text_with(shown, &details)),
        Ok(Exit::Code(code)) => failed(format!("{shown}\n\nCommand exited with code {code}")),
        Ok(Exit::Signal(name)) => failed(format!("{shown}\n\nCommand was ended by signal {name}")),
        Err(Error::Cancelled) => {
            let before = if text.is_empty() {
                String::new()
            } else {
                format!("{text}\n\n")
            };
            if let Some(call) = call {
                call.update(
                    &[Content::Text(format!("{before}Command aborted"))],
                    Some(&details.to_string()),
                );
            }
            Err(ToolError::Cancelled)
        }
        Err(Error::TimedOut(_)) if timeout.has_passed(ran) => failed(timeout.explain() + &partial),
        Err(Error::TimedOut(why)) => failed(format!(
            "The command was stopped at the time limit of this call: {why}{partial}"
        )),
        Err(Error::Unavailable(why)) => {
            let became = remote::what_became_of(vm).await;
            failed(format!(
                "The connection to VM {vm} was lost while the command ran ({why}). Whether it went on, and how it ended, is \
                 unknown: look before running it again.{became}{partial}"
            ))
        }
        Err(error @ Error::Denied(_)) => Err(ToolError::Capability(error)),
        Err(error) => failed(format!(
            "The command on VM {vm} failed: {}{partial}",
            outcome::explain(&error)
        )),
    }
}

fn command(argv: Vec<String>, timeout: Timeout) -> Command {
    Command {
        program: Program::Argv(argv),
        env: Vec::new(),
        working_directory: None,
        timeout: timeout.millis(),
        output: OutputMode::Merged,
    }
}

/// Writes a private file on a VM.
async fn write(vm: &str, path: &str, bytes: Vec<u8>) -> Result<u64, Error> {
    stream::feed(bytes, |reader| {
        files::write(remote::at(vm, path), reader, private())
    })
    .await
}

fn private() -> WriteOptions {
    WriteOptions {
        parents: true,
        mode: Some(0o600),
        expect: None,
    }
}

impl Timeout {
    fn of(asked: Option<f64>) -> Result<Self, ToolError> {
        let seconds = asked.unwrap_or_else(session::default_timeout);
        if !(0.0..=LONGEST_TIMEOUT).contains(&seconds) {
            return Err(outcome::failed(format!(
                "timeout must be from 0 (none) to {LONGEST_TIMEOUT} seconds, not {seconds}."
            )));
        }
        Ok(Self {
            seconds,
            asked: asked.is_some(),
        })
    }

    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be small and not negative"
    )]
    fn millis(self) -> Option<u64> {
        (self.seconds > 0.0).then(|| (self.seconds * 1000.0).ceil() as u64)
    }

    fn has_passed(self, ran: u64) -> bool {
        self.millis().is_some_and(|limit| ran >= limit)
    }

    fn explain(self) -> String {
        let Self { seconds, asked } = self;
        if asked {
            format!("SSH command timed out after {seconds}s.")
        } else {
            format!(
                "SSH command timed out after {seconds}s (default --vers-ssh-timeout={seconds}s). Pass a larger timeout parameter \
                 or use 0 to disable."
            )
        }
    }
}

/// A command's output: shown while it comes, its end kept, the whole saved on the VM once it is too long to show.
struct Output<'a> {
    call: Option<&'a ToolCall>,
    decoder: Decoder,
    printable: Printable,
    tail: Tail,
    log: Log,
    /// Pieces taken in so far.
    taken: Rc<Cell<u64>>,
    /// When the user is to see what is new; none if nothing is.
    news: Option<u64>,
    shown_at: u64,
}

impl<'a> Output<'a> {
    fn new(call: Option<&'a ToolCall>, vm: &str, key: &str) -> Self {
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
    async fn read(&mut self, stdout: &mut StreamReader<u8>) {
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
    async fn finish(mut self, aborted: bool) -> (String, Value) {
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
        wit_bindgen::spawn_local(async move {
            // Nobody listens any more when the call was given up.
            let _ = tell.send(files::write(at, reader, private()).await);
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

/// Runs a command for a person: how it ended, and its output.
///
/// # Errors
/// The capability's own.
pub(crate) async fn exec(vm: &str, script: &str) -> Result<(Exit, String), Error> {
    let timeout = Timeout {
        seconds: session::default_timeout(),
        asked: false,
    };
    let argv = wrapper::argv(&session::names(), Script::Here(script));
    session::forget_directory(vm);
    let child = shell::spawn(vm.into(), command(argv, timeout), None).await?;
    let mut output = Output::new(None, vm, "command");
    let ended = follow(&child, &mut output).await;
    session::forget_directory(vm);
    let (text, _) = output.finish(ended.is_err()).await;
    Ok((ended?, text))
}
