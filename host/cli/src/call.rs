//! One call of a tool, as the command line makes it: with a live view, a time limit and Ctrl-C.

use std::time::{Duration, Instant};

use base64::Engine as _;
use pi_vers_host::{CallError, Content, ResourceBody, Session, ToolOutput};
use serde_json::{Value, json};

use crate::failure::{Code, Failure};
use crate::interrupt::Interrupts;
use crate::progress;
use crate::terminal::Terminal;

/// What came of a call.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) tool: String,
    pub(crate) result: Result<ToolOutput, Failure>,
    pub(crate) took: Duration,
}

/// Calls a tool and shows what it shows. Given up at the time limit or at Ctrl-C, it returns when it has stopped.
pub(crate) async fn call(
    terminal: &Terminal,
    session: &Session,
    interrupts: &Interrupts,
    tool: &str,
    arguments: Value,
    limit: Option<Duration>,
) -> Done {
    let begun = Instant::now();
    let mut call = session.call(tool, arguments);
    let (mut updates, canceller) = (call.updates(), call.canceller());
    let mut live = true;
    let mut timed_out = false;
    let mut cancelled = false;
    let deadline = tokio::time::sleep(limit.unwrap_or(Duration::MAX));
    tokio::pin!(deadline);
    let outcome = loop {
        tokio::select! {
            biased;
            outcome = call.outcome() => break outcome,
            () = &mut deadline, if limit.is_some() && !timed_out && !cancelled => {
                timed_out = true;
                canceller.cancel();
            }
            () = interrupts.wait(), if !cancelled => {
                cancelled = true;
                canceller.cancel();
            }
            changed = updates.changed(), if live => match changed {
                Ok(()) => progress::show(terminal, &updates.borrow_and_update()),
                Err(_) => live = false,
            },
        }
    };
    terminal.end_show();
    let result = match outcome {
        Err(CallError::Cancelled {
            what,
            stopped,
            mut output,
        }) => {
            // A tool that was stopped has rarely something to say; what it had shown is all there is.
            if output.content.is_empty() {
                output.content.clone_from(&updates.borrow().content);
            }
            Err(if timed_out {
                over(tool, limit, &stopped, output)
            } else {
                CallError::Cancelled {
                    what,
                    stopped,
                    output,
                }
                .into()
            })
        }
        outcome => outcome.map_err(Failure::from),
    };
    Done {
        tool: tool.to_owned(),
        result,
        took: begun.elapsed(),
    }
}

fn over(tool: &str, limit: Option<Duration>, stopped: &[String], output: ToolOutput) -> Failure {
    let after = limit.unwrap_or_default();
    let mut message = format!("{tool} was stopped at its time limit of {after:?} (--timeout)");
    if !stopped.is_empty() {
        message = format!("{message}; stopped {}", stopped.join(", "));
    }
    let mut failure = Failure::new(Code::TimedOut, "timed-out", message).next("give it longer");
    failure.output = Some(Box::new(output));
    failure
}

impl Done {
    pub(crate) fn code(&self) -> Code {
        self.result
            .as_ref()
            .map_or_else(|failure| failure.code, |_| Code::Ok)
    }

    fn output(&self) -> Option<&ToolOutput> {
        match &self.result {
            Ok(output) => Some(output),
            Err(failure) => failure.output.as_deref(),
        }
    }

    /// Prints it for people: the text on standard output, why it failed on standard error.
    pub(crate) fn print(&self, terminal: &Terminal) {
        for block in self
            .output()
            .map(|output| output.content.as_slice())
            .unwrap_or_default()
        {
            match block {
                Content::Text(text) => terminal.output(text),
                Content::Image(image) => terminal.note(format!(
                    "{}: an image ({}, {} bytes); --json has its bytes",
                    self.tool,
                    pi_vers_host::visible(&image.media_type),
                    image.data.len()
                )),
                Content::Audio(_) | Content::Resource(_) | Content::Link(_) => {
                    terminal.output(&block.in_words());
                }
            }
        }
        if let Err(failure) = &self.result {
            let (tool, line) = (pi_vers_host::visible(&self.tool), failure.line());
            // Most messages name the tool themselves.
            terminal.note(if line.contains(&tool) {
                format!("pi-vers: {line}")
            } else {
                format!("pi-vers: {tool}: {line}")
            });
        }
    }

