//! The protocol's JSON for what the host has types for.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pi_vers_host::{Content, CustomMessage, FlagValue, Image, Progress, ToolOutput};
use serde_json::{Map, Value, json};

/// Content for the shim, which knows texts and pictures: of all else it gets words.
pub(crate) fn content(blocks: &[Content]) -> Value {
    let block = |block: &Content| match block {
        Content::Text(text) => json!({ "type": "text", "text": text }),
        Content::Image(image) => {
            json!({ "type": "image", "mimeType": image.media_type, "data": STANDARD.encode(&image.data) })
        }
        Content::Audio(_) | Content::Resource(_) | Content::Link(_) => {
            json!({ "type": "text", "text": block.in_words() })
        }
    };
    blocks.iter().map(block).collect()
}

/// Content of the shim. Blocks of a kind that is not known are left out.
pub(crate) fn read_content(value: &Value) -> Result<Vec<Content>, String> {
    let blocks = match value {
        Value::Null => return Ok(Vec::new()),
        // Some harnesses write a lone text so.
        Value::String(text) => return Ok(vec![Content::text(text)]),
        Value::Array(blocks) => blocks,
        _ => return Err("`content` is no list".into()),
    };
    let text =
        |block: &Value, name: &str| block.get(name).and_then(Value::as_str).map(str::to_owned);
    let mut read = Vec::new();
    for block in blocks {
        match block.get("type").and_then(Value::as_str) {
            Some("text") => read.push(Content::Text(
                text(block, "text").ok_or("a block of text has no `text`")?,
            )),
            Some("image") => {
                let data = text(block, "data").ok_or("an image has no `data`")?;
                let data = STANDARD
                    .decode(data)
                    .map_err(|why| format!("the `data` of an image is no base64: {why}"))?;
                read.push(Content::Image(Image {
                    media_type: text(block, "mimeType").ok_or("an image has no `mimeType`")?,
                    data,
                }));
            }
            _ => {}
        }
    }
    Ok(read)
}

/// A tool result for the shim.
pub(crate) fn tool_result(output: &ToolOutput, is_error: bool) -> Value {
    let mut result = Map::new();
    result.insert("content".into(), content(&output.content));
    if let Some(details) = &output.details {
        result.insert("details".into(), details.clone());
    }
    if let Some(structured) = &output.structured {
        result.insert("structured".into(), structured.clone());
    }
    result.insert("isError".into(), is_error.into());
    Value::Object(result)
}

/// A tool result of the shim, and whether it is one of a failure.
pub(crate) fn read_tool_result(value: &Value) -> Result<(ToolOutput, bool), String> {
    if !value.is_object() {
        return Err("a tool result is no object".into());
    }
    let some = |name: &str| value.get(name).filter(|value| !value.is_null()).cloned();
    let output = ToolOutput {
        content: read_content(value.get("content").unwrap_or(&Value::Null))?,
        details: some("details"),
        structured: some("structured"),
    };
    let is_error = value.get("isError").and_then(Value::as_bool);
    Ok((output, is_error.unwrap_or(false)))
}

/// A message of an extension for the shim.
pub(crate) fn message(message: &CustomMessage) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("kind".into(), message.kind.as_str().into());
    object.insert("content".into(), content(&message.content));
    object.insert("display".into(), message.display.into());
    if let Some(details) = &message.details {
        object.insert("details".into(), details.clone());
    }
    object
}

pub(crate) fn progress(progress: &Progress) -> Value {
    let mut object = json!({ "done": progress.done, "caption": progress.caption });
    if let (Some(object), Some(total)) = (object.as_object_mut(), progress.total) {
        object.insert("total".into(), total.into());
    }
    object
}

/// The value that the user gave a flag; none for what is no value of one.
pub(crate) fn flag(value: &Value) -> Option<FlagValue> {
    match value {
        Value::Bool(value) => Some(FlagValue::Boolean(*value)),
        Value::Number(number) => number.as_f64().map(FlagValue::Number),
        Value::String(text) => Some(FlagValue::Text(text.clone())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_tool_result_survives_the_way_there_and_back() {
        let output = ToolOutput {
            content: vec![
                Content::text("a\u{1b}"),
                Content::Image(Image {
                    media_type: "image/png".into(),
                    data: vec![0, 255],
                }),
            ],
            details: Some(json!({ "n": 1 })),
            structured: None,
        };
        let value = tool_result(&output, true);
        assert_eq!(
            value,
            json!({
                "content": [{ "type": "text", "text": "a\u{1b}" }, { "type": "image", "mimeType": "image/png", "data": "AP8=" }],
                "details": { "n": 1 }, "isError": true,
            })
        );
        assert_eq!(read_tool_result(&value).unwrap(), (output, true));
    }

    #[test]
    fn what_the_shim_does_not_know_becomes_words() {
        let link = pi_vers_host::ResourceLink {
            uri: "test://a".into(),
            name: "A".into(),
            description: None,
            media_type: None,
        };
        let told = content(&[Content::Link(link)]);
        assert_eq!(told, json!([{ "type": "text", "text": "[A](test://a)" }]));
    }

    #[test]
    fn foreign_content_is_read_with_patience_and_nonsense_is_named() {
        let read = read_content(
            &json!([{ "type": "thinking" }, { "type": "text", "text": "t", "new": 1 }]),
        );
        assert_eq!(read.unwrap(), [Content::text("t")]);
        assert_eq!(read_content(&json!("t")).unwrap(), [Content::text("t")]);
        for wrong in [
            json!(1),
            json!([{ "type": "text" }]),
            json!([{ "type": "image", "mimeType": "a", "data": "?" }]),
        ] {
            assert!(read_content(&wrong).is_err(), "{wrong}");
        }
        assert!(read_tool_result(&json!([])).is_err());
    }
}
