//! `vers_lt_pause` and `vers_lt_resume`
//!
//! Before a VM is paused its agent is let go of, so that nobody tries to reach what sleeps; afterwards it is attached to anew, where its
//! output was left.

use std::rc::Rc;

use pi_vers_sdk::agent::{self, Kind};
use pi_vers_sdk::declare::{JsonSchema, schemars};
use pi_vers_sdk::harness::session::{self, Delivery};
use pi_vers_sdk::harness::ui::{self, Severity};
use pi_vers_sdk::platform::shell;
use pi_vers_sdk::platform::vms::{self, State};
use pi_vers_sdk::show::message;
use pi_vers_sdk::{
    CustomMessage, Error, ToolCall, ToolError, ToolResult, background, call, outcome,
};
use serde::Deserialize;
use serde_json::json;

use crate::record::Phase;
use crate::table::{self, Lieutenant};
use crate::time::length;
use crate::{create, follow, keep, send};

/// Whom a call is about.
#[derive(Deserialize, JsonSchema)]
pub(crate) struct Whom {
    /// Name of the lieutenant
    pub(crate) name: String,
}

fn told(one: &Lieutenant, text: String) -> ToolResult {
    let record = one.record();
    let details =
        json!({ "name": record.name, "vmId": record.place(), "status": one.phase().word() });
    outcome::text_with(text, &details)
}

/// `vers_lt_pause`
pub(crate) async fn pause(call: &ToolCall, whom: Whom) -> Result<ToolResult, ToolError> {
    let name = whom.name;
    let one = send::find(call, &name).await?;
    let _turn = send::turn(call, &name).await?;
    let record = one.record();
    let Some(vm) = record.vm.filter(|_| record.directory.is_none()) else {
        return Err(outcome::failed(format!(
            "Lieutenant '{name}' is a local process — pause/resume requires a Vers VM."
        )));
    };
    match one.phase() {
        Phase::Paused => return Ok(told(&one, format!("{name} is already paused."))),
        Phase::Starting | Phase::Doomed => return Err(outcome::failed(not_now(&one))),
        _ if record.busy || one.phase() == Phase::Working => {
            return Err(outcome::failed(format!(
                "Lieutenant '{name}' is currently working. Send a steer to stop it first, or wait for it to finish."
            )));
        }
        _ => {}
    }
    sleep(&one, &vm)
        .await
        .map_err(|error| outcome::ended(&format!("Cannot pause lieutenant '{name}'"), error))?;
    Ok(told(
        &one,
        format!("Lieutenant \"{name}\" paused. VM state preserved. Use vers_lt_resume to wake it."),
    ))
}

/// Lets go of it and pauses its VM. Where that fails, it is reached again and how it is found out.
async fn sleep(one: &Rc<Lieutenant>, vm: &str) -> Result<(), Error> {
    drop(one.end_term());
    match vms::set_state(vm.into(), State::Paused).await {
        Ok(()) => {
            one.warn(None);
            one.is(Phase::Paused, None);
            keep::save_soon(one);
            // The connection leads to something that sleeps.
            let _ = shell::disconnect(vm.into()).await;
            Ok(())
        }
        Err(error) => {
            one.is(Phase::Connecting, None);
            follow::reach(one);
            Err(error)
        }
    }
}

/// Pauses one that was idle for too long, and says so.
pub(crate) async fn pause_idle(one: &Rc<Lieutenant>, lease: u64) {
    let _turn = table::turn(&one.name).await;
    let record = one.record();
    let Some(vm) = record.vm else { return };
    // It may have got something to do while this waited.
    if one.phase() != Phase::Idle || record.busy || one.idle().1.is_none() {
        return;
    }
    one.warn(None);
    let name = &one.name;
    if let Err(error) = sleep(one, &vm).await {
        let why = outcome::explain(&error);
        ui::notify(
            &format!("Idle lieutenant \"{name}\" could not be paused: {why}"),
            Severity::Warning,
        );
        return;
    }
    let text = format!(
        "Lieutenant \"{name}\" was idle for {} and has been paused. VM state preserved. Use vers_lt_resume to wake it.",
        length(lease)
    );
    ui::notify(&text, Severity::Info);
    let message = CustomMessage {
        display: false,
        details: Some(json!({ "lieutenant": name, "vmId": vm }).to_string()),
        ..message("vers:lt_paused", text)
    };
    if let Err(error) = session::send_message(message, Delivery::NextTurn, false).await {
        keep::warn("The session cannot be told of a pause", &error);
    }
}

