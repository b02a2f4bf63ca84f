//! Commands, here and on VMs, without the ceremony.
//!
//! ```
//! # use pi_vers_sdk::{Error, run::Run};
//! # async fn test(vm: &str) -> Result<(), Error> {
//! let done = Run::new(["cargo", "test"]).on(vm).timeout(600_000).output(64 * 1024).await?;
//! if !done.is_success() {
//!     println!("{}", done.text());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! There is no shell between: each text is an argument of its own, whatever is in it. A call that is given up, and a future that is
//! dropped, end the command with its whole process group.

use futures::join;

use crate::platform::shell;
use crate::system::process::{self, Child, Command, EnvValue, EnvVar, Exit, OutputMode, Program};
use crate::text::Decoder;
use crate::{Error, stream};

/// How much of a line is handed over, in bytes; the rest of a longer one follows as further lines.
const LONGEST_LINE: usize = 64 * 1024;

/// A command that has not been started.
#[derive(Debug, Clone)]
pub struct Run {
    vm: Option<String>,
    command: Command,
    input: Option<Vec<u8>>,
}

/// How a command ended, and what it wrote.
#[derive(Debug, Clone)]
pub struct Output {
    /// How it ended.
    pub exit: Exit,
    /// What it wrote on both outputs, in its order.
    pub bytes: Vec<u8>,
}

impl Output {
    /// Whether it ended by itself with code 0.
    #[must_use]
    pub fn is_success(&self) -> bool {
        matches!(self.exit, Exit::Code(0))
    }

    /// What it wrote as a text; what is no UTF-8 is replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

impl Run {
    /// The program and its arguments, on this machine, in the session's directory, with an empty environment and input and no time limit of
    /// its own.
    #[must_use]
    pub fn new<T: Into<String>>(argv: impl IntoIterator<Item = T>) -> Self {
        Self {
            vm: None,
            command: Command {
                program: Program::Argv(argv.into_iter().map(Into::into).collect()),
                env: Vec::new(),
                working_directory: None,
                timeout: None,
                output: OutputMode::Merged,
            },
            input: None,
        }
    }

    /// On this VM, in the home directory there.
    #[must_use]
    pub fn on(mut self, vm: impl Into<String>) -> Self {
        self.vm = Some(vm.into());
        self
    }

    /// In this directory.
    #[must_use]
    pub fn in_directory(mut self, path: impl Into<String>) -> Self {
        self.command.working_directory = Some(path.into());
        self
    }

    /// With this environment variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.command.env.push(EnvVar {
            name: name.into(),
            value: EnvValue::Plain(value.into()),
        });
        self
    }

    /// With a secret of the host in the environment variable of its name. The extension never sees its value.
    #[must_use]
    pub fn secret(mut self, name: &str) -> Self {
        self.command.env.push(EnvVar {
            name: name.into(),
            value: EnvValue::Secret(name.into()),
        });
        self
    }

    /// With this on its standard input.
    #[must_use]
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = Some(bytes.into());
        self
    }

    /// Stopped after so many milliseconds.
    #[must_use]
    pub fn timeout(mut self, millis: u64) -> Self {
        self.command.timeout = Some(millis);
        self
    }

    /// Waits for its end. `most`: bytes of output that are taken.
    ///
    /// # Errors
    /// `Error::Limit` when it writes more, and is then stopped; `Error::TimedOut` at its time limit; why it could not be started. That it
    /// failed is no error: see [`Output::exit`].
    pub async fn output(self, most: usize) -> Result<Output, Error> {
        self.started(async |child| {
            let bytes = stream::read_to_end(child.stdout()?, most).await?;
            let exit = child.wait().await?;
            Ok(Output { exit, bytes })
        })
        .await
    }

    /// Hands each line over as it comes, without its end, and waits for the command's end. What is no UTF-8 is replaced.
    ///
    /// # Errors
    /// As for [`Run::output`], without a limit of the output.
    pub async fn lines(self, mut line: impl FnMut(&str)) -> Result<Exit, Error> {
        self.started(async move |child| {
            let mut stdout = child.stdout()?;
            let (mut decoder, mut text, mut buffer) = (Decoder::new(), String::new(), Vec::new());
            while let Some(bytes) = stream::next(&mut stdout, buffer).await {
                decoder.push(&bytes, &mut text);
                buffer = bytes;
                while let Some((one, rest)) = text.split_once('\n') {
                    line(one.strip_suffix('\r').unwrap_or(one));
                    text = rest.to_owned();
                }
                if text.len() > LONGEST_LINE {
                    line(&text);
                    text.clear();
                }
            }
            decoder.finish(&mut text);
            if !text.is_empty() {
                line(&text);
            }
            child.wait().await
        })
        .await
    }

    async fn started<T>(
        self,
        work: impl AsyncFnOnce(&Child) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let Self { vm, command, input } = self;
        let start = async |stdin| match vm {
            Some(vm) => shell::spawn(vm, command, stdin).await,
            None => process::spawn(command, stdin).await,
        };
        let Some(bytes) = input else {
            return work(&start(None).await?).await;
        };
        let (mut writer, reader) = stream::pipe();
        let feed = async move {
            // What a program does not read is its own affair.
            let _rest = writer.write_all(bytes).await;
        };
        let (done, ()) = join!(async { work(&start(Some(reader)).await?).await }, feed);
        done
    }
}

