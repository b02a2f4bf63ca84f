//! `vers:harness/session`: the conversation and the harness around it.

use std::sync::Arc;
use std::time::Duration;

use pi_vers_policy::{Request, SessionVerb};
use serde_json::Value;
use tokio::sync::watch;
use wasmtime::component::{Accessor, HasSelf, Resource};

use super::call::ToolCall;
use crate::bindings::vers::harness::session::{Delivery as WitDelivery, Host, HostWithStore};
use crate::bindings::vers::harness::types::{
    Content, CustomMessage, Error, FlagValue, ToolError, ToolResult,
};
use crate::content::{Content as Shown, from_guest};
use crate::guest::{Ask, Guest, Has};
use crate::harness::{BuiltInCall, BuiltInError, HarnessError};
use crate::outgoing;
use crate::services::Services;
use crate::types::{self, json};

/// How long a built-in tool has to stop: less than the grace of the call it works for.
const STOP: Duration = Duration::from_millis(1500);

impl From<HarnessError> for Error {
    fn from(error: HarnessError) -> Self {
        match error {
            HarnessError::Unsupported(_) | HarnessError::NotOffered(_) => {
                Self::Unavailable(error.to_string())
            }
            HarnessError::NotFound(what) => Self::NotFound(what),
            HarnessError::Failed(why) => Self::Other(why),
        }
    }
}

fn delivery(delivery: WitDelivery) -> types::Delivery {
    match delivery {
        WitDelivery::Steer => types::Delivery::Steer,
        WitDelivery::FollowUp => types::Delivery::FollowUp,
        WitDelivery::NextTurn => types::Delivery::NextTurn,
    }
}

impl Host for Guest {
    fn working_directory(&mut self) -> wasmtime::Result<String> {
        let directory = self
            .services
            .as_ref()
            .map(|services| services.harness.working_directory());
        Ok(directory.map_or_else(String::new, |path| path.to_string_lossy().into_owned()))
    }

    fn id(&mut self) -> wasmtime::Result<String> {
        Ok(self
            .services
            .as_ref()
            .map_or_else(String::new, |services| services.harness.session_id()))
    }

    fn flag(&mut self, name: String) -> wasmtime::Result<Option<FlagValue>> {
        let Some(services) = &self.services else {
            return Ok(None);
        };
        let Some(value) = services.flag(&self.name, &name) else {
            return Ok(None);
        };
        // A key given as a flag is the host's business: the guest learns nothing of it.
        if let types::FlagValue::Text(text) = &value
            && services.secrets.redact(text) != text.as_str()
        {
            return Ok(None);
        }
        Ok(Some(value.into()))
    }

    fn variable(&mut self, name: String) -> wasmtime::Result<Result<Option<String>, Error>> {
        Ok(self
            .judge(&Request::Variable { name: &name })
            .and_then(|()| variable(self.services()?.as_ref(), &name)))
    }

    fn has_secret(&mut self, name: String) -> wasmtime::Result<bool> {
        let held = |services: &Arc<Services>| services.secrets.get(&name).is_some();
        Ok(self.services.as_ref().is_some_and(held) && self.grants.may_use_secret(&name))
    }

    fn active_tools(&mut self) -> wasmtime::Result<Vec<String>> {
        Ok(self.services.as_ref().map_or_else(Vec::new, |services| {
            services
                .harness
                .active_tools()
                .unwrap_or_else(|| services.all_tools())
        }))
    }

    fn all_tools(&mut self) -> wasmtime::Result<Vec<String>> {
        Ok(self
            .services
            .as_ref()
            .map_or_else(Vec::new, |services| services.all_tools()))
    }

    fn is_idle(&mut self) -> wasmtime::Result<bool> {
        Ok(self
            .services
            .as_ref()
            .is_none_or(|services| services.harness.is_idle()))
    }
}

/// The policy may grant a name by mistake, and a key may stand in a variable of another name: neither is handed out.
fn variable(services: &Services, name: &str) -> Result<Option<String>, Error> {
    let value = services.api.settings().environment().get(name);
    let hidden = |value: &String| services.secrets.redact(value) != value.as_str();
    if services.is_secret(name) || value.as_ref().is_some_and(hidden) {
        return Err(Error::Denied(format!(
            "{} holds a secret, which no extension sees: name it as the secret of a command's variable instead",
            types::visible(name)
        )));
    }
    Ok(value)
}

/// Makes a message fit to leave, or says why it may not.
fn hand_on(ask: &Ask, content: &mut [Shown], details: Option<&mut Value>) -> Result<(), Error> {
    outgoing::message(&ask.services.secrets, ask.limits.output, content, details)
        .map_err(|why| Error::Limit(format!("the message {why}")))
}

async fn permitted(accessor: &Accessor<Guest, Has>, verb: SessionVerb) -> Result<Ask, Error> {
    let ask = Ask::of(accessor)?;
    ask.permit(&Request::Session { verb }).await?;
    Ok(ask)
}

