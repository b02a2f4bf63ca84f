//! `vers:platform/vms`: the REST API of the platform, as far as the policy grants it. The key stays here.

use std::collections::BTreeMap;

use pi_vers_policy::{Request, Vm as PolicyVm, VmVerb};
use vers_client::api::{self, SetState, VmState};
use vers_client::{CommitId, VmId};
use wasmtime::component::{Accessor, HasSelf};

use crate::bindings::vers::harness::types::Error;
use crate::bindings::vers::platform::vms::{
    CommitInfo, Host, HostWithStore, Origin, State, Vm, VmConfig,
};
use crate::guest::{Ask, Guest, Has};

impl Host for Guest {}

/// What the policy is told of a VM: from the platform, never from the guest.
pub(super) struct Facts {
    pub(super) id: VmId,
    text: String,
    labels: Vec<(String, String)>,
    own: bool,
}

impl Facts {
    pub(super) fn vm(&self) -> PolicyVm<'_> {
        PolicyVm {
            id: &self.text,
            labels: &self.labels,
            own: self.own,
        }
    }

    fn of(ask: &Ask, vm: &api::Vm) -> Self {
        let labels = vm
            .labels
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        Self {
            id: vm.id,
            text: vm.id.to_string(),
            labels,
            own: ask.services.is_own(&ask.name, vm.id),
        }
    }
}

/// The facts of a VM. The platform is asked for its labels only where they could make a difference: labels
/// never take a right away, so a VM that is in every scope without them needs none.
pub(super) async fn facts(ask: &Ask, id: &str) -> Result<Facts, Error> {
    let id: VmId = id
        .parse()
        .map_err(|why: vers_client::Error| Error::Invalid(why.to_string()))?;
    let bare = Facts {
        id,
        text: id.to_string(),
        labels: Vec::new(),
        own: ask.services.is_own(&ask.name, id),
    };
    let enough = ask.grants.sees(&bare.vm())
        && ask
            .grants
            .decide(&Request::ShellConnect { vm: bare.vm() })
            .is_allowed();
    if enough {
        return Ok(bare);
    }
    let vm = ask.race(ask.services.api.vm(id)).await?;
    Ok(Facts::of(ask, &vm))
}

async fn on_vm(
    accessor: &Accessor<Guest, Has>,
    id: &str,
    verb: VmVerb,
) -> Result<(Ask, VmId), Error> {
    let ask = Ask::of(accessor)?;
    let facts = facts(&ask, id).await?;
    ask.permit(&Request::Vm {
        verb,
        vm: facts.vm(),
    })
    .await?;
    Ok((ask, facts.id))
}

async fn on_none(accessor: &Accessor<Guest, Has>, verb: VmVerb) -> Result<Ask, Error> {
    let ask = Ask::of(accessor)?;
    ask.permit(&Request::Vms { verb }).await?;
    Ok(ask)
}

fn commit_id(id: &str) -> Result<CommitId, Error> {
    id.parse()
        .map_err(|why: vers_client::Error| Error::Invalid(why.to_string()))
}

fn state(state: &VmState) -> State {
    match state {
        VmState::Booting => State::Booting,
        VmState::Running => State::Running,
        VmState::Paused => State::Paused,
        VmState::Sleeping => State::Sleeping,
        VmState::Dead => State::Dead,
        _ => State::Unknown,
    }
}

impl From<api::Vm> for Vm {
    fn from(vm: api::Vm) -> Self {
        Self {
            id: vm.id.to_string(),
            owner_id: vm.owner_id,
            state: state(&vm.state),
            created_at: vm.created_at,
            labels: vm.labels.into_iter().collect(),
        }
    }
}

impl From<api::Commit> for CommitInfo {
    fn from(commit: api::Commit) -> Self {
        Self {
            id: commit.id.to_string(),
            name: commit.name,
            created_at: commit.created_at,
            parent_vm: commit.parent_vm_id.map(|id| id.to_string()),
            parent_commit: commit.grandparent_commit_id.map(|id| id.to_string()),
            is_public: commit.is_public,
        }
    }
}

impl HostWithStore<Guest> for HasSelf<Guest> {
    async fn list(accessor: &Accessor<Guest, Has>) -> wasmtime::Result<Result<Vec<Vm>, Error>> {
        Ok(async {
            let ask = on_none(accessor, VmVerb::List).await?;
            let vms = ask.race(ask.services.api.list_vms()).await?;
            Ok(vms
                .into_iter()
                .filter(|vm| ask.grants.sees(&Facts::of(&ask, vm).vm()))
                .map(Vm::from)
                .collect())
        }
        .await)
    }

    async fn get(
        accessor: &Accessor<Guest, Has>,
        id: String,
    ) -> wasmtime::Result<Result<Vm, Error>> {
        Ok(async {
            let (ask, id) = on_vm(accessor, &id, VmVerb::Get).await?;
            ask.race(ask.services.api.vm(id)).await.map(Vm::from)
        }
        .await)
    }

    async fn resolve(
        accessor: &Accessor<Guest, Has>,
        prefix: String,
    ) -> wasmtime::Result<Result<String, Error>> {
        Ok(async {
            let ask = on_none(accessor, VmVerb::Resolve).await?;
            ask.race(ask.services.api.resolve(&prefix))
                .await
                .map(|id| id.to_string())
        }
        .await)
    }

