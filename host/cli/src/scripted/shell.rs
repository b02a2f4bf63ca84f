//! Shell commands: a process group each, which is gone when the command is stopped.

use std::time::Duration;

use futures::StreamExt as _;
use pi_vers_system::process::{self, Child, Command, Exit, Program};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::text::Decoder;

/// How long a command may take to end by itself when it is told to.
const GRACE: Duration = Duration::from_millis(500);

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ended {
    Exit(Exit),
    /// It was stopped; nothing of it runs any more.
    Stopped,
    /// It could not be started.
    Failed(String),
}

impl Ended {
    /// In words, as the agent says it.
    pub(super) fn words(&self) -> String {
        match self {
            Self::Exit(Exit::Code(code)) => format!("exit code: {code}"),
            Self::Exit(Exit::Signal(signal)) => format!("exit signal: {signal}"),
            Self::Stopped => "Command aborted".to_owned(),
            Self::Failed(why) => why.clone(),
        }
    }

    pub(super) fn is_success(&self) -> bool {
        *self == Self::Exit(Exit::Code(0))
    }
}

/// Runs a command until it ends or `stop` fires. `heard` is given its output, both streams as they come; a command whose output
/// nobody takes waits.
pub(super) async fn run(
    command: &str,
    stop: &CancellationToken,
    heard: mpsc::Sender<String>,
) -> Ended {
    let child = match start(command) {
        Ok(child) => child,
        Err(why) => return Ended::Failed(why),
    };
    let Some(mut output) = child.take_stdout() else {
        return Ended::Failed("the command has no output".to_owned());
    };
    let mut decoder = Decoder::default();
    let reading = async {
        while let Some(piece) = output.next().await {
            let Ok(piece) = piece else { break };
            let text = decoder.push(&piece);
            if !text.is_empty() {
                // Without a listener it is still read: a full pipe would stop the command.
                let _ = heard.send(text).await;
            }
        }
        let rest = std::mem::take(&mut decoder).finish();
        if !rest.is_empty() {
            let _ = heard.send(rest).await;
        }
        child.wait().await
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => {
            // Its `Drop` would stop it, too; but what follows shall find nothing of it.
            if let Err(why) = child.stop(GRACE).await {
                return Ended::Failed(why.to_string());
            }
            Ended::Stopped
        }
        exit = reading => match exit {
            Ok(exit) => Ended::Exit(exit),
            Err(why) => Ended::Failed(why.to_string()),
        },
    }
}

fn start(command: &str) -> Result<Child, String> {
    let cwd = std::env::current_dir()
        .map_err(|why| format!("Working directory does not exist: {why}"))?;
    let bash = "/bin/bash";
    let program = if std::path::Path::new(bash).exists() {
        Program::Argv(vec![bash.to_owned(), "-c".to_owned(), command.to_owned()])
    } else {
        Program::Shell(command.to_owned())
    };
    let env = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let command = Command {
        program,
        env,
        cwd,
        timeout: None,
        merge_output: true,
        stdin: false,
    };
    process::spawn(command).map_err(|why| why.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn output_and_exit_code_are_as_they_were() {
        let (heard, mut pieces) = mpsc::channel::<String>(1);
        let script = "printf 'aä'; printf '\\303'; printf '\\244b' >&2; exit 3";
        let text = async {
            let mut text = String::new();
            while let Some(piece) = pieces.recv().await {
                text += &piece;
            }
            text
        };
        let stop = CancellationToken::new();
        let (ended, text) = tokio::join!(run(script, &stop, heard), text);
        assert_eq!(ended.words(), "exit code: 3");
        assert_eq!(text, "aääb");
    }

    #[tokio::test]
    async fn a_command_that_is_stopped_leaves_nothing_running() {
        let (heard, mut pieces) = mpsc::channel::<String>(1);
        let stop = CancellationToken::new();
        let pids = async {
            let mut pids = String::new();
            while let Some(piece) = pieces.recv().await {
                pids += &piece;
                if pids.lines().count() == 2 {
                    stop.cancel();
                }
            }
            pids
        };
        let (ended, pids) = tokio::join!(
            run("sleep 1000 & echo $!; echo $$; wait", &stop, heard),
            pids
        );
        assert_eq!(ended, Ended::Stopped);
        for pid in pids.lines() {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            assert!(stat.is_empty() || stat.contains(") Z"), "{stat}");
        }
    }
}
