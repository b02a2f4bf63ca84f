//! An agent on a VM: in tmux, with a named pipe for what it is told and a file for what it says.
//!
//! People and Reef attach to the same places (`/tmp/pi-rpc/{in,out,err}`, sessions `pi-rpc` and `pi-keeper`). What is added: a lock that its supervisor
//! holds as long as it lives, so that its end is an event whatever has caused it; a record of the end in its output; commands
//! that go in whole, one after the other, and once however often they are sent; and keys that stand nowhere.

use crate::platform::shell;
use crate::system::files::{self, Location, WriteOptions};
use crate::system::process::{Command, EnvVar, Exit, OutputMode, Program};
use crate::{Error, stream};

use super::failure::{Failure, Kind};

const START: &str = include_str!("scripts/start.sh");
const LOOK: &str = include_str!("scripts/look.sh");
const SEND: &str = include_str!("scripts/send.sh");
const WATCH: &str = include_str!("scripts/watch.sh");
const STOP: &str = include_str!("scripts/stop.sh");
const TRIM: &str = include_str!("scripts/trim.sh");

/// What the agent writes.
pub(crate) const OUT: &str = "/tmp/pi-rpc/out";
const ERR: &str = "/tmp/pi-rpc/err";
/// Its system prompt; relative to the home directory.
const SYSTEM_PROMPT: &str = ".pi/agent/system-prompt.md";
/// Who it is, for Reef and for the agent itself.
const IDENTITY: &str = ".swarm/identity.json";

/// How long each of the short scripts may take, in milliseconds.
const PATIENCE: u64 = 60_000;
/// The most that one of them prints, in bytes.
const MOST: usize = 64 * 1024;
/// How much of its standard error is shown, in bytes.
const LAST_WORDS: u64 = 2_000;

/// How it is with the agent on a VM.
pub(crate) struct Found {
    pub(crate) start: String,
    pub(crate) size: u64,
    pub(crate) is_alive: bool,
}

/// An agent's VM.
#[derive(Debug, Clone)]
pub(crate) struct Remote {
    pub(crate) vm: String,
}

impl Remote {
    async fn run(
        &self,
        script: &str,
        arguments: &[&str],
        env: Vec<EnvVar>,
        input: Option<Vec<u8>>,
        patience: Option<u64>,
    ) -> Result<String, Error> {
        let mut argv: Vec<String> = ["sh", "-c", script, "pi-vers"].map(str::to_owned).into();
        argv.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        let command = Command {
            program: Program::Argv(argv),
            env,
            working_directory: None,
            timeout: patience,
            output: OutputMode::Merged,
        };
        let child = match input {
            None => shell::spawn(self.vm.clone(), command, None).await?,
            Some(bytes) => {
                let (mut writer, reader) = stream::pipe();
                let spawn = shell::spawn(self.vm.clone(), command, Some(reader));
                let child = spawn.await?;
                let write = async move {
                    // What it did not take, it says itself.
                    let _rest = writer.write_all(bytes).await;
                };
                let output = child.stdout()?;
                let (said, ()) = futures::join!(stream::read_to_end(output, MOST), write);
                return ended(&child, said?).await;
            }
        };
        let said = stream::read_to_end(child.stdout()?, MOST).await?;
        ended(&child, said).await
    }

    pub(crate) async fn failure(&self, doing: String, error: &Error) -> Failure {
        Failure::on_vm(doing, &self.vm, error).await
    }

    /// Writes a small file that only its owner reads.
    pub(crate) async fn write(&self, path: &str, text: String) -> Result<(), Error> {
        let at = Location::Vm((self.vm.clone(), path.to_owned()));
        let options = WriteOptions {
            parents: true,
            mode: Some(0o600),
            expect: None,
        };
        stream::feed(text.into_bytes(), |data| files::write(at, data, options))
            .await
            .map(drop)
    }

