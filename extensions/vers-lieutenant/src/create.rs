//! `vers_lt_create`
//!
//! A name is taken first, here and in the store; then the VM is made, and its id written down before anything else is done with it.
//! Whatever fails, or when the call is given up, nothing stays: neither the VM nor the name.
//!
//! It may take minutes, and many clients give a call up after one: then the call answers that it goes on, and `vers_lt_status` tells
//! what came of it.

use std::cell::RefCell;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;

use futures::future::{Either, select};
use pi_vers_sdk::agent::{self, Agent, Home, Inbox, Kind, Launch, Role, labels};
use pi_vers_sdk::declare::{JsonSchema, schemars};
use pi_vers_sdk::harness::{bus, session, timers, ui};
use pi_vers_sdk::platform::fleet::{self, Member};
use pi_vers_sdk::platform::{shell, vms};
use pi_vers_sdk::system::store;
use pi_vers_sdk::{Error, ToolCall, ToolError, ToolResult, background, call, outcome};
use serde::Deserialize;
use serde_json::json;

use crate::keep::{self, warn};
use crate::record::{Phase, Record};
use crate::table::{self, Lieutenant};
use crate::time::{iso, length};
use crate::words::{self, exists};
use crate::{destroy, follow, name, start};

/// How long a VM may take until it answers, in milliseconds.
pub(crate) const BOOT: u64 = 60_000;
/// How long an agent may take until it answers, on a VM and here, in milliseconds.
const READY: (u64, u64) = (45_000, 30_000);
/// The model, unless the call names one.
const MODEL: &str = "claude-opus-4-6-thinking";
/// How often a long step is said to go on, in milliseconds.
const NEWS: u64 = 10_000;
/// The bus's topic of new lieutenants.
const CREATED: &str = "vers:lt_created";

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Args {
    /// Short name, e.g. infra: letters, digits, '-', '_' or '.'
    name: String,
    /// What it is responsible for; becomes the lieutenant's system prompt context
    #[schemars(length(min = 1, max = 50_000))]
    role: String,
    /// Commit to start its VM from (default: the golden commit of the fleet)
    commit_id: Option<String>,
    /// Key for its model (default: the LLM_PROXY_KEY of the host)
    llm_proxy_key: Option<String>,
    /// Model, e.g. claude-opus-4-6-thinking, the default
    model: Option<String>,
    /// Run it on this machine, without a VM (default: false)
    local: Option<bool>,
}

/// A variable of the host's environment; none where it is not set or not granted.
fn variable(name: &str) -> Option<String> {
    match session::variable(name) {
        Ok(value) => value.filter(|value| !value.trim().is_empty()),
        Err(error) => {
            warn(&format!("The variable {name} cannot be read"), &error);
            None
        }
    }
}

thread_local! {
    /// Names and why there is no such lieutenant, where nobody waited for it any more.
    static MISSED: RefCell<Vec<(String, String)>> = const { RefCell::new(Vec::new()) };
}

/// Why lieutenants are not there of whose creation nobody was told.
pub(crate) fn missed() -> Vec<String> {
    MISSED.with_borrow(|all| all.iter().map(|(_, why)| why.clone()).collect())
}

