//! `vers:harness/log`: lines of a guest, tagged with its name and call, bounded, secrets removed.

use pi_vers_policy::Request;
use wasmtime::AsContextMut;
use wasmtime::component::{Access, HasSelf};

use crate::bindings::vers::harness::log::{Host, HostWithStore, Level};
use crate::guest::{Guest, Has};
use crate::types::visible;

impl Host for Guest {}

impl HostWithStore<Guest> for HasSelf<Guest> {
    fn write(
        mut access: Access<'_, Guest, Has>,
        level: Level,
        message: String,
    ) -> wasmtime::Result<()> {
        let oldest = access
            .as_context_mut()
            .async_call_stack()
            .ok()
            .and_then(Iterator::last);
        let guest = access.get();
        let owner = guest.owner_of(oldest);
        if !guest.grants.decide(&Request::Log).is_allowed()
            || !owner.may_log(message.len(), guest.limits.log)
        {
            return Ok(());
        }
        let message = match &guest.services {
            Some(services) => services.clean(&message),
            None => visible(&message),
        };
        let (extension, call) = (&*guest.name, owner.what());
        match level {
            Level::Trace => tracing::trace!(target: "extension", extension, call, "{message}"),
            Level::Debug => tracing::debug!(target: "extension", extension, call, "{message}"),
            Level::Info => tracing::info!(target: "extension", extension, call, "{message}"),
            Level::Warn => tracing::warn!(target: "extension", extension, call, "{message}"),
            Level::Error => tracing::error!(target: "extension", extension, call, "{message}"),
        }
        Ok(())
    }
}
