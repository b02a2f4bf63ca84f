//! Runs one script: a host of its own, a session, and line after line.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use pi_vers_host::policy::Policy;
use pi_vers_host::secrets::Secrets;
use pi_vers_host::{Content, FlagValue, Host, Session, StartReason, Update};
use serde_json::{Value, json};
use vers_client::{Environment, Overrides, Settings};

use super::fakes::Fakes;
use super::harness::Stage;
use super::matching::{Mismatch, mismatches};
use super::platform::Platform;
use super::script::{self, Cancel, Line, Numbered, Reason, Script, Subject};
use crate::bridge::{events, values};
use crate::call::Done;
use crate::dirs;
use crate::failure::Failure;
use crate::local::Local;

/// Most texts of a call's progress that are kept.
const MOST_SHOWN: usize = 1_000;
/// Most bytes of what an extension has stored that a test keeps.
const STORE: u64 = 1 << 30;

/// What a script is run with.
pub(super) struct Tested<'a> {
    pub(super) component: &'a Path,
    /// What the extension is granted: a policy bound to its bytes.
    pub(super) policy: &'a Policy,
    /// The local platform, instead of fakes.
    pub(super) local: Option<&'a Local>,
}

/// What came of a script.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) failures: Vec<Wrong>,
    /// Lines that did something.
    pub(super) steps: usize,
    /// Lines that `--local` leaves out.
    pub(super) left_out: usize,
    pub(super) millis: u64,
}

/// A line that failed, or the whole (line 0).
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) line: usize,
    pub(super) what: String,
    pub(super) mismatches: Vec<Mismatch>,
    pub(super) came: Option<Value>,
}

impl Wrong {
    fn new(line: usize, what: impl Into<String>) -> Self {
        Self {
            line,
            what: what.into(),
            mismatches: Vec::new(),
            came: None,
        }
    }
}

/// Runs a script. `Err` is what has nothing to do with the extension: this machine, the platform.
pub(super) async fn run(subject: &Tested<'_>, script: &Script) -> Result<Report, Failure> {
    let begun = Instant::now();
    let mut test = Test::prepare(subject, script).await?;
    let mut failures = Vec::new();
    let (mut steps, mut left_out) = (0, 0);
    for line in &script.lines {
        let outcome = test.line(line).await;
        match outcome {
            Ok(Step::Done) => steps += 1,
            Ok(Step::Said) => {}
            Ok(Step::LeftOut) => left_out += 1,
            Err(wrong) => {
                steps += 1;
                failures.push(*wrong);
            }
        }
        let complaints = test.complaints();
        if !complaints.is_empty() {
            failures.extend(
                complaints
                    .into_iter()
                    .map(|why| Wrong::new(line.number, why)),
            );
        }
        // What comes after a line that failed builds on what did not happen.
        if !failures.is_empty() {
            break;
        }
    }
    let unused = match &test.world {
        World::Fake { fakes, .. } if failures.is_empty() => fakes.unused(),
        _ => Vec::new(),
    };
    failures.extend(unused.into_iter().map(|number| {
        Wrong::new(
            number,
            "nothing asked for this; take the line out, or give it \"optional\":true",
        )
    }));
    test.end().await;
    Ok(Report {
        failures,
        steps,
        left_out,
        millis: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
    })
}

enum Step {
    Done,
    Said,
    LeftOut,
}

enum World {
    Fake {
        fakes: Arc<Fakes>,
        platform: Platform,
    },
    /// VMs that lines made.
    Local { vms: Vec<vers_client::VmId> },
}

struct Test {
    host: Host,
    component: PathBuf,
    name: String,
    stage: Arc<Stage>,
    session: Option<Session>,
    reason: StartReason,
    world: World,
    known: BTreeMap<String, String>,
    root: tempfile::TempDir,
}

type Outcome = Result<Step, Box<Wrong>>;

