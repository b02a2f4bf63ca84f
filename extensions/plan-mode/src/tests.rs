//! Plan mode as a harness drives it, in a world of fakes.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use pi_vers_sdk::bindings::exports::vers::harness::events::ToolUse;
use pi_vers_sdk::testing::{Asks, Kit, Reply};
use pi_vers_sdk::{Answer, Event};
use serde_json::{Value, json};

use crate::extension;

fn kit() -> Kit {
    let kit = Kit::new(extension());
    kit.tools(&["bash", "edit", "read", "write"]);
    kit
}

fn call(kit: &Kit, tool: &str, arguments: &Value) -> Answer {
    kit.event(Event::ToolCall(ToolUse {
        call_id: "1".into(),
        tool: tool.into(),
        arguments: arguments.to_string(),
    }))
}

#[test]
fn while_it_plans_the_model_can_only_look() {
    let kit = kit();
    assert!(matches!(call(&kit, "edit", &json!({})), Answer::Proceed));
    kit.command("plan", "").unwrap();
    assert_eq!(kit.offered(), ["bash", "read"]);
    assert_eq!(kit.status("plan-mode").unwrap(), "⏸ plan");
    assert!(matches!(call(&kit, "edit", &json!({})), Answer::Block(_)));
    assert!(matches!(
        call(&kit, "bash", &json!({ "command": "rm x" })),
        Answer::Block(_)
    ));
    assert!(matches!(
        call(&kit, "bash", &json!({ "command": "ls" })),
        Answer::Proceed
    ));
    kit.command("plan", "").unwrap();
    assert_eq!(kit.offered(), ["bash", "edit", "read", "write"]);
    assert_eq!(kit.status("plan-mode"), None);
}

#[test]
fn the_user_decides_what_becomes_of_the_plan() {
    let kit = kit();
    kit.command("plan", "").unwrap();
    let said = json!({ "role": "assistant", "content": [{ "type": "text", "text": "Plan:\n1. Read the code\n2. Change the code" }] });
    let _ = kit.event(Event::AgentEnd(vec![said.to_string()]));
    kit.settle();
    let Asks::Select(options) = kit.dialogs().remove(0).asks else {
        unreachable!("{:?}", kit.dialogs())
    };
    kit.reply(Reply::Choose(options[0].clone()));
    assert!(
        kit.messages()
            .last()
            .unwrap()
            .starts_with("Execute the plan.")
    );
    assert_eq!(
        kit.asked("session.send-message").last().unwrap().with["trigger-turn"],
        true
    );
    assert_eq!(kit.offered(), ["bash", "edit", "read", "write"]);
    assert_eq!(kit.widget("plan-todos").unwrap().len(), 2);
    let done = json!({ "role": "assistant", "content": [{ "type": "text", "text": "[DONE:1]" }] });
    let _ = kit.event(Event::TurnEnd(done.to_string()));
    assert_eq!(kit.status("plan-mode").unwrap(), "📋 1/2");
}

#[test]
fn nobody_is_asked_where_nobody_can_answer() {
    let kit = kit();
    kit.no_screen();
    kit.command("plan", "").unwrap();
    let said = json!({ "role": "assistant", "content": [{ "type": "text", "text": "Plan:\n1. Read the code" }] });
    let _ = kit.event(Event::AgentEnd(vec![said.to_string()]));
    kit.settle();
    assert!(kit.asked("ui.select").is_empty());
}
