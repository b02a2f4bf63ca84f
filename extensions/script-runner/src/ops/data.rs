//! What is kept and fetched: the store, files, HTTP.

use std::cell::RefCell;

use pi_vers_sdk::bindings::vers::system::http::{Header, HeaderValue, Request as HttpRequest};
use pi_vers_sdk::system::files::{
    self, CopyOptions, Kind, Location, Metadata, Range, WriteOptions,
};
use pi_vers_sdk::system::{http as wire, store as kept};
use pi_vers_sdk::wit_bindgen::{FutureReader, StreamReader};
use pi_vers_sdk::{Error, stream};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Handle, Outcome, Request, unknown};
use crate::scope::Scope;

/// Bytes of a file or an answer that are handed to a script at once.
const LARGEST: usize = 16 << 20;

/// The rest of an answer of a server.
pub(crate) struct Body(RefCell<Option<Parts>>);

type Parts = (StreamReader<u8>, FutureReader<Result<(), Error>>);

#[derive(Deserialize)]
struct Key {
    #[serde(default)]
    key: String,
    #[serde(default)]
    value: Value,
    old: Option<Value>,
    new: Option<Value>,
}

pub(super) async fn store(request: &Request) -> Outcome {
    let Key {
        key,
        value,
        old,
        new,
    } = request.read()?;
    Ok(match request.operation.as_str() {
        "store.get" => match kept::get(key).await? {
            Some(text) => serde_json::from_str(&text)
                .map_err(|why| Error::Other(format!("what is kept is no JSON: {why}")))?,
            None => Value::Null,
        },
        "store.set" => {
            kept::set(key, value.to_string()).await?;
            Value::Null
        }
        "store.delete" => {
            kept::delete(key).await?;
            Value::Null
        }
        "store.keys" => kept::keys(key).await?.into(),
        "store.swap" => {
            // As it was written: `get` and this say the same of one value.
            let text = |value: Option<Value>| value.map(|value| value.to_string());
            kept::swap(key, text(old), text(new)).await?.into()
        }
        _ => return Err(unknown(request)),
    })
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Place {
    Here(String),
    There { vm: String, path: String },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    at: Place,
    to: Option<Place>,
    offset: Option<u64>,
    length: Option<u64>,
    #[serde(default)]
    parents: bool,
    mode: Option<u32>,
    recursive: Option<bool>,
    #[serde(default)]
    exclude: Vec<String>,
    #[serde(default)]
    bytes: bool,
}

fn location(place: Place) -> Location {
    match place {
        Place::Here(path) => Location::Local(path),
        Place::There { vm, path } => Location::Vm((vm, path)),
    }
}

fn described(data: Metadata) -> Value {
    let kind = match data.kind {
        Kind::File => "file",
        Kind::Directory => "directory",
        Kind::Link => "link",
        Kind::Other => "other",
    };
    json!({ "name": data.name, "kind": kind, "size": data.size, "mode": data.mode, "modified": data.modified })
}

/// What a script asked for whole: a handle of its bytes, which are read like a stream that is there already.
pub(super) async fn files(scope: &Scope, mut request: Request) -> Outcome {
    let file: File = request.read()?;
    let at = location(file.at);
    Ok(match request.operation.as_str() {
        "files.stat" => described(files::stat(at).await?),
        "files.list" => files::list(at).await?.into_iter().map(described).collect(),
        "files.read" => {
            let range = (file.offset.is_some() || file.length.is_some()).then(|| Range {
                offset: file.offset.unwrap_or(0),
                length: file.length,
            });
            let (bytes, end) = files::read(&at, range);
            let bytes = stream::read_to_end(bytes, LARGEST).await.map_err(|_| {
                Error::Limit("more than 16 MiB: read it in pieces, with offset and length".into())
            })?;
            end.await?;
            whole(scope, bytes, file.bytes).await?
        }
        "files.write" => {
            let options = WriteOptions {
                parents: file.parents,
                mode: file.mode,
                expect: None,
            };
            let bytes = request.bytes.take().unwrap_or_default();
            stream::feed(bytes, |data| files::write(at, data, options))
                .await?
                .into()
        }
        "files.remove" => {
            files::remove(at).await?;
            Value::Null
        }
        "files.copy" => {
            let to = file
                .to
                .ok_or_else(|| Error::Invalid("where shall the copy go?".into()))?;
            let options = CopyOptions {
                recursive: file.recursive,
                exclude: file.exclude,
            };
            let (mut progress, end) = files::copy(&at, &location(to), &options);
            // Nobody is told how far it is, and it does not go on while nobody hears it.
            let mut heard = Vec::with_capacity(1);
            loop {
                let (result, got) = progress.read(heard).await;
                if !matches!(result, pi_vers_sdk::wit_bindgen::StreamResult::Complete(_)) {
                    break;
                }
                heard = got;
                heard.clear();
            }
            let summary = end.await?;
            json!({
                "files": summary.files, "directories": summary.directories, "links": summary.links, "bytes": summary.bytes,
                "leftOut": summary.left_out, "wasDirectory": summary.was_directory,
            })
        }
        _ => return Err(unknown(&request)),
    })
}

/// Text at once; bytes by a stream of one piece, since JSON holds none.
async fn whole(scope: &Scope, bytes: Vec<u8>, as_bytes: bool) -> Outcome {
    if !as_bytes {
        return Ok(json!({ "text": String::from_utf8_lossy(&bytes) }));
    }
    let (mut writer, reader) = stream::pipe();
    pi_vers_sdk::wit_bindgen::spawn_local(async move {
        let _rest = writer.write_all(bytes).await;
    });
    let handle = Handle::Bytes(RefCell::new(Some((
        reader,
        pi_vers_sdk::text::Decoder::new(),
    ))));
    Ok(json!({ "stream": scope.handles.add(handle) }))
}

#[derive(Deserialize)]
#[serde(untagged)]
enum SaidHeader {
    Plain(String),
    Secret { secret: String },
}

#[derive(Deserialize)]
struct Fetch {
    url: Option<String>,
    method: Option<String>,
    #[serde(default)]
    headers: serde_json::Map<String, Value>,
    timeout: Option<f64>,
    handle: Option<u32>,
    #[serde(default)]
    bytes: bool,
}

pub(super) async fn http(scope: &Scope, mut request: Request) -> Outcome {
    let fetch: Fetch = request.read()?;
    match request.operation.as_str() {
        "http.send" => send(scope, fetch, request.bytes.take()).await,
        "http.body" => {
            let handle = scope.handles.get(fetch.handle.unwrap_or_default())?;
            let Handle::Body(body) = &*handle else {
                return Err(Error::Invalid("this is no answer of a server".into()));
            };
            let Some((bytes, end)) = body.0.borrow_mut().take() else {
                return Err(Error::Conflict("the body was read already".into()));
            };
            let bytes = stream::read_to_end(bytes, LARGEST)
                .await
                .map_err(|_| Error::Limit("the body has more than 16 MiB".into()))?;
            end.await?;
            whole(scope, bytes, fetch.bytes).await
        }
        _ => Err(unknown(&request)),
    }
}

async fn send(scope: &Scope, fetch: Fetch, body: Option<Vec<u8>>) -> Outcome {
    let headers: Result<Vec<Header>, Error> = fetch
        .headers
        .into_iter()
        .map(|(name, value)| {
            let value = serde_json::from_value(value).map_err(|_| {
                Error::Invalid(format!(
                    "the header {name} is neither a text nor {{ secret: NAME }}"
                ))
            })?;
            let value = match value {
                SaidHeader::Plain(value) => HeaderValue::Plain(value),
                SaidHeader::Secret { secret } => HeaderValue::Secret(secret),
            };
            Ok(Header { name, value })
        })
        .collect();
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "what is too small or too large ends at a bound"
    )]
    let wanted = HttpRequest {
        method: fetch.method.unwrap_or_else(|| "GET".into()),
        url: fetch
            .url
            .ok_or_else(|| Error::Invalid("the URL is missing".into()))?,
        headers: headers?,
        timeout: fetch.timeout.map(|ms| ms.ceil() as u64),
    };
    let response = match body {
        None => wire::send(wanted, None).await?,
        Some(bytes) => stream::feed(bytes, |data| wire::send(wanted, Some(data))).await?,
    };
    let mut names = serde_json::Map::new();
    for (name, value) in response.headers {
        let name = name.to_ascii_lowercase();
        let joined = match names.get(&name).and_then(Value::as_str) {
            Some(before) => format!("{before}, {value}"),
            None => value,
        };
        names.insert(name, joined.into());
    }
    let body = Handle::Body(Body(RefCell::new(Some((response.body, response.done)))));
    Ok(json!({
        "status": response.status, "headers": names, "url": response.url, "handle": scope.handles.add(body),
    }))
}