/// `vers_lt_create`
pub(crate) async fn run(call: &ToolCall, args: Args) -> Result<ToolResult, ToolError> {
    let is_local = args.local == Some(true);
    name::check(&args.name).map_err(outcome::failed)?;
    let cannot =
        |error| outcome::ended(&format!("Cannot create lieutenant '{}'", args.name), error);
    start::loaded(call).await.map_err(cannot)?;
    let reserved = table::reserve(&args.name).ok_or_else(|| outcome::failed(exists(&args.name)))?;
    let directory = match is_local {
        true => Some(directory(&args.name).map_err(cannot)?),
        false => None,
    };
    let now = timers::now();
    let me = keep::me();
    let record = Record {
        name: args.name.clone(),
        role: args.role.clone(),
        vm: None,
        directory,
        phase: Phase::Starting,
        problem: None,
        busy: false,
        tasks: 0,
        runs: 0,
        untold: Vec::new(),
        created: now,
        active: now,
        bookmark: None,
        model: args.model.clone(),
        commit: None,
        session: me.session,
        owner: Some(me.name),
    };
    keep::renew().await.map_err(cannot)?;
    let text = match keep::claim_name(&record).await {
        Ok(text) => text,
        Err(Error::Conflict(_)) => return Err(outcome::failed(exists(&args.name))),
        Err(error) => {
            // Nobody knows whether it came through.
            let key = Record::key(&args.name);
            if let Ok(text) = serde_json::to_string(&record) {
                background::spawn(async move {
                    let _ = store::swap(key, Some(text), None).await;
                });
            }
            return Err(cannot(error));
        }
    };
    let one = Lieutenant::put(record, Some(text));
    drop(reserved);
    MISSED.with_borrow_mut(|all| all.retain(|(name, _)| *name != args.name));
    if is_local {
        let made = here(call, &args, &one).await;
        return settled(call, &one, made).await;
    }
    let name = args.name.clone();
    let work = {
        let (call, one) = (call.clone(), one.clone());
        async move {
            let made = on_vm(&call, &args, &one).await;
            settled(&call, &one, made).await
        }
    };
    let late = {
        let name = name.clone();
        move |done| miss(name, done)
    };
    match background::outlasting(call, work, late).await {
        Ok(Some(done)) => done,
        Ok(None) => Ok(goes_on(&one)),
        Err(_) => {
            // What was being made is dropped where it stands.
            if one.phase() != Phase::Doomed {
                destroy::doom(&one);
            }
            Err(ToolError::Cancelled)
        }
    }
}

/// What comes of it when its agent has answered, or has not.
async fn settled(
    call: &ToolCall,
    one: &Rc<Lieutenant>,
    made: Result<Made, ToolError>,
) -> Result<ToolResult, ToolError> {
    match made {
        Ok(Made { agent, .. }) if call.is_cancelled() => {
            agent.let_go();
            destroy::doom(one);
            Err(ToolError::Cancelled)
        }
        Ok(made) => Ok(ready(one, made).await),
        Err(error) => Err(undo(one, error).await),
    }
}

/// What the caller is told when it waits no longer.
fn goes_on(one: &Lieutenant) -> ToolResult {
    let record = one.record();
    let name = &record.name;
    let text = format!(
        "Lieutenant \"{name}\" is still being created. It goes on by itself. Call vers_lt_status to see when it is idle, and then vers_lt_send; do \
         not create it again."
    );
    let details = json!({ "name": name, "vmId": record.vm, "role": record.role, "goesOn": true });
    outcome::text_with(text, &details)
}

/// Nobody waited for what came of it: a failure is kept for who asks, and shown.
fn miss(name: String, done: Result<ToolResult, ToolError>) {
    let why = match done {
        Ok(_) | Err(ToolError::Cancelled) => return,
        Err(ToolError::Capability(error)) => outcome::explain(&error),
        Err(ToolError::Failed(result)) => outcome::text_of(&result.content),
    };
    ui::notify(&why, ui::Severity::Warning);
    MISSED.with_borrow_mut(|all| all.push((name, why)));
}

/// An agent that has answered.
pub(crate) struct Made {
    pub(crate) agent: Agent,
    pub(crate) inbox: Inbox,
    pub(crate) remark: Option<String>,
}