impl HostWithStore<Guest> for HasSelf<Guest> {
    async fn send_message(
        accessor: &Accessor<Guest, Has>,
        message: CustomMessage,
        when: WitDelivery,
        trigger_turn: bool,
    ) -> wasmtime::Result<Result<(), Error>> {
        Ok(async {
            let ask = permitted(accessor, SessionVerb::SendMessage).await?;
            let mut message = types::CustomMessage::try_from(message).map_err(Error::Invalid)?;
            hand_on(&ask, &mut message.content, message.details.as_mut())?;
            ask.race(ask.services.harness.send_message(
                &ask.name,
                message,
                delivery(when),
                trigger_turn,
            ))
            .await
        }
        .await)
    }

    async fn send_user_message(
        accessor: &Accessor<Guest, Has>,
        content: Vec<Content>,
        when: WitDelivery,
    ) -> wasmtime::Result<Result<(), Error>> {
        Ok(async {
            let ask = permitted(accessor, SessionVerb::SendUserMessage).await?;
            let mut content = from_guest(content).map_err(Error::Invalid)?;
            hand_on(&ask, &mut content, None)?;
            ask.race(
                ask.services
                    .harness
                    .send_user_message(&ask.name, content, delivery(when)),
            )
            .await
        }
        .await)
    }

    async fn append_entry(
        accessor: &Accessor<Guest, Has>,
        kind: String,
        data: String,
    ) -> wasmtime::Result<Result<(), Error>> {
        Ok(async {
            let ask = permitted(accessor, SessionVerb::AppendEntry).await?;
            let mut data = json(&data, "the entry").map_err(Error::Invalid)?;
            // It is written to a file that others may read.
            outgoing::clean_json(&ask.services.secrets, &mut data);
            ask.race(ask.services.harness.append_entry(&ask.name, &kind, data))
                .await
        }
        .await)
    }

    async fn entries(
        accessor: &Accessor<Guest, Has>,
        kind: Option<String>,
    ) -> wasmtime::Result<Result<Vec<String>, Error>> {
        Ok(async {
            let ask = permitted(accessor, SessionVerb::Entries).await?;
            let entries = ask
                .race(ask.services.harness.entries(&ask.name, kind.as_deref()))
                .await?;
            Ok(entries.iter().map(ToString::to_string).collect())
        }
        .await)
    }

    async fn set_active_tools(
        accessor: &Accessor<Guest, Has>,
        names: Vec<String>,
    ) -> wasmtime::Result<Result<(), Error>> {
        Ok(async {
            let ask = permitted(accessor, SessionVerb::SetActiveTools).await?;
            let known = ask.services.all_tools();
            if let Some(unknown) = names.iter().find(|name| !known.contains(name)) {
                return Err(Error::NotFound(format!(
                    "there is no tool {}",
                    types::visible(unknown)
                )));
            }
            ask.race(ask.services.harness.set_active_tools(names)).await
        }
        .await)
    }

    async fn run_built_in(
        accessor: &Accessor<Guest, Has>,
        call: Resource<ToolCall>,
    ) -> wasmtime::Result<Result<ToolResult, ToolError>> {
        let (id, tool, arguments, owner) = accessor.with(|mut access| -> wasmtime::Result<_> {
            let call = access.get().table.get(&call)?;
            Ok((
                call.id.clone(),
                call.tool.clone(),
                call.arguments.clone(),
                Arc::clone(&call.owner),
            ))
        })?;
        let ask = match permitted(accessor, SessionVerb::RunBuiltIn).await {
            Ok(ask) => ask,
            Err(denied) => return Ok(Err(ToolError::Capability(denied))),
        };
        let updates = owner
            .updates()
            .cloned()
            .unwrap_or_else(|| watch::Sender::new(types::Update::default()));
        let arguments = serde_json::from_str(&arguments).unwrap_or_default();
        let call = BuiltInCall {
            tool,
            id,
            arguments,
            updates,
            cancel: owner.token().clone(),
        };
        let mut running = ask.services.harness.run_built_in(call);
        let result = match ask.owner.race(&mut running).await {
            Ok(result) => result,
            // Cancelled means stopped: the harness's own tool gets its time to stop, too.
            Err(ended) => {
                let _ = tokio::time::timeout(STOP, running).await;
                return Ok(Err(ToolError::Capability(ended)));
            }
        };
        Ok(match result {
            Ok(output) => Ok(output.into()),
            Err(BuiltInError::Failed(output)) => Err(ToolError::Failed(output.into())),
            Err(BuiltInError::Cancelled) => Err(ToolError::Cancelled),
            Err(BuiltInError::Missing(tool)) => Err(ToolError::Capability(Error::NotFound(
                format!("this front end has no {tool} tool of its own"),
            ))),
        })
    }
}