    /// Starts the agent; it may not have come up yet. `start` is this start's id, `program` empty for the VM's own.
    pub(crate) async fn start(
        &self,
        start: &str,
        program: &str,
        keeps_sessions: bool,
        system_prompt: Option<&str>,
        identity: String,
        env: Vec<EnvVar>,
    ) -> Result<(), Failure> {
        let doing = || format!("Cannot start an agent on VM {}", self.vm);
        if let Some(prompt) = system_prompt
            && let Err(error) = self.write(SYSTEM_PROMPT, prompt.to_owned()).await
        {
            return Err(self.failure(doing(), &error).await);
        }
        if let Err(error) = self.write(IDENTITY, identity).await {
            return Err(self.failure(doing(), &error).await);
        }
        let names: Vec<String> = env.iter().map(|variable| variable.name.clone()).collect();
        let sessions = if keeps_sessions { "keep" } else { "none" };
        let prompt = if system_prompt.is_some() {
            "prompt"
        } else {
            "none"
        };
        let mut arguments = vec![start, &self.vm, program, sessions, prompt];
        arguments.extend(names.iter().map(String::as_str));
        let said = match self.run(START, &arguments, env, None, Some(PATIENCE)).await {
            Ok(said) => said,
            Err(error) => return Err(self.failure(doing(), &error).await),
        };
        if said.lines().any(|line| line == "started") {
            return Ok(());
        }
        let why = said
            .lines()
            .find_map(|line| line.strip_prefix("failed "))
            .unwrap_or_else(|| said.trim());
        Err(Failure::new(Kind::Refused, doing(), why))
    }

    /// How it is with the agent; none: there is none.
    pub(crate) async fn look(&self) -> Result<Option<Found>, Error> {
        let said = self.run(LOOK, &[], vec![], None, Some(PATIENCE)).await?;
        let value = |name: &str| {
            said.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
        };
        let (Some(start), Some(size)) = (value("start"), value("size")) else {
            return Ok(None);
        };
        Ok(Some(Found {
            start: start.trim().to_owned(),
            size: size.trim().parse().unwrap_or_default(),
            is_alive: said.lines().any(|line| line == "alive"),
        }))
    }

    /// Gives it a line. Sent again with the same id, it is taken once.
    pub(crate) async fn send(&self, id: &str, line: &str) -> Result<(), Error> {
        let mut bytes = line.as_bytes().to_vec();
        bytes.push(b'\n');
        let length = bytes.len().to_string();
        let said = self
            .run(SEND, &[id, &length], vec![], Some(bytes), Some(PATIENCE))
            .await?;
        match said.trim() {
            "taken" => Ok(()),
            "gone" => Err(Error::NotFound("no agent runs there any more".into())),
            "busy" => Err(Error::Unavailable(
                "somebody else writes to the agent all the time".into(),
            )),
            "full" => Err(Error::Limit("the VM's disk is full".into())),
            "torn" => Err(Error::Unavailable("only a part of it arrived".into())),
            other => Err(Error::Other(format!(
                "the VM says {:?}",
                other.chars().take(200).collect::<String>()
            ))),
        }
    }

    /// Waits until the agent is no more.
    pub(crate) async fn watch(&self) -> Result<(), Error> {
        let said = self.run(WATCH, &[], vec![], None, None).await?;
        if said.trim() == "ended" {
            Ok(())
        } else {
            Err(Error::Other(said.trim().to_owned()))
        }
    }

    /// Ends the agent and waits until it is gone.
    pub(crate) async fn stop(&self) -> Result<(), Error> {
        let said = self.run(STOP, &[], vec![], None, Some(PATIENCE)).await?;
        if said.trim() == "ended" {
            Ok(())
        } else {
            Err(Error::Other("the agent does not end".into()))
        }
    }

    /// Gives back the disk space of its output up to this place.
    pub(crate) async fn trim(&self, to: u64) -> Result<(), Error> {
        self.run(TRIM, &[&to.to_string()], vec![], None, Some(PATIENCE))
            .await
            .map(drop)
    }

    /// The end of what it wrote to its standard error.
    pub(crate) async fn last_words(&self) -> String {
        let at = Location::Vm((self.vm.clone(), ERR.to_owned()));
        let size = files::stat(at.clone()).await.map_or(0, |file| file.size);
        let range = files::Range {
            offset: size.saturating_sub(LAST_WORDS),
            length: None,
        };
        let (bytes, _done) = files::read(&at, Some(range));
        let bytes = stream::read_to_end(bytes, MOST).await.unwrap_or_default();
        String::from_utf8_lossy(&bytes).trim().to_owned()
    }
}

/// What a script printed, if it ended as a script of ours does.
async fn ended(child: &crate::system::process::Child, said: Vec<u8>) -> Result<String, Error> {
    let said = String::from_utf8_lossy(&said).into_owned();
    match child.wait().await? {
        Exit::Code(0 | 1) => Ok(said),
        Exit::Code(code) => Err(Error::Other(format!(
            "the VM's shell ended with code {code}: {}",
            said.trim()
        ))),
        Exit::Signal(signal) => Err(Error::Other(format!(
            "the VM's shell was ended by {signal}"
        ))),
    }
}
