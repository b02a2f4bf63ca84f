//! Events of the harness.

use pi_vers_sdk::harness::types::CustomMessage;
use pi_vers_sdk::show::message;
use pi_vers_sdk::{Answer, Event, active_vm};
use serde_json::Value;

use crate::state::{self, change, get};
use crate::{ask, branch, judge, messages, show, todos, tools};

/// Answers one event.
pub(crate) async fn handle(event: Event) -> Answer {
    match event {
        Event::ToolCall(call) => match refuse(&call.tool, &call.arguments) {
            Some(why) => Answer::Block(why),
            None => Answer::Proceed,
        },
        Event::BeforeAgentStart(_) => context().map_or(Answer::Proceed, Answer::Inject),
        Event::Context(texts) => filter(&texts),
        Event::TurnEnd(message) => {
            turn_ended(&message).await;
            Answer::Proceed
        }
        Event::AgentEnd(texts) => {
            ask::ended(&texts);
            Answer::Proceed
        }
        event => {
            branch::heard(&event);
            active_vm::heard(&event);
            Answer::Proceed
        }
    }
}

/// Why a tool may not run now, if so.
fn refuse(tool: &str, arguments: &str) -> Option<String> {
    const HINT: &str = "Use /plan to disable plan mode first.";
    if !get(|state| state.enabled) || tools::reads(tool, &state::more_readers()) {
        return None;
    }
    let why = if tool == tools::SHELL {
        let arguments: Value = serde_json::from_str(arguments).unwrap_or_default();
        match arguments.get("command").and_then(Value::as_str) {
            Some(command) => {
                let why = judge::judge(command).err()?;
                format!("Plan mode: command blocked ({why}). {HINT}\nCommand: {command}")
            }
            None => format!("Plan mode: {tool} blocked (it has no command to judge). {HINT}"),
        }
    } else {
        format!("Plan mode: {tool} blocked (it is not known to only read). {HINT}")
    };
    (!tools::is_routed(tool) || !branch::is_in_use()).then_some(why)
}

/// What the model is told before it begins.
fn context() -> Option<CustomMessage> {
    let (kind, text) = get(|state| {
        if state.enabled {
            return Some((messages::PLANNING_KIND, planning(state::branch().is_some())));
        }
        let left: Vec<String> = state
            .todos
            .iter()
            .filter(|todo| !todo.completed)
            .map(|todo| format!("{}. {}", todo.step, todo.text))
            .collect();
        (state.executing && !left.is_empty()).then(|| (messages::EXECUTING_KIND, executing(&left)))
    })?;
    Some(CustomMessage {
        display: false,
        ..message(kind, text)
    })
}

fn planning(on_branch: bool) -> String {
    let rules = if on_branch {
        "You are in plan mode: explore and plan, on a throw-away copy of the VM.\n\n\
         Restrictions:\n\
         - bash, read, edit, write, grep, find and ls act on the copy: build, run and change there whatever helps you to understand\n\
         - The copy is deleted when plan mode ends: nothing you change in it stays\n\
         - Other tools that change something are disabled"
    } else {
        "You are in plan mode: a read-only exploration mode for safe code analysis.\n\n\
         Restrictions:\n\
         - You can only use tools that read, such as read, bash, grep, find, ls, questionnaire\n\
         - You CANNOT use: edit, write, or any other tool that changes something\n\
         - bash runs only commands that are known to only read; a refusal says why. Run one simple command at a time, without $(…)"
    };
    format!(
        "{}\n{rules}\n\n\
         Ask clarifying questions, with the questionnaire tool if there is one.\n\n\
         Create a detailed numbered plan under a \"Plan:\" header:\n\n\
         Plan:\n1. First step description\n2. Second step description\n...\n\n\
         Do NOT carry the plan out - just describe what you would do.",
        messages::PLANNING
    )
}

fn executing(left: &[String]) -> String {
    format!(
        "[EXECUTING PLAN - Full tool access enabled]\n\n\
         Remaining steps:\n{}\n\n\
         Execute each step in order.\n\
         After completing a step, include a [DONE:n] tag in your response.",
        left.join("\n")
    )
}

/// Takes out of the conversation what is no longer true, and catches up with steps that were done.
fn filter(texts: &[String]) -> Answer {
    // Conversations are long, and most have nothing of ours.
    if !texts.iter().any(|text| messages::concerns(text)) {
        return Answer::Proceed;
    }
    let parsed = texts.iter().map(|text| serde_json::from_str(text));
    let Ok(mut conversation) = parsed.collect::<Result<Vec<Value>, _>>() else {
        return Answer::Proceed;
    };
    if get(|state| state.executing) {
        // A session that was torn down between a step and its entry.
        let said = messages::since_execute(&conversation);
        if change(|state| todos::mark(&said, &mut state.todos)) {
            show::show();
        }
    }
    let current = get(|state| match (state.enabled, state.executing) {
        (true, _) => Some(messages::PLANNING_KIND),
        (false, true) => Some(messages::EXECUTING_KIND),
        (false, false) => None,
    });
    if messages::forget(&mut conversation, current) {
        return Answer::RewriteMessages(conversation.iter().map(Value::to_string).collect());
    }
    Answer::Proceed
}

async fn turn_ended(message: &str) {
    let said = serde_json::from_str(message)
        .ok()
        .as_ref()
        .and_then(messages::assistant);
    let Some(said) = said.filter(|_| get(|state| state.executing)) else {
        return;
    };
    if change(|state| todos::mark(&said, &mut state.todos)) {
        show::show();
        state::persist().await;
    }
}
