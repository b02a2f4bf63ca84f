//! OpenSSH's own programs, called as the original calls them: `ssh` with `openssl s_client` for its proxy.
//!
//! Host keys and certificates are not checked there either. The one change: the proxy connects to the VM's address
//! instead of its name, which nothing resolves here.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::Mutex;

use crate::Outcome;
use crate::lab::Places;

/// How `ssh` gets to the VM.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    options: Vec<String>,
    destination: String,
}

impl Route {
    /// A connection for each command.
    pub(crate) fn new(places: &Places, edge: SocketAddr) -> Self {
        let options = [
            "StrictHostKeyChecking=no".into(),
            "UserKnownHostsFile=/dev/null".into(),
            "LogLevel=ERROR".into(),
            "ConnectTimeout=30".into(),
            format!(
                "ProxyCommand=openssl s_client -connect {edge} -servername %h -quiet 2>/dev/null"
            ),
        ];
        let key = ["-i".to_owned(), places.key().display().to_string()];
        let options = options.map(|option| ["-o".to_owned(), option]).into_iter();
        Self {
            options: key.into_iter().chain(options.flatten()).collect(),
            destination: format!("root@{}", places.host()),
        }
    }

    /// Over a master's connection.
    fn through(&self, socket: &std::path::Path, master: &str) -> Self {
        let mut options = vec!["-o".into(), format!("ControlMaster={master}")];
        options.extend(self.options.iter().cloned());
        options.extend(["-o".into(), format!("ControlPath={}", socket.display())]);
        Self {
            options,
            destination: self.destination.clone(),
        }
    }

    /// The arguments of `ssh` for a command.
    pub(crate) fn arguments(&self, command: &str) -> Vec<String> {
        let mut arguments = self.options.clone();
        arguments.extend([self.destination.clone(), command.to_owned()]);
        arguments
    }

    /// `ssh` with a command.
    pub(crate) fn ssh(&self, command: &str) -> Command {
        program("ssh", self.arguments(command))
    }

    /// `scp`, recursively.
    pub(crate) fn scp(&self, from: &End, to: &End) -> Command {
        let mut arguments = vec!["-q".to_owned(), "-r".to_owned()];
        arguments.extend(self.options.iter().cloned());
        arguments.extend([from, to].map(|end| self.named(end)));
        program("scp", arguments)
    }

    /// `rsync -a` of what is in a directory.
    pub(crate) fn rsync(&self, from: &End, to: &End) -> Command {
        // rsync takes the remote shell apart at spaces; only the proxy's option has any, and quotes are kept together.
        let shell = self.options.iter().fold("ssh".to_owned(), |text, option| {
            if option.contains(' ') {
                format!("{text} '{option}'")
            } else {
                format!("{text} {option}")
            }
        });
        let ends = [from, to].map(|end| format!("{}/", self.named(end)));
        program(
            "rsync",
            ["-a".to_owned(), "-e".to_owned(), shell]
                .into_iter()
                .chain(ends),
        )
    }

    fn named(&self, end: &End) -> String {
        match end {
            End::Here(path) => path.display().to_string(),
            End::There(path) => format!("{}:{}", self.destination, path.display()),
        }
    }
}

/// One end of a copy. Without characters that a shell would see.
#[derive(Debug, Clone)]
pub(crate) enum End {
    Here(PathBuf),
    There(PathBuf),
}

fn program(name: &str, arguments: impl IntoIterator<Item = String>) -> Command {
    let mut command = Command::new(name);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Runs it to its end.
pub(crate) async fn run(mut command: Command) -> Outcome<Duration> {
    let begun = Instant::now();
    let output = command.output().await?;
    let took = begun.elapsed();
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{}: {}", output.status, said.trim()).into());
    }
    Ok(took)
}

/// Runs it and counts what it writes.
pub(crate) async fn drain(mut command: Command, bytes: u64) -> Outcome<Duration> {
    let begun = Instant::now();
    let mut child = command.stderr(Stdio::null()).spawn()?;
    let mut output = child.stdout.take().ok_or("no pipe")?;
    let mut buffer = vec![0; 64 << 10];
    let mut seen = 0;
    loop {
        match output.read(&mut buffer).await? {
            0 => break,
            count => seen += count as u64,
        }
    }
    let status = child.wait().await?;
    let took = begun.elapsed();
    if !status.success() || seen != bytes {
        return Err(format!("{status} after {seen} of {bytes} bytes").into());
    }
    Ok(took)
}

/// Runs it and feeds it.
pub(crate) async fn feed(mut command: Command, chunk: &[u8], bytes: u64) -> Outcome<Duration> {
    let begun = Instant::now();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let mut input = child.stdin.take().ok_or("no pipe")?;
    let mut left = bytes;
    while left > 0 {
        let part = chunk.get(..usize::try_from(left)?).unwrap_or(chunk);
        input.write_all(part).await?;
        left -= part.len() as u64;
    }
    drop(input);
    let status = child.wait().await?;
    let took = begun.elapsed();
    if !status.success() {
        return Err(format!("{status}").into());
    }
    Ok(took)
}

