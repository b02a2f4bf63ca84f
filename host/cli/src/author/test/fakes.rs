//! The world as a script plays it: commands, requests, files of VMs.
//!
//! What the script has no answer for is refused and remembered: a test in which an extension asked for something its author did not think
//! of fails, whatever the extension made of the refusal.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pi_vers_host::{
    Refusal, Refused, StandIn, StandInCommand, StandInEnd, StandInRequest, StandInResponse,
    StandInRun, StandInValue,
};
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use super::matching;
use super::script::{Exec, Http, Play, Refuse, Shell};

/// Plays the world.
#[derive(Debug)]
pub(super) struct Fakes {
    /// Below it each VM's files are, by id.
    files: PathBuf,
    inner: Mutex<Inner>,
    /// Counts what was asked.
    asked: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Inner {
    commands: Vec<Fake<CommandFake>>,
    requests: Vec<Fake<Http>>,
    ran: Vec<Ran>,
    sent: Vec<Value>,
    unanswered: BTreeSet<String>,
    wrong_input: Vec<String>,
    made: u64,
    started: u64,
}

#[derive(Debug)]
struct Fake<T> {
    number: usize,
    used: u32,
    times: Option<u32>,
    optional: bool,
    fake: T,
}

#[derive(Debug)]
enum CommandFake {
    Exec(Exec),
    Shell(Shell),
}

impl CommandFake {
    fn play(&self) -> &Play {
        match self {
            Self::Exec(exec) => &exec.play,
            Self::Shell(shell) => &shell.play,
        }
    }