/// `vers_lt_resume`: answers before its caller is gone, and goes on.
pub(crate) async fn resume(call: &ToolCall, whom: Whom) -> Result<ToolResult, ToolError> {
    let name = whom.name;
    let one = send::find(call, &name).await?;
    let turn = send::turn(call, &name).await?;
    let work = {
        let (call, one) = (call.clone(), one.clone());
        async move {
            let _turn = turn;
            wake(&call, &one).await
        }
    };
    // How it went is in its status: whatever fails, it is found out how it is.
    match background::outlasting(call, work, drop).await {
        Ok(Some(done)) => done,
        Ok(None) => Ok(told(
            &one,
            format!(
                "Lieutenant \"{name}\" is still being resumed. It goes on by itself. Call vers_lt_status to see when it is idle."
            ),
        )),
        Err(_) => {
            reach_again(&one);
            Err(ToolError::Cancelled)
        }
    }
}

async fn wake(call: &ToolCall, one: &Rc<Lieutenant>) -> Result<ToolResult, ToolError> {
    let name = &one.name;
    let record = one.record();
    let (Phase::Paused, Some(vm)) = (one.phase(), record.vm) else {
        if record.directory.is_some() {
            return Err(outcome::failed(format!(
                "Lieutenant '{name}' is a local process — pause/resume requires a Vers VM."
            )));
        }
        if let (Phase::Error, Some(vm)) = (one.phase(), one.record().vm) {
            return restart(call, one, &vm).await;
        }
        return Ok(told(
            one,
            format!("{name} is not paused (status: {}).", one.phase().word()),
        ));
    };
    call::show(call, format!("Resuming VM {vm} …"));
    drop(one.end_term());
    let found_out = |what: String| {
        let one = one.clone();
        move |error: Error| {
            // How it is now is found out, whatever happened.
            one.is(Phase::Connecting, None);
            follow::reach(&one);
            outcome::ended(&what, error)
        }
    };
    vms::set_state(vm.clone(), State::Running)
        .await
        .map_err(found_out(format!("Cannot resume lieutenant '{name}'")))?;
    shell::connect(vm.clone(), create::BOOT)
        .await
        .map_err(found_out(format!(
            "Lieutenant \"{name}\" VM resumed but does not answer yet"
        )))?;
    match agent::attach(&vm, name, one.record().bookmark).await {
        Ok((agent, inbox)) => {
            follow::with(one, agent, inbox);
            keep::save_soon(one);
            Ok(told(
                one,
                format!("Lieutenant \"{name}\" resumed. Pi session intact. Ready for tasks."),
            ))
        }
        Err(failure) if failure.kind == Kind::Gone => {
            one.is(Phase::Error, Some(follow::no_agent(&vm)));
            keep::save_soon(one);
            Err(outcome::failed(format!(
                "Lieutenant \"{name}\" VM resumed but pi session not found. The tmux session may have been lost. VM {vm} runs; \
                 vers_lt_resume starts \
                 a new agent there, vers_lt_destroy deletes it."
            )))
        }
        Err(failure) => Err(found_out(format!("Lieutenant \"{name}\" VM resumed"))(
            follow::error(failure),
        )),
    }
}

/// Its agent has ended: starts another one on its VM.
async fn restart(call: &ToolCall, one: &Rc<Lieutenant>, vm: &str) -> Result<ToolResult, ToolError> {
    let name = &one.name;
    drop(one.end_term());
    let wanted = create::Wanted::again(&one.record(), vm);
    match create::launch(call, &wanted).await {
        Ok(made) => {
            let bookmark = made.agent.bookmark();
            one.change(|record| record.bookmark = Some(bookmark));
            follow::with(one, made.agent, made.inbox);
            keep::save_soon(one);
            let mut text = format!(
                "Lieutenant \"{name}\" started again. Its files are as they were; its conversation begins anew. Ready for tasks."
            );
            if let Some(remark) = made.remark {
                text.push_str(&format!("\n  Note: {remark}"));
            }
            Ok(told(one, text))
        }
        Err(failure) => {
            reach_again(one);
            let what = format!("Lieutenant \"{name}\" could not be started again");
            Err(outcome::ended(&what, follow::error(failure)))
        }
    }
}

/// Why it cannot be used at the moment.
pub(crate) fn not_now(one: &Lieutenant) -> String {
    let name = &one.name;
    match one.phase() {
        Phase::Starting => format!("Lieutenant '{name}' is still being created."),
        Phase::Doomed => format!("Lieutenant '{name}' is being deleted."),
        phase => format!("Lieutenant '{name}' is {}.", phase.word()),
    }
}

/// Finds out how it is, and reaches it again if it can be.
pub(crate) fn reach_again(one: &Rc<Lieutenant>) {
    drop(one.end_term());
    one.is(Phase::Connecting, None);
    follow::reach(one);
}
