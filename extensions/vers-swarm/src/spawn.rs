//! `vers_swarm_spawn`: agents on VMs of their own, made side by side from one commit.
//!
//! Each agent has its own success, or its own failure with the step it failed at; a failure deletes its VM and touches no other.
//! Until the call tells of them, agents are `starting` for everybody else, and their VMs are [`Doomed`]: a call that is given up, at
//! whatever moment, leaves nothing that nobody was told of.
//!
//! It may take minutes, and many clients give a call up after one: then the call answers with how far it is, the agents are made
//! all the same, and `vers_swarm_status` tells of them.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use futures::StreamExt as _;
use futures::future::{Either, select};
use pi_vers_sdk::agent::{self, Agent, Home, Inbox, Launch, Role};
use pi_vers_sdk::declare::{JsonSchema, schemars};
use pi_vers_sdk::harness::{session, timers, ui};
use pi_vers_sdk::platform::fleet::{self, Golden};
use pi_vers_sdk::platform::{shell, vms};
use pi_vers_sdk::{
    Content, Error, FlagValue, ToolCall, ToolError, ToolResult, background, call, outcome,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::bound::one_line;
use crate::doomed::Doomed;
use crate::state::Phase;
use crate::sync::{self, Plan};
use crate::worker::Worker;
use crate::{keep, outbox, registry, swarm, words};

/// Agents that are made at once.
pub(crate) const AT_ONCE: usize = 24;
/// How long a VM may take until it answers, in milliseconds.
const BOOT: u64 = 120_000;
/// How long an agent may take until it answers, in milliseconds.
const START: u64 = 120_000;
/// Characters of why an agent did not start.
const MOST_WHY: usize = 1_000;
/// How often the user sees for how long the golden commit has been looked for, in milliseconds.
const NEWS: u64 = 5_000;
/// The flag that says when VMs may be deleted by `pi-vers fleet gc`, in hours; 0 is never.
pub(crate) const EXPIRES: &str = "vers-swarm-expires";

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Args {
    /// Commit to start the VMs from (default: the golden commit, which is built if there is none)
    commit_id: Option<String>,
    /// Number of agents to spawn
    #[schemars(range(min = 1, max = 100))]
    count: u64,
    /// Labels for the agents, unique in the session (default: agent-1, agent-2, …, counting on)
    labels: Option<Vec<String>>,
    /// Key for the model (default: LLM_PROXY_KEY of pi-vers)
    llm_proxy_key: Option<String>,
    /// Model of the agents, as model or provider/model
    model: Option<String>,
}

/// What is the same for all agents of a spawn.
struct Order {
    commit: String,
    key: Option<String>,
    model: Option<String>,
    expires: Option<u64>,
    plan: Plan,
    /// Whose VMs these are was asked.
    owner_known: Cell<bool>,
}

/// An agent that is there and of which nobody was told yet.
struct Ready {
    vm: Doomed,
    agent: Agent,
    inbox: Inbox,
    outbox: u64,
    /// What did not go well, but is no reason to have no agent.
    note: Option<String>,
}

/// Why there is no agent.
struct Failed {
    step: &'static str,
    vm: Option<String>,
    line: String,
    error: Option<Error>,
}

thread_local! {
    /// Why agents of the last spawn are not there, where nobody waited for it any more.
    static MISSED: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Why agents are not there of whose start nobody was told.
pub(crate) fn missed() -> Vec<String> {
    MISSED.with_borrow(Clone::clone)
}

/// Runs one call.
pub(crate) async fn run(call: &ToolCall, args: Args) -> Result<ToolResult, ToolError> {
    let count = usize::try_from(args.count).unwrap_or(usize::MAX);
    let labels = args.labels.unwrap_or_default();
    let key = args.llm_proxy_key.filter(|key| !key.trim().is_empty());
    if key.is_none()
        && !session::has_secret("LLM_PROXY_KEY")
        && !session::has_secret("ANTHROPIC_API_KEY")
    {
        return Err(outcome::failed(
            "LLM_PROXY_KEY is required for swarm agents. Set it in the environment of pi-vers, or give llmProxyKey.",
        ));
    }
    let plan = sync::plan().map_err(outcome::failed)?;
    let reserved = Reserved(swarm::reserve(count, &labels).map_err(outcome::failed)?);
    MISSED.take();
    let going_on = goes_on(&reserved);
    let work = {
        let call = call.clone();
        async move {
            let work = async {
                let golden = golden(&call, args.commit_id).await?;
                let order = Order {
                    commit: golden.commit.clone(),
                    key,
                    model: args.model,
                    expires: expires(),
                    plan,
                    owner_known: Cell::new(false),
                };
                let made = make(&call, &reserved.0, &order).await;
                Ok((golden, made))
            };
            let (golden, made) = match call::until_cancelled(&call, work).await {
                Ok(done) => done,
                Err(error) => {
                    return Err(outcome::ended(
                        "Cannot find the commit that agents start from",
                        error,
                    ));
                }
            };
            if call.is_cancelled() {
                // Nobody would be told of what was made: it is deleted with `made`.
                return Err(ToolError::Cancelled);
            }
            tell(&call, reserved, &golden, made).await
        }
    };
    match background::outlasting(call, work, miss).await {
        Ok(Some(done)) => done,
        Ok(None) => Ok(going_on),
        Err(error) => Err(outcome::ended("The start of agents", error)),
    }
}

/// What the caller is told when it waits no longer.
fn goes_on(reserved: &Reserved) -> ToolResult {
    let labels: Vec<&str> = reserved.0.iter().map(|one| one.label.as_str()).collect();
    let details = json!({
        "goesOn": true,
        "agents": labels.iter().map(|label| json!({ "id": label, "status": "starting" })).collect::<Vec<_>>(),
    });
    let text = format!(
        "Still starting {} agent(s): {}. It goes on by itself. Call vers_swarm_status to see how far they are; an agent that is idle is ready for \
         vers_swarm_task. Do not spawn them again.",
        labels.len(),
        one_line(&labels.join(", "), MOST_WHY)
    );
    outcome::text_with(text, &details)
}

/// Nobody waited for what came of a spawn: what failed is kept for who asks, and shown.
fn miss(done: Result<ToolResult, ToolError>) {
    let failed = |result: &ToolResult| {
        let details: Value = result
            .details
            .as_deref()
            .and_then(|details| serde_json::from_str(details).ok())
            .unwrap_or_default();
        let failed = details.get("failed").and_then(Value::as_array);
        let lines = failed
            .into_iter()
            .flatten()
            .filter_map(|one| one.get("error")?.as_str());
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let missed = match &done {
        Ok(result) => failed(result),
        Err(ToolError::Failed(result)) => match failed(result) {
            lines if lines.is_empty() => vec![outcome::text_of(&result.content)],
            lines => lines,
        },
        Err(ToolError::Capability(error)) => vec![outcome::explain(error)],
        Err(ToolError::Cancelled) => Vec::new(),
    };
    for line in &missed {
        ui::notify(line, ui::Severity::Warning);
    }
    MISSED.with_borrow_mut(|all| all.extend(missed));
    swarm::changed();
}

/// Labels that were taken. Dropped, those that no agent got are free again.
struct Reserved(Vec<Rc<Worker>>);

impl Drop for Reserved {
    fn drop(&mut self) {
        for worker in &self.0 {
            if worker.is_spawning.get() {
                // Whoever waits for it waits no longer.
                if worker.phase() == Phase::Starting {
                    worker.change(|state| state.exited("it was not started", String::new(), 0));
                }
                swarm::remove(worker);
            }
        }
    }
}

fn expires() -> Option<u64> {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float becomes the nearest number there is"
    )]
    match session::flag(EXPIRES) {
        Some(FlagValue::Number(hours)) if hours > 0.0 => Some((hours * 3600.0) as u64),
        _ => None,
    }
}

/// The commit that agents start from. It may have to be built, so the user sees that something happens.
async fn golden(call: &ToolCall, explicit: Option<String>) -> Result<Golden, Error> {
    let explicit = explicit.map(|commit| commit.trim().to_owned());
    let explicit = explicit.filter(|commit| !commit.is_empty());
    let since = timers::ticks();
    let found = fleet::golden_commit(explicit, true);
    futures::pin_mut!(found);
    loop {
        let tick = timers::sleep(NEWS);
        futures::pin_mut!(tick);
        match select(found.as_mut(), tick).await {
            Either::Left((found, _)) => return found,
            Either::Right((passed, _)) => passed?,
        }
        let seconds = (timers::ticks() - since) / 1000;
        call::show(
            call,
            format!(
                "Looking for the golden commit for {seconds}s. If there is none it is built now, which can take many minutes."
            ),
        );
    }
}

/// How far the agents are, for the user.
struct Progress<'a> {
    call: &'a ToolCall,
    steps: RefCell<Vec<(String, String)>>,
    ready: Cell<usize>,
    failed: Cell<usize>,
}