/// It is there: the session, the bus and the fleet are told.
async fn ready(one: &Rc<Lieutenant>, made: Made) -> ToolResult {
    let Made {
        agent,
        inbox,
        remark,
    } = made;
    let bookmark = agent.bookmark();
    one.change(|record| record.bookmark = Some(bookmark));
    follow::with(one, agent, inbox);
    // Before anybody is told: one that is being made and has no owner any more is deleted.
    keep::save(one).await;
    keep::save_soon(one);
    let record = one.record();
    let place = record.place();
    let mut details = json!({ "name": record.name, "vmId": place, "role": record.role });
    if let (Some(directory), Some(details)) = (&record.directory, details.as_object_mut()) {
        details.insert("local".into(), true.into());
        details.insert("workspace".into(), format!("{directory}/workspace").into());
    }
    let address = record.vm.as_ref().map(|vm| format!("{vm}.vm.vers.sh"));
    let facts = json!({
        "vmId": place,
        "name": record.name,
        "role": "lieutenant",
        "address": address,
        "ltRole": record.role,
        "commitId": record.commit,
        "createdAt": iso(record.created),
    });
    bus::emit(CREATED, &facts.to_string());
    if let Some(vm) = record.vm.clone().filter(|_| fleet::available()) {
        let member = Member {
            vm,
            name: record.name.clone(),
            role: "lieutenant".into(),
            address: address.unwrap_or_default(),
            registered_by: "vers-lieutenant".into(),
            metadata: json!({
                "agentId": record.name,
                // A registry keeps small texts.
                "role": words::first(&record.role, 2_000, "…"),
                "commitId": record.commit,
                "createdAt": iso(record.created),
            })
            .to_string(),
        };
        background::spawn(async move {
            if let Err(error) = fleet::register(member).await {
                warn("The fleet cannot be told of a new lieutenant", &error);
            }
        });
    }
    outcome::text_with(words::ready(&record, remark.as_deref()), &details)
}

/// Nothing of it stays. A call that was given up does not wait for that.
async fn undo(one: &Rc<Lieutenant>, error: ToolError) -> ToolError {
    let given_up = matches!(
        error,
        ToolError::Cancelled | ToolError::Capability(Error::Cancelled)
    );
    destroy::doom(one);
    if !given_up {
        destroy::cleaned(BOOT).await;
    }
    error
}

/// On a VM of its own.
async fn on_vm(call: &ToolCall, args: &Args, one: &Rc<Lieutenant>) -> Result<Made, ToolError> {
    let cannot =
        |error| outcome::ended(&format!("Cannot create lieutenant '{}'", args.name), error);
    let commit = match &args.commit_id {
        Some(commit) => commit.trim().to_owned(),
        None => {
            patiently(
                call,
                "Looking for the commit that agents start from. If there is none yet it is built, which takes minutes.",
                fleet::golden_commit(None, true),
            )
            .await
            .map_err(cannot)?
            .commit
        }
    };
    call::show(call, format!("Restoring a VM from commit {commit} …"));
    let vm = one.restore(commit.clone()).await.map_err(|error| {
        outcome::ended(&format!("Cannot restore a VM from commit {commit}"), error)
    })?;
    keep::save(one).await;
    vms::set_labels(vm.clone(), label(&one.record()))
        .await
        .map_err(|error| outcome::ended(&format!("Cannot label VM {vm}"), error))?;
    let waiting = format!("VM {vm} is booting …");
    patiently(call, &waiting, shell::connect(vm.clone(), BOOT))
        .await
        .map_err(|error| {
            let what = format!("VM {vm} failed to boot within {}s", BOOT / 1000);
            outcome::ended(&what, error)
        })?;
    let failed = format!("Pi RPC failed to start on {vm}");
    let wanted = Wanted::of(args, Home::Vm(vm), READY.0);
    launch(call, &wanted)
        .await
        .map_err(|failure| outcome::ended(&failed, follow::error(failure)))
}

/// As a child of this machine.
async fn here(call: &ToolCall, args: &Args, one: &Rc<Lieutenant>) -> Result<Made, ToolError> {
    let directory = one.record().directory.unwrap_or_default();
    let failed = format!("Local pi RPC failed to start for \"{}\"", args.name);
    let wanted = Wanted::of(args, Home::Local(directory), READY.1);
    launch(call, &wanted)
        .await
        .map_err(|failure| outcome::ended(&failed, follow::error(failure)))
}

