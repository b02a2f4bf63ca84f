//! `vers:harness` on a tape.

use serde_json::{Map, Value};
use wasmtime::component::{Access, Accessor, Resource};

use super::{
    Asked, Taped, TapedGuest, all_asked, arguments, asked, call as caller, look, plain, tell,
};
use crate::bindings::vers::harness::client::{self, Listing, Question, QuestionKind};
use crate::bindings::vers::harness::session::{self, Delivery};
use crate::bindings::vers::harness::types::{
    self, Content, CustomMessage, Error, FlagValue, Line, ToolError, ToolResult,
};
use crate::bindings::vers::harness::ui::{self, Dialog, Severity};
use crate::bindings::vers::harness::{bus, call, log, timers};
use crate::capability::call::ToolCall;
use crate::guest::{Guest, Has};

impl types::Host for TapedGuest<'_> {}

impl log::Host for TapedGuest<'_> {}

impl log::HostWithStore<Guest> for Taped {
    /// What an extension logs is nobody's business but its author's: it may differ.
    fn write(
        mut access: Access<'_, Guest, Taped>,
        level: log::Level,
        message: String,
    ) -> wasmtime::Result<()> {
        <Has as log::HostWithStore<Guest>>::write(plain(&mut access), level, message)
    }
}

impl timers::Host for TapedGuest<'_> {
    fn now(&mut self) -> wasmtime::Result<u64> {
        match &self.0.voice {
            None => timers::Host::now(self.0),
            Some(voice) => Ok(voice.now() / 1_000),
        }
    }

    fn ticks(&mut self) -> wasmtime::Result<u64> {
        match &self.0.voice {
            None => timers::Host::ticks(self.0),
            Some(voice) => Ok(voice.ticks() / 1_000),
        }
    }
}

impl timers::HostWithStore<Guest> for Taped {
    all_asked! { timers:
        async fn sleep(duration: u64) -> Result<(), Error>;
    }
}

impl bus::Host for TapedGuest<'_> {
    fn emit(&mut self, topic: String, data: String) -> wasmtime::Result<()> {
        tell(self.0, None, "bus.emit", arguments!(topic, data))?;
        bus::Host::emit(self.0, topic, data)
    }
}

impl client::Host for TapedGuest<'_> {
    fn list_changed(&mut self, list: Listing) -> wasmtime::Result<()> {
        tell(self.0, None, "client.list_changed", arguments!(list))?;
        client::Host::list_changed(self.0, list)
    }
}

impl client::HostWithStore<Guest> for Taped {
    fn offers(mut access: Access<'_, Guest, Taped>, kind: QuestionKind) -> wasmtime::Result<bool> {
        let call = caller(&mut access);
        let with = arguments!(call, kind);
        match access.data_mut().voice.clone() {
            None => <Has as client::HostWithStore<Guest>>::offers(plain(&mut access), kind),
            Some(voice) => voice.look("client.offers", with.into(), || {
                <Has as client::HostWithStore<Guest>>::offers(plain(&mut access), kind)
            }),
        }
    }

    all_asked! { client:
        async fn ask(questions: Vec<Question>) -> Result<Vec<(String, String)>, Error>;
    }
}

impl ui::Host for TapedGuest<'_> {
    fn available(&mut self) -> wasmtime::Result<bool> {
        look(self.0, "ui.available", Map::new(), ui::Host::available)
    }

    fn set_status(&mut self, key: String, text: Option<Line>) -> wasmtime::Result<()> {
        tell(self.0, None, "ui.set_status", arguments!(key, text))?;
        ui::Host::set_status(self.0, key, text)
    }

    fn set_widget(&mut self, key: String, lines: Option<Vec<Line>>) -> wasmtime::Result<()> {
        tell(self.0, None, "ui.set_widget", arguments!(key, lines))?;
        ui::Host::set_widget(self.0, key, lines)
    }
}

impl ui::HostWithStore<Guest> for Taped {
    fn notify(
        mut access: Access<'_, Guest, Taped>,
        message: String,
        severity: Severity,
    ) -> wasmtime::Result<()> {
        let call = caller(&mut access);
        let with = arguments!(message, severity);
        tell(access.data_mut(), call, "ui.notify", with)?;
        <Has as ui::HostWithStore<Guest>>::notify(plain(&mut access), message, severity)
    }

    all_asked! { ui:
        async fn select(dialog: Dialog, options: Vec<String>) -> Result<Option<u32>, Error>;
        async fn confirm(dialog: Dialog, message: String) -> Result<Option<bool>, Error>;
        async fn input(dialog: Dialog, placeholder: String) -> Result<Option<String>, Error>;
        async fn edit(dialog: Dialog, prefill: String) -> Result<Option<String>, Error>;
    }
}