impl Progress<'_> {
    fn at(&self, index: usize, step: impl Into<String>) {
        if let Some((_, known)) = self.steps.borrow_mut().get_mut(index) {
            *known = step.into();
        }
        let steps = self.steps.borrow();
        let mut line = format!("{} of {} ready", self.ready.get(), steps.len());
        if self.failed.get() > 0 {
            line.push_str(&format!(", {} failed", self.failed.get()));
        }
        let mut text = line.clone();
        for (label, step) in steps.iter().filter(|(_, step)| !step.is_empty()) {
            text.push_str(&format!("\n{label}: {step}"));
        }
        let details =
            json!({ "ready": self.ready.get(), "failed": self.failed.get(), "count": steps.len() });
        self.call
            .update(&[Content::Text(text)], Some(&details.to_string()));
        #[allow(clippy::cast_precision_loss, reason = "a hundred at most")]
        self.call.progress(
            (self.ready.get() + self.failed.get()) as f64,
            Some(steps.len() as f64),
            &line,
        );
    }
}

/// Makes the agents, in the order of their labels.
async fn make(
    call: &ToolCall,
    workers: &[Rc<Worker>],
    order: &Order,
) -> Vec<Result<Ready, Failed>> {
    let steps = workers
        .iter()
        .map(|worker| (worker.label.clone(), String::new()));
    let progress = Progress {
        call,
        steps: RefCell::new(steps.collect()),
        ready: Cell::new(0),
        failed: Cell::new(0),
    };
    let each = workers.iter().enumerate().map(|(index, worker)| {
        let progress = &progress;
        Box::pin(async move {
            let made = one(&worker.label, order, &|step| progress.at(index, step)).await;
            let (counter, step) = match &made {
                Ok(_) => (&progress.ready, "ready".to_owned()),
                Err(failed) => (&progress.failed, format!("failed ({})", failed.step)),
            };
            counter.set(counter.get() + 1);
            progress.at(index, step);
            (index, made)
        })
    });
    let mut made: Vec<_> = futures::stream::iter(each)
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    made.sort_by_key(|(index, _)| *index);
    made.into_iter().map(|(_, made)| made).collect()
}

