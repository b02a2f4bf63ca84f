//! `vers_swarm_status` and `vers_swarm_read`

use pi_vers_sdk::declare::{JsonSchema, Nothing, schemars};
use pi_vers_sdk::harness::timers;
use pi_vers_sdk::{ToolCall, ToolError, ToolResult, outcome};
use serde::Deserialize;
use serde_json::Value;

use crate::wait::saw;
use crate::{spawn, swarm, words};

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Read {
    /// Agent label/ID
    agent_id: String,
    /// Number of characters from the end (default: as much as fits)
    #[schemars(range(min = 1))]
    tail: Option<u64>,
}

/// `vers_swarm_status`
pub(crate) async fn status(_call: &ToolCall, _: Nothing) -> Result<ToolResult, ToolError> {
    let views = swarm::views();
    let mut text = words::summary(&views);
    let mut details = words::status(&views);
    let missed = spawn::missed();
    if !missed.is_empty() {
        text.push_str(&format!("\n\nNot started:\n  {}", missed.join("\n  ")));
        if let Some(details) = details.as_object_mut() {
            details.insert("failed".into(), missed.into());
        }
    }
    Ok(outcome::text_with(text, &details))
}

/// `vers_swarm_read`
pub(crate) async fn read(_call: &ToolCall, args: Read) -> Result<ToolResult, ToolError> {
    let worker = swarm::find(&args.agent_id).map_err(outcome::failed)?;
    let view = worker.view();
    let tail = args
        .tail
        .map(|tail| usize::try_from(tail).unwrap_or(usize::MAX));
    let text = words::read(&view, tail, timers::now());
    let mut details = serde_json::Map::new();
    details.insert("agentId".into(), view.id.as_str().into());
    details.extend(view.details().into_iter().filter(|(name, _)| name != "id"));
    details.insert("outputLength".into(), view.length().into());
    details.insert("lastActivityAt".into(), view.last_activity.into());
    // What it says now is not the end of it.
    if view.live.is_none() {
        saw(&worker, tail.is_none()).await;
    }
    Ok(outcome::text_with(text, &Value::Object(details)))
}
