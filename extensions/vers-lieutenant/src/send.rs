//! `vers_lt_send`, and finding whom a call means.

use std::pin::pin;
use std::rc::Rc;

use futures::future::{Either, select};
use pi_vers_sdk::agent::{Agent, Delivery, Failure, Kind, Status};
use pi_vers_sdk::declare::{JsonSchema, schemars};
use pi_vers_sdk::harness::timers;
use pi_vers_sdk::turns::Turn;
use pi_vers_sdk::{Error, ToolCall, ToolError, ToolResult, call, outcome};
use serde::Deserialize;
use serde_json::json;

use crate::record::Phase;
use crate::table::{self, Lieutenant};
use crate::words::{self, elsewhere, is_paused, unknown};
use crate::{follow, keep, power, start};

/// How long a lieutenant that is being reached is waited for, in milliseconds.
const PATIENCE: u64 = 30_000;

#[derive(Deserialize, JsonSchema)]
pub(crate) struct Args {
    /// Name of the lieutenant
    name: String,
    /// The task or message
    #[schemars(length(min = 1, max = 1_000_000))]
    message: String,
    /// prompt: a new task (default). steer: interrupts what it does. followUp: after what it does
    mode: Option<Mode>,
}

#[derive(Deserialize, JsonSchema, Clone, Copy)]
#[serde(rename_all = "camelCase")]
enum Mode {
    Prompt,
    Steer,
    FollowUp,
}

/// The lieutenant of this name, one that this session looks after.
pub(crate) async fn find(call: &ToolCall, name: &str) -> Result<Rc<Lieutenant>, ToolError> {
    let one = look_up(call, name).await?;
    match one.held() {
        None => Ok(one),
        Some(_) => Err(outcome::failed(elsewhere(name))),
    }
}

/// The lieutenant of this name, whoever looks after it.
pub(crate) async fn look_up(call: &ToolCall, name: &str) -> Result<Rc<Lieutenant>, ToolError> {
    start::loaded(call)
        .await
        .map_err(|error| outcome::ended("Cannot tell which lieutenants there are", error))?;
    table::find(name).ok_or_else(|| {
        let known: Vec<String> = table::all().iter().map(|one| one.name.clone()).collect();
        outcome::failed(unknown(name, &known))
    })
}

/// Waits until it is this call's turn with the lieutenant of this name.
pub(crate) async fn turn(call: &ToolCall, name: &str) -> Result<Turn, ToolError> {
    call::until_cancelled(call, async { Ok(table::turn(name).await) })
        .await
        .map_err(ToolError::Capability)
}

/// `vers_lt_send`
pub(crate) async fn run(call: &ToolCall, args: Args) -> Result<ToolResult, ToolError> {
    let name = args.name.as_str();
    let one = find(call, name).await?;
    let _turn = turn(call, name).await?;
    let agent = agent(call, &one).await?;
    // What interrupts or follows a run is a task of its own where there is none.
    let idle = agent.status() == Status::Idle;
    let (delivery, mode, remark) = match args.mode.unwrap_or(Mode::Prompt) {
        Mode::Prompt => (Delivery::Prompt, "prompt", None),
        Mode::Steer | Mode::FollowUp if idle => {
            let remark = "it was idle, so it begins with this now";
            (Delivery::Prompt, "prompt", Some(remark))
        }
        Mode::Steer => (Delivery::Steer, "steer", None),
        Mode::FollowUp => (Delivery::FollowUp, "followUp", None),
    };
    // Before it hears of it: it may have done it before this call goes on.
    let task = u64::from(delivery == Delivery::Prompt);
    one.works();
    one.change(|record| {
        record.tasks += task;
        // It belongs to who speaks to it.
        record.session = keep::me().session;
    });
    let sent = {
        let _sending = Sending::new(&one);
        agent.send(&args.message, delivery).await
    };
    if sent.is_err() {
        let busy = agent.status() == Status::Working;
        one.change(|record| {
            record.tasks = record.tasks.saturating_sub(task);
            record.busy = busy;
        });
        one.settle();
    }
    // Written down before anybody is told; a call that is given up does not keep it from being written.
    keep::save(&one).await;
    keep::save_soon(&one);
    let queued = sent.map_err(|failure| refused(&one, failure))?;
    let (mode, remark) = match delivery {
        Delivery::Prompt if queued => (
            "followUp",
            Some("auto-queued as follow-up since lieutenant is working"),
        ),
        _ => (mode, remark),
    };
    let record = one.record();
    let details = json!({ "name": name, "vmId": record.place(), "mode": mode, "queued": queued, "taskCount": record.tasks });
    Ok(outcome::text_with(
        words::sent(name, mode, remark, &args.message),
        &details,
    ))
}

/// A message is under way.
struct Sending<'a>(&'a Lieutenant);

impl<'a> Sending<'a> {
    fn new(one: &'a Lieutenant) -> Self {
        one.sending.set(true);
        Self(one)
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        self.0.sending.set(false);
    }
}

/// Why it did not take a message.
fn refused(one: &Rc<Lieutenant>, failure: Failure) -> ToolError {
    let name = &one.name;
    match failure.kind {
        Kind::Paused => {
            power::reach_again(one);
            outcome::failed(is_paused(name))
        }
        Kind::TimedOut => {
            let what = format!(
                "Whether lieutenant '{name}' got the message is unknown; look with vers_lt_read"
            );
            outcome::ended(&what, follow::error(failure))
        }
        _ => outcome::ended(
            &format!("Cannot send to lieutenant '{name}'"),
            follow::error(failure),
        ),
    }
}

/// Its agent; one that is being reached is waited for.
async fn agent(call: &ToolCall, one: &Rc<Lieutenant>) -> Result<Agent, ToolError> {
    let name = &one.name;
    let end = timers::ticks() + PATIENCE;
    let mut poked = false;
    loop {
        let changed = one.changed();
        if one.held().is_some() {
            return Err(outcome::failed(elsewhere(name)));
        }
        if let Some(agent) = one
            .agent()
            .filter(|agent| agent.status() != Status::Starting)
        {
            return Ok(agent);
        }
        let record = one.record();
        let problem = record.problem.unwrap_or_default();
        match record.phase {
            Phase::Paused => return Err(outcome::failed(is_paused(name))),
            Phase::Starting | Phase::Doomed => return Err(outcome::failed(power::not_now(one))),
            Phase::Error | Phase::Gone => {
                return Err(outcome::failed(
                    format!("No RPC handle for '{name}'. {problem}").trim_end(),
                ));
            }
            _ if !std::mem::replace(&mut poked, true) => one.poke(),
            _ => {}
        }
        let left = end.saturating_sub(timers::ticks());
        let waited = call::patiently(call, async {
            match select(changed, pin!(timers::sleep(left))).await {
                Either::Left(_) => Ok(true),
                Either::Right((slept, _)) => slept.map(|()| false),
            }
        })
        .await;
        match waited {
            Ok(Some(true)) => {}
            Ok(None) => {
                return Err(outcome::failed(format!(
                    "Lieutenant '{name}' is still being reached; nothing was sent. Call vers_lt_send again in a moment."
                )));
            }
            Ok(Some(false)) => {
                return Err(ToolError::Capability(Error::Unavailable(
                    format!(
                        "Lieutenant '{name}' cannot be reached now; it is tried again as long as this session lives. {problem}"
                    )
                    .trim_end()
                    .into(),
                )));
            }
            Err(error) => return Err(outcome::ended("Nothing was sent", error)),
        }
    }
}