/// Makes one agent.
async fn one(label: &str, order: &Order, show: &dyn Fn(&str)) -> Result<Ready, Failed> {
    show("restoring the commit");
    let commit = &order.commit;
    let vm = match Doomed::restored(commit.clone()).await {
        Ok(vm) => vm,
        Err(error) => {
            let why = outcome::explain(&error);
            return Err(Failed {
                step: "restore",
                vm: None,
                line: format!("{label}: FAILED to restore commit {commit} — {why}"),
                error: Some(error),
            });
        }
    };
    // At once: from here on whoever looks for VMs of agents finds it, also if nobody is left here.
    let id = vm.vm().to_owned();
    if let Err(error) = vms::set_labels(id.clone(), registry::of(label, order.expires)).await {
        return Err(failed(
            vm,
            "label",
            format!("{label}: FAILED to label VM {id}"),
            error,
        )
        .await);
    }
    show("booting");
    if let Err(error) = shell::connect(id.clone(), BOOT).await {
        return Err(failed(
            vm,
            "connect",
            format!("{label}: FAILED to boot VM {id}"),
            error,
        )
        .await);
    }
    note_owner(&id, order).await;
    let note = order.plan.copy(&id).await.err();
    let outbox = outbox::beginning(&id).await;
    show("starting the agent");
    let launch = Launch {
        home: Home::Vm(id.clone()),
        role: Role::Worker,
        name: label.to_owned(),
        system_prompt: None,
        model: order.model.clone(),
        key: order.key.clone(),
        patience: START,
    };
    match agent::start(launch, |step| show(step)).await {
        Ok((agent, inbox)) => Ok(Ready {
            vm,
            agent,
            inbox,
            outbox,
            note,
        }),
        Err(failure) => {
            let why = one_line(&failure.to_string(), MOST_WHY);
            let line = format!("{label}: VM {id} booted but pi RPC failed to start — {why}");
            let deleted = vm.delete().await;
            Err(Failed {
                step: "start",
                vm: Some(id),
                line: format!("{}. {deleted}", line.trim_end_matches('.')),
                error: None,
            })
        }
    }
}

