//! The fixture that attacks, with orders of the test's own in its bytes, and runs of the binary with it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::{Value, json};
use sha2::Digest as _;

use crate::common::{BINARY, Home, Ran, finish};

/// What stands before the orders in the component, and how many bytes there are for both.
const MARK: &[u8] = b"RAIDER'S ORDERS:";
const SIZE: usize = 24 << 10;

/// A home, a component in it, and a policy for exactly this component.
pub(crate) struct Raid {
    pub(crate) home: Home,
    pub(crate) component: PathBuf,
    pub(crate) policy: PathBuf,
    /// What /etc/hosts says to its runs, if something else.
    hosts: Option<PathBuf>,
}

impl Raid {
    /// The raider with these rules.
    pub(crate) fn new(rules: &str) -> Self {
        Self::ordered(&json!({}), rules)
    }

    /// The same, with orders.
    pub(crate) fn ordered(orders: &Value, rules: &str) -> Self {
        let name = orders["name"].as_str().unwrap_or("raider").to_owned();
        Self::of(&with(orders), &name, rules)
    }

    /// Some bytes, and rules for the extension of this name.
    pub(crate) fn of(wasm: &[u8], name: &str, rules: &str) -> Self {
        let home = Home::new();
        let component = home.write("guest.wasm", wasm);
        let policy = home.write("policy.toml", section(name, wasm, rules));
        Self {
            home,
            component,
            policy,
            hosts: None,
        }
    }

    fn files(&self) -> [String; 4] {
        let path = |path: &PathBuf| path.to_str().unwrap().to_owned();
        [
            "-e".into(),
            path(&self.component),
            "--policy".into(),
            path(&self.policy),
        ]
    }

    /// A command line of `pi-vers`, with the component and its policy behind its first word.
    pub(crate) fn words(&self, words: &[&str]) -> Vec<String> {
        let (first, rest) = words.split_first().unwrap();
        let rest = rest.iter().map(|word| (*word).to_owned());
        std::iter::once((*first).to_owned())
            .chain(self.files())
            .chain(rest)
            .collect()
    }

    /// Has names stand for these addresses.
    pub(crate) fn resolve(&mut self, hosts: &str) {
        self.hosts = Some(self.home.write("hosts", hosts));
    }

    /// Runs it.
    pub(crate) fn run(&self, words: &[&str]) -> Ran {
        let command = self.home.command(self.words(words));
        let mut command = match &self.hosts {
            Some(hosts) => resolving(&command, hosts),
            None => command,
        };
        finish(command.spawn().unwrap())
    }

    /// One raid in a process of its own.
    pub(crate) fn once(&self, what: Value) -> Ran {
        // An argument of the command line is not as long as some of these.
        let arguments = self.home.write("arguments.json", what.to_string());
        let arguments = format!("@{}", arguments.display());
        self.run(&["run", "--json", "raid", &arguments])
    }

    /// Many raids in one process and one instance: a line of JSON for each.
    pub(crate) fn each(&self, raids: &[Value]) -> Vec<Value> {
        let calls: Vec<(&str, Value)> = raids.iter().map(|raid| ("raid", raid.clone())).collect();
        self.script(&[], &calls)
    }

    /// Calls of any tools in one process, with more options for it: a line of JSON for each.
    pub(crate) fn script(&self, options: &[&str], calls: &[(&str, Value)]) -> Vec<Value> {
        let lines = calls
            .iter()
            .map(|(tool, arguments)| json!({ "tool": tool, "arguments": arguments }).to_string());
        let script: Vec<String> = lines.collect();
        let script = self.home.write("script.jsonl", script.join("\n"));
        let words = ["run", "--quiet", "--json", "--keep-going", "--script"];
        let ran = self.run(&[&words[..], &[script.to_str().unwrap()], options].concat());
        let told = ran.json();
        assert_eq!(told.len(), calls.len(), "{ran:?}");
        told
    }

    /// What became of each, in the guest's words.
    pub(crate) fn told(&self, raids: &[Value]) -> Vec<String> {
        self.each(raids).iter().map(text).collect()
    }

    /// What `inspect` says.
    pub(crate) fn inspect(&self) -> Ran {
        let words = ["inspect", self.component.to_str().unwrap()];
        self.home.run(words)
    }
}

/// A section of the policy for these bytes.
pub(crate) fn section(name: &str, wasm: &[u8], rules: &str) -> String {
    let digest = sha2::Sha256::digest(wasm);
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("[extension.{name}]\ndigest = \"sha256:{digest}\"\n{rules}\n")
}

/// The same command in a mount namespace of its own, with another /etc/hosts.
fn resolving(command: &Command, hosts: &Path) -> Command {
    let mut inside = Command::new("unshare");
    inside
        .args(["--mount", "--propagation", "private", "sh", "-c"])
        .arg("mount --bind \"$0\" /etc/hosts && exec \"$@\"")
        .arg(hosts)
        .arg(command.get_program())
        .args(command.get_args())
        .env_clear()
        .envs(
            command
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .current_dir(command.get_current_dir().unwrap())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    inside
}

/// The text of a result.
pub(crate) fn text(line: &Value) -> String {
    let text = line["content"][0]["text"].as_str();
    text.unwrap_or_else(|| panic!("no text: {line}")).to_owned()
}

/// Whether the guest was told that the policy is in the way, and which rule is missing.
pub(crate) fn is_denied(told: &str) -> bool {
    told.starts_with("refused: Error::Denied(") && told.contains("raider may not")
}

/// The raider with these orders in its bytes.
pub(crate) fn with(orders: &Value) -> Vec<u8> {
    let mut wasm = raider().to_vec();
    let at = wasm
        .windows(MARK.len())
        .position(|window| window == MARK)
        .expect("the fixture holds its orders");
    let orders = orders.to_string().into_bytes();
    let room = wasm.get_mut(at + MARK.len()..at + SIZE).unwrap();
    assert!(orders.len() <= room.len(), "too long for the fixture");
    room.fill(b' ');
    room[..orders.len()].copy_from_slice(&orders);
    wasm
}

/// The fixture, built once.
fn raider() -> &'static [u8] {
    static BUILT: OnceLock<Vec<u8>> = OnceLock::new();
    BUILT.get_or_init(|| {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let target = std::path::Path::new(BINARY).with_file_name("../fixtures");
        let mut build = Command::new(env!("CARGO"));
        build
            .current_dir(root.join("extensions"))
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .env_remove("CARGO_TARGET_DIR")
            .args(["build", "--release", "--locked", "--target"])
            .args(["wasm32-wasip2", "-p", "raider", "--target-dir"])
            .arg(&target);
        let built = build.output().unwrap();
        let why = String::from_utf8_lossy(&built.stderr);
        assert!(built.status.success(), "{why}");
        std::fs::read(target.join("wasm32-wasip2/release/raider.wasm")).unwrap()
    })
}
