//! `vers:platform/fleet`: the control plane of a fleet of agents, where there is one. Who may read and change
//! it is proven by a token that stays with the client.

use pi_vers_policy::{FleetVerb, Request};
use serde_json::Value;
use vers_client::fleet;
use wasmtime::component::{Accessor, HasSelf};

use crate::bindings::vers::harness::types::Error;
use crate::bindings::vers::platform::fleet::{Golden, Host, HostWithStore, Member, Source};
use crate::guest::{Ask, Guest, Has};

/// Texts of a member beyond this are a mistake, and others have to keep them.
const LONGEST: usize = 64 << 10;

impl Host for Guest {
    fn available(&mut self) -> wasmtime::Result<bool> {
        let there =
            |services: &std::sync::Arc<crate::services::Services>| services.fleet.available();
        Ok(self.services.as_ref().is_some_and(there))
    }
}

async fn permitted(accessor: &Accessor<Guest, Has>, verb: FleetVerb) -> Result<Ask, Error> {
    let ask = Ask::of(accessor)?;
    ask.permit(&Request::Fleet { verb }).await?;
    Ok(ask)
}

impl From<fleet::Golden> for Golden {
    fn from(golden: fleet::Golden) -> Self {
        Self {
            commit: golden.commit.to_string(),
            source: match golden.source {
                fleet::Source::Explicit => Source::Explicit,
                fleet::Source::Environment => Source::Environment,
                fleet::Source::ReefCommits
                | fleet::Source::ReefRegistry
                | fleet::Source::ReefEnsure { created: false } => Source::ControlPlane,
                fleet::Source::ReefEnsure { created: true } => Source::Created,
            },
        }
    }
}

impl From<fleet::Member> for Member {
    fn from(member: fleet::Member) -> Self {
        Self {
            vm: member.vm.to_string(),
            name: member.name,
            role: member.role,
            address: member.address,
            registered_by: member.registered_by,
            metadata: Value::Object(member.metadata).to_string(),
        }
    }
}

impl TryFrom<Member> for fleet::Member {
    type Error = Error;

    fn try_from(member: Member) -> Result<Self, Error> {
        let invalid = |why: &str| Error::Invalid(format!("a member of the fleet {why}"));
        let texts = [
            &member.name,
            &member.role,
            &member.address,
            &member.registered_by,
        ];
        if texts.iter().any(|text| text.trim().is_empty()) {
            return Err(invalid(
                "has a name, a role, an address and says who registered it",
            ));
        }
        if texts.iter().map(|text| text.len()).sum::<usize>() + member.metadata.len() > LONGEST {
            return Err(invalid("has at most 64 KiB of texts"));
        }
        let metadata = match serde_json::from_str(&member.metadata) {
            Ok(Value::Object(metadata)) => metadata,
            _ => return Err(invalid("has metadata that are one JSON object")),
        };
        let vm = member.vm.parse();
        Ok(Self {
            vm: vm.map_err(|why: vers_client::Error| Error::Invalid(why.to_string()))?,
            name: member.name,
            role: member.role,
            address: member.address,
            registered_by: member.registered_by,
            metadata,
        })
    }
}

impl HostWithStore<Guest> for HasSelf<Guest> {
    async fn golden_commit(
        accessor: &Accessor<Guest, Has>,
        explicit: Option<String>,
        ensure: bool,
    ) -> wasmtime::Result<Result<Golden, Error>> {
        Ok(async {
            let verb = match ensure {
                true => FleetVerb::BuildGolden,
                false => FleetVerb::Golden,
            };
            let ask = permitted(accessor, verb).await?;
            let found = ask
                .services
                .fleet
                .golden_commit(explicit.as_deref(), ensure);
            ask.race(found).await.map(Golden::from)
        }
        .await)
    }

    async fn register(
        accessor: &Accessor<Guest, Has>,
        member: Member,
    ) -> wasmtime::Result<Result<(), Error>> {
        Ok(async {
            let ask = permitted(accessor, FleetVerb::Register).await?;
            let member = member.try_into()?;
            ask.race(ask.services.fleet.register(&member)).await
        }
        .await)
    }

    async fn deregister(
        accessor: &Accessor<Guest, Has>,
        vm: String,
    ) -> wasmtime::Result<Result<(), Error>> {
        Ok(async {
            let ask = permitted(accessor, FleetVerb::Deregister).await?;
            let vm = vm.parse().map_err(Error::from)?;
            ask.race(ask.services.fleet.deregister(vm)).await
        }
        .await)
    }

    async fn members(
        accessor: &Accessor<Guest, Has>,
        role: Option<String>,
    ) -> wasmtime::Result<Result<Vec<Member>, Error>> {
        Ok(async {
            let ask = permitted(accessor, FleetVerb::Members).await?;
            let members = ask
                .race(ask.services.fleet.members(role.as_deref()))
                .await?;
            Ok(members.into_iter().map(Member::from).collect())
        }
        .await)
    }
}
