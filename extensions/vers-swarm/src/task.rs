//! `vers_swarm_task` and `vers_swarm_message`: what agents are told.

use std::rc::Rc;

use pi_vers_sdk::agent::{Agent, Delivery, Failure, Kind};
use pi_vers_sdk::declare::{JsonSchema, schemars};
use pi_vers_sdk::{Error, ToolCall, ToolError, ToolResult, call, outcome};
use serde::Deserialize;
use serde_json::json;

use crate::bound::{first, one_line};
use crate::state::Phase;
use crate::worker::Worker;
use crate::{keep, mail, swarm};

/// How long an agent that is being reached again is waited for, in milliseconds.
pub(crate) const REACHING: u64 = 60_000;
/// Characters of a task in the answer.
const SHOWN: usize = 100;

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Task {
    /// Agent label/ID
    agent_id: String,
    /// The task prompt to send to the agent
    task: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Message {
    /// Agent label/ID
    agent_id: String,
    /// What to tell it
    message: String,
}

/// `vers_swarm_task`
pub(crate) async fn task(call: &ToolCall, args: Task) -> Result<ToolResult, ToolError> {
    let worker = swarm::find(&args.agent_id).map_err(outcome::failed)?;
    if args.task.trim().is_empty() {
        return Err(outcome::failed("The task is empty."));
    }
    reached(call, &worker).await?;
    let giving = worker
        .give(&args.task)
        .map_err(|phase| outcome::failed(cannot(&worker, &phase)))?;
    let Some(agent) = worker.agent() else {
        worker.change(|state| state.not_given(giving));
        return Err(no_driver(&worker));
    };
    let mut text = args.task.clone();
    let brief = !worker.note(|record| std::mem::replace(&mut record.briefed, true));
    if brief {
        text.push_str(&mail::briefing(&worker.label));
    }
    match send(call, &agent, &text, Delivery::Prompt).await {
        Ok(_) => {
            keep::save(&worker).await;
            Ok(outcome::text_with(
                format!(
                    "Task sent to {}: \"{}\"",
                    args.agent_id,
                    first(&args.task, SHOWN, "[...]")
                ),
                &json!({ "agentId": args.agent_id, "task": args.task }),
            ))
        }
        Err(failure) => {
            worker.note(|record| record.briefed &= !brief);
            worker.change(|state| state.not_given(giving));
            Err(refused(&worker, failure))
        }
    }
}

/// `vers_swarm_message`
pub(crate) async fn message(call: &ToolCall, args: Message) -> Result<ToolResult, ToolError> {
    let worker = swarm::find(&args.agent_id).map_err(outcome::failed)?;
    if args.message.trim().is_empty() {
        return Err(outcome::failed("The message is empty."));
    }
    reached(call, &worker).await?;
    match worker.phase() {
        Phase::Working => {}
        phase @ (Phase::Starting | Phase::Ended(_) | Phase::Lost { .. }) => {
            return Err(outcome::failed(cannot(&worker, &phase)));
        }
        Phase::Idle | Phase::Done | Phase::Failed(_) => {
            return Err(outcome::failed(format!(
                "Agent '{}' is not working, so nothing would read the message. Give it a task with vers_swarm_task.",
                worker.label
            )));
        }
    }
    let Some(agent) = worker.agent() else {
        return Err(no_driver(&worker));
    };
    match send(call, &agent, &args.message, Delivery::Steer).await {
        Ok(_) => Ok(outcome::text_with(
            format!(
                "Message sent to {}: \"{}\"",
                args.agent_id,
                first(&args.message, SHOWN, "[...]")
            ),
            &json!({ "agentId": args.agent_id, "message": args.message }),
        )),
        Err(failure) => Err(refused(&worker, failure)),
    }
}

/// Waits until it is reached, as long as the caller waits. One that is not yet is told as starting.
async fn reached(call: &ToolCall, worker: &Worker) -> Result<(), ToolError> {
    let reached = call::patiently(call, worker.settled(REACHING)).await;
    reached.map(|_| ()).map_err(stopped)
}

/// Given up, nobody knows whether it was taken: then what the agent tells counts.
async fn send(
    call: &ToolCall,
    agent: &Agent,
    text: &str,
    delivery: Delivery,
) -> Result<bool, Failure> {
    let sent = call::until_cancelled(call, async { Ok(agent.send(text, delivery).await) });
    match sent.await {
        Ok(sent) => sent,
        Err(_) => Err(Failure {
            doing: "giving it to the agent".into(),
            why: "the call was given up".into(),
            kind: Kind::Cancelled,
        }),
    }
}

/// Why an agent takes no task now, and what to do.
fn cannot(worker: &Worker, phase: &Phase) -> String {
    let label = &worker.label;
    match phase {
        Phase::Starting => {
            format!("Agent '{label}' is still starting. Try again when it is ready.")
        }
        Phase::Working => {
            let task = worker.view().state.task;
            let task = task.map_or_else(String::new, |task| {
                format!(" on \"{}\"", one_line(&task, 60))
            });
            format!(
                "Agent '{label}' is busy{task}. Wait for it with vers_swarm_wait, or tell it something with vers_swarm_message."
            )
        }
        Phase::Ended(why) => format!(
            "Agent '{label}' has ended ({why}). vers_swarm_read shows what it said; spawn another agent for the task."
        ),
        Phase::Lost { why, .. } => format!(
            "Agent '{label}' cannot be reached ({why}). vers_swarm_discover tries to reach it again."
        ),
        Phase::Idle | Phase::Done | Phase::Failed(_) => {
            format!("Agent '{label}' takes no task now.")
        }
    }
}

fn no_driver(worker: &Rc<Worker>) -> ToolError {
    outcome::failed(format!(
        "No RPC handle for agent '{}'. vers_swarm_discover tries to reach it again.",
        worker.label
    ))
}

fn stopped(error: Error) -> ToolError {
    outcome::ended("The wait for the agent", error)
}

fn refused(worker: &Worker, failure: Failure) -> ToolError {
    let label = &worker.label;
    match failure.kind {
        Kind::Cancelled => ToolError::Cancelled,
        Kind::Denied => ToolError::Capability(Error::Denied(failure.why)),
        Kind::TimedOut => outcome::failed(format!(
            "Agent '{label}' did not acknowledge it: {failure}. Nobody knows whether it has it: vers_swarm_status shows whether it works."
        )),
        Kind::Gone | Kind::Paused | Kind::Unreachable | Kind::Refused | Kind::Ended => {
            outcome::failed(format!("Agent '{label}' did not take it: {failure}"))
        }
    }
}
