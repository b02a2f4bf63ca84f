//! `read`, `write` and `edit` on the active VM.

use pi_vers_sdk::declare::{JsonSchema, schemars};
use pi_vers_sdk::stream::StreamReader;
use pi_vers_sdk::system::files::{self, Kind, Metadata, WriteOptions};
use pi_vers_sdk::{
    Content, Error, Image, ToolCall, ToolError, ToolResult, digest, outcome, stream,
};
use serde::Deserialize;
use serde_json::json;

use crate::edit::{self, Edit};
use crate::limits::{MAX_EDIT, MAX_IMAGE, size};
use crate::page::{self, Page, Pager};
use crate::remote::{self, Notices, at, attempt};
use crate::{diff, media, paths, session, turns};

/// How much of a file is looked at to tell what it is, in bytes.
const HEAD: usize = 8192;

#[derive(Deserialize, JsonSchema)]
pub(crate) struct Read {
    /// Path to the file to read (relative or absolute)
    path: String,
    /// Line number to start reading from (1-indexed)
    #[schemars(range(min = 1))]
    offset: Option<u64>,
    /// Maximum number of lines to read
    #[schemars(range(min = 1))]
    limit: Option<u64>,
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct Write {
    /// Path to the file to write (relative or absolute)
    path: String,
    /// Content to write to the file, byte for byte
    content: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EditArgs {
    /// Path to the file to edit (relative or absolute)
    path: String,
    /// Exact text to find and replace (must match exactly)
    old_text: Option<String>,
    /// New text to replace the old text with
    new_text: Option<String>,
    /// Several replacements, instead of oldText and newText
    edits: Option<Vec<Edit>>,
}

/// The path as the host takes it.
pub(crate) async fn resolve(
    vm: &str,
    path: &str,
    notices: &mut Notices,
) -> Result<String, ToolError> {
    if path.contains('\0') {
        return Err(outcome::failed("The path contains a NUL character."));
    }
    if !paths::is_relative(path) {
        return Ok(paths::resolve(path, None));
    }
    let cwd = attempt(vm, notices, async || session::working_directory(vm).await)
        .await
        .map_err(|e| remote::failed(&format!("Cannot find {path}"), vm, e))?;
    Ok(paths::resolve(path, cwd.as_deref()))
}

/// What ended a call about a file.
fn ended(verb: &str, path: &str, vm: &str, error: Error) -> ToolError {
    match error {
        Error::NotFound(_) => outcome::failed(format!("File not found: {path}")),
        error => remote::failed(&format!("Cannot {verb} {path}"), vm, error),
    }
}

/// `read`
pub(crate) async fn read(
    _call: &ToolCall,
    vm: &str,
    args: Read,
    notices: &mut Notices,
) -> Result<ToolResult, ToolError> {
    let args = &args;
    let (path, shown) = (resolve(vm, &args.path, notices).await?, &args.path);
    let found = attempt(vm, notices, async || files::stat(at(vm, &path)).await)
        .await
        .map_err(|e| ended("read", shown, vm, e))?;
    match found.kind {
        Kind::Directory => {
            return Err(outcome::failed(format!(
                "{shown} is a directory. Use ls, or bash, to see what is in it."
            )));
        }
        Kind::Other => {
            return Err(outcome::failed(format!(
                "{shown} is not a regular file; reading it could wait for ever."
            )));
        }
        Kind::File | Kind::Link => {}
    }
    let seen = attempt(vm, notices, async || look(args, vm, &path, &found).await)
        .await
        .map_err(|e| ended("read", shown, vm, e))?;
    present(seen, args, found.size)
}

/// What a file turned out to be.
enum Seen {
    Page(Page),
    Picture(&'static str, Vec<u8>),
    LargePicture(&'static str),
    Binary,
}

async fn look(args: &Read, vm: &str, path: &str, found: &Metadata) -> Result<Seen, Error> {
    let (mut bytes, done) = files::read(&at(vm, path), None);
    let mut head = Vec::new();
    let complete = fill(&mut bytes, &mut head, HEAD).await;
    if let Some(kind) = media::picture(&head) {
        if found.size > MAX_IMAGE {
            return Ok(Seen::LargePicture(kind));
        }
        let most = usize::try_from(MAX_IMAGE).unwrap_or(usize::MAX);
        if !complete && !fill(&mut bytes, &mut head, most + 1).await {
            return Ok(Seen::LargePicture(kind));
        }
        done.await?;
        return Ok(Seen::Picture(kind, head));
    }
    if head.contains(&0) {
        return Ok(Seen::Binary);
    }
    let mut pager = Pager::new(args.offset, args.limit);
    pager.push(&head);
    let mut ended = complete;
    let mut buffer = head;
    while !ended && pager.wants_more() {
        match stream::next(&mut bytes, buffer).await {
            Some(next) => {
                pager.push(&next);
                buffer = next;
            }
            None => {
                ended = true;
                buffer = Vec::new();
            }
        }
    }
    if ended {
        // Whether the end was the file's, or the connection's.
        done.await?;
    }
    Ok(Seen::Page(pager.finish(ended)))
}

/// Reads on until there are at least `enough` bytes; true if the stream ended before.
async fn fill(from: &mut StreamReader<u8>, into: &mut Vec<u8>, enough: usize) -> bool {
    let mut buffer = Vec::new();
    while into.len() < enough {
        match stream::next(from, buffer).await {
            Some(bytes) => {
                into.extend_from_slice(&bytes);
                buffer = bytes;
            }
            None => return true,
        }
    }
    false
}

fn present(seen: Seen, args: &Read, bytes: u64) -> Result<ToolResult, ToolError> {
    let path = &args.path;
    match seen {
        Seen::Page(Page::Text { text, truncation }) => {
            let details = truncation.map_or_else(
                || json!({}),
                |truncation| json!({ "truncation": truncation }),
            );
            Ok(outcome::text_with(text, &details))
        }
        Seen::Page(Page::Empty) => Ok(outcome::text_with("(empty file)", &json!({}))),
        Seen::Page(Page::Beyond(lines)) => Err(outcome::failed(format!(
            "Offset {} is beyond end of file ({lines} lines)",
            args.offset.unwrap_or(1)
        ))),
        Seen::Page(Page::LongLine(line, bytes)) => Ok(outcome::text_with(
            page::long_line(path, line, bytes),
            &json!({}),
        )),
        Seen::Picture(media_type, data) => Ok(ToolResult {
            content: vec![
                Content::Text(format!("Read image file [{media_type}]")),
                Content::Image(Image {
                    media_type: media_type.into(),
                    data,
                }),
            ],
            details: Some("{}".into()),
            structured: None,
        }),
        Seen::LargePicture(media_type) => Err(outcome::failed(format!(
            "{path} is a picture [{media_type}] of {}, larger than the {} a model takes. Make it smaller with bash first.",
            size(bytes),
            size(MAX_IMAGE)
        ))),
        Seen::Binary => Ok(outcome::text_with(
            format!(
                "[{path} is a binary file of {} ({bytes} bytes) and not shown. Use bash to look into it, for example: \
                 file {quoted}; xxd {quoted} | head]",
                size(bytes),
                quoted = paths::quoted(path)
            ),
            &json!({}),
        )),
    }
}

/// `write`
pub(crate) async fn write(
    _call: &ToolCall,
    vm: &str,
    args: Write,
    notices: &mut Notices,
) -> Result<ToolResult, ToolError> {
    let shown = &args.path;
    if let Some(why) = paths::not_a_file(shown) {
        return Err(outcome::failed(format!(
            "Cannot write {shown}: {why}. Give the path of a file."
        )));
    }
    let path = resolve(vm, shown, notices).await?;
    let _turn = turns::take(vm, &path).await;
    let options = WriteOptions {
        parents: true,
        mode: None,
        expect: None,
    };
    let written = attempt(vm, notices, async || {
        put(
            vm,
            &path,
            args.content.clone().into_bytes(),
            options.clone(),
        )
        .await
    })
    .await;
    match written {
        Ok(bytes) => Ok(outcome::text_with(
            format!("Successfully wrote {bytes} bytes to {shown}"),
            &json!({}),
        )),
        Err(error) => Err(why_not_written("write", vm, &path, shown, error).await),
    }
}

async fn put(vm: &str, path: &str, bytes: Vec<u8>, options: WriteOptions) -> Result<u64, Error> {
    stream::feed(bytes, |reader| files::write(at(vm, path), reader, options)).await
}

/// A directory in the file's place is the likeliest reason, and the host's words for it may be any.
async fn why_not_written(verb: &str, vm: &str, path: &str, shown: &str, error: Error) -> ToolError {
    if matches!(
        error,
        Error::Invalid(_) | Error::Conflict(_) | Error::Other(_)
    ) && let Ok(Metadata {
        kind: Kind::Directory,
        ..
    }) = files::stat(at(vm, path)).await
    {
        return outcome::failed(format!(
            "Cannot {verb} {shown}: it is a directory. Give the path of a file."
        ));
    }
    remote::failed(&format!("Cannot {verb} {shown}"), vm, error)
}

/// `edit`
pub(crate) async fn edit(
    _call: &ToolCall,
    vm: &str,
    args: EditArgs,
    notices: &mut Notices,
) -> Result<ToolResult, ToolError> {
    let shown = args.path;
    if let Some(why) = paths::not_a_file(&shown) {
        return Err(outcome::failed(format!(
            "Cannot edit {shown}: {why}. Give the path of a file."
        )));
    }
    let mut edits = args.edits.unwrap_or_default();
    let several = !edits.is_empty();
    match (args.old_text, args.new_text) {
        (Some(old_text), Some(new_text)) => edits.push(Edit { old_text, new_text }),
        (None, None) => {}
        _ => return Err(outcome::failed("Give both oldText and newText.")),
    }
    let path = resolve(vm, &shown, notices).await?;
    let _turn = turns::take(vm, &path).await;
    let old = match attempt(vm, notices, async || {
        remote::read_all(vm, &path, MAX_EDIT).await
    })
    .await
    {
        Ok(bytes) => bytes,
        Err(Error::Limit(_)) => {
            return Err(outcome::failed(format!(
                "{shown} is larger than {}, too large for edit. Use bash, for example sed -i.",
                size(MAX_EDIT as u64)
            )));
        }
        Err(Error::NotFound(_)) => return Err(outcome::failed(format!("File not found: {shown}"))),
        Err(error) => return Err(why_not_written("edit", vm, &path, &shown, error).await),
    };
    let changes = edit::find(&old, &edits)
        .map_err(|refusal| outcome::failed(refusal.explain(&shown, several)))?;
    let new = edit::apply(&old, &changes);
    let diff = diff::render(&old, &changes);
    let options = WriteOptions {
        parents: false,
        mode: None,
        expect: Some(digest::sha256(&old)),
    };
    drop(old);
    // Not through `attempt`, which would hold a copy of the file for a second try.
    match put(vm, &path, new, options).await {
        Ok(_) => {}
        Err(Error::Conflict(_)) => {
            // A VM that was paused a moment ago is a conflict, too.
            let became = remote::what_became_of(vm).await;
            return Err(outcome::failed(if became.is_empty() {
                format!("{shown} changed while it was edited; read it again.")
            } else {
                format!("Cannot edit {shown} on VM {vm}, it is unchanged.{became}")
            }));
        }
        Err(error) => return Err(why_not_written("edit", vm, &path, &shown, error).await),
    }
    let text = match edits.len() {
        1 => format!("Successfully replaced text in {shown}."),
        n => format!("Successfully replaced {n} texts in {shown}."),
    };
    Ok(outcome::text_with(
        text,
        &json!({ "diff": diff.text, "firstChangedLine": diff.first_changed }),
    ))
}
