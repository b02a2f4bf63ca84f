//! `bash` on the active VM. How a command runs there is told in [`crate::wrapper`].

use futures::future::{Either, select};
use pi_vers_sdk::declare::{JsonSchema, schemars};
use pi_vers_sdk::harness::timers;
use pi_vers_sdk::platform::shell;
use pi_vers_sdk::system::files;
use pi_vers_sdk::system::process::{Child, Command, Exit, OutputMode, Program};
use pi_vers_sdk::{Content, Error, ToolCall, ToolError, ToolResult, digest, outcome, stream};
use serde::Deserialize;

use crate::limits::MAX_ARGUMENT;
use crate::output::Output;
use crate::remote::{self, Notices, attempt};
use crate::session;
use crate::wrapper::{self, Script};

/// After a command's end: how long its output may be silent before it counts as ended, in milliseconds.
const SILENCE: u64 = 250;
/// How often it is looked for silence.
const MOST_LOOKS: u32 = 8;
/// Longest timeout, in seconds: 30 days.
const LONGEST_TIMEOUT: f64 = 2_592_000.0;

#[derive(Deserialize, JsonSchema)]
pub(crate) struct Args {
    /// Bash command to execute
    command: String,
    /// Timeout in seconds (0: none; default on a VM: --vers-ssh-timeout, 120)
    #[schemars(range(min = 0))]
    timeout: Option<f64>,
}

/// Seconds a command may run, and whether the call asked for that.
#[derive(Debug, Clone, Copy)]
struct Timeout {
    seconds: f64,
    asked: bool,
}

/// Runs one call.
pub(crate) async fn run(
    call: &ToolCall,
    vm: &str,
    args: Args,
    notices: &mut Notices,
) -> Result<ToolResult, ToolError> {
    if args.command.contains('\0') {
        return Err(outcome::failed(
            "The command contains a NUL character, which no shell takes.",
        ));
    }
    let timeout = Timeout::of(args.timeout)?;
    let script = args.command.as_str();
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
    conclude(call, vm, output, ended, timeout, ran).await
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
    call: &ToolCall,
    vm: &str,
    output: Output<'_>,
    ended: Result<Exit, Error>,
    timeout: Timeout,
    ran: u64,
) -> Result<ToolResult, ToolError> {
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
            call.update(
                &[Content::Text(format!("{before}Command aborted"))],
                Some(&details.to_string()),
            );
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
        files::write(remote::at(vm, path), reader, remote::private())
    })
    .await
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
