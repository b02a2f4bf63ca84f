//! Commands, files and logs of a VM.

use super::App;
use super::error::{ApiError, ApiResult, done};
use super::extract::{InPath, Natural};
use crate::exec::{Command, Event, Reader, Stream, files};
use crate::manager::Fault;
use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::stream;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// The most output that one answer of `/exec` carries.
const MAX_OUTPUT: usize = 16 << 20;

#[derive(Debug, Deserialize)]
pub(crate) struct Run {
    command: Vec<String>,
    env: Option<BTreeMap<String, String>>,
    working_dir: Option<String>,
    stdin: Option<String>,
    timeout_secs: Option<Natural>,
    exec_id: Option<Uuid>,
}

impl Run {
    fn split(self) -> (Option<Uuid>, Command) {
        let command = Command {
            argv: self.command,
            env: self.env.unwrap_or_default(),
            working_dir: self.working_dir.filter(|d| !d.is_empty()),
            stdin: self.stdin,
            timeout: self
                .timeout_secs
                .map(u64::from)
                .filter(|s| *s > 0)
                .map(Duration::from_secs),
        };
        (self.exec_id, command)
    }
}

/// Runs a command and answers with all of its output. A caller that goes away ends the command.
pub(crate) async fn run(
    State(app): State<Arc<App>>,
    InPath(vm): InPath<Uuid>,
    Json(body): Json<Run>,
) -> ApiResult<Json<Value>> {
    let (exec_id, command) = body.split();
    let (exec_id, mut reader, cancel) = app.execs.start(vm, exec_id, command)?;
    let cancel_on_drop = cancel.drop_guard();
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    while let Some(event) = reader.next().await {
        match event {
            Event::Chunk { stream, data, .. } => {
                if stdout.len() + stderr.len() + data.len() > MAX_OUTPUT {
                    return Err(Fault::TooLarge(format!(
                        "the command wrote more than {} MiB and was ended; use /exec/stream",
                        MAX_OUTPUT >> 20
                    ))
                    .into());
                }
                match stream {
                    Stream::Stdout => stdout.extend_from_slice(&data),
                    Stream::Stderr => stderr.extend_from_slice(&data),
                }
            }
            Event::Exit {
                code, timed_out, ..
            } => {
                cancel_on_drop.disarm();
                let mut answer = json!({
                    "exec_id": exec_id,
                    "exit_code": code,
                    "stdout": String::from_utf8_lossy(&stdout),
                    "stderr": String::from_utf8_lossy(&stderr),
                });
                if timed_out && let Some(answer) = answer.as_object_mut() {
                    answer.insert("timed_out".into(), true.into());
                }
                return Ok(Json(answer));
            }
            Event::Error { code, message } => {
                // The VM was paused, put to sleep or deleted meanwhile: then that is the reason.
                app.manager.check_running(vm)?;
                return Err(Fault::Internal(format!("{code}: {message}")).into());
            }
        }
    }
    Err(ApiError::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "the command ended without a result",
    ))
}

fn line(exec_id: Uuid, event: &Event) -> Bytes {
    let mut line = match event {
        Event::Chunk {
            cursor,
            stream,
            data,
        } => json!({
            "type": "chunk",
            "stream": stream.word(),
            "data_b64": STANDARD.encode(data),
            "cursor": cursor,
            "exec_id": exec_id,
        }),
        Event::Exit {
            cursor,
            code,
            timed_out,
        } => {
            let mut exit =
                json!({"type": "exit", "exit_code": code, "cursor": cursor, "exec_id": exec_id});
            if let (true, Some(exit)) = (timed_out, exit.as_object_mut()) {
                exit.insert("timed_out".into(), true.into());
            }
            exit
        }
        Event::Error { code, message } => {
            json!({"type": "error", "code": code, "message": message, "exec_id": exec_id})
        }
    }
    .to_string();
    line.push('\n');
    Bytes::from(line)
}

fn ndjson(exec_id: Uuid, reader: Reader) -> ApiResult<Response> {
    let lines = stream::unfold(reader, move |mut reader| async move {
        let event = reader.next().await?;
        Some((
            Ok::<_, std::convert::Infallible>(line(exec_id, &event)),
            reader,
        ))
    });
    Response::builder()
        .header(header::CONTENT_TYPE, "application/x-ndjson")
        .body(Body::from_stream(lines))
        .map_err(|e| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))
}