impl Test {
    async fn prepare(subject: &Tested<'_>, script: &Script) -> Result<Self, Failure> {
        let failed = |why: std::io::Error| Failure::internal(format!("a test's directory: {why}"));
        let root = tempfile::Builder::new()
            .prefix("pi-vers-test-")
            .tempdir()
            .map_err(failed)?;
        let at = |name: &str| root.path().join(name);
        for name in ["work", "state", "vms", "home"] {
            std::fs::create_dir(at(name)).map_err(failed)?;
        }
        let mut variables = BTreeMap::from([("HOME".to_owned(), at("home").display().to_string())]);
        let (secrets, mut flags) = (Secrets::new(), BTreeMap::new());
        for line in &script.lines {
            match &line.line {
                Line::Secret(secret) => {
                    let value = secret.value.clone();
                    let value = value.unwrap_or_else(|| format!("value of {}", secret.secret));
                    secrets.insert(&secret.secret, value);
                }
                Line::Environment(more) => variables.extend(more.environment.clone()),
                Line::Flag(flag) => {
                    let value: Option<FlagValue> = values::flag(&flag.value);
                    flags.extend(value.map(|value| (flag.flag.clone(), value)));
                }
                _ => {}
            }
        }
        let mut builder = Host::builder()
            .cache(dirs::cache()?.join("compiled"))
            .state(at("state"))
            .policy(subject.policy.clone())
            .script_runner(crate::shipped::SCRIPT_RUNNER)
            .secrets(Arc::new(secrets));
        let world = match subject.local {
            Some(local) => {
                builder = builder.platform(local.settings()?);
                World::Local { vms: Vec::new() }
            }
            None => {
                let fakes = Fakes::new(at("vms"));
                let platform = Platform::start(at("vms")).await?;
                variables.insert("VERS_BASE_URL".into(), platform.url());
                variables.insert("VERS_API_KEY".into(), "a-key-of-the-test".into());
                let environment = Environment::of(variables);
                let settings = Settings::discover(environment, Overrides::default())?;
                builder = builder.platform(settings).stand_in(fakes.clone());
                World::Fake { fakes, platform }
            }
        };
        let host = builder.build()?;
        let extension = host.load_file(subject.component).await?;
        Ok(Self {
            name: extension.name().to_owned(),
            component: subject.component.to_owned(),
            stage: Arc::new(Stage::new(at("work"), flags)),
            session: None,
            reason: StartReason::Startup,
            host,
            world,
            known: BTreeMap::new(),
            root,
        })
    }

    async fn end(mut self) {
        if let Some(session) = self.session.take() {
            session.end().await;
        }
        if let World::Local { vms } = &self.world {
            for vm in vms {
                // One that the extension has deleted is gone.
                let _ = self.host.api().delete_vm(*vm).await;
            }
        }
    }

    fn complaints(&self) -> Vec<String> {
        let mut all = self.stage.complaints();
        if let World::Fake { fakes, .. } = &self.world {
            all.extend(fakes.complaints());
        }
        all
    }

    /// The session, begun when it is first needed.
    async fn session(&mut self, line: usize) -> Result<&Session, Box<Wrong>> {
        let wrong = |why: Failure| Box::new(Wrong::new(line, why.line()));
        if self.session.is_none() {
            let extension = self.host.load_file(&self.component).await;
            let extension = extension.map_err(|why| wrong(why.into()))?;
            let session = self
                .host
                .session(self.stage.clone(), vec![extension])
                .map_err(|why| wrong(why.into()))?;
            let started = session.start(self.reason).await;
            self.session = Some(session);
            started.map_err(|why| wrong(why.into()))?;
        }
        match &self.session {
            Some(session) => Ok(session),
            None => Err(Box::new(Wrong::new(line, "there is no session"))),
        }
    }