    fn fits(&self, asked: &StandInCommand, told: &Value) -> bool {
        let play = self.play();
        let what = match self {
            Self::Exec(exec) => arguments(&exec.exec, &asked.argv),
            Self::Shell(shell) => match asked.argv.as_slice() {
                [program, flag, script] if program == "/bin/sh" && flag == "-c" => {
                    matching::matches(&shell.shell, &json!(script))
                }
                _ => false,
            },
        };
        let fits = |wanted: &Option<Value>, key: &str| {
            wanted.as_ref().is_none_or(|wanted| {
                matching::matches(wanted, told.get(key).unwrap_or(&Value::Null))
            })
        };
        what && play.vm == asked.vm && fits(&play.env, "env") && fits(&play.directory, "directory")
    }
}

/// An argument vector against a pattern: a list whose last item may be `...`, or any other condition on the whole list.
fn arguments(pattern: &Value, argv: &[String]) -> bool {
    let all = json!(argv);
    let Some(wanted) = pattern.as_array() else {
        return matching::matches(pattern, &all);
    };
    match wanted.split_last() {
        Some((last, first)) if last == "..." => {
            argv.len() >= first.len()
                && first
                    .iter()
                    .zip(argv)
                    .all(|(wanted, word)| matching::matches(wanted, &json!(word)))
        }
        _ => matching::matches(pattern, &all),
    }
}

/// A command that was started.
#[derive(Debug)]
struct Ran {
    id: u64,
    fake: usize,
    told: Value,
    wanted_input: Option<Value>,
}

fn values(all: &[(String, StandInValue)]) -> Value {
    let all = all.iter().map(|(name, value)| {
        let value = match value {
            StandInValue::Plain(value) => value.clone(),
            StandInValue::Secret(name) => format!("secret {name}"),
        };
        (name.clone(), Value::from(value))
    });
    Value::Object(all.collect::<Map<_, _>>())
}

fn refused(refuse: &Refuse) -> Refused {
    let kind = refuse.refusal().unwrap_or(Refusal::Other);
    (kind, refuse.message.clone())
}

/// The first of them that fits and is not used up; then it is used once more.
fn take<T>(all: &mut [Fake<T>], fits: impl Fn(&T) -> bool) -> Option<&mut Fake<T>> {
    let found = all
        .iter_mut()
        .find(|one| one.times.is_none_or(|times| one.used < times) && fits(&one.fake))?;
    found.used += 1;
    Some(found)
}

impl Fakes {
    pub(super) fn new(files: PathBuf) -> Arc<Self> {
        Arc::new(Self {
            files,
            inner: Mutex::default(),
            asked: watch::Sender::new(0),
        })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on this answers commands that nothing before it answers.
    pub(super) fn exec(&self, number: usize, exec: Exec) {
        let (times, optional) = (exec.play.times, exec.play.optional);
        self.inner().commands.push(Fake {
            number,
            used: 0,
            times,
            optional,
            fake: CommandFake::Exec(exec),
        });
    }

    /// The same for a script.
    pub(super) fn shell(&self, number: usize, shell: Shell) {
        let (times, optional) = (shell.play.times, shell.play.optional);
        self.inner().commands.push(Fake {
            number,
            used: 0,
            times,
            optional,
            fake: CommandFake::Shell(shell),
        });
    }

    /// The same for requests.
    pub(super) fn http(&self, number: usize, http: Http) {
        let (times, optional) = (http.times, http.optional);
        self.inner().requests.push(Fake {
            number,
            used: 0,
            times,
            optional,
            fake: http,
        });
    }

    /// How many commands have been started; and a way to wait for more.
    pub(super) fn started(&self) -> (u64, watch::Receiver<u64>) {
        let seen = self.asked.subscribe();
        (self.inner().started, seen)
    }

    /// The commands that were started, in order.
    pub(super) fn commands(&self) -> Value {
        self.inner()
            .ran
            .iter()
            .map(|ran| ran.told.clone())
            .collect()
    }

    /// The requests that were sent, in order.
    pub(super) fn requests(&self) -> Value {
        Value::from(self.inner().sent.clone())
    }

    /// What was asked that nothing answered, and inputs that were other than expected, since this was last asked.
    pub(super) fn complaints(&self) -> Vec<String> {
        let mut inner = self.inner();
        let mut all: Vec<String> = std::mem::take(&mut inner.unanswered).into_iter().collect();
        all.append(&mut inner.wrong_input);
        all
    }

    /// The numbers of the lines that were never needed.
    pub(super) fn unused(&self) -> Vec<usize> {
        let inner = self.inner();
        let commands = inner
            .commands
            .iter()
            .filter(|one| one.used == 0 && !one.optional)
            .map(|one| one.number);
        let requests = inner
            .requests
            .iter()
            .filter(|one| one.used == 0 && !one.optional)
            .map(|one| one.number);
        let mut all: Vec<usize> = commands.chain(requests).collect();
        all.sort_unstable();
        all
    }

    /// The directory of a VM's files.
    pub(super) fn directory(&self, vm: &str) -> PathBuf {
        self.files.join(vm)
    }
}

impl StandIn for Fakes {
    fn command(&self, asked: StandInCommand) -> Result<StandInRun, Refused> {
        let mut told = json!({ "argv": asked.argv, "env": values(&asked.env), "stopped": false });
        if let Some(object) = told.as_object_mut() {
            if let Some(vm) = &asked.vm {
                object.insert("vm".into(), vm.as_str().into());
            }
            if let Some(directory) = &asked.directory {
                object.insert("directory".into(), directory.as_str().into());
            }
        }
        let mut inner = self.inner();
        let inner = &mut *inner;
        let Some(fake) = take(&mut inner.commands, |fake| fake.fits(&asked, &told)) else {
            let mut line = json!({ "exec": asked.argv });
            if let (Some(object), Some(vm)) = (line.as_object_mut(), asked.vm) {
                object.insert("vm".into(), vm.into());
            }
            if let Some(object) = line.as_object_mut() {
                object.insert("stdout".into(), "".into());
            }
            inner.unanswered.insert(format!(
                "it ran a command that no line of the script plays: add {line}"
            ));
            return Err((
                Refusal::Unavailable,
                "the test's script does not play this command".into(),
            ));
        };
        let number = fake.number;
        let play = fake.fake.play();
        if let Some(refuse) = &play.refuse {
            return Err(refused(refuse));
        }
        let pieces = |bytes: &super::script::Bytes| bytes.pieces().unwrap_or_default();
        inner.made += 1;
        let id = inner.made;
        let run = StandInRun {
            stdout: pieces(&play.stdout),
            stderr: pieces(&play.stderr),
            end: match (&play.signal, play.hang) {
                (_, true) => StandInEnd::Never,
                (Some(signal), _) => StandInEnd::Signal(signal.clone()),
                (None, _) => StandInEnd::Code(play.code),
            },
            id,
        };
        inner.ran.push(Ran {
            id,
            fake: number,
            told,
            wanted_input: play.stdin.clone(),
        });
        self.asked.send_modify(|count| *count += 1);
        Ok(run)
    }