    async fn create(
        accessor: &Accessor<Guest, Has>,
        config: VmConfig,
        wait_boot: bool,
    ) -> wasmtime::Result<Result<String, Error>> {
        Ok(async {
            let ask = on_none(accessor, VmVerb::Create).await?;
            let mut wanted = api::VmConfig::default();
            wanted.vcpu_count = config.vcpu_count;
            wanted.mem_size_mib = config.mem_size_mib;
            wanted.fs_size_mib = config.fs_size_mib;
            wanted.labels = config.labels.into_iter().collect();
            let id = ask
                .race(ask.services.api.create_vm(&wanted, wait_boot))
                .await?;
            ask.services.made(&ask.name, id);
            Ok(id.to_string())
        }
        .await)
    }

    async fn delete(
        accessor: &Accessor<Guest, Has>,
        id: String,
    ) -> wasmtime::Result<Result<(), Error>> {
        Ok(async {
            let (ask, id) = on_vm(accessor, &id, VmVerb::Delete).await?;
            ask.race(ask.services.api.delete_vm(id)).await?;
            ask.services.ssh.disconnect(id).await;
            Ok(())
        }
        .await)
    }

    async fn branch(
        accessor: &Accessor<Guest, Has>,
        id: String,
        count: u32,
    ) -> wasmtime::Result<Result<Vec<String>, Error>> {
        Ok(async {
            let (ask, id) = on_vm(accessor, &id, VmVerb::Branch).await?;
            let ids = ask.race(ask.services.api.branch(id, count)).await?;
            ids.iter().for_each(|id| ask.services.made(&ask.name, *id));
            Ok(ids.iter().map(ToString::to_string).collect())
        }
        .await)
    }

    async fn commit(
        accessor: &Accessor<Guest, Has>,
        id: String,
        keep_paused: bool,
    ) -> wasmtime::Result<Result<String, Error>> {
        Ok(async {
            let (ask, id) = on_vm(accessor, &id, VmVerb::Commit).await?;
            ask.race(ask.services.api.commit(id, keep_paused))
                .await
                .map(|id| id.to_string())
        }
        .await)
    }

    async fn restore(
        accessor: &Accessor<Guest, Has>,
        origin: Origin,
    ) -> wasmtime::Result<Result<String, Error>> {
        Ok(async {
            let ask = on_none(accessor, VmVerb::Restore).await?;
            let origin = match origin {
                Origin::Commit(id) => api::Origin::Commit(commit_id(&id)?),
                Origin::Reference(reference) => api::Origin::Reference(reference),
            };
            let id = ask.race(ask.services.api.restore(&origin)).await?;
            ask.services.made(&ask.name, id);
            Ok(id.to_string())
        }
        .await)
    }

    async fn set_state(
        accessor: &Accessor<Guest, Has>,
        id: String,
        state: State,
    ) -> wasmtime::Result<Result<(), Error>> {
        Ok(async {
            let (ask, id) = on_vm(accessor, &id, VmVerb::State).await?;
            let wanted = match state {
                State::Running => SetState::Running,
                State::Paused => SetState::Paused,
                other => {
                    return Err(Error::Invalid(format!(
                        "a VM can be set to running or paused, not to {other:?}"
                    )));
                }
            };
            ask.race(ask.services.api.set_state(id, wanted)).await?;
            if wanted == SetState::Paused {
                // What runs over the connection would only find out by time-outs.
                ask.services.ssh.disconnect(id).await;
            }
            Ok(())
        }
        .await)
    }

    async fn set_labels(
        accessor: &Accessor<Guest, Has>,
        id: String,
        labels: Vec<(String, String)>,
    ) -> wasmtime::Result<Result<(), Error>> {
        Ok(async {
            let ask = Ask::of(accessor)?;
            let facts = facts(&ask, &id).await?;
            ask.permit(&Request::VmLabels {
                vm: facts.vm(),
                labels: &labels,
            })
            .await?;
            let labels: BTreeMap<String, String> = labels.into_iter().collect();
            ask.race(ask.services.api.set_labels(facts.id, &labels))
                .await
        }
        .await)
    }

    async fn resize_disk(
        accessor: &Accessor<Guest, Has>,
        id: String,
        fs_size_mib: u32,
    ) -> wasmtime::Result<Result<(), Error>> {
        Ok(async {
            let (ask, id) = on_vm(accessor, &id, VmVerb::Resize).await?;
            ask.race(ask.services.api.resize_disk(id, fs_size_mib))
                .await
        }
        .await)
    }

    async fn list_commits(
        accessor: &Accessor<Guest, Has>,
        limit: u32,
        offset: u32,
    ) -> wasmtime::Result<Result<Vec<CommitInfo>, Error>> {
        Ok(async {
            let ask = on_none(accessor, VmVerb::Commits).await?;
            let page = ask
                .race(ask.services.api.list_commits(limit, offset))
                .await?;
            Ok(page.commits.into_iter().map(CommitInfo::from).collect())
        }
        .await)
    }

    async fn delete_commit(
        accessor: &Accessor<Guest, Has>,
        id: String,
    ) -> wasmtime::Result<Result<(), Error>> {
        Ok(async {
            let ask = on_none(accessor, VmVerb::DeleteCommit).await?;
            ask.race(ask.services.api.delete_commit(commit_id(&id)?))
                .await
        }
        .await)
    }

    async fn set_commit_public(
        accessor: &Accessor<Guest, Has>,
        id: String,
        is_public: bool,
    ) -> wasmtime::Result<Result<(), Error>> {
        Ok(async {
            let ask = on_none(accessor, VmVerb::Publish).await?;
            ask.race(
                ask.services
                    .api
                    .set_commit_public(commit_id(&id)?, is_public),
            )
            .await
        }
        .await)
    }
}
