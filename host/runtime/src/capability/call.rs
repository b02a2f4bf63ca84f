//! `vers:harness/call`: one running tool call, as its extension sees it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmtime::component::{Accessor, HasSelf, Resource};

use crate::bindings::vers::harness::call::{Host, HostToolCall, HostToolCallWithStore};
use crate::bindings::vers::harness::types::Content;
use crate::content::from_guest;
use crate::guest::{Guest, Has};
use crate::outgoing;
use crate::owner::Owner;
use crate::patience::Patience;
use crate::types::{Progress, json};

/// The longest caption of a progress bar, in characters.
const LONGEST_CAPTION: usize = 400;

/// The resource behind `tool-call`.
#[allow(unreachable_pub, reason = "the bindings re-export it")]
pub struct ToolCall {
    pub(crate) id: String,
    pub(crate) tool: String,
    pub(crate) arguments: String,
    pub(crate) patience: Patience,
    pub(crate) owner: Arc<Owner>,
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Host for Guest {}

impl HostToolCall for Guest {
    fn id(&mut self, call: Resource<ToolCall>) -> wasmtime::Result<String> {
        Ok(self.table.get(&call)?.id.clone())
    }

    fn tool(&mut self, call: Resource<ToolCall>) -> wasmtime::Result<String> {
        Ok(self.table.get(&call)?.tool.clone())
    }

    fn arguments(&mut self, call: Resource<ToolCall>) -> wasmtime::Result<String> {
        Ok(self.table.get(&call)?.arguments.clone())
    }

    fn update(
        &mut self,
        call: Resource<ToolCall>,
        content: Vec<Content>,
        details: Option<String>,
    ) -> wasmtime::Result<()> {
        let call = self.table.get(&call)?;
        let mut details = details.and_then(|text| json(&text, "`details`").ok());
        // What cannot be shown is no reason to end a call.
        let Ok(mut content) = from_guest(content) else {
            return Ok(());
        };
        let limit = self.limits.output;
        if let Some(services) = &self.services
            && outgoing::message(&services.secrets, limit, &mut content, &mut details).is_err()
        {
            return Ok(());
        }
        if let (None, Some(updates)) = (call.owner.ended(), call.owner.updates()) {
            // A watch channel keeps the newest only: that is the coalescing the contract promises.
            updates.send_modify(|update| {
                update.content = content;
                update.details = details;
            });
        }
        Ok(())
    }

    fn progress(
        &mut self,
        call: Resource<ToolCall>,
        done: f64,
        total: Option<f64>,
        caption: String,
    ) -> wasmtime::Result<()> {
        let call = self.table.get(&call)?;
        if let (None, Some(updates)) = (call.owner.ended(), call.owner.updates()) {
            let caption = match &self.services {
                Some(services) => services.clean_brief(&caption, LONGEST_CAPTION),
                None => String::new(),
            };
            updates.send_modify(|update| {
                update.progress = Some(Progress {
                    done,
                    total,
                    caption,
                })
            });
        }
        Ok(())
    }

    fn is_cancelled(&mut self, call: Resource<ToolCall>) -> wasmtime::Result<bool> {
        Ok(self.table.get(&call)?.owner.ended().is_some())
    }

    fn remaining(&mut self, call: Resource<ToolCall>) -> wasmtime::Result<Option<u64>> {
        let deadline = self.table.get(&call)?.owner.deadline();
        Ok(deadline.map(|at| millis(at.saturating_duration_since(Instant::now()))))
    }

    fn patience(&mut self, call: Resource<ToolCall>) -> wasmtime::Result<Option<u64>> {
        Ok(self.table.get(&call)?.patience.left().map(millis))
    }

    fn drop(&mut self, call: Resource<ToolCall>) -> wasmtime::Result<()> {
        self.table.delete(call)?;
        Ok(())
    }
}

impl HostToolCallWithStore<Guest> for HasSelf<Guest> {
    async fn cancelled(
        accessor: &Accessor<Guest, Has>,
        call: Resource<ToolCall>,
    ) -> wasmtime::Result<()> {
        let token = accessor.with(|mut access| {
            access
                .get()
                .table
                .get(&call)
                .map(|call| call.owner.token().clone())
        })?;
        token.cancelled().await;
        Ok(())
    }
}