/// Runs a command and streams its output. It runs on when the caller goes away, to be attached to again.
pub(crate) async fn stream(
    State(app): State<Arc<App>>,
    InPath(vm): InPath<Uuid>,
    Json(body): Json<Run>,
) -> ApiResult<Response> {
    let (exec_id, command) = body.split();
    let (exec_id, reader, _) = app.execs.start(vm, exec_id, command)?;
    ndjson(exec_id, reader)
}

#[derive(Debug, Deserialize)]
pub(crate) struct Attach {
    exec_id: Uuid,
    cursor: Option<Natural>,
    from_latest: Option<bool>,
}

pub(crate) async fn attach(
    State(app): State<Arc<App>>,
    InPath(vm): InPath<Uuid>,
    Json(body): Json<Attach>,
) -> ApiResult<Response> {
    let from_latest = body.from_latest.unwrap_or(false);
    let reader = app
        .execs
        .attach(vm, body.exec_id, body.cursor.map(u64::from), from_latest)?;
    ndjson(body.exec_id, reader)
}

#[derive(Debug, Deserialize)]
pub(crate) struct FilePath {
    path: String,
}

pub(crate) async fn read_file(
    State(app): State<Arc<App>>,
    InPath(vm): InPath<Uuid>,
    Query(query): Query<FilePath>,
) -> ApiResult<Json<Value>> {
    let content = files::read(&app.manager, vm, &query.path).await?;
    Ok(Json(json!({"content_b64": STANDARD.encode(content)})))
}

#[derive(Debug, Deserialize)]
pub(crate) struct WriteFile {
    path: String,
    content_b64: String,
    mode: Option<u32>,
    #[serde(default)]
    create_dirs: bool,
}

pub(crate) async fn write_file(
    State(app): State<Arc<App>>,
    InPath(vm): InPath<Uuid>,
    Json(body): Json<WriteFile>,
) -> ApiResult<Response> {
    // An unknown VM first, as everywhere.
    app.manager.vm(vm)?;
    let content = STANDARD.decode(body.content_b64.as_bytes()).map_err(|e| {
        ApiError::new(
            StatusCode::BAD_REQUEST,
            format!("content_b64 is not base64: {e}"),
        )
    })?;
    files::write(
        &app.manager,
        vm,
        &body.path,
        &content,
        body.mode.unwrap_or(0o644),
        body.create_dirs,
    )
    .await?;
    Ok(done())
}

#[derive(Debug, Deserialize)]
pub(crate) struct LogQuery {
    offset: Option<u64>,
    max_entries: Option<u32>,
    stream: Option<String>,
}

pub(crate) async fn logs(
    State(app): State<Arc<App>>,
    InPath(vm): InPath<Uuid>,
    Query(query): Query<LogQuery>,
) -> ApiResult<Json<Value>> {
    // Both are signed numbers in the document.
    let offset = query.offset.unwrap_or(0);
    let max = query.max_entries.unwrap_or(1000);
    if i64::try_from(offset).is_err() || i32::try_from(max).is_err() {
        return Err(ApiError::new(
            StatusCode::BAD_REQUEST,
            "offset or max_entries is too large",
        ));
    }
    let only = match query.stream.as_deref() {
        None | Some("") => None,
        Some("stdout") => Some(Stream::Stdout),
        Some("stderr") => Some(Stream::Stderr),
        Some(_) => {
            return Err(ApiError::new(
                StatusCode::BAD_REQUEST,
                "stream must be 'stdout' or 'stderr'",
            ));
        }
    };
    let max = usize::try_from(max).unwrap_or(usize::MAX).min(10_000);
    let page = app.execs.log(vm, offset, max, only)?;
    let entries: Vec<_> = page
        .entries
        .iter()
        .map(|e| {
            json!({
                "timestamp": e.at,
                "stream": e.stream.word(),
                "data_b64": STANDARD.encode(&e.data),
                "exec_id": e.exec_id,
            })
        })
        .collect();
    Ok(Json(
        json!({"entries": entries, "next_offset": page.next_offset, "eof": page.eof}),
    ))
}
