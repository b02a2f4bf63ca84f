//! Runs the built binary in a home of its own.

#![allow(dead_code, reason = "each test file uses its part")]

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_pi-vers");

/// A home directory that nobody else knows, and settings that lead nowhere.
pub(crate) struct Home {
    pub(crate) root: tempfile::TempDir,
    pub(crate) variables: Vec<(String, String)>,
}

/// What a run left.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// The only line on standard error.
    pub(crate) fn line(&self) -> &str {
        assert_eq!(self.err.lines().count(), 1, "one line: {self:?}");
        self.err.trim_end()
    }

    /// Standard output as JSON, line by line.
    pub(crate) fn json(&self) -> Vec<serde_json::Value> {
        self.out
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {self:?}")))
            .collect()
    }
}

impl Home {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("work")).unwrap();
        // Port 9 of a loopback address: nothing of ours, and no way out.
        let variables = [
            ("VERS_BASE_URL", "http://127.0.0.1:9"),
            ("VERS_API_KEY", "key-for-tests"),
        ];
        Self {
            root,
            variables: variables
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
        }
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    pub(crate) fn command<S: AsRef<std::ffi::OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Command {
        let mut command = Command::new(BINARY);
        command
            .args(arguments)
            .env_clear()
            .current_dir(self.path("work"));
        command
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.root.path());
        // Compiled code is shared by all runs of all tests: it is kept by digest.
        command.env(
            "XDG_CACHE_HOME",
            Path::new(BINARY).with_file_name("pi-vers-test-cache"),
        );
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(crate) fn run<S: AsRef<std::ffi::OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Ran {
        finish(self.command(arguments).spawn().unwrap())
    }

    pub(crate) fn run_with_input(&self, arguments: &[&str], input: &str) -> Ran {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).unwrap();
        drop(stdin);
        finish(child)
    }
}

/// Waits for the end of a run.
pub(crate) fn finish(child: Child) -> Ran {
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran {
        code: output.status.code().unwrap_or(-1),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

/// Tells each line of a server's standard output, which carries nothing but messages, for as long as somebody listens.
pub(crate) fn each_message(
    output: impl Read + Send + 'static,
    mut tell: impl FnMut(serde_json::Value) -> bool + Send + 'static,
) {
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines() {
            let Ok(line) = line else { return };
            let message = serde_json::from_str(&line);
            if !tell(message.unwrap_or_else(|why| panic!("no JSON ({why}): {line}"))) {
                return;
            }
        }
    });
}

/// Ctrl-C.
pub(crate) fn interrupt(child: &Child) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
}

/// A platform that gives every request this answer, or none at all; its base URL.
pub(crate) fn platform(answer: Option<&'static str>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            if let Some(answer) = answer {
                let mut request = [0; 65536];
                let _ = stream.read(&mut request);
                let _ = stream.write_all(answer.as_bytes());
            }
            open.push(stream);
            if answer.is_some() {
                open.clear();
            }
        }
    });
    url
}
