//! `vers:platform/fleet`: the control plane of a fleet of agents, where there is one.
//!
//! This version of the host knows none, and says so: `available` is false, and every other function
//! answers `unavailable` once the policy has been asked.

use pi_vers_policy::{FleetVerb, Request};
use wasmtime::component::{Accessor, HasSelf};

use crate::bindings::vers::harness::types::Error;
use crate::bindings::vers::platform::fleet::{Golden, Host, HostWithStore, Member};
use crate::guest::{Ask, Guest, Has};

impl Host for Guest {
    fn available(&mut self) -> wasmtime::Result<bool> {
        Ok(false)
    }
}

async fn nowhere<T>(accessor: &Accessor<Guest, Has>, verb: FleetVerb) -> Result<T, Error> {
    let ask = Ask::of(accessor)?;
    ask.permit(&Request::Fleet { verb }).await?;
    Err(Error::Unavailable(
        "there is no control plane of a fleet".into(),
    ))
}

impl HostWithStore<Guest> for HasSelf<Guest> {
    async fn golden_commit(
        accessor: &Accessor<Guest, Has>,
        explicit: Option<String>,
        ensure: bool,
    ) -> wasmtime::Result<Result<Golden, Error>> {
        let _ = explicit;
        let verb = if ensure {
            FleetVerb::BuildGolden
        } else {
            FleetVerb::Golden
        };
        Ok(nowhere(accessor, verb).await)
    }

    async fn register(
        accessor: &Accessor<Guest, Has>,
        _member: Member,
    ) -> wasmtime::Result<Result<(), Error>> {
        Ok(nowhere(accessor, FleetVerb::Register).await)
    }

    async fn deregister(
        accessor: &Accessor<Guest, Has>,
        _vm: String,
    ) -> wasmtime::Result<Result<(), Error>> {
        Ok(nowhere(accessor, FleetVerb::Deregister).await)
    }

    async fn members(
        accessor: &Accessor<Guest, Has>,
        _role: Option<String>,
    ) -> wasmtime::Result<Result<Vec<Member>, Error>> {
        Ok(nowhere(accessor, FleetVerb::Members).await)
    }
}