    /// The same for programs.
    pub(crate) fn json(&self) -> Value {
        let blocks = self
            .output()
            .map(|output| output.content.as_slice())
            .unwrap_or_default();
        let content: Vec<Value> = blocks.iter().map(block).collect();
        let mut line = json!({
            "tool": self.tool,
            "ok": self.result.is_ok(),
            "content": content,
            "details": self.output().and_then(|output| output.details.clone()),
            "error": self.result.as_ref().err().map(Failure::json),
            "ms": u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX),
        });
        if let (Some(line), Some(structured)) = (
            line.as_object_mut(),
            self.output().and_then(|output| output.structured.clone()),
        ) {
            line.insert("structured".into(), structured);
        }
        line
    }
}

/// A block for programs, in the words of MCP.
fn block(content: &Content) -> Value {
    let base64 = |data: &[u8]| base64::engine::general_purpose::STANDARD.encode(data);
    match content {
        Content::Text(text) => json!({ "type": "text", "text": text }),
        Content::Image(image) => {
            json!({ "type": "image", "mimeType": image.media_type, "data": base64(&image.data) })
        }
        Content::Audio(audio) => {
            json!({ "type": "audio", "mimeType": audio.media_type, "data": base64(&audio.data) })
        }
        Content::Resource(resource) => {
            let (key, body) = match &resource.body {
                ResourceBody::Text(text) => ("text", text.clone()),
                ResourceBody::Blob(data) => ("blob", base64(data)),
            };
            let mut inner = json!({ "uri": resource.uri, key: body });
            if let (Some(kind), Some(inner)) = (&resource.media_type, inner.as_object_mut()) {
                inner.insert("mimeType".into(), kind.as_str().into());
            }
            json!({ "type": "resource", "resource": inner })
        }
        Content::Link(link) => {
            let mut written =
                json!({ "type": "resource_link", "uri": link.uri, "name": link.name });
            let more = [
                ("description", &link.description),
                ("mimeType", &link.media_type),
            ];
            for (key, value) in more {
                if let (Some(value), Some(written)) = (value, written.as_object_mut()) {
                    written.insert(key.into(), value.as_str().into());
                }
            }
            written
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pi_vers_host::{Audio, Image, ResourceContents, ResourceLink};

    #[test]
    fn a_result_has_the_documented_members() {
        let image = Image {
            media_type: "image/png".into(),
            data: vec![0, 255],
        };
        let output = ToolOutput {
            content: vec![Content::text("a"), Content::Image(image)],
            details: Some(json!({ "n": 1 })),
            structured: None,
        };
        let done = Done {
            tool: "t".into(),
            result: Ok(output),
            took: Duration::from_millis(12),
        };
        let expected = json!({
            "tool": "t", "ok": true,
            "content": [{ "type": "text", "text": "a" }, { "type": "image", "mimeType": "image/png", "data": "AP8=" }],
            "details": { "n": 1 }, "error": null, "ms": 12,
        });
        assert_eq!(done.json(), expected);
        assert_eq!(done.code(), Code::Ok);
    }

    #[test]
    fn every_kind_of_block_is_written_as_mcp_has_it() {
        let audio = Content::Audio(Audio {
            media_type: "audio/wav".into(),
            data: vec![0, 255],
        });
        let resource = |body, media_type: Option<&str>| {
            Content::Resource(ResourceContents {
                uri: "test://a".into(),
                media_type: media_type.map(str::to_owned),
                body,
            })
        };
        let link = Content::Link(ResourceLink {
            uri: "test://a".into(),
            name: "A".into(),
            description: None,
            media_type: None,
        });
        let blocks = [
            audio,
            resource(ResourceBody::Text("t".into()), Some("text/plain")),
            resource(ResourceBody::Blob(vec![0, 255]), None),
            link,
        ];
        let written: Vec<Value> = blocks.iter().map(block).collect();
        assert_eq!(
            json!(written),
            json!([
                { "type": "audio", "mimeType": "audio/wav", "data": "AP8=" },
                { "type": "resource", "resource": { "uri": "test://a", "text": "t", "mimeType": "text/plain" } },
                { "type": "resource", "resource": { "uri": "test://a", "blob": "AP8=" } },
                { "type": "resource_link", "uri": "test://a", "name": "A" },
            ])
        );
    }

    #[test]
    fn a_failed_tools_output_is_kept() {
        let output = ToolOutput {
            content: vec![Content::text("out\nCommand exited with code 3")],
            ..ToolOutput::default()
        };
        let done = Done {
            tool: "bash".into(),
            result: Err(CallError::Failed(output).into()),
            took: Duration::ZERO,
        };
        let json = done.json();
        assert_eq!(json.pointer("/error/kind"), Some(&json!("failed")));
        assert_eq!(
            json.pointer("/error/message"),
            Some(&json!("Command exited with code 3"))
        );
        assert_eq!(
            json.pointer("/content/0/text"),
            Some(&json!("out\nCommand exited with code 3"))
        );
        assert_eq!(done.code(), Code::Tool);
    }
}