async fn failed(vm: Doomed, step: &'static str, what: String, error: Error) -> Failed {
    let id = vm.vm().to_owned();
    let why = outcome::explain(&error);
    let deleted = vm.delete().await;
    Failed {
        step,
        vm: Some(id),
        line: format!("{what} — {}. {deleted}", why.trim_end_matches('.')),
        error: Some(error),
    }
}

/// Once in a spawn: discovery has to know which VMs of the account are ours.
async fn note_owner(vm: &str, order: &Order) {
    if !order.owner_known.replace(true)
        && let Ok(found) = vms::get(vm.to_owned()).await
    {
        keep::add_owner(&found.owner_id).await;
    }
}

/// Tells what was made: from here on the agents are the session's.
async fn tell(
    call: &ToolCall,
    reserved: Reserved,
    golden: &Golden,
    made: Vec<Result<Ready, Failed>>,
) -> Result<ToolResult, ToolError> {
    let count = made.len();
    let mut lines = Vec::new();
    let mut agents = Vec::new();
    let mut failures = Vec::new();
    let mut denied = None;
    let mut new = Vec::new();
    for (worker, made) in reserved.0.iter().zip(made) {
        match made {
            Ok(ready) => {
                let vm = ready.vm.vm().to_owned();
                let note = ready
                    .note
                    .as_ref()
                    .map_or_else(String::new, |note| format!(" ({note})"));
                lines.push(format!("{}: VM {vm} — ready{note}", worker.label));
                agents.push(json!({ "id": worker.label, "vmId": vm, "status": "idle" }));
                take_over(worker, ready, golden);
                registry::spawned(worker, &vm);
                new.push(worker.clone());
            }
            Err(failed) => {
                worker.change(|state| state.exited(&failed.line, String::new(), 0));
                failures.push(json!({ "id": worker.label, "vmId": failed.vm, "step": failed.step, "error": failed.line }));
                lines.push(failed.line);
                if let Some(Error::Denied(rule)) = failed.error {
                    denied.get_or_insert(rule);
                }
            }
        }
    }
    futures::future::join_all(new.iter().map(keep::save)).await;
    drop(reserved);
    if call.is_cancelled() {
        new.iter().for_each(take_back);
        return Err(ToolError::Cancelled);
    }
    let spawned = agents.len();
    let heading = if spawned == count {
        format!("Spawned {count} agent(s):")
    } else {
        format!("Spawned {spawned} of {count} agent(s):")
    };
    let text = format!(
        "{heading}\n{}\n\n{}",
        lines.join("\n"),
        words::summary(&swarm::views())
    );
    let mut details = json!({ "agents": agents, "commitId": golden.commit });
    if let (Some(details), false) = (details.as_object_mut(), failures.is_empty()) {
        details.insert("failed".into(), Value::Array(failures));
    }
    match (spawned, denied) {
        (0, Some(rule)) => Err(ToolError::Capability(Error::Denied(rule))),
        (0, None) => Err(outcome::failed_with(text, &details)),
        _ => Ok(outcome::text_with(text, &details)),
    }
}

fn take_over(worker: &Rc<Worker>, ready: Ready, golden: &Golden) {
    worker.note(|record| {
        record.vm = ready.vm.vm().to_owned();
        record.commit = Some(golden.commit.clone());
        record.session = session::id();
        record.created = timers::now() / 1000;
        record.outbox = ready.outbox;
        record.bookmark = Some(ready.agent.bookmark());
    });
    ready.vm.keep();
    worker.is_spawning.set(false);
    worker.hold(ready.agent, ready.inbox);
}

/// Nobody was told of it after all.
fn take_back(worker: &Rc<Worker>) {
    worker.let_go();
    swarm::remove(worker);
    if let Some(vm) = worker.vm() {
        registry::destroyed(&worker.label, &vm);
        drop(Doomed::new(vm));
    }
    let worker = worker.clone();
    background::spawn(async move { keep::forget(&worker).await });
}