    fn started(&self, _id: u64) {
        self.inner().started += 1;
        self.asked.send_modify(|count| *count += 1);
    }

    fn input(&self, id: u64, bytes: Vec<u8>) {
        let mut inner = self.inner();
        let inner = &mut *inner;
        if let Some(ran) = inner.ran.iter_mut().find(|ran| ran.id == id) {
            let text = Value::from(String::from_utf8_lossy(&bytes).into_owned());
            if let Some(wanted) = &ran.wanted_input
                && !matching::matches(wanted, &text)
            {
                inner.wrong_input.push(format!(
                    "the input of the command of line {} was {text}, not {wanted}",
                    ran.fake
                ));
            }
            if let Some(told) = ran.told.as_object_mut() {
                told.insert("stdin".into(), text);
            }
        }
        self.asked.send_modify(|count| *count += 1);
    }

    fn stopped(&self, id: u64) {
        let mut inner = self.inner();
        if let Some(ran) = inner.ran.iter_mut().find(|ran| ran.id == id)
            && let Some(told) = ran.told.as_object_mut()
        {
            told.insert("stopped".into(), true.into());
        }
        drop(inner);
        self.asked.send_modify(|count| *count += 1);
    }

    fn request(&self, asked: StandInRequest) -> Result<StandInResponse, Refused> {
        let body = String::from_utf8_lossy(&asked.body).into_owned();
        let mut headers: BTreeMap<String, Value> = BTreeMap::new();
        if let Value::Object(all) = values(&asked.headers) {
            headers.extend(
                all.into_iter()
                    .map(|(name, value)| (name.to_ascii_lowercase(), value)),
            );
        }
        let mut told = json!({
            "method": asked.method.to_ascii_uppercase(),
            "url": asked.url,
            "headers": headers,
            "body": body,
        });
        if let (Ok(value), Some(object)) =
            (serde_json::from_str::<Value>(&body), told.as_object_mut())
        {
            object.insert("json".into(), value);
        }
        let mut inner = self.inner();
        let inner = &mut *inner;
        inner.sent.push(told.clone());
        self.asked.send_modify(|count| *count += 1);
        let fits = |fake: &Http| {
            let wanted = match fake.http.as_str() {
                Some(line) => match line.split_once(' ') {
                    Some((method, url)) => json!({ "method": method, "url": url }),
                    None => json!({ "method": "GET", "url": line }),
                },
                None => fake.http.clone(),
            };
            matching::matches(&wanted, &told)
                && fake
                    .request
                    .as_ref()
                    .is_none_or(|wanted| matching::matches(wanted, &told))
        };
        let Some(fake) = take(&mut inner.requests, fits) else {
            let line = format!("{} {}", asked.method.to_ascii_uppercase(), asked.url);
            inner.unanswered.insert(format!(
                "it sent a request that no line of the script answers: add {}",
                json!({ "http": line, "status": 200, "body": "" })
            ));
            return Err((
                Refusal::Unavailable,
                "the test's script does not answer this request".into(),
            ));
        };
        let fake = &fake.fake;
        if let Some(refuse) = &fake.refuse {
            return Err(refused(refuse));
        }
        let mut headers: Vec<(String, String)> = fake
            .headers
            .iter()
            .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
            .collect();
        let body = match &fake.json {
            Some(value) => {
                if !fake
                    .headers
                    .keys()
                    .any(|name| name.eq_ignore_ascii_case("content-type"))
                {
                    headers.push(("content-type".into(), "application/json".into()));
                }
                vec![value.to_string().into_bytes()]
            }
            None => fake.body.pieces().unwrap_or_default(),
        };
        Ok(StandInResponse {
            status: fake.status,
            headers,
            body,
        })
    }

