//! `vers:system` on a tape.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use wasmtime::component::{Access, Accessor, FutureReader, Resource, StreamReader};

use super::{
    Asked, Taped, TapedGuest, all_asked, arguments, asked, compare, look, plain, replayed_bytes,
    replayed_items, streamed, tell,
};
use crate::bindings::vers::harness::types::Error;
use crate::bindings::vers::system::files::{
    self, CopyOptions, CopyProgress, CopySummary, Location, Metadata, Range, WriteOptions,
};
use crate::bindings::vers::system::process::{self, Command, Exit, Signal, Stopped};
use crate::bindings::vers::system::store;
use crate::bindings::web::vers::system::http::{self, HeaderValue, Request, Response};
use crate::capability::process::Child;
use crate::guest::{Guest, Has};
use crate::tape::voice::{read, value};

impl store::Host for TapedGuest<'_> {}

impl store::HostWithStore<Guest> for Taped {
    all_asked! { store:
        async fn get(key: String) -> Result<Option<String>, Error>;
        async fn set(key: String, value: String) -> Result<(), Error>;
        async fn delete(key: String) -> Result<(), Error>;
        async fn keys(prefix: String) -> Result<Vec<String>, Error>;
        async fn swap(key: String, old: Option<String>, new: Option<String>) -> Result<bool, Error>;
    }
}

impl files::Host for TapedGuest<'_> {}

impl files::HostWithStore<Guest> for Taped {
    all_asked! { files:
        async fn stat(at: Location) -> Result<Metadata, Error>;
        async fn list(at: Location) -> Result<Vec<Metadata>, Error>;
        async fn remove(at: Location) -> Result<(), Error>;
    }

    fn read(
        access: Access<'_, Guest, Taped>,
        at: Location,
        range: Option<Range>,
    ) -> wasmtime::Result<(StreamReader<u8>, FutureReader<Result<(), Error>>)> {
        let with = arguments!(at, range);
        let real = |access: Access<'_, Guest, Has>| {
            <Has as files::HostWithStore<Guest>>::read(access, at, range)
        };
        streamed(access, "files.read", with, real, replayed_bytes)
    }

    async fn write(
        accessor: &Accessor<Guest, Taped>,
        at: Location,
        data: StreamReader<u8>,
        options: WriteOptions,
    ) -> wasmtime::Result<Result<u64, Error>> {
        let asked = Asked::of(accessor, "files.write", arguments!(at, options))?;
        if let Some(tap) = asked.replayed() {
            compare(accessor, tap, Some(data))?;
            return asked.replay().await;
        }
        let real = accessor.with_getter::<Has>(super::guest);
        asked
            .answer(<Has as files::HostWithStore<Guest>>::write(
                &real, at, data, options,
            ))
            .await
    }

    fn copy(
        access: Access<'_, Guest, Taped>,
        source: Location,
        target: Location,
        options: CopyOptions,
    ) -> wasmtime::Result<(
        StreamReader<CopyProgress>,
        FutureReader<Result<CopySummary, Error>>,
    )> {
        let with = arguments!(source, target, options);
        let real = |access: Access<'_, Guest, Has>| {
            <Has as files::HostWithStore<Guest>>::copy(access, source, target, options)
        };
        streamed(access, "files.copy", with, real, replayed_items)
    }
}

impl process::Host for TapedGuest<'_> {}

/// The number of a process: that of the ask that started it.
fn number(guest: &Guest, child: &Resource<Child>) -> wasmtime::Result<u64> {
    Ok(guest.table.get(child)?.number())
}

impl process::HostChild for TapedGuest<'_> {
    fn id(&mut self, child: Resource<Child>) -> wasmtime::Result<Option<u32>> {
        let process = number(self.0, &child)?;
        look(self.0, "process.child.id", arguments!(process), |guest| {
            process::HostChild::id(guest, child)
        })
    }

    fn detach(&mut self, child: Resource<Child>) -> wasmtime::Result<()> {
        let process = number(self.0, &child)?;
        tell(self.0, None, "process.child.detach", arguments!(process))?;
        process::HostChild::detach(self.0, child)
    }

    fn drop(&mut self, child: Resource<Child>) -> wasmtime::Result<()> {
        process::HostChild::drop(self.0, child)
    }
}

