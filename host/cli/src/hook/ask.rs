//! The hook's side: `pi-vers hook pre-tool-use`.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::route::Call;
use super::socket::{self, Socket};

/// What Claude Code writes holds the tool's arguments, for example a whole file. More than this is not read.
const LONGEST_INPUT: u64 = 64 << 20;
/// So long may Claude Code take to write it.
const INPUT: Duration = Duration::from_secs(3);
/// So long may servers take to answer, together: the client waits for it before each call of a tool.
const ANSWER: Duration = Duration::from_millis(200);
/// A longer answer is none.
const LONGEST_ANSWER: u64 = 64 << 10;

/// What is needed of the hook's input; everything else may be anything.
#[derive(Debug, Deserialize)]
struct Input {
    #[serde(default)]
    hook_event_name: Option<String>,
    tool_name: String,
    #[serde(default)]
    tool_input: Arguments,
}

#[derive(Debug, Default)]
struct Arguments {
    file_path: Option<String>,
}

/// Arguments of an unknown shape are as good as none.
impl<'de> Deserialize<'de> for Arguments {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let path = value.get("file_path").and_then(|path| path.as_str());
        Ok(Self {
            file_path: path.map(str::to_owned),
        })
    }
}

/// The call that the hook's input tells of; `None`: it is none that we know.
fn read(input: &[u8]) -> Option<Call> {
    let input: Input = serde_json::from_slice(input).ok()?;
    let event = input.hook_event_name.as_deref();
    if event.is_some_and(|event| event != "PreToolUse") {
        return None;
    }
    let path = input.tool_input.file_path.filter(|path| !path.is_empty());
    Some(Call {
        tool: input.tool_name,
        path: path.map(PathBuf::from),
    })
}

/// Reads standard input, asks, and prints the answer if it is not to be allowed.
pub(super) async fn pre_tool_use() {
    let mut input = Vec::new();
    let reading = async {
        let stdin = tokio::io::stdin().take(LONGEST_INPUT);
        tokio::pin!(stdin);
        stdin.read_to_end(&mut input).await
    };
    let Ok(Ok(_)) = timeout(INPUT, reading).await else {
        return;
    };
    let Some(call) = read(&input) else {
        tracing::debug!("the hook's input is none that is known");
        return;
    };
    let answer = ask_in(&socket::directories(), &socket::ancestors(), &call).await;
    if let Some(answer) = answer {
        use std::io::Write as _;
        // A client that does not listen any more needs no answer.
        let _ = writeln!(std::io::stdout(), "{answer}");
    }
}

/// Asks the servers of the nearest of these ancestors that has any. The first that does not allow the call decides; a client may have
/// more than one. `None` allows it.
pub(super) async fn ask_in(
    directories: &[PathBuf],
    ancestors: &[u32],
    call: &Call,
) -> Option<String> {
    let sockets: Vec<Socket> = directories
        .iter()
        .flat_map(|directory| socket::sockets(directory))
        .collect();
    let asking = async {
        for ancestor in ancestors {
            let mut found = false;
            for socket in sockets.iter().filter(|socket| socket.parent == *ancestor) {
                match ask(socket, call).await {
                    Ok(Some(answer)) => return Some(answer),
                    Ok(None) => found = true,
                    Err(why) => tracing::debug!("{}: {why}", socket.path.display()),
                }
            }
            if found {
                break;
            }
        }
        None
    };
    timeout(ANSWER, asking).await.ok().flatten()
}

async fn ask(socket: &Socket, call: &Call) -> std::io::Result<Option<String>> {
    let mut stream = match UnixStream::connect(&socket.path).await {
        Ok(stream) => stream,
        Err(why) => {
            // Its server was killed.
            if why.kind() == std::io::ErrorKind::ConnectionRefused && !socket::runs(socket.process)
            {
                let _ = std::fs::remove_file(&socket.path);
            }
            return Err(why);
        }
    };
    if stream.peer_cred()?.uid() != rustix::process::geteuid().as_raw() {
        return Err(std::io::Error::other("it is somebody else's"));
    }
    let question = json!({ "tool_name": call.tool, "path": call.path });
    stream.write_all(question.to_string().as_bytes()).await?;
    stream.shutdown().await?;
    let mut answer = String::new();
    stream
        .take(LONGEST_ANSWER)
        .read_to_string(&mut answer)
        .await?;
    Ok((!answer.is_empty()).then_some(answer))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_input_of_claude_code_is_read() {
        let input = r#"{"session_id":"s","transcript_path":"/t","cwd":"/c","permission_mode":"default","hook_event_name":"PreToolUse","tool_name":"Write","tool_input":{"file_path":"/f","content":"…"}}"#;
        let call = read(input.as_bytes()).unwrap();
        assert_eq!(
            (call.tool.as_str(), call.path),
            ("Write", Some("/f".into()))
        );
    }

    #[test]
    fn an_input_that_is_not_known_is_no_call() {
        for input in [
            "",
            "null",
            "[]",
            "{}",
            r#"{"tool_name":5}"#,
            r#"{"tool_name":"Bash","hook_event_name":"PostToolUse"}"#,
            r#"{"tool_name":"Bash""#,
        ] {
            assert_eq!(read(input.as_bytes()), None, "{input}");
        }
        for arguments in [
            "null",
            "5",
            "[]",
            r#"{"file_path":5}"#,
            r#"{"file_path":""}"#,
        ] {
            let input = format!(r#"{{"tool_name":"Read","tool_input":{arguments}}}"#);
            assert_eq!(read(input.as_bytes()).unwrap().path, None, "{input}");
        }
    }

    proptest! {
        #[test]
        fn no_input_panics(input: Vec<u8>, text in "\\PC{0,60}") {
            let _ = read(&input);
            let _ = read(text.as_bytes());
        }

        #[test]
        fn the_tool_s_name_is_found_whatever_stands_around_it(tool in "\\PC{0,20}", other in "\\PC{0,20}", path in "\\PC{1,20}") {
            let input = json!({ "a": other, "tool_input": { "file_path": path, "x": [other] }, "tool_name": tool, "hook_event_name": "PreToolUse" });
            let call = read(input.to_string().as_bytes()).unwrap();
            prop_assert_eq!(call, Call { tool, path: Some(PathBuf::from(path)) });
        }
    }
}
