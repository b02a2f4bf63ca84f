//! Programs, on VMs and on this machine, and what they print.

use std::cell::RefCell;

use pi_vers_sdk::Error;
use pi_vers_sdk::platform::shell::{self, Followed, Position};
use pi_vers_sdk::stream;
use pi_vers_sdk::system::process::{
    self, Child, Command, EnvValue, EnvVar, Exit, OutputMode, Program, Signal,
};
use pi_vers_sdk::text::Decoder;
use pi_vers_sdk::wit_bindgen::{FutureReader, StreamReader, StreamResult};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Handle, Outcome, Request, unknown};
use crate::scope::Scope;

/// The lines of a file that grows.
pub(crate) struct Follow {
    lines: RefCell<Option<StreamReader<Followed>>>,
    end: RefCell<Option<FutureReader<Result<(), Error>>>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum SaidProgram {
    Shell(String),
    Argv(Vec<String>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum SaidEnv {
    Plain(String),
    Secret { secret: String },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Start {
    vm: Option<String>,
    command: SaidProgram,
    #[serde(default)]
    env: indexed::Map<SaidEnv>,
    cwd: Option<String>,
    timeout: Option<f64>,
    #[serde(default)]
    merged: bool,
    #[serde(default)]
    stdin: bool,
}

/// Names with their values, in their order.
mod indexed {
    use serde::de::{Deserialize, Deserializer, Error};

    pub(super) struct Map<T>(pub(super) Vec<(String, T)>);

    impl<T> Default for Map<T> {
        fn default() -> Self {
            Self(Vec::new())
        }
    }

    impl<'de, T: serde::de::DeserializeOwned> Deserialize<'de> for Map<T> {
        fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            let all = serde_json::Map::deserialize(from)?;
            let all = all.into_iter().map(|(name, value)| {
                let value = serde_json::from_value(value);
                value
                    .map(|value| (name, value))
                    .map_err(|why| D::Error::custom(why.to_string()))
            });
            all.collect::<Result<_, _>>().map(Self)
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Of {
    handle: u32,
    signal: Option<String>,
    grace: Option<f64>,
    #[serde(default)]
    bytes: bool,
}

#[derive(Deserialize)]
struct At {
    vm: String,
    patience: Option<f64>,
    path: Option<String>,
    offset: Option<u64>,
}

pub(super) async fn run(scope: &Scope, mut request: Request) -> Outcome {
    match request.operation.as_str() {
        "shell.spawn" | "process.spawn" => spawn(scope, &mut request).await,
        "shell.connect" => {
            let at: At = request.read()?;
            shell::connect(at.vm, at.patience.map_or(60_000, millis)).await?;
            Ok(Value::Null)
        }
        "shell.disconnect" => {
            let at: At = request.read()?;
            shell::disconnect(at.vm).await?;
            Ok(Value::Null)
        }
        "follow.open" => follow(scope, &request),
        "follow.next" => next_line(scope, &request).await,
        _ => of_child(scope, &request).await,
    }
}

pub(super) fn now(scope: &Scope, request: &Request) -> Outcome {
    let of: Of = request.read()?;
    match request.operation.as_str() {
        "child.detach" => {
            if let Handle::Child(child) = &*scope.handles.get(of.handle)? {
                child.detach();
            }
        }
        "child.close" | "stream.close" | "follow.close" => scope.handles.remove(of.handle),
        _ => return Err(unknown(request)),
    }
    Ok(Value::Null)
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "what is too small or too large ends at a bound"
)]
fn millis(ms: f64) -> u64 {
    ms.ceil() as u64
}

async fn spawn(scope: &Scope, request: &mut Request) -> Outcome {
    let start: Start = request.read()?;
    let command = Command {
        program: match start.command {
            SaidProgram::Shell(text) => Program::Shell(text),
            SaidProgram::Argv(words) => Program::Argv(words),
        },
        env: start
            .env
            .0
            .into_iter()
            .map(|(name, value)| EnvVar {
                name,
                value: match value {
                    SaidEnv::Plain(value) => EnvValue::Plain(value),
                    SaidEnv::Secret { secret } => EnvValue::Secret(secret),
                },
            })
            .collect(),
        working_directory: start.cwd,
        timeout: start.timeout.map(millis),
        output: if start.merged {
            OutputMode::Merged
        } else {
            OutputMode::Separate
        },
    };
    let input = start
        .stdin
        .then(|| request.bytes.take().unwrap_or_default());
    let child = match (start.vm, input) {
        (Some(vm), None) => shell::spawn(vm, command, None).await?,
        (None, None) => process::spawn(command, None).await?,
        (vm, Some(bytes)) => {
            let (mut writer, reader) = stream::pipe();
            // What the program does not read, it does not want.
            pi_vers_sdk::wit_bindgen::spawn_local(async move {
                let _rest = writer.write_all(bytes).await;
            });
            match vm {
                Some(vm) => shell::spawn(vm, command, Some(reader)).await?,
                None => process::spawn(command, Some(reader)).await?,
            }
        }
    };
    let readable = |stream| Handle::Bytes(RefCell::new(Some((stream, Decoder::new()))));
    let stdout = scope.handles.add(readable(child.stdout()?));
    let stderr = match start.merged {
        true => None,
        false => Some(scope.handles.add(readable(child.stderr()?))),
    };
    let id = child.id();
    let child = scope.handles.add(Handle::Child(child));
    Ok(json!({ "child": child, "stdout": stdout, "stderr": stderr, "id": id }))
}

async fn of_child(scope: &Scope, request: &Request) -> Outcome {
    let of: Of = request.read()?;
    let handle = scope.handles.get(of.handle)?;
    let Handle::Child(child) = &*handle else {
        return Err(Error::Invalid("this is no process".into()));
    };
    match request.operation.as_str() {
        "child.wait" => wait(child).await,
        "child.signal" => {
            let signal = signal(of.signal.as_deref().unwrap_or("terminate"))?;
            child.signal(signal).await?;
            Ok(Value::Null)
        }
        "child.stop" => {
            let stopped = child.stop(of.grace.map(millis)).await?;
            Ok(json!({ "escaped": stopped.escaped, "left": stopped.left }))
        }
        _ => Err(unknown(request)),
    }
}

async fn wait(child: &Child) -> Outcome {
    Ok(match child.wait().await? {
        Exit::Code(code) => json!({ "code": code, "signal": null }),
        Exit::Signal(name) => json!({ "code": null, "signal": name }),
    })
}

fn signal(name: &str) -> Result<Signal, Error> {
    Ok(match name {
        "interrupt" => Signal::Interrupt,
        "terminate" => Signal::Terminate,
        "kill" => Signal::Kill,
        "hang-up" => Signal::HangUp,
        "user1" => Signal::User1,
        "user2" => Signal::User2,
        "stop" => Signal::Stop,
        "continue" => Signal::Continue,
        _ => return Err(Error::Invalid(format!("there is no signal {name}"))),
    })
}

/// The next of a stream: text, whole characters at a time, or bytes; `null` at its end.
pub(super) async fn read(scope: &Scope, request: &Request) -> Answer {
    match next(scope, request).await {
        Ok(answer) => answer,
        Err(why) => Answer::refused(why),
    }
}

async fn next(scope: &Scope, request: &Request) -> Result<Answer, Error> {
    let of: Of = request.read()?;
    let handle = scope.handles.get(of.handle)?;
    let taken = match &*handle {
        Handle::Bytes(slot) => slot.borrow_mut().take(),
        _ => None,
    };
    let Some((mut reader, mut decoder)) = taken else {
        return Err(Error::Conflict("it is being read already".into()));
    };
    let ended = || Answer::Json(json!({ "ok": null }));
    let mut count = 0;
    let answer = loop {
        let Some(bytes) = stream::next(&mut reader, Vec::new()).await else {
            let mut rest = String::new();
            decoder.finish(&mut rest);
            scope.handles.remove(of.handle);
            return Ok(if rest.is_empty() || of.bytes {
                ended()
            } else {
                Answer::Text(rest, count)
            });
        };
        if of.bytes {
            break Answer::Bytes(bytes);
        }
        count += bytes.len();
        let mut text = String::new();
        decoder.push(&bytes, &mut text);
        if !text.is_empty() {
            break Answer::Text(text, count);
        }
    };
    if let Handle::Bytes(slot) = &*handle {
        *slot.borrow_mut() = Some((reader, decoder));
    }
    Ok(answer)
}

fn follow(scope: &Scope, request: &Request) -> Outcome {
    let at: At = request.read()?;
    let path = at
        .path
        .ok_or_else(|| Error::Invalid("which file is to be followed?".into()))?;
    let start = at.offset.map_or(Position::End, Position::Offset);
    let (lines, end) = shell::follow(&at.vm, &path, start);
    let follow = Follow {
        lines: RefCell::new(Some(lines)),
        end: RefCell::new(Some(end)),
    };
    Ok(scope.handles.add(Handle::Lines(follow)).into())
}

async fn next_line(scope: &Scope, request: &Request) -> Outcome {
    let of: Of = request.read()?;
    let handle = scope.handles.get(of.handle)?;
    let Handle::Lines(follow) = &*handle else {
        return Err(Error::Invalid("this is no file that is followed".into()));
    };
    let Some(mut lines) = follow.lines.borrow_mut().take() else {
        return Err(Error::Conflict("it is being read already".into()));
    };
    let mut buffer = Vec::with_capacity(1);
    loop {
        let (result, mut got) = lines.read(buffer).await;
        match (result, got.pop()) {
            (StreamResult::Complete(_), Some(one)) => {
                *follow.lines.borrow_mut() = Some(lines);
                return Ok(match one {
                    Followed::Line(line) => {
                        json!({ "text": line.text, "offset": line.offset, "next": line.next, "leftOut": line.left_out })
                    }
                    Followed::Replaced => json!({ "replaced": true }),
                    Followed::Truncated => json!({ "truncated": true }),
                });
            }
            (StreamResult::Complete(_), None) => buffer = got,
            (StreamResult::Dropped | StreamResult::Cancelled, _) => break,
        }
    }
    scope.handles.remove(of.handle);
    let end = follow.end.borrow_mut().take();
    if let Some(end) = end {
        end.await?;
    }
    Ok(Value::Null)
}
