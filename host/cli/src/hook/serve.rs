//! The server's side: a socket at which hooks ask.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::route::{Call, decide, own_directory};
use super::{ActiveVm, socket};

/// So many hooks are answered at a time; a client has few.
const MOST: usize = 16;
/// A longer question is none.
pub(super) const LONGEST: u64 = 64 << 10;
/// So long may a hook take to ask.
const PATIENCE: Duration = Duration::from_secs(1);
/// After an error of the system, for example no file descriptor left.
const REST: Duration = Duration::from_millis(100);

/// A socket that hooks can ask; it is gone when this is dropped.
#[derive(Debug)]
pub(crate) struct Listening {
    path: PathBuf,
    task: JoinHandle<()>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
        // Somebody may have cleaned up already.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Answers hooks of the client that started this process until what is returned is dropped. `None`, with a line in the log, where that
/// can't be: then hooks allow everything. Must be called within a runtime.
pub(crate) fn listen(active: ActiveVm) -> Option<Listening> {
    let mut directories = socket::directories().into_iter();
    directories.find_map(|directory| match listen_in(&directory, active.clone()) {
        Ok(listening) => Some(listening),
        Err(why) => {
            tracing::debug!("no hooks are heard in {}: {why}", directory.display());
            None
        }
    })
}

fn listen_in(directory: &Path, active: ActiveVm) -> std::io::Result<Listening> {
    socket::prepare(directory)?;
    // What servers left that were killed.
    for old in socket::sockets(directory) {
        if !socket::runs(old.process) || old.process == std::process::id() {
            let _ = std::fs::remove_file(&old.path);
        }
    }
    let socket = socket::own(directory)
        .ok_or_else(|| std::io::Error::other("this process has no parent"))?;
    let listener = UnixListener::bind(&socket.path)?;
    let task = tokio::spawn(serve(listener, active));
    let listening = Listening {
        path: socket.path,
        task,
    };
    let own = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(&listening.path, own)?;
    Ok(listening)
}

async fn serve(listener: UnixListener, active: ActiveVm) {
    let mut hooks = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if hooks.len() < MOST => match accepted {
                Ok((stream, _)) => {
                    hooks.spawn(timeout(PATIENCE, answer(stream, active.clone())));
                }
                Err(why) => {
                    tracing::debug!("a hook is not heard: {why}");
                    sleep(REST).await;
                }
            },
            Some(_) = hooks.join_next() => {}
        }
    }
}

/// One question, one answer, the end: nothing allows the call.
async fn answer(mut stream: UnixStream, active: ActiveVm) -> std::io::Result<()> {
    if stream.peer_cred()?.uid() != rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    let mut question = Vec::new();
    let (read, mut write) = stream.split();
    read.take(LONGEST).read_to_end(&mut question).await?;
    let Ok(question) = serde_json::from_slice(&question) else {
        return Ok(());
    };
    let (vm, own) = (active.get(), own_directory());
    if let Some(answer) = decide(vm.as_deref(), &Call::of(&question), own.as_deref()) {
        write.write_all(answer.to_string().as_bytes()).await?;
    }
    write.shutdown().await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::ask::ask_in;
    use super::*;
    use serde_json::json;

    fn call(tool: &str) -> Call {
        Call {
            tool: tool.into(),
            path: None,
        }
    }

    /// Both sides in this process: its parent is the client of both.
    #[tokio::test]
    async fn a_hook_finds_the_server_of_its_client_and_hears_what_holds_now() {
        let root = tempfile::tempdir().unwrap();
        let directories = [root.path().join("none"), root.path().join("pi-vers")];
        let active = ActiveVm::default();
        let ask = |tool| {
            let (directories, call) = (&directories, call(tool));
            async move { ask_in(directories, &socket::ancestors(), &call).await }
        };
        assert_eq!(ask("Bash").await, None, "there is no server");
        let listening = listen_in(&directories[1], active.clone()).unwrap();
        assert_eq!(ask("Bash").await, None, "no VM is active");
        active.hear("vers-vm", "vers-vm.active", &json!({ "vmId": "some-vm" }));
        assert!(ask("Bash").await.unwrap().contains("vers_bash"));
        assert_eq!(ask("WebFetch").await, None);
        active.hear("vers-vm", "vers-vm.active", &json!({ "vmId": null }));
        assert_eq!(ask("Bash").await, None);
        let path = listening.path.clone();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(listening);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn the_server_of_another_client_is_not_asked() {
        let root = tempfile::tempdir().unwrap();
        let active = ActiveVm::default();
        active.hear("vers-vm", "vers-vm.active", &json!({ "vmId": "some-vm" }));
        let directories = [root.path().join("pi-vers")];
        let _listening = listen_in(&directories[0], active).unwrap();
        assert!(
            ask_in(&directories, &socket::ancestors(), &call("Bash"))
                .await
                .is_some()
        );
        assert_eq!(
            ask_in(&directories, &[4_000_000_000], &call("Bash")).await,
            None
        );
    }

    #[tokio::test]
    async fn what_is_no_question_gets_no_answer_and_hurts_nobody() {
        let root = tempfile::tempdir().unwrap();
        let active = ActiveVm::default();
        active.hear("vers-vm", "vers-vm.active", &json!({ "vmId": "some-vm" }));
        let listening = listen_in(&root.path().join("pi-vers"), active).unwrap();
        let long = vec![b' '; 2 * usize::try_from(LONGEST).unwrap()];
        for question in [&b"\xff"[..], b"{", b"", &long] {
            let mut stream = UnixStream::connect(&listening.path).await.unwrap();
            // The server may have closed before all is written.
            let _ = stream.write_all(question).await;
            let _ = stream.shutdown().await;
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            assert!(answer.is_empty());
        }
        // More than are answered at a time that say nothing: the others wait for a place and get one.
        let mut silent = Vec::new();
        for _ in 0..MOST {
            silent.push(UnixStream::connect(&listening.path).await.unwrap());
        }
        let mut stream = UnixStream::connect(&listening.path).await.unwrap();
        stream.write_all(br#"{"tool_name":"Bash"}"#).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("vers_bash"));
    }

    #[tokio::test]
    async fn what_a_killed_server_left_is_cleaned_up() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("pi-vers");
        socket::prepare(&directory).unwrap();
        let dead = directory.join("mcp-1-4000000000.sock");
        drop(std::os::unix::net::UnixListener::bind(&dead).unwrap());
        let _listening = listen_in(&directory, ActiveVm::default()).unwrap();
        assert!(!dead.exists());
    }
}
