//! What the extension offers.

use pi_vers_sdk::schema::{boolean, object, positive, string, tool};
use pi_vers_sdk::{ExtensionInfo, Flag, FlagValue, Hints, Tool};
use serde_json::{Value, json};

use crate::{spawn, sync, wait};

/// Agents in one spawn.
const MOST: u64 = 100;

/// The description: the same every time.
pub(crate) fn describe() -> ExtensionInfo {
    ExtensionInfo {
        name: "vers-swarm".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        summary: env!("CARGO_PKG_DESCRIPTION").into(),
        tools: tools(),
        commands: Vec::new(),
        shortcuts: Vec::new(),
        flags: vec![
            Flag {
                name: sync::FLAG.into(),
                description: "What of ~/.pi/agent swarm agents get: a list of skills, agents-md, prompts (default: nothing)".into(),
                default: FlagValue::Text(String::new()),
            },
            Flag {
                name: spawn::EXPIRES.into(),
                description: "Hours after which `pi-vers fleet gc` may delete the VMs of swarm agents (default: 0, never)".into(),
                default: FlagValue::Number(0.0),
            },
        ],
        subscriptions: Vec::new(),
        topics: Vec::new(),
    }
}

fn agent_id() -> (&'static str, Value) {
    ("agentId", string("Agent label/ID"))
}

fn tools() -> Vec<Tool> {
    vec![
        tool(
            "vers_swarm_spawn",
            "Spawn Agent Swarm",
            "Start coding agents (pi), each on a Vers VM of its own, side by side from one commit. Returns when each is ready or has failed; \
             the VM of one that failed is deleted. Give them work with vers_swarm_task. It may return while they are still starting, and says so: \
             then vers_swarm_status shows when they are ready.",
            Hints::OPEN_WORLD | Hints::LONG_RUNNING,
            object(&[
                (
                    "commitId?",
                    string(
                        "Commit to start the VMs from (default: the golden commit, which is built if there is none)",
                    ),
                ),
                (
                    "count",
                    json!({ "type": "integer", "minimum": 1, "maximum": MOST, "description": "Number of agents to spawn" }),
                ),
                (
                    "labels?",
                    json!({
                        "type": "array",
                        "items": { "type": "string" },
                        "description": "Labels for the agents, unique in the session (default: agent-1, agent-2, …, counting on)",
                    }),
                ),
                (
                    "llmProxyKey?",
                    string("Key for the model (default: LLM_PROXY_KEY of pi-vers)"),
                ),
                (
                    "model?",
                    string("Model of the agents, as model or provider/model"),
                ),
            ]),
        ),
        tool(
            "vers_swarm_task",
            "Send Task to Agent",
            "Give an agent of the swarm a task. Returns when the agent has taken it, not when it is done: see vers_swarm_wait. An agent that is \
             done takes the next task; one that is working does not.",
            Hints::OPEN_WORLD,
            object(&[
                agent_id(),
                ("task", string("The task prompt to send to the agent")),
            ]),
        ),
        tool(
            "vers_swarm_message",
            "Message Working Agent",
            "Tell an agent of the swarm something while it is working: it reads it after its running tool calls. Agents can say something \
             meanwhile, too; that arrives by itself.",
            Hints::OPEN_WORLD,
            object(&[agent_id(), ("message", string("What to tell it"))]),
        ),
        tool(
            "vers_swarm_wait",
            "Wait for Agents",
            "Wait until agents of the swarm have finished their tasks, and show what they said. Tells apart who is done, failed, still working at \
             the time limit, was never given a task, has ended or is lost. Long output is cut at its beginning; vers_swarm_read shows more. It may \
             return early and say so: call it again then.",
            Hints::READ_ONLY | Hints::OPEN_WORLD | Hints::LONG_RUNNING,
            object(&[
                (
                    "agentIds?",
                    json!({ "type": "array", "items": { "type": "string" }, "description": "Agents to wait for (default: all)" }),
                ),
                (
                    "timeoutSeconds?",
                    json!({ "type": "number", "minimum": 0, "maximum": wait::LONGEST, "description": "Longest wait in seconds (default: 300; 0 looks and returns at once)" }),
                ),
            ]),
        ),
        tool(
            "vers_swarm_status",
            "Swarm Status",
            "List the agents of the swarm: how each is, its VM, its task.",
            Hints::READ_ONLY | Hints::IDEMPOTENT,
            object(&[]),
        ),
        tool(
            "vers_swarm_read",
            "Read Agent Output",
            "Show what an agent of the swarm said to its last task, or has said so far.",
            Hints::READ_ONLY | Hints::IDEMPOTENT,
            object(&[
                agent_id(),
                (
                    "tail?",
                    positive("Number of characters from the end (default: as much as fits)"),
                ),
            ]),
        ),
        tool(
            "vers_swarm_teardown",
            "Tear Down Swarm",
            "Delete the VMs of all agents of the swarm. Refuses while an agent works or has said something that nobody has read, unless it is \
             collected or force is given. collect saves what the agents said, and files or a git bundle of a repository from each VM, into \
             directories here, before anything is deleted.",
            Hints::DESTRUCTIVE | Hints::OPEN_WORLD | Hints::LONG_RUNNING,
            object(&[
                (
                    "collect?",
                    json!({
                        "type": "object",
                        "properties": {
                            "files": { "type": "array", "items": { "type": "string", "minLength": 1 }, "description": "Files or directories on each VM (absolute, or below the home directory)" },
                            "bundle": { "type": "string", "minLength": 1, "description": "Directory of a git repository on each VM: all its branches, and what is not committed, as <name>.bundle" },
                            "to": { "type": "string", "minLength": 1, "description": "Directory here, below the working directory (default: swarm-results); each agent gets one in it" },
                        },
                        "additionalProperties": false,
                        "description": "What to save first; what the agents said always is",
                    }),
                ),
                (
                    "force?",
                    boolean("Also throw away what nobody has collected (default: false)"),
                ),
            ]),
        ),
        tool(
            "vers_swarm_discover",
            "Discover Swarm Agents",
            "Find agents that are running on VMs, by the VMs' labels, and connect to those that are not connected: after a restart, or when the \
             connection to one was lost.",
            Hints::IDEMPOTENT | Hints::OPEN_WORLD | Hints::LONG_RUNNING,
            object(&[]),
        ),
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_and_parameters_are_those_users_know_and_some_more() {
        let parameters = |tool: &Tool| {
            let schema: Value = serde_json::from_str(&tool.parameters).unwrap();
            let names = schema.get("properties").and_then(Value::as_object).unwrap();
            names.keys().cloned().collect::<Vec<_>>().join(" ")
        };
        let all: Vec<(String, String, String)> = tools()
            .iter()
            .map(|tool| (tool.name.clone(), tool.label.clone(), parameters(tool)))
            .collect();
        let expected = [
            (
                "spawn",
                "Spawn Agent Swarm",
                "commitId count labels llmProxyKey model",
            ),
            ("task", "Send Task to Agent", "agentId task"),
            ("message", "Message Working Agent", "agentId message"),
            ("wait", "Wait for Agents", "agentIds timeoutSeconds"),
            ("status", "Swarm Status", ""),
            ("read", "Read Agent Output", "agentId tail"),
            ("teardown", "Tear Down Swarm", "collect force"),
            ("discover", "Discover Swarm Agents", ""),
        ];
        let expected = expected.map(|(name, label, names)| {
            (
                format!("vers_swarm_{name}"),
                label.to_owned(),
                names.to_owned(),
            )
        });
        assert_eq!(all, expected);
    }
}
