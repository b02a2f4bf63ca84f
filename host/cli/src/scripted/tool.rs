//! The tool `bash`: a command's events, its result, and what the agent says about it.

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

use super::agent::Agent;
use super::messages;
use super::shell;
use super::text::{MOST_OUTPUT, keep_end};

/// Updates come this far apart at least.
const THROTTLE: Duration = Duration::from_millis(100);
/// Pieces of output that wait.
const WAITING: usize = 16;

/// Runs the command that this message calls for. The tool's message, and the report.
pub(super) async fn execute(
    agent: &Agent,
    message: &Value,
    command: &str,
    stop: &CancellationToken,
) -> (Value, String) {
    let id = message
        .get("content")
        .and_then(Value::as_array)
        .and_then(|parts| parts.last()?.get("id")?.as_str())
        .unwrap_or_default();
    let event = |kind: &str| json!({ "type": kind, "toolCallId": id, "toolName": "bash", "args": { "command": command } });
    agent.emit(event("tool_execution_start")).await;
    let with = |mut event: Value, name: &str, value: Value| {
        if let Some(event) = event.as_object_mut() {
            event.insert(name.to_owned(), value);
        }
        event
    };
    let content = |text: &str| json!({ "content": [{ "type": "text", "text": text }] });
    let (heard, mut pieces) = mpsc::channel::<String>(WAITING);
    let collecting = async {
        let mut output = String::new();
        let mut cut = false;
        let mut told = Instant::now();
        while let Some(piece) = pieces.recv().await {
            output += &piece;
            cut |= keep_end(&mut output, MOST_OUTPUT);
            if told.elapsed() >= THROTTLE {
                told = Instant::now();
                let update = with(
                    event("tool_execution_update"),
                    "partialResult",
                    content(&output),
                );
                agent.emit(update).await;
            }
        }
        if !output.is_empty() {
            let update = with(
                event("tool_execution_update"),
                "partialResult",
                content(&output),
            );
            agent.emit(update).await;
        }
        (output, cut)
    };
    let (ended, (mut output, cut)) = tokio::join!(shell::run(command, stop, heard), collecting);
    if !output.is_empty() && !output.ends_with('\n') {
        output.push('\n');
    }
    let note = if cut {
        "[the beginning is left out]\n"
    } else {
        ""
    };
    let report = format!("$ {command}\n{note}{output}[{}]\n", ended.words());
    // As pi has it: a failed command's result ends with its exit code.
    let text = if ended.is_success() {
        output
    } else {
        format!("{output}\nCommand failed: {}", ended.words())
    };
    let result = content(&text);
    let mut end = json!({ "type": "tool_execution_end", "toolCallId": id, "toolName": "bash" });
    if let Some(end) = end.as_object_mut() {
        end.insert("result".into(), result.clone());
        end.insert("isError".into(), (!ended.is_success()).into());
    }
    agent.emit(end).await;
    let result = messages::tool_result(id, &result, !ended.is_success());
    for event in ["message_start", "message_end"] {
        agent
            .emit(json!({ "type": event, "message": result }))
            .await;
    }
    (result, report)
}
