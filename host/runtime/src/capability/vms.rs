//! `vers:platform/vms`: the REST API of the platform, as far as the policy grants it. The key stays here.

use std::collections::BTreeMap;
use std::sync::Arc;

use pi_vers_policy::{Request, Vm as PolicyVm, VmVerb};
use tokio::sync::oneshot;
use tokio_util::task::task_tracker::TaskTrackerToken;
use vers_client::api::{self, SetState, VmState};
use vers_client::{CommitId, VmId};
use wasmtime::component::{Accessor, HasSelf};

use crate::bindings::vers::harness::types::Error;
use crate::bindings::vers::platform::vms::{
    CommitInfo, Host, HostWithStore, Origin, State, Vm, VmConfig,
};
use crate::budget::{self, Room};
use crate::guest::{Ask, Guest, Has};
use crate::services::Services;

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
            own: ask.services.budget.is_own(&ask.name, vm.id),
        }
    }
}

/// The facts of a VM. The platform is asked for its labels only where a grant depends on them.
pub(super) async fn facts(ask: &Ask, id: &str) -> Result<Facts, Error> {
    let id: VmId = id
        .parse()
        .map_err(|why: vers_client::Error| Error::Invalid(why.to_string()))?;
    if ask.grants.labels_matter() {
        let vm = ask.race(ask.services.api.vm(id)).await?;
        return Ok(Facts::of(ask, &vm));
    }
    Ok(Facts {
        id,
        text: id.to_string(),
        labels: Vec::new(),
        own: ask.services.budget.is_own(&ask.name, id),
    })
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

/// VMs that were made and that nobody has taken over yet. Dropped, it deletes them: a call that was given up
/// while the platform was at work must not leave a VM that nobody knows of.
struct Unclaimed {
    services: Arc<Services>,
    vms: Vec<VmId>,
    room: Option<Room>,
    /// From the request to the deletion, whoever holds it in between.
    change: TaskTrackerToken,
}

impl Drop for Unclaimed {
    fn drop(&mut self) {
        let (services, vms) = (self.services.clone(), std::mem::take(&mut self.vms));
        let (room, change) = (self.room.take(), self.change.clone());
        if vms.is_empty() {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        runtime.spawn(async move {
            for vm in vms {
                tracing::info!(%vm, "deleting a VM whose call was given up");
                if let Err(why) = services.api.delete_vm(vm).await {
                    tracing::warn!("a VM nobody asked for any more is left: {why}");
                }
            }
            drop((room, change));
        });
    }
}

/// Makes VMs within the extension's limits. The request itself goes on when the call is given up, because
/// the platform would; what comes of it is then deleted, and keeps its room until it is. The session's end waits for that.
async fn made(
    ask: &Ask,
    count: u64,
    make: impl Future<Output = vers_client::Result<Vec<VmId>>> + Send + 'static,
) -> Result<Vec<String>, Error> {
    let room = budget::room(&ask.services, &ask.name, &ask.limits, count)?;
    let (done, outcome) = oneshot::channel();
    let services = ask.services.clone();
    let change = services.vm_changes.token();
    tokio::spawn(async move {
        let made = make.await.map(|vms| Unclaimed {
            services,
            vms,
            room: Some(room),
            change,
        });
        // A receiver that is gone gives the VMs back, and dropping them deletes them.
        let _ = done.send(made);
    });
    let wait = async {
        outcome
            .await
            .map_err(|_| Error::Other("the request was dropped".into()))?
            .map_err(Error::from)
    };
    let mut unclaimed: Unclaimed = ask.race(wait).await?;
    let vms = std::mem::take(&mut unclaimed.vms);
    if let Some(room) = unclaimed.room.take() {
        budget::claim(room, &ask.limits, &vms);
    }
    Ok(vms.iter().map(ToString::to_string).collect())
}

fn one(vms: Vec<String>) -> Result<String, Error> {
    vms.into_iter()
        .next()
        .ok_or_else(|| Error::Other("the platform made no VM and reported no error".into()))
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
            // As in a list: a VM outside of the scope is not found by the start of its id.
            let seen = |vm: &api::Vm| ask.grants.sees(&Facts::of(&ask, vm).vm());
            ask.race(ask.services.api.resolve_among(&prefix, seen))
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
            let wanted = api::VmConfig {
                vcpu_count: config.vcpu_count,
                mem_size_mib: config.mem_size_mib,
                fs_size_mib: config.fs_size_mib,
                labels: config.labels.into_iter().collect(),
            };
            let api = ask.services.api.clone();
            let make = async move { api.create_vm(&wanted, wait_boot).await.map(|id| vec![id]) };
            one(made(&ask, 1, make).await?)
        }
        .await)
    }

    async fn delete(
        accessor: &Accessor<Guest, Has>,
        id: String,
    ) -> wasmtime::Result<Result<(), Error>> {
        Ok(async {
            let (ask, id) = on_vm(accessor, &id, VmVerb::Delete).await?;
            let change = ask.services.vm_changes.token();
            ask.race(ask.services.api.delete_vm(id)).await?;
            drop(change);
            ask.services.budget.gone(id);
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
            let api = ask.services.api.clone();
            made(&ask, u64::from(count), async move {
                api.branch(id, count).await
            })
            .await
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
            let api = ask.services.api.clone();
            let make = async move { api.restore(&origin).await.map(|id| vec![id]) };
            one(made(&ask, 1, make).await?)
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
            if wanted == SetState::Running && ask.services.budget.is_over(&ask.name, id) {
                return Err(Error::Limit(format!(
                    "the time that the limit `vm-lifetime` of {} allows VM {id} is over: its user may resume it, or raise the limit",
                    ask.name
                )));
            }
            ask.race(ask.services.api.set_state(id, wanted)).await?;
            if wanted == SetState::Paused {
                // What runs over the connection would only find out by time-outs; and a paused VM confirms nothing.
                ask.services.ssh.abandon(id).await;
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