    async fn line(&mut self, numbered: &Numbered) -> Outcome {
        let number = numbered.number;
        let mut text = numbered.text.clone();
        script::substitute(&mut text, &self.known);
        let line = script::read(&text).map_err(|why| Box::new(Wrong::new(number, why)))?;
        let said = |result: Result<(), String>| match result {
            Ok(()) => Ok(Step::Said),
            Err(why) => Err(Box::new(Wrong::new(number, why))),
        };
        match line {
            Line::Vm(vm) => said(self.vm(vm).await),
            Line::File(file) => said(self.file(file).await),
            Line::Store(store) => said(self.store(store).await),
            // Taken up when the host was made.
            Line::Secret(_) | Line::Environment(_) | Line::Flag(_) => Ok(Step::Said),
            Line::Entry(entry) => {
                self.stage.entry(entry.entry, entry.data);
                Ok(Step::Said)
            }
            Line::Dialog(dialog) => {
                self.stage.dialog(dialog);
                Ok(Step::Said)
            }
            Line::Client(client) => {
                self.stage.client(client);
                Ok(Step::Said)
            }
            Line::BuiltIn(tool) => {
                self.stage.built_in(tool);
                Ok(Step::Said)
            }
            Line::Exec(_) | Line::Shell(_) | Line::Http(_) => Ok(self.fake(number, line)),
            Line::Call(call) => self.call(number, call).await,
            Line::Command(command) => self.command(number, command).await,
            Line::Complete(complete) => {
                let session = self.session(number).await?;
                let came = session.complete(&complete.complete, &complete.prefix).await;
                let came = match came {
                    Ok(found) => found
                        .iter()
                        .map(|one| json!({ "value": one.value, "label": one.label, "description": one.description }))
                        .collect(),
                    Err(why) => json!({ "error": Failure::from(why).json() }),
                };
                judged(number, complete.expect.as_ref(), came)
            }
            Line::Event(event) => {
                let told = events::read(&event.event, event.data)
                    .map_err(|why| Box::new(Wrong::new(number, why)))?;
                let session = self.session(number).await?;
                let reaction = session.event(told.event).await;
                let came = events::reaction(&reaction, told.is_error);
                judged(number, event.expect.as_ref(), came)
            }
            Line::Restart(restart) => {
                // A session that nobody needed has none that could end.
                self.session(number).await?;
                if let Some(session) = self.session.take() {
                    session.end().await;
                }
                self.reason = match restart.restart {
                    Reason::Startup => StartReason::Startup,
                    Reason::Reload => StartReason::Reload,
                    Reason::Resume => StartReason::Resume,
                    Reason::Fork => StartReason::Fork,
                };
                self.session(number).await?;
                Ok(Step::Done)
            }
            Line::Check(check) => self.check(number, check).await,
        }
    }

    fn fake(&self, number: usize, line: Line) -> Step {
        let World::Fake { fakes, .. } = &self.world else {
            return Step::LeftOut;
        };
        match line {
            Line::Exec(exec) => fakes.exec(number, exec),
            Line::Shell(shell) => fakes.shell(number, shell),
            Line::Http(http) => fakes.http(number, http),
            _ => {}
        }
        Step::Said
    }

    async fn vm(&mut self, vm: script::Vm) -> Result<(), String> {
        let id = match &mut self.world {
            World::Fake { platform, .. } => platform.add(&vm.vm, &vm.state, vm.labels)?,
            World::Local { vms } => {
                let config = vers_client::api::VmConfig {
                    labels: vm.labels,
                    ..Default::default()
                };
                let made = self.host.api().create_vm(&config, true).await;
                let id = made.map_err(|why| why.to_string())?;
                vms.push(id);
                if vm.state == "paused" {
                    let state = vers_client::api::SetState::Paused;
                    let paused = self.host.api().set_state(id, state).await;
                    paused.map_err(|why| why.to_string())?;
                }
                id.to_string()
            }
        };
        self.known.insert(vm.vm, id);
        Ok(())
    }