    fn vm_files(&self, vm: &str) -> Result<PathBuf, Refused> {
        let directory = self.directory(vm);
        match directory.is_dir() {
            true => Ok(directory),
            false => Err((Refusal::NotFound, format!("there is no VM {vm}"))),
        }
    }
}

/// Makes the place of a VM's files: empty, or those of another.
pub(super) fn make_files(at: &Path, from: Option<&Path>) -> std::io::Result<()> {
    std::fs::create_dir_all(at.join("root"))?;
    match from {
        Some(from) => copy(from, at),
        None => Ok(()),
    }
}

/// Copies a tree of a test's few files.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            std::fs::create_dir_all(&target)?;
            copy(&entry.path(), &target)?;
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(std::fs::read_link(entry.path())?, &target)?;
        } else {
            std::fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    fn exec(line: Value) -> Exec {
        serde_json::from_value(line).unwrap()
    }

    fn asked(vm: Option<&str>, argv: &[&str]) -> StandInCommand {
        StandInCommand {
            vm: vm.map(str::to_owned),
            argv: argv.iter().map(|&word| word.to_owned()).collect(),
            env: vec![("A".into(), StandInValue::Secret("KEY".into()))],
            directory: None,
        }
    }

    #[test]
    fn the_first_line_that_fits_and_is_not_used_up_answers() {
        let fakes = Fakes::new(PathBuf::from("/nowhere"));
        fakes.exec(
            1,
            exec(json!({ "exec": ["make"], "vm": "v", "code": 2, "times": 1 })),
        );
        fakes.exec(2, exec(json!({ "exec": ["make", "..."], "vm": "v" })));
        fakes.exec(3, exec(json!({ "exec": ["never"] })));
        let code = |argv: &[&str]| fakes.command(asked(Some("v"), argv)).map(|run| run.end);
        assert_eq!(code(&["make"]).unwrap(), StandInEnd::Code(2));
        assert_eq!(code(&["make"]).unwrap(), StandInEnd::Code(0));
        assert_eq!(code(&["make", "all"]).unwrap(), StandInEnd::Code(0));
        assert_eq!(fakes.complaints(), Vec::<String>::new());
        // Elsewhere it is another command.
        assert!(fakes.command(asked(None, &["make"])).is_err());
        let complaints = fakes.complaints();
        assert!(
            complaints[0].contains("{\"exec\":[\"make\"]"),
            "{complaints:?}"
        );
        assert_eq!(fakes.unused(), [3]);
        assert_eq!(fakes.commands()[0]["env"]["A"], "secret KEY");
    }

    #[test]
    fn input_is_compared_once_it_has_ended() {
        let fakes = Fakes::new(PathBuf::from("/nowhere"));
        fakes.exec(
            4,
            exec(json!({ "exec": ["cat"], "stdin": { "contains": "x" } })),
        );
        let run = fakes.command(asked(None, &["cat"])).unwrap();
        fakes.input(run.id, b"a".to_vec());
        assert!(fakes.complaints()[0].contains("line 4"));
    }

    #[test]
    fn requests_are_answered_by_method_address_and_body() {
        let fakes = Fakes::new(PathBuf::from("/nowhere"));
        let line = json!({ "http": "POST https://a.example/x", "request": { "json": { "a": 1 } }, "json": { "b": 2 }, "status": 201 });
        fakes.http(1, serde_json::from_value(line).unwrap());
        let send = |body: &[u8]| {
            fakes.request(StandInRequest {
                method: "post".into(),
                url: "https://a.example/x".into(),
                headers: Vec::new(),
                body: body.to_vec(),
            })
        };
        assert_eq!(send(b"{\"a\":1,\"c\":2}").unwrap().status, 201);
        assert!(send(b"{}").is_err());
        assert_eq!(fakes.requests()[0]["json"]["c"], 2);
    }
}
