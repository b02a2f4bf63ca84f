//! The kinds of lines that a test's script is made of. Unknown members are errors.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

/// A VM that is there.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Vm {
    /// `${NAME}` is its id from here on.
    pub(super) vm: String,
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
    #[serde(default = "running")]
    pub(super) state: String,
}

fn running() -> String {
    "running".into()
}

/// What a command does.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Exec {
    /// Matches the argument vector; `"..."` at the end stands for the rest of it.
    #[serde(default)]
    pub(super) exec: Value,
    #[serde(flatten)]
    pub(super) play: Play,
}

/// The same for a script of the shell.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Shell {
    /// Matches the text of the script.
    pub(super) shell: Value,
    #[serde(flatten)]
    pub(super) play: Play,
}

/// How a command is played.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Play {
    /// Where; without it on this machine.
    pub(super) vm: Option<String>,
    /// Matches an object of the variables that the extension set.
    pub(super) env: Option<Value>,
    /// Matches the directory.
    pub(super) directory: Option<Value>,
    /// What its input has to be, once it has ended.
    pub(super) stdin: Option<Value>,
    #[serde(default)]
    pub(super) stdout: Bytes,
    #[serde(default)]
    pub(super) stderr: Bytes,
    #[serde(default)]
    pub(super) code: i32,
    pub(super) signal: Option<String>,
    /// It runs until somebody stops it.
    #[serde(default)]
    pub(super) hang: bool,
    pub(super) refuse: Option<Refuse>,
    pub(super) times: Option<u32>,
    #[serde(default)]
    pub(super) optional: bool,
}

/// A text, pieces of one, or bytes in base64.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum Bytes {
    Text(String),
    Pieces(Vec<String>),
    Base64 { base64: String },
}

impl Default for Bytes {
    fn default() -> Self {
        Self::Pieces(Vec::new())
    }
}

impl Bytes {
    /// Piece by piece.
    pub(super) fn pieces(&self) -> Result<Vec<Vec<u8>>, String> {
        use base64::Engine as _;
        Ok(match self {
            Self::Text(text) => vec![text.clone().into_bytes()],
            Self::Pieces(pieces) => pieces.iter().map(|one| one.clone().into_bytes()).collect(),
            Self::Base64 { base64 } => {
                let bytes = base64::engine::general_purpose::STANDARD.decode(base64);
                vec![bytes.map_err(|why| format!("this is no base64: {why}"))?]
            }
        })
    }
}

/// An error of the contract.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Refuse {
    pub(super) kind: String,
    #[serde(default)]
    pub(super) message: String,
}

/// An answer to a request.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Http {
    /// `METHOD URL`, or `{"method": M, "url": M}`.
    pub(super) http: Value,
    /// Matches `{"headers": {…}, "body": "…", "json": …}`.
    pub(super) request: Option<Value>,
    #[serde(default = "ok")]
    pub(super) status: u16,
    #[serde(default)]
    pub(super) headers: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) body: Bytes,
    /// A body of JSON.
    pub(super) json: Option<Value>,
    pub(super) refuse: Option<Refuse>,
    pub(super) times: Option<u32>,
    #[serde(default)]
    pub(super) optional: bool,
}

fn ok() -> u16 {
    200
}

/// A file that is there, here or on a VM.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) file: String,
    pub(super) vm: Option<String>,
    #[serde(default)]
    pub(super) content: Bytes,
    pub(super) mode: Option<String>,
}

/// What the extension has kept before.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Store {
    pub(super) store: Map<String, Value>,
}

/// A secret that the host holds.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Secret {
    pub(super) secret: String,
    pub(super) value: Option<String>,
}

/// Variables of the host.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Environment {
    pub(super) environment: BTreeMap<String, String>,
}

/// What the user gave a flag.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Flag {
    pub(super) flag: String,
    pub(super) value: Value,
}

/// An entry that the session has.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    pub(super) entry: String,
    pub(super) data: Value,
}

/// Answers the next dialogs that it matches.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Dialog {
    /// Matches `{"kind", "title", "message"?, "options"?, "text"?}`.
    pub(super) dialog: Value,
    /// The option's text or index, true or false, a text; null: dismissed.
    #[serde(default)]
    pub(super) answer: Value,
    pub(super) times: Option<u32>,
}

/// Answers questions to the client.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Client {
    /// `form`, `sampling` or `roots`.
    pub(super) client: String,
    /// Matches the parameters.
    pub(super) parameters: Option<Value>,
    pub(super) answer: Value,
}

/// A tool of the harness itself.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BuiltIn {
    pub(super) built_in: String,
    /// Matches the arguments.
    pub(super) arguments: Option<Value>,
    #[serde(default)]
    pub(super) text: String,
    #[serde(default)]
    pub(super) failed: bool,
}

/// Calls a tool.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Call {
    pub(super) call: String,
    #[serde(default = "nothing")]
    pub(super) args: Value,
    pub(super) cancel: Option<Cancel>,
    pub(super) expect: Option<Value>,
    /// `${NAME}` is, from here on, what this JSON pointer leads to in what came.
    #[serde(default)]
    pub(super) save: BTreeMap<String, String>,
    #[serde(default = "limit")]
    pub(super) within_ms: u64,
}

fn nothing() -> Value {
    Value::Object(Map::new())
}

fn limit() -> u64 {
    30_000
}

/// When a call is given up.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Cancel {
    /// As soon as the text that it shows matches.
    Shown(Value),
    /// As soon as this many commands of it have been started.
    Started(u64),
    /// At once.
    AtOnce(bool),
}

/// Runs a slash command.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Command {
    pub(super) command: String,
    #[serde(default)]
    pub(super) args: String,
    pub(super) expect: Option<Value>,
    #[serde(default = "limit")]
    pub(super) within_ms: u64,
}

/// Completes a slash command.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Complete {
    pub(super) complete: String,
    #[serde(default)]
    pub(super) prefix: String,
    pub(super) expect: Option<Value>,
}

/// Tells an event.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Event {
    pub(super) event: String,
    #[serde(default)]
    pub(super) data: Value,
    pub(super) expect: Option<Value>,
}

/// Ends the session and begins it again.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Restart {
    pub(super) restart: Reason,
}

/// Why a session starts.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Reason {
    Startup,
    Reload,
    Resume,
    Fork,
}

/// Looks at what there is.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Check {
    pub(super) check: Subject,
    /// Of `file`.
    pub(super) path: Option<String>,
    /// Of `file`.
    pub(super) vm: Option<String>,
    pub(super) expect: Value,
    /// For what comes of background work.
    #[serde(default = "patience")]
    pub(super) within_ms: u64,
}

fn patience() -> u64 {
    5_000
}

/// What is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Subject {
    Notices,
    Messages,
    Entries,
    Status,
    Widgets,
    Bus,
    Commands,
    Requests,
    Vms,
    Store,
    File,
}