/// An output of a process.
fn output(
    mut access: Access<'_, Guest, Taped>,
    child: Resource<Child>,
    function: &str,
    real: impl FnOnce(
        Access<'_, Guest, Has>,
        Resource<Child>,
    ) -> wasmtime::Result<Result<StreamReader<u8>, Error>>,
) -> wasmtime::Result<Result<StreamReader<u8>, Error>> {
    let Some(voice) = access.data_mut().voice.clone() else {
        return real(plain(&mut access), child);
    };
    let call = super::call(&mut access);
    let process = number(access.data_mut(), &child)?;
    let with: Value = arguments!(process).into();
    if voice.replays() {
        let (n, answer) = voice.ask(call, function, with, None)?;
        return match read(answer.unwrap_or_default())? {
            Ok(()) => {
                let tap = crate::tape::Tap::new(voice, n);
                replayed_bytes(plain(&mut access), tap).map(Ok)
            }
            Err::<(), Error>(why) => Ok(Err(why)),
        };
    }
    // Whether it is there still is known before it is taken.
    let known = access
        .data_mut()
        .table
        .get(&child)?
        .has_output(function.ends_with("stdout"));
    let answer: Result<(), Error> = known;
    let (n, _) = voice.ask(call, function, with, Some(value(&answer)?))?;
    voice.set_asking(Some(n));
    let made = real(plain(&mut access), child);
    voice.set_asking(None);
    made
}

impl process::HostChildWithStore<Guest> for Taped {
    fn stdout(
        access: Access<'_, Guest, Taped>,
        child: Resource<Child>,
    ) -> wasmtime::Result<Result<StreamReader<u8>, Error>> {
        output(
            access,
            child,
            "process.child.stdout",
            <Has as process::HostChildWithStore<Guest>>::stdout,
        )
    }

    fn stderr(
        access: Access<'_, Guest, Taped>,
        child: Resource<Child>,
    ) -> wasmtime::Result<Result<StreamReader<u8>, Error>> {
        output(
            access,
            child,
            "process.child.stderr",
            <Has as process::HostChildWithStore<Guest>>::stderr,
        )
    }

    async fn wait(
        accessor: &Accessor<Guest, Taped>,
        child: Resource<Child>,
    ) -> wasmtime::Result<Result<Exit, Error>> {
        let process = accessor.with(|mut access| number(access.data_mut(), &child))?;
        let asked = Asked::of(accessor, "process.child.wait", arguments!(process))?;
        let real = accessor.with_getter::<Has>(super::guest);
        asked
            .answer(<Has as process::HostChildWithStore<Guest>>::wait(
                &real, child,
            ))
            .await
    }

    async fn stop(
        accessor: &Accessor<Guest, Taped>,
        child: Resource<Child>,
        grace: Option<u64>,
    ) -> wasmtime::Result<Result<Stopped, Error>> {
        let process = accessor.with(|mut access| number(access.data_mut(), &child))?;
        let asked = Asked::of(accessor, "process.child.stop", arguments!(process, grace))?;
        let real = accessor.with_getter::<Has>(super::guest);
        asked
            .answer(<Has as process::HostChildWithStore<Guest>>::stop(
                &real, child, grace,
            ))
            .await
    }

    async fn signal(
        accessor: &Accessor<Guest, Taped>,
        child: Resource<Child>,
        signal: Signal,
    ) -> wasmtime::Result<Result<(), Error>> {
        let process = accessor.with(|mut access| number(access.data_mut(), &child))?;
        let asked = Asked::of(
            accessor,
            "process.child.signal",
            arguments!(process, signal),
        )?;
        let real = accessor.with_getter::<Has>(super::guest);
        asked
            .answer(<Has as process::HostChildWithStore<Guest>>::signal(
                &real, child, signal,
            ))
            .await
    }
}