/// One program's output into another: `tar` here and `ssh tar` there.
pub(crate) async fn pipe(mut from: Command, mut to: Command) -> Outcome<Duration> {
    let begun = Instant::now();
    let mut source = from.stderr(Stdio::null()).spawn()?;
    let output: Stdio = source.stdout.take().ok_or("no pipe")?.try_into()?;
    let mut sink = to
        .stdin(output)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let (source, sink) = (source.wait().await?, sink.wait().await?);
    let took = begun.elapsed();
    if !(source.success() && sink.success()) {
        return Err(format!("{source}, {sink}").into());
    }
    Ok(took)
}

/// A connection that `ssh` keeps for others (`ControlMaster`), opened before anything is measured. Closed with the value.
#[derive(Debug)]
pub(crate) struct Master {
    /// Over it.
    pub(crate) route: Route,
}

impl Master {
    /// Opens it, with its socket in `directory`.
    pub(crate) async fn open(
        route: &Route,
        directory: &std::path::Path,
        name: &str,
    ) -> Outcome<Self> {
        let socket = directory.join(name);
        let opening = route.through(&socket, "yes");
        let mut master = Command::new("ssh");
        master
            .args(["-N", "-o", "ControlPersist=yes"])
            .args(&opening.options)
            .arg(&opening.destination)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if !master.status().await?.success() {
            return Err("ssh does not open a master".into());
        }
        // It has gone into the background, which it does when it has logged in.
        Ok(Self {
            route: route.through(&socket, "no"),
        })
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        let _ = std::process::Command::new("ssh")
            .args(["-O", "exit"])
            .args(&self.route.options)
            .arg(&self.route.destination)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}

/// A node that runs `execFile("ssh", …)` as the original does, and says how long it took. Ends with the value.
#[derive(Debug)]
pub(crate) struct Node {
    _process: Child,
    talk: Mutex<(ChildStdin, Lines<BufReader<ChildStdout>>)>,
}

/// The original's call, and nothing else. `at once` runs them side by side.
const SCRIPT: &str = r#"
const { execFile } = require("node:child_process");
const now = () => Number(process.hrtime.bigint()) / 1e9;
const one = (args) => new Promise((done) => {
  execFile("ssh", args, { maxBuffer: 10 << 20, timeout: 300000 }, (why, out, err) => done(why ? String(err || why).trim() : null));
});
require("node:readline").createInterface({ input: process.stdin }).on("line", async (line) => {
  const { args, times } = JSON.parse(line);
  const begun = now();
  const failed = (await Promise.all(Array.from({ length: times }, () => one(args)))).filter(Boolean);
  process.stdout.write(JSON.stringify({ seconds: now() - begun, failed }) + "\n");
});
"#;

impl Node {
    /// Starts it.
    pub(crate) fn start() -> Outcome<Self> {
        let mut process = Command::new("node")
            .args(["-e", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let (Some(input), Some(output)) = (process.stdin.take(), process.stdout.take()) else {
            return Err("node has no pipes".into());
        };
        Ok(Self {
            _process: process,
            talk: Mutex::new((input, BufReader::new(output).lines())),
        })
    }

    /// Runs a command so many times at once: how long that took, by its own clock, and what the failed ones said.
    pub(crate) async fn run(
        &self,
        route: &Route,
        command: &str,
        times: usize,
    ) -> Outcome<(Duration, Vec<String>)> {
        let mut talk = self.talk.lock().await;
        let order = json!({ "args": route.arguments(command), "times": times });
        talk.0.write_all(format!("{order}\n").as_bytes()).await?;
        let line = talk.1.next_line().await?.ok_or("node has ended")?;
        let answer: Value = serde_json::from_str(&line)?;
        let seconds = answer.get("seconds").and_then(Value::as_f64);
        let failed = answer.get("failed").and_then(Value::as_array);
        let failed = failed.into_iter().flatten();
        Ok((
            Duration::from_secs_f64(seconds.ok_or("node says no time")?),
            failed
                .map(|why| why.as_str().unwrap_or_default().to_owned())
                .collect(),
        ))
    }
}

/// What `ssh` and the server agree on.
pub(crate) async fn agreed(route: &Route) -> Outcome<String> {
    let mut command = Command::new("ssh");
    command
        .args(["-v", "-o", "LogLevel=DEBUG1"])
        .args(route.arguments("true"));
    let said = command.stdin(Stdio::null()).output().await?.stderr;
    let said = String::from_utf8_lossy(&said);
    let after = |mark: &str| {
        let found = said.lines().find_map(|line| Some(line.split_once(mark)?.1));
        found
            .and_then(|rest| rest.split(' ').next())
            .unwrap_or("unknown")
            .to_owned()
    };
    Ok(format!(
        "{}, {}",
        after("kex: algorithm: "),
        after("server->client cipher: ")
    ))
}
