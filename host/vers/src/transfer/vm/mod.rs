//! The half of a copy that is on a VM: small fixed scripts, run over the VM's shared connections.
//!
//! Nothing that a stranger chose is part of a script. A path is an argument of its own; names inside of a tree, which
//! may be any bytes, are arguments written in octal, or travel over standard input between NULs.

mod sink;
mod source;

pub(super) use self::sink::{VmBig, VmSink};
pub(super) use self::source::VmSource;

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::SMALL;
use crate::api::VmId;
use crate::error::{Error, Kind, Result, shown};
use crate::ssh::{self, Child, Command, Exit, Output, Purpose, Ssh, Stdin};

/// What a stopped script has to clean up behind itself.
const GRACE: Duration = Duration::from_secs(2);
/// Kept of what a script complains about.
const COMPLAINTS: usize = 64 << 10;

/// A VM, for scripts.
#[derive(Clone)]
pub(super) struct Vm {
    pub(super) ssh: Ssh,
    pub(super) id: VmId,
    /// Stops what runs.
    pub(super) cancel: CancellationToken,
}

/// Which connection a file of this size takes: a small one is not worth a handshake.
fn for_file(size: u64) -> Purpose {
    if size > SMALL {
        Purpose::Bulk
    } else {
        Purpose::Commands
    }
}

/// A script's input and output while it runs.
pub(super) struct Streams {
    pub(super) stdin: Option<Stdin>,
    pub(super) stdout: Output,
}

/// How a script ended.
pub(super) struct Ended {
    exit: Exit,
    pub(super) complaints: String,
}

impl Ended {
    /// It did nothing, because a program that it needs is not there.
    pub(super) fn lacks_a_program(&self) -> bool {
        self.exit == Exit::Code(69)
    }
}

impl Vm {
    /// Runs a script. `work` moves its data meanwhile; the script is stopped, and has cleaned up, if `work` fails or
    /// the copy is cancelled.
    pub(super) async fn run<T, W>(
        &self,
        purpose: Purpose,
        script: &str,
        arguments: Vec<String>,
        stdin: bool,
        work: impl FnOnce(Streams) -> W,
    ) -> Result<(T, Ended)>
    where
        W: Future<Output = Result<T>>,
    {
        let mut argv = vec![
            "sh".to_owned(),
            "-c".to_owned(),
            script.to_owned(),
            "vers".to_owned(),
        ];
        argv.extend(arguments);
        let mut command = Command::argv(argv);
        command.stdin = stdin;
        let cancelled = || Error::cancelled("copy");
        let mut child = self
            .cancel
            // These futures are large, and a copy holds several.
            .run_until_cancelled(Box::pin(self.ssh.spawn_for(purpose, self.id, command)))
            .await
            .ok_or_else(cancelled)??;
        let (Some(stdout), Some(stderr)) = (child.take_stdout(), child.take_stderr()) else {
            return Err(Error::other("copy: a command without outputs"));
        };
        let streams = Streams {
            stdin: child.take_stdin(),
            stdout,
        };
        let working = Box::pin(work(streams));
        let all = Box::pin(async {
            let (work, (complaints, _)) = tokio::join!(
                async {
                    let done = working.await;
                    if done.is_err() {
                        // Also ends what its complaints are waited for.
                        stop(&child).await;
                    }
                    done
                },
                stderr.collect(COMPLAINTS)
            );
            let work = work?;
            let exit = child.wait().await?;
            let complaints = String::from_utf8_lossy(&complaints).into_owned();
            Ok((work, Ended { exit, complaints }))
        });
        let outcome = self.cancel.run_until_cancelled(all).await;
        match outcome {
            Some(outcome) => outcome,
            None => {
                stop(&child).await;
                Err(cancelled())
            }
        }
    }

    /// A script's success, or the error that its exit code and its complaints stand for.
    pub(super) fn check(&self, what: &str, ended: &Ended) -> Result<()> {
        let line = |kind, why: &str| {
            Err(Error::new(
                kind,
                format!("copy: {what} on VM {}: {why}", self.id),
            ))
        };
        let said = || {
            ended
                .complaints
                .lines()
                .map(str::trim)
                .find(|line| !line.is_empty())
                .map_or_else(|| ended.exit.to_string(), shown)
        };
        match &ended.exit {
            Exit::Code(0) => Ok(()),
            Exit::Code(65) => line(
                Kind::Conflict,
                &format!(
                    "{} is a directory (or a link) and would be replaced by something else, or the other way round; remove it first",
                    shown(&ended.complaints)
                ),
            ),
            Exit::Code(66) => line(Kind::NotFound, "there is no such file or directory"),
            // It ended because its input did, and nobody here ended that.
            Exit::Code(75) => line(Kind::Unavailable, "it broke off"),
            _ => line(Kind::Other, &said()),
        }
    }
}

async fn stop(child: &Child) {
    // If the connection is gone, the VM does it by itself.
    let _ = Box::pin(child.stop(GRACE)).await;
}

/// A path for a script: never an option, never searched for elsewhere.
pub(super) fn argument(path: &str) -> Result<String> {
    let path = ssh::checked(path).map_err(|error| error.during("copy"))?;
    Ok(match path.trim_end_matches('/') {
        "" => "/".to_owned(),
        "." => ".".to_owned(),
        path if path.starts_with('/') => path.to_owned(),
        path => format!("./{path}"),
    })
}

/// Any bytes, for `printf %b`.
fn octal(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || b"./_-".contains(byte) {
            text.push(char::from(*byte));
        } else {
            let _ = write!(text, "\\0{byte:03o}");
        }
    }
    text
}

fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = directory.to_vec();
    if !path.ends_with(b"/") {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_path_is_never_an_option_and_starts_where_it_says() {
        for (path, means) in [
            ("-n", "./-n"),
            ("a/b/", "./a/b"),
            ("/", "/"),
            ("//", "/"),
            ("/a//", "/a"),
            ("~", "."),
            ("~/", "."),
            ("~/x", "./x"),
            ("~x", "./~x"),
            (".", "."),
            ("./a", "././a"),
        ] {
            assert_eq!(argument(path).unwrap(), means, "{path}");
        }
        assert!(argument("").is_err() && argument("a\0").is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_bytes_reach_a_script_as_they_are(bytes in prop::collection::vec(1u8..=255, 1..200)) {
            let script = r#"LC_ALL=C; p=$(printf '%b_' "$1"); p=${p%_}; printf '%s' "$p""#;
            for shell in [&["sh"][..], &["bash"], &["busybox", "sh"]] {
                let Ok(output) = std::process::Command::new(shell[0]).args(&shell[1..]).args(["-c", script, "vers", &octal(&bytes)]).output() else {
                    continue;
                };
                prop_assert_eq!(&output.stdout, &bytes, "{:?}", shell);
            }
        }
    }
}
