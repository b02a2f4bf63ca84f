//! A harness that outlives its host: when the host is killed it starts another one and goes on with the same session.

use std::collections::HashMap;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pi_vers_tests::{DEADLINE, Scratch};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{RwLock, mpsc, oneshot};

/// How a call ended.
#[derive(Debug, Clone)]
pub(crate) enum Ended {
    /// With a tool result that is none of an error.
    Well { text: String, details: Value },
    /// The tool, or the host, said no.
    Failed(String),
    /// The host was killed: nobody knows what came of it.
    Unknown,
}

type Pending = Arc<Mutex<HashMap<u64, oneshot::Sender<Value>>>>;

/// What the harness keeps with its session, whichever host it has.
#[derive(Default)]
struct Kept {
    entries: Mutex<Vec<Value>>,
    messages: Mutex<Vec<Value>>,
}

/// One host.
struct Host {
    child: Child,
    frames: mpsc::UnboundedSender<Value>,
    pending: Pending,
}

/// The harness.
pub(crate) struct Coordinator {
    command: Box<dyn Fn() -> std::process::Command + Send + Sync>,
    kept: Arc<Kept>,
    host: Mutex<Host>,
    /// Written while there is no host to speak with.
    greeted: RwLock<()>,
    next: AtomicU64,
    /// How often it started another one.
    pub(crate) restarts: AtomicU64,
    work: std::path::PathBuf,
}

impl Coordinator {
    /// With these variables for its hosts.
    pub(crate) async fn start(scratch: &Scratch, env: Vec<(String, String)>) -> Self {
        let (work, base) = (scratch.work(), scratch.command());
        let program = base.get_program().to_owned();
        let mut all: Vec<(std::ffi::OsString, std::ffi::OsString)> = base
            .get_envs()
            .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
            .collect();
        all.extend(
            env.into_iter()
                .map(|(name, value)| (name.into(), value.into())),
        );
        let directory = work.clone();
        let command = move || {
            let mut command = std::process::Command::new(&program);
            command
                .env_clear()
                .envs(all.iter().cloned())
                .current_dir(&directory)
                .arg("bridge");
            command
        };
        let kept = Arc::new(Kept::default());
        let host = Host::start(command(), kept.clone());
        let coordinator = Self {
            command: Box::new(command),
            kept,
            host: Mutex::new(host),
            greeted: RwLock::new(()),
            next: AtomicU64::new(1),
            restarts: AtomicU64::new(0),
            work,
        };
        coordinator.greet("startup").await;
        coordinator
    }

    async fn greet(&self, reason: &str) {
        self.send(json!({ "t": "hello", "v": 1, "cwd": self.work, "harness": { "kind": "test", "version": "0" }, "builtIns": ["bash"] }));
        self.send(json!({ "t": "context", "sessionId": "chaos", "cwd": self.work, "interactive": false, "idle": true, "activeTools": ["bash"], "allTools": ["bash"], "flags": {} }));
        let started = self.begin(json!({ "t": "start", "reason": reason }));
        let answer = self.answer(started).await;
        assert!(
            answer.is_some_and(|answer| answer["t"] == "result"),
            "it starts"
        );
    }

    fn send(&self, frame: Value) {
        // One that was killed hears nothing; whoever asked finds out.
        let _ = self.host.lock().unwrap().frames.send(frame);
    }

    /// The answer; none if the host was killed before it answered.
    async fn ask(&self, frame: Value) -> Option<Value> {
        let answered = {
            let _greeted = self.greeted.read().await;
            self.begin(frame)
        };
        self.answer(answered).await
    }

