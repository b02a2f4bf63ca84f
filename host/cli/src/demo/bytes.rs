//! The demo's steps with files by the thousand and with a server in the background.

use std::net::{Ipv4Addr, TcpListener};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use uuid::Uuid;

use super::board::{Told, shown};
use super::plan::{LIMIT, SERVER};
use super::stage::{Stage, wrong};
use super::tree;
use crate::failure::Failure;
use crate::progress;

const FILES: usize = 2_000;
/// So long a line of a server may take to be seen.
const LINE: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_millis(20);

impl Stage<'_> {
    pub(super) async fn copy(&mut self) -> Result<Told, Failure> {
        let (there, back) = (self.ground.work.join("tree"), self.ground.work.join("back"));
        let bytes = blocking({
            let there = there.clone();
            move || tree::make(&there, FILES)
        })
        .await?;
        let remote = format!("vm:{}:{}/pi-vers-demo/tree", self.vm, self.home);
        let mut told = Vec::new();
        for (word, from, to) in [
            ("there", there.display().to_string(), remote.clone()),
            ("back", remote.clone(), back.display().to_string()),
        ] {
            let terminal = self.terminal.clone();
            let begun = Instant::now();
            self.watched(
                "vers_vm_copy",
                json!({ "src": from, "dst": to }),
                |update| {
                    progress::show(&terminal, update);
                },
            )
            .await?;
            told.push(format!("{word} in {}", shown(begun.elapsed())));
        }
        let differ = blocking(move || tree::differences(&there, &back)).await?;
        if !differ.is_empty() {
            return Err(wrong(format!(
                "it came back different: {}",
                differ.join("; ")
            )));
        }
        Ok(vec![
            format!("{FILES} files, {} KiB: {}", bytes >> 10, told.join(", ")),
            "content, modes, times, links and empty directories are what they were".to_owned(),
        ])
    }

    pub(super) async fn serve(&mut self) -> Result<Told, Failure> {
        let port = free_port()?;
        let begun = Instant::now();
        let started = self
            .ask(
                "bg_start",
                json!({
                    "id": "demo-server",
                    "command": format!("PORT={port}\n{SERVER}"),
                    "on": "vm",
                    "waitFor": "ready to serve",
                    "waitMs": LIMIT.as_millis(),
                    "forwardPort": port,
                }),
            )
            .await?
            .text();
        let ready = begun.elapsed();
        let local = started
            .split_once("http://127.0.0.1:")
            .and_then(|(_, rest)| {
                let end = rest
                    .find(|c: char| !c.is_ascii_digit())
                    .unwrap_or(rest.len());
                rest.get(..end)?.parse::<u16>().ok()
            })
            .ok_or_else(|| {
                let said = started.lines().next().unwrap_or_default();
                let last = started.lines().next_back().unwrap_or_default();
                wrong(format!(
                    "bg_start names no port of this machine: {said}: {last}"
                ))
            })?;
        let answer = ask(local).await?;
        if answer != "you asked: GET /demo HTTP/1.0" {
            return Err(wrong(format!("the server answered {answer:?}")));
        }
        // The server answers before it writes its line, and the line has its way to go.
        let late = Instant::now() + LINE;
        let logs = loop {
            let logs = self.ask("bg_logs", json!({ "id": "demo-server" }));
            let logs = logs.await?.text();
            if logs.contains("asked: GET /demo HTTP/1.0") || Instant::now() > late {
                break logs;
            }
            tokio::time::sleep(AGAIN).await;
        };
        if !logs.contains("asked: GET /demo HTTP/1.0") {
            return Err(wrong(format!(
                "bg_logs does not show the request but: {logs}"
            )));
        }
        self.ask("bg_stop", json!({ "id": "demo-server" })).await?;
        if let Ok(answer) = ask(local).await {
            return Err(wrong(format!(
                "it was stopped, and still answers {answer:?}"
            )));
        }
        Ok(vec![
            format!(
                "ready after {}, port {port} of the VM is port {local} here",
                shown(ready)
            ),
            format!("it answers: \"{answer}\"; bg_logs shows the request; bg_stop: it is gone"),
        ])
    }
}

/// A port that nothing listens on now. The VMs of a local platform may share this machine's network, so it lies below
/// those that systems hand out by themselves: one of these could be taken before the server has it.
fn free_port() -> Result<u16, Failure> {
    const FIRST: u16 = 20_000;
    const PORTS: u16 = 10_000;
    let start = Uuid::new_v4().as_u128() % u128::from(PORTS);
    let start = u16::try_from(start).unwrap_or_default();
    (0..PORTS)
        .map(|step| FIRST + (start + step) % PORTS)
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .ok_or_else(|| Failure::internal("no port of this machine is free"))
}

/// One request; the first line of the answer.
async fn ask(port: u16) -> Result<String, Failure> {
    let exchange = async {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.write_all(b"GET /demo HTTP/1.0\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        match answer.lines().next() {
            Some(line) => Ok(line.to_owned()),
            None => Err(std::io::Error::other("it said nothing")),
        }
    };
    let what = |why: String| wrong(format!("127.0.0.1:{port} does not answer: {why}"));
    tokio::time::timeout(LIMIT, exchange)
        .await
        .map_err(|_| what("not in time".to_owned()))?
        .map_err(|why| what(why.to_string()))
}

/// Work with this machine's files, off the executor.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|why| Failure::internal(why.to_string()))?
        .map_err(|why| Failure::internal(format!("the demo's own files: {why}")))
}