impl session::Host for TapedGuest<'_> {
    fn working_directory(&mut self) -> wasmtime::Result<String> {
        let real = session::Host::working_directory;
        look(self.0, "session.working_directory", Map::new(), real)
    }

    fn id(&mut self) -> wasmtime::Result<String> {
        look(self.0, "session.id", Map::new(), session::Host::id)
    }

    fn flag(&mut self, name: String) -> wasmtime::Result<Option<FlagValue>> {
        look(self.0, "session.flag", arguments!(name), |guest| {
            session::Host::flag(guest, name)
        })
    }

    fn variable(&mut self, name: String) -> wasmtime::Result<Result<Option<String>, Error>> {
        look(self.0, "session.variable", arguments!(name), |guest| {
            session::Host::variable(guest, name)
        })
    }

    fn has_secret(&mut self, name: String) -> wasmtime::Result<bool> {
        look(self.0, "session.has_secret", arguments!(name), |guest| {
            session::Host::has_secret(guest, name)
        })
    }

    fn active_tools(&mut self) -> wasmtime::Result<Vec<String>> {
        let real = session::Host::active_tools;
        look(self.0, "session.active_tools", Map::new(), real)
    }

    fn all_tools(&mut self) -> wasmtime::Result<Vec<String>> {
        let real = session::Host::all_tools;
        look(self.0, "session.all_tools", Map::new(), real)
    }

    fn is_idle(&mut self) -> wasmtime::Result<bool> {
        look(
            self.0,
            "session.is_idle",
            Map::new(),
            session::Host::is_idle,
        )
    }
}

impl session::HostWithStore<Guest> for Taped {
    all_asked! { session:
        async fn send_message(message: CustomMessage, delivery: Delivery, trigger_turn: bool) -> Result<(), Error>;
        async fn send_user_message(content: Vec<Content>, delivery: Delivery) -> Result<(), Error>;
        async fn append_entry(kind: String, data: String) -> Result<(), Error>;
        async fn entries(kind: Option<String>) -> Result<Vec<String>, Error>;
        async fn set_active_tools(names: Vec<String>) -> Result<(), Error>;
    }

    async fn run_built_in(
        accessor: &Accessor<Guest, Taped>,
        call: Resource<ToolCall>,
    ) -> wasmtime::Result<Result<ToolResult, ToolError>> {
        let number = accessor.with(|mut access| number(access.data_mut(), &call))?;
        let asked = Asked::of(accessor, "session.run_built_in", number)?;
        let real = accessor.with_getter::<Has>(super::guest);
        asked
            .answer(<Has as session::HostWithStore<Guest>>::run_built_in(
                &real, call,
            ))
            .await
    }
}

/// A call by its number.
fn number(guest: &Guest, call: &Resource<ToolCall>) -> wasmtime::Result<Map<String, Value>> {
    let number = guest.table.get(call)?.owner.number();
    let call = number.map(|(n, _)| *n);
    Ok(arguments!(call))
}

impl call::Host for TapedGuest<'_> {}

impl call::HostToolCall for TapedGuest<'_> {
    fn id(&mut self, call: Resource<ToolCall>) -> wasmtime::Result<String> {
        call::HostToolCall::id(self.0, call)
    }

    fn tool(&mut self, call: Resource<ToolCall>) -> wasmtime::Result<String> {
        call::HostToolCall::tool(self.0, call)
    }

    fn arguments(&mut self, call: Resource<ToolCall>) -> wasmtime::Result<String> {
        call::HostToolCall::arguments(self.0, call)
    }

    /// Only the last of these counts, and who sees which is chance: they are not compared.
    fn update(
        &mut self,
        call: Resource<ToolCall>,
        content: Vec<Content>,
        details: Option<String>,
    ) -> wasmtime::Result<()> {
        call::HostToolCall::update(self.0, call, content, details)
    }

    fn progress(
        &mut self,
        call: Resource<ToolCall>,
        done: f64,
        total: Option<f64>,
        caption: String,
    ) -> wasmtime::Result<()> {
        call::HostToolCall::progress(self.0, call, done, total, caption)
    }

    fn is_cancelled(&mut self, call: Resource<ToolCall>) -> wasmtime::Result<bool> {
        let with = number(self.0, &call)?;
        look(self.0, "call.is_cancelled", with, |guest| {
            call::HostToolCall::is_cancelled(guest, call)
        })
    }

    fn remaining(&mut self, call: Resource<ToolCall>) -> wasmtime::Result<Option<u64>> {
        let with = number(self.0, &call)?;
        look(self.0, "call.remaining", with, |guest| {
            call::HostToolCall::remaining(guest, call)
        })
    }

    fn patience(&mut self, call: Resource<ToolCall>) -> wasmtime::Result<Option<u64>> {
        let with = number(self.0, &call)?;
        look(self.0, "call.patience", with, |guest| {
            call::HostToolCall::patience(guest, call)
        })
    }

    fn drop(&mut self, call: Resource<ToolCall>) -> wasmtime::Result<()> {
        call::HostToolCall::drop(self.0, call)
    }
}

impl call::HostToolCallWithStore<Guest> for Taped {
    async fn cancelled(
        accessor: &Accessor<Guest, Taped>,
        call: Resource<ToolCall>,
    ) -> wasmtime::Result<()> {
        let number = accessor.with(|mut access| number(access.data_mut(), &call))?;
        let asked = Asked::of(accessor, "call.cancelled", number)?;
        let real = accessor.with_getter::<Has>(super::guest);
        asked
            .answer(<Has as call::HostToolCallWithStore<Guest>>::cancelled(
                &real, call,
            ))
            .await
    }
}