    fn begin(&self, mut frame: Value) -> oneshot::Receiver<Value> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        frame["id"] = id.into();
        let (answer, answered) = oneshot::channel();
        let host = self.host.lock().unwrap();
        host.pending.lock().unwrap().insert(id, answer);
        let _ = host.frames.send(frame);
        answered
    }

    async fn answer(&self, answered: oneshot::Receiver<Value>) -> Option<Value> {
        let answered = tokio::time::timeout(3 * DEADLINE, answered).await;
        answered.expect("the host answers").ok()
    }

    /// Calls a tool.
    pub(crate) async fn call(&self, tool: &str, arguments: Value) -> Ended {
        let call = format!("c{}", self.next.load(Ordering::Relaxed));
        let frame = json!({ "t": "call", "tool": tool, "callId": call, "arguments": arguments });
        let Some(answer) = self.ask(frame).await else {
            return Ended::Unknown;
        };
        let value = &answer["value"];
        match answer["t"].as_str() {
            Some("result") if value["isError"] == false => Ended::Well {
                text: pi_vers_tests::text(value),
                details: value["details"].clone(),
            },
            Some("result") => Ended::Failed(pi_vers_tests::text(value)),
            _ => Ended::Failed(answer["message"].as_str().unwrap_or_default().to_owned()),
        }
    }

    /// Calls a tool until it has answered well; for what has no effect of its own, or the same one twice.
    pub(crate) async fn insist(&self, tool: &str, arguments: Value) -> (String, Value) {
        let trying = async {
            loop {
                match self.call(tool, arguments.clone()).await {
                    Ended::Well { text, details } => return (text, details),
                    Ended::Failed(why) if why.is_empty() => unreachable!("a failure says why"),
                    Ended::Failed(_) | Ended::Unknown => {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        };
        let tried = tokio::time::timeout(4 * DEADLINE, trying).await;
        tried.unwrap_or_else(|_| panic!("{tool} {arguments} never succeeds"))
    }

    /// Kills the host, which hears nothing of it, and starts another one for the same session.
    pub(crate) async fn kill_host(&self) {
        let _nobody_speaks = self.greeted.write().await;
        let host = Host::start((self.command)(), self.kept.clone());
        let old = std::mem::replace(&mut *self.host.lock().unwrap(), host);
        let mut child = old.child;
        child.kill().await.expect("it is killed");
        old.pending.lock().unwrap().clear();
        self.restarts.fetch_add(1, Ordering::Relaxed);
        self.greet("resume").await;
    }

    /// The messages of this kind that the conversation was given.
    pub(crate) fn messages(&self, kind: &str) -> Vec<Value> {
        let messages = self.kept.messages.lock().unwrap();
        messages
            .iter()
            .filter(|message| message["kind"] == kind)
            .cloned()
            .collect()
    }

    /// Ends the session in good order.
    pub(crate) async fn end(self) {
        let mut host = self.host.into_inner().unwrap();
        drop(host.frames);
        let ended = tokio::time::timeout(DEADLINE, host.child.wait()).await;
        let status = ended.expect("it ends").expect("waited for");
        assert_eq!(status.code(), Some(0));
    }
}

impl Host {
    fn start(command: std::process::Command, kept: Arc<Kept>) -> Self {
        let mut command = Command::from(command);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().expect("the binary starts");
        let mut stdin = child.stdin.take().expect("piped");
        let stdout = child.stdout.take().expect("piped");
        let (frames, mut queue) = mpsc::unbounded_channel::<Value>();
        tokio::spawn(async move {
            while let Some(frame) = queue.recv().await {
                if stdin
                    .write_all(format!("{frame}\n").as_bytes())
                    .await
                    .is_err()
                {
                    break;
                }
            }
        });
        let pending = Pending::default();
        let (waiting, answers) = (pending.clone(), frames.downgrade());
        tokio::spawn(async move {
            let mut lines = BufReader::new(stdout).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let Ok(frame) = serde_json::from_str::<Value>(&line) else {
                    // A host that is killed in the middle of a line.
                    break;
                };
                match frame["t"].as_str() {
                    Some("result" | "error") => {
                        let id = frame["id"].as_u64().unwrap_or_default();
                        if let Some(answer) = waiting.lock().unwrap().remove(&id) {
                            let _ = answer.send(frame);
                        }
                    }
                    Some("request") => {
                        let value = kept.answer(&frame);
                        if let Some(answers) = answers.upgrade() {
                            let _ = answers
                                .send(json!({ "t": "result", "id": frame["id"], "value": value }));
                        }
                    }
                    _ => {}
                }
            }
            waiting.lock().unwrap().clear();
        });
        Self {
            child,
            frames,
            pending,
        }
    }
}

impl Kept {
    fn answer(&self, request: &Value) -> Value {
        let params = &request["params"];
        match request["method"].as_str() {
            Some("session.appendEntry") => {
                self.entries.lock().unwrap().push(params.clone());
                Value::Null
            }
            Some("session.entries") => {
                let entries = self.entries.lock().unwrap();
                let fits = |entry: &&Value| {
                    entry["extension"] == params["extension"]
                        && (params["kind"].is_null() || entry["kind"] == params["kind"])
                };
                entries
                    .iter()
                    .filter(fits)
                    .map(|entry| entry["data"].clone())
                    .collect()
            }
            Some("session.sendMessage") => {
                self.messages.lock().unwrap().push(params.clone());
                Value::Null
            }
            _ => Value::Null,
        }
    }
}