/// A process that was started: it is known by the number of its ask from now on.
pub(super) async fn spawned(
    accessor: &Accessor<Guest, Taped>,
    asked: &Asked,
    spawn: impl Future<Output = wasmtime::Result<Result<Resource<Child>, Error>>> + Send,
) -> wasmtime::Result<Result<Resource<Child>, Error>> {
    let spawned = asked.real(spawn).await?;
    if let Ok(child) = &spawned {
        accessor.with(|mut access| -> wasmtime::Result<()> {
            let child = access.data_mut().table.get_mut(child)?;
            child.set_number(asked.n);
            Ok(())
        })?;
    }
    asked.taped(&spawned.as_ref().map(|_| ())).await?;
    Ok(spawned)
}

/// A process of the tape.
pub(super) async fn adopted(
    accessor: &Accessor<Guest, Taped>,
    asked: &Asked,
) -> wasmtime::Result<Result<Resource<Child>, Error>> {
    match asked.replay::<Result<(), Error>>().await? {
        Ok(()) => accessor.with(|mut access| {
            let child = Child::replayed(asked.n);
            Ok(Ok(access.data_mut().table.push(child)?))
        }),
        Err(why) => Ok(Err(why)),
    }
}

impl process::HostWithStore<Guest> for Taped {
    async fn spawn(
        accessor: &Accessor<Guest, Taped>,
        command: Command,
        stdin: Option<StreamReader<u8>>,
    ) -> wasmtime::Result<Result<Resource<Child>, Error>> {
        let input = stdin.is_some();
        let asked = Asked::of(accessor, "process.spawn", arguments!(command, input))?;
        if let Some(tap) = asked.replayed() {
            compare(accessor, tap, stdin)?;
            return adopted(accessor, &asked).await;
        }
        let real = accessor.with_getter::<Has>(super::guest);
        let spawn = <Has as process::HostWithStore<Guest>>::spawn(&real, command, stdin);
        spawned(accessor, &asked, Box::pin(spawn)).await
    }
}

impl http::Host for TapedGuest<'_> {}

/// What an answer says before its body.
#[derive(Serialize, Deserialize)]
struct Head {
    status: u16,
    headers: Vec<(String, String)>,
    url: String,
}

fn written(request: &Request, body: bool) -> serde_json::Map<String, Value> {
    let headers: Vec<Value> = request
        .headers
        .iter()
        .map(|header| match &header.value {
            HeaderValue::Plain(value) => json!({ "name": header.name, "value": value }),
            HeaderValue::Secret(name) => json!({ "name": header.name, "secret": name }),
        })
        .collect();
    let (method, url, timeout) = (&request.method, &request.url, request.timeout);
    let whole = json!({ "method": method, "url": url, "headers": headers, "timeout": timeout, "body": body });
    match whole {
        Value::Object(whole) => whole,
        _ => serde_json::Map::new(),
    }
}

impl http::HostWithStore<Guest> for Taped {
    async fn send(
        accessor: &Accessor<Guest, Taped>,
        request: Request,
        body: Option<StreamReader<u8>>,
    ) -> wasmtime::Result<Result<Response, Error>> {
        let asked = Asked::of(accessor, "http.send", written(&request, body.is_some()))?;
        if let Some(tap) = asked.replayed() {
            compare(accessor, tap.clone(), body)?;
            let head = match asked.replay::<Result<Head, Error>>().await? {
                Ok(head) => head,
                Err(why) => return Ok(Err(why)),
            };
            return accessor.with(|mut access| {
                let body = replayed_bytes(plain(&mut access), tap.clone())?;
                let done = FutureReader::new(&mut access, tap.replayed_done())?;
                Ok(Ok(Response {
                    status: head.status,
                    headers: head.headers,
                    url: head.url,
                    body,
                    done,
                }))
            });
        }
        let real = accessor.with_getter::<Has>(super::guest);
        let send = <Has as http::HostWithStore<Guest>>::send(&real, request, body);
        let answer = asked.real(send).await?;
        let head = answer.as_ref().map(|response| Head {
            status: response.status,
            headers: response.headers.clone(),
            url: response.url.clone(),
        });
        asked.taped(&head).await?;
        Ok(answer)
    }
}