/// Which agent is to be started.
pub(crate) struct Wanted {
    name: String,
    role: String,
    model: Option<String>,
    key: Option<String>,
    home: Home,
    patience: u64,
}

impl Wanted {
    fn of(args: &Args, home: Home, patience: u64) -> Self {
        Self {
            name: args.name.clone(),
            role: args.role.clone(),
            model: args.model.clone(),
            key: args.llm_proxy_key.clone(),
            home,
            patience,
        }
    }

    /// One on its VM, as it was asked for before, with the host's key.
    pub(crate) fn again(record: &Record, vm: &str) -> Self {
        Self {
            name: record.name.clone(),
            role: record.role.clone(),
            model: record.model.clone(),
            key: None,
            home: Home::Vm(vm.into()),
            patience: READY.0,
        }
    }
}

/// Starts the agent. A model that nobody asked for must not keep it from starting.
pub(crate) async fn launch(call: &ToolCall, wanted: &Wanted) -> Result<Made, agent::Failure> {
    let launch = |model: Option<&str>| Launch {
        home: wanted.home.clone(),
        role: Role::Lieutenant,
        name: wanted.name.clone(),
        system_prompt: Some(words::system_prompt(&wanted.name, &wanted.role)),
        model: model.map(str::to_owned),
        key: wanted.key.clone(),
        patience: wanted.patience,
    };
    let tell = |what: &str| call::show(call, what);
    let model = wanted.model.as_deref().unwrap_or(MODEL);
    let (started, remark) = match agent::start(launch(Some(model)), tell).await {
        Err(failure) if failure.kind == Kind::Refused && wanted.model.is_none() => {
            let remark = format!(
                "it uses its own choice of a model, since {MODEL} was refused: {}",
                failure.why
            );
            (agent::start(launch(None), tell).await, Some(remark))
        }
        started => (started, None),
    };
    let (agent, inbox) = started?;
    Ok(Made {
        agent,
        inbox,
        remark,
    })
}

/// The labels of its VM, by which it is found without any registry.
fn label(record: &Record) -> Vec<(String, String)> {
    let created = record.created / 1000;
    labels::of(Role::Lieutenant, &record.name, &record.session, created)
}

/// The directory of a local lieutenant: below `VERS_HOME`, as users know it.
fn directory(name: &str) -> Result<String, Error> {
    let home = variable("VERS_HOME")
        .or_else(|| {
            let agent = variable("PI_CODING_AGENT_DIR")?;
            let (parent, _) = agent.trim_end_matches('/').rsplit_once('/')?;
            Some(format!("{parent}/vers"))
        })
        .or_else(|| Some(format!("{}/.pi/vers", variable("HOME")?)))
        .filter(|home| home.starts_with('/'))
        .ok_or_else(|| {
            Error::Invalid(
                "there is no directory for it: set VERS_HOME or HOME to an absolute path".into(),
            )
        })?;
    Ok(format!("{}/lieutenants/{name}", home.trim_end_matches('/')))
}

/// Says what is waited for, and from time to time that it still is.
async fn patiently<T>(call: &ToolCall, what: &str, work: impl Future<Output = T>) -> T {
    call::show(call, what);
    let began = timers::ticks();
    let mut work = pin!(work);
    loop {
        match select(work, pin!(timers::sleep(NEWS))).await {
            Either::Left((done, _)) => return done,
            // Cancelled: then the work ends by itself.
            Either::Right((Err(_), rest)) => return rest.await,
            Either::Right((Ok(()), rest)) => {
                let so_far = length(timers::ticks() - began);
                call::show(call, format!("{what} ({so_far} so far)"));
                work = rest;
            }
        }
    }
}