    /// Where a file of this machine or of a faked VM is.
    fn path(&self, vm: Option<&str>, path: &str) -> Result<PathBuf, String> {
        let inside = Path::new(path)
            .components()
            .all(|part| !matches!(part, std::path::Component::ParentDir));
        if !inside {
            return Err(format!("{path} leads out"));
        }
        match (vm, &self.world) {
            (None, _) if path.starts_with('/') => Err(format!(
                "{path}: a file of a test is in its own working directory; give a relative path"
            )),
            (None, _) => Ok(self.root.path().join("work").join(path)),
            (Some(vm), World::Fake { fakes, .. }) => {
                let root = fakes.directory(vm);
                if !root.is_dir() {
                    return Err(format!("there is no VM {vm}"));
                }
                Ok(match path.strip_prefix('/') {
                    Some(path) => root.join(path.trim_start_matches('/')),
                    None => root.join("root").join(path),
                })
            }
            (Some(_), World::Local { .. }) => Err("this is a file of a real VM".into()),
        }
    }

    async fn file(&self, file: script::File) -> Result<(), String> {
        let bytes = file.content.pieces()?.concat();
        if let (Some(vm), World::Local { .. }) = (&file.vm, &self.world) {
            let id = vm
                .parse()
                .map_err(|why: vers_client::Error| why.to_string())?;
            let options = vers_client::ssh::WriteOptions {
                parents: true,
                mode: file.mode.as_deref().map(script::mode_of).transpose()?,
                expect_sha256: None,
            };
            let data = futures::stream::iter([Ok::<_, vers_client::Error>(bytes.into())]);
            let files = self.host.ssh().files(id);
            let written = files.write(&file.file, data, options).await;
            return written.map(drop).map_err(|why| why.to_string());
        }
        let path = self.path(file.vm.as_deref(), &file.file)?;
        let failed = |why: std::io::Error| format!("{}: {why}", file.file);
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).map_err(failed)?;
        }
        std::fs::write(&path, bytes).map_err(failed)?;
        if let Some(mode) = &file.mode {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = std::fs::Permissions::from_mode(script::mode_of(mode)?);
            std::fs::set_permissions(&path, mode).map_err(failed)?;
        }
        Ok(())
    }

    fn stored(&self) -> Result<pi_vers_system::store::Store, String> {
        let at = self.root.path().join("state");
        pi_vers_system::store::Store::open(&at, &self.name, STORE).map_err(|why| why.to_string())
    }

    async fn store(&self, store: script::Store) -> Result<(), String> {
        let space = self.stored()?;
        for (key, value) in store.store {
            let set = space.set(&key, &value.to_string()).await;
            set.map_err(|why| why.to_string())?;
        }
        Ok(())
    }

    async fn call(&mut self, number: usize, step: script::Call) -> Outcome {
        let begun = Instant::now();
        let played = match &self.world {
            World::Fake { fakes, .. } => Some(fakes.clone()),
            World::Local { .. } => None,
        };
        let before = played.as_ref().map(|fakes| fakes.started());
        let (started_before, mut asked) = match before {
            Some((count, asked)) => (count, Some(asked)),
            None => (0, None),
        };
        let session = self.session(number).await?;
        let mut call = session.call(&step.call, step.args.clone());
        let (mut updates, canceller) = (call.updates(), call.canceller());
        let mut shown: Vec<Value> = Vec::new();
        let mut seen = |update: &Update| {
            let text = text_of(&update.content);
            if !text.is_empty() && shown.len() < MOST_SHOWN {
                let text = Value::from(text);
                if shown.last() != Some(&text) {
                    shown.push(text.clone());
                }
                if let Some(Cancel::Shown(wanted)) = &step.cancel
                    && mismatches(wanted, &text).is_empty()
                {
                    canceller.cancel();
                }
            }
        };
        if let Some(Cancel::AtOnce(true)) = step.cancel {
            canceller.cancel();
        }
        let deadline = tokio::time::sleep(script::time(step.within_ms));
        tokio::pin!(deadline);
        let (mut live, mut late) = (true, false);
        let outcome = loop {
            tokio::select! {
                biased;
                outcome = call.outcome() => break outcome,
                () = &mut deadline, if !late => {
                    late = true;
                    canceller.cancel();
                }
                changed = updates.changed(), if live => match changed {
                    Ok(()) => seen(&updates.borrow_and_update()),
                    Err(_) => live = false,
                },
                Some(()) = more(&mut asked) => {
                    let started = played.as_ref().map_or(0, |fakes| fakes.started().0);
                    if let Some(Cancel::Started(count)) = step.cancel
                        && started.saturating_sub(started_before) >= count
                    {
                        canceller.cancel();
                    }
                }
            }
        };
        // What came last, when nobody was looking.
        seen(&updates.borrow());
        if late {
            return Err(Box::new(Wrong::new(
                number,
                format!(
                    "{} had not ended after {} ms and was cancelled; \"within_ms\" gives it longer",
                    step.call, step.within_ms
                ),
            )));
        }
        let stopped = match &outcome {
            Err(pi_vers_host::CallError::Cancelled { stopped, .. }) => json!(stopped),
            _ => json!([]),
        };
        let text = match &outcome {
            Ok(output) => output.text(),
            Err(pi_vers_host::CallError::Failed(output)) => output.text(),
            Err(_) => String::new(),
        };
        let done = Done {
            tool: step.call,
            result: outcome.map_err(Failure::from),
            took: begun.elapsed(),
        };
        let mut came = done.json();
        if let Some(object) = came.as_object_mut() {
            object.remove("ms");
            object.remove("tool");
            for (key, value) in [
                ("text", Value::from(text)),
                ("updates", Value::from(shown)),
                ("stopped", stopped),
            ] {
                object.insert(key.into(), value);
            }
        }
        self.save(number, &step.save, &came)?;
        judged(number, Some(&wanted(step.expect)), came)
    }

    fn save(
        &mut self,
        number: usize,
        save: &BTreeMap<String, String>,
        came: &Value,
    ) -> Result<(), Box<Wrong>> {
        for (name, pointer) in save {
            let value = match came.pointer(pointer) {
                Some(Value::String(text)) => text.clone(),
                Some(value) if !value.is_null() => value.to_string(),
                _ => {
                    let mut wrong =
                        Wrong::new(number, format!("{pointer} leads to nothing to save"));
                    wrong.came = Some(came.clone());
                    return Err(Box::new(wrong));
                }
            };
            self.known.insert(name.clone(), value);
        }
        Ok(())
    }

    async fn command(&mut self, number: usize, step: script::Command) -> Outcome {
        let session = self.session(number).await?;
        let work = session.command(&step.command, &step.args);
        let came = match tokio::time::timeout(script::time(step.within_ms), work).await {
            Ok(Ok(())) => json!({ "ok": true, "error": null }),
            Ok(Err(why)) => json!({ "ok": false, "error": Failure::from(why).json() }),
            Err(_) => {
                let why = format!(
                    "/{} had not ended after {} ms",
                    step.command, step.within_ms
                );
                return Err(Box::new(Wrong::new(number, why)));
            }
        };
        judged(number, Some(&wanted(step.expect)), came)
    }

    async fn look(&self, check: &script::Check) -> Result<Value, String> {
        let not_here = || "this is known of fakes alone: leave it out with --local".to_owned();
        Ok(match check.check {
            Subject::Notices => self.stage.notices(),
            Subject::Messages => self.stage.messages(),
            Subject::Entries => self.stage.entries(),
            Subject::Status => self.stage.status(),
            Subject::Widgets => self.stage.widgets(),
            Subject::Bus => self.stage.bus(),
            Subject::Commands | Subject::Requests => match &self.world {
                World::Fake { fakes, .. } if check.check == Subject::Commands => fakes.commands(),
                World::Fake { fakes, .. } => fakes.requests(),
                World::Local { .. } => return Err(not_here()),
            },
            Subject::Vms => match &self.world {
                World::Fake { platform, .. } => platform.vms(),
                World::Local { .. } => {
                    let vms = self
                        .host
                        .api()
                        .list_vms()
                        .await
                        .map_err(|why| why.to_string())?;
                    let name = |id: &str| {
                        let found = self.known.iter().find(|(_, known)| *known == id);
                        found.map(|(name, _)| name.clone())
                    };
                    vms.iter()
                        .map(|vm| {
                            let id = vm.id.to_string();
                            json!({ "name": name(&id), "id": id, "state": vm.state.as_str(), "labels": vm.labels })
                        })
                        .collect()
                }
            },
            Subject::Store => {
                let space = self.stored()?;
                let mut all = serde_json::Map::new();
                for key in space.keys("").await.map_err(|why| why.to_string())? {
                    let value = space.get(&key).await.map_err(|why| why.to_string())?;
                    let value = value.and_then(|text| serde_json::from_str(&text).ok());
                    all.insert(key, value.unwrap_or(Value::Null));
                }
                Value::Object(all)
            }
            Subject::File => {
                let path = check.path.as_deref().unwrap_or_default();
                let path = self.path(check.vm.as_deref(), path)?;
                match std::fs::metadata(&path) {
                    Err(why) if why.kind() == std::io::ErrorKind::NotFound => Value::Null,
                    Err(why) => return Err(why.to_string()),
                    Ok(data) => {
                        use std::os::unix::fs::PermissionsExt as _;
                        let text = match data.is_file() {
                            true => {
                                let bytes = std::fs::read(&path).map_err(|why| why.to_string())?;
                                Value::from(String::from_utf8_lossy(&bytes).into_owned())
                            }
                            false => Value::Null,
                        };
                        json!({ "text": text, "size": data.len(), "directory": data.is_dir(), "mode": format!("{:o}", data.permissions().mode() & 0o7777) })
                    }
                }
            }
        })
    }

    /// What background work makes may take its time: looked at whenever there is news.
    async fn check(&mut self, number: usize, check: script::Check) -> Outcome {
        self.session(number).await?;
        let mut news = self.stage.news();
        let mut asked = match &self.world {
            World::Fake { fakes, .. } => Some(fakes.started().1),
            World::Local { .. } => None,
        };
        let deadline = tokio::time::sleep(script::time(check.within_ms));
        tokio::pin!(deadline);
        loop {
            let came = self.look(&check).await;
            let came = came.map_err(|why| Box::new(Wrong::new(number, why)))?;
            let judged = judged(number, Some(&check.expect), came);
            let waits = !matches!(check.check, Subject::File | Subject::Store | Subject::Vms);
            if judged.is_ok() || !waits {
                return judged;
            }
            tokio::select! {
                () = &mut deadline => return judged,
                Ok(()) = news.changed() => {}
                Some(()) = more(&mut asked) => {}
            }
        }
    }
}

async fn more(asked: &mut Option<tokio::sync::watch::Receiver<u64>>) -> Option<()> {
    match asked {
        Some(asked) => asked.changed().await.ok(),
        None => std::future::pending().await,
    }
}

fn text_of(content: &[Content]) -> String {
    let texts: Vec<&str> = content.iter().filter_map(Content::as_text).collect();
    texts.join("\n")
}

/// Who says nothing of failing expects none.
fn wanted(expect: Option<Value>) -> Value {
    let mut wanted = expect.unwrap_or_else(|| json!({}));
    if let Some(object) = wanted.as_object_mut()
        && !object.contains_key("ok")
        && !object.contains_key("error")
    {
        object.insert("ok".into(), true.into());
    }
    wanted
}

fn judged(number: usize, expect: Option<&Value>, came: Value) -> Outcome {
    let found = expect.map_or_else(Vec::new, |expect| mismatches(expect, &came));
    if found.is_empty() {
        return Ok(Step::Done);
    }
    let mut wrong = Wrong::new(number, "this is not what came");
    wrong.mismatches = found;
    wrong.came = Some(came);
    Err(Box::new(wrong))
}