#[cfg(all(test, not(target_family = "wasm")))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::declare::{Declaration, Nothing, tool};
    use crate::testing::{Kit, Script, read};
    use crate::{ToolCall, call};
    use serde_json::json;

    fn kit() -> Kit {
        let it = tool("it", "It", "Runs.");
        let run = async |call: &ToolCall, _: Nothing| {
            let mut all = Vec::new();
            let lines = Run::new(["cat", "-"])
                .input("in")
                .timeout(1_000)
                .env("A", "1");
            let exit = lines.secret("KEY").in_directory("/srv").lines(|line| {
                all.push(line.to_owned());
                call::show(call, line);
            });
            let exit = exit.await?;
            Ok::<_, Error>(format!("{all:?} {exit:?}"))
        };
        let out = async |_: &ToolCall, _: Nothing| {
            let done = Run::new(["echo", "a b"]).on("vm").output(4).await?;
            Ok::<_, Error>(format!("{} {}", done.is_success(), done.text()))
        };
        let kit = Kit::new(
            Declaration::new("x", "1", "X")
                .tool(it, run)
                .tool(tool("out", "Out", "Runs."), out),
        );
        kit.add_vm("vm");
        kit
    }

    #[test]
    fn lines_are_whole_however_they_come() {
        let kit = kit();
        let running = kit.begin("it", json!({}));
        let process = kit.process();
        process.print([b"one\r\ntw".as_slice(), &[0xc3]].concat());
        process.print([0xa9]);
        assert_eq!(running.updates(), ["one"]);
        process.print("!\n\nrest");
        process.exit(3);
        let told = read(&running.finish());
        assert_eq!(told, r#"["one", "twé!", "", "rest"] Exit::Code(3)"#);
        assert_eq!(process.input(), b"in");
        let started = process.started();
        assert_eq!(started.working_directory.as_deref(), Some("/srv"));
        let env = [("A", "1"), ("KEY", "secret:KEY")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        assert_eq!(started.env, env);
    }

    #[test]
    fn output_has_a_bound_and_a_command_that_exceeds_it_is_stopped() {
        let kit = kit();
        kit.program(&["echo"], Script::new().print("a b").exit(0));
        assert_eq!(read(&kit.call("out", json!({}))), "true a b");
        kit.program(&["echo", "a b"], Script::new().print("a b c"));
        assert!(matches!(
            kit.call("out", json!({})),
            Err(crate::ToolError::Capability(Error::Limit(_)))
        ));
        assert!(!kit.process().is_running());
        assert_eq!(kit.process().started().vm.as_deref(), Some("vm"));
    }
}
