//! Runs one script: a host of its own, a session, and line after line.

mod acts;
mod world;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use pi_vers_host::policy::Policy;
use pi_vers_host::secrets::Secrets;
use pi_vers_host::{FlagValue, Host, Session, StartReason};
use serde_json::{Value, json};
use vers_client::{Environment, Overrides, Settings};

use super::fakes::Fakes;
use super::harness::Stage;
use super::matching::{Mismatch, mismatches};
use super::platform::Platform;
use super::script::{self, Line, Numbered, Reason, Script};
use crate::bridge::{events, values};
use crate::dirs;
use crate::failure::Failure;
use crate::local::Local;

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
