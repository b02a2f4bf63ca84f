//! Commits: making one of a VM, branching, listing, changing, deleting.
//!
//! A commit is made in `commits/.tmp-<id>` and renamed when it is whole and durable, so that a crash leaves none or all of
//! it. The VM is frozen only while its files are copied.

use super::{Branched, Fault, Manager, Vm, blocking};
use crate::sandbox::Handle;
use crate::state::record::{CommitRecord, Contents, Phase};
use crate::state::{StateDir, write_json};
use futures::FutureExt as _;
use jiff::Timestamp;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use uuid::Uuid;

/// What a commit shall be.
#[derive(Debug, Clone, Default)]
pub(crate) struct CommitRequest {
    pub(crate) commit_id: Option<Uuid>,
    pub(crate) name: Option<String>,
    pub(crate) description: Option<String>,
    /// Leave the VM paused afterwards.
    pub(crate) keep_paused: bool,
    pub(crate) skip_wait_boot: bool,
    /// Nobody asked for it by name.
    pub(crate) implicit: bool,
}

/// A change of a commit's description.
#[derive(Debug, Clone)]
pub(crate) struct CommitChange {
    pub(crate) is_public: bool,
    pub(crate) name: Option<String>,
    pub(crate) description: Option<String>,
}

/// Gives back what a commit in the making holds: its id, and the commits it needs.
struct Reservation {
    manager: Arc<Manager>,
    id: Uuid,
    previous: Option<Uuid>,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut registry = self.manager.registry();
        registry.making.remove(&self.id);
        registry.unpin(self.id);
        if let Some(previous) = self.previous {
            registry.unpin(previous);
        }
    }
}

impl Manager {
    /// All commits, newest first.
    pub(crate) fn commits(&self, public_only: bool) -> Vec<CommitRecord> {
        let mut all: Vec<_> = self
            .registry()
            .commits
            .values()
            .filter(|c| c.is_public || !public_only)
            .cloned()
            .collect();
        all.sort_by_key(|c| std::cmp::Reverse((c.created_at, c.id)));
        all
    }

    /// The commit and those it stands on, newest first.
    pub(crate) fn parents(&self, id: Uuid) -> Result<Vec<CommitRecord>, Fault> {
        let registry = self.registry();
        registry.commit(id)?;
        Ok(registry.chain(id).into_iter().cloned().collect())
    }

    /// Commits a VM's disk.
    pub(crate) async fn commit(
        self: &Arc<Self>,
        vm: Uuid,
        request: CommitRequest,
    ) -> Result<Uuid, Fault> {
        let me = self.clone();
        self.owned(async move {
            let held = me.hold(vm, request.skip_wait_boot).await?;
            me.commit_held(&held.vm, request).await.map(|made| made.id)
        })
        .await
    }

    /// Commits a VM and starts `count` VMs from it, side by side.
    pub(crate) async fn branch(
        self: &Arc<Self>,
        vm: Uuid,
        count: usize,
        keep_paused: bool,
        skip_wait_boot: bool,
    ) -> Result<Branched, Fault> {
        let me = self.clone();
        self.owned(async move {
            let held = me.hold(vm, skip_wait_boot).await?;
            me.registry().room_for(count, &me.limits)?;
            if count == 0 {
                return Ok(Branched::default());
            }
            let name = Some(format!("branch of {vm}"));
            let made = me.commit_held(
                &held.vm,
                CommitRequest {
                    name,
                    keep_paused,
                    implicit: true,
                    ..Default::default()
                },
            );
            let made = made.await?;
            // The source is free again while its branches start; `made` keeps the commit until they stand on it.
            drop(held);
            let branched = me.start_many(made.id, count).await;
            drop(made);
            me.drop_unneeded().await;
            branched
        })
        .await
    }

    fn reserve(self: &Arc<Self>, vm: &Vm, wanted: Option<Uuid>) -> Result<Reservation, Fault> {
        let id = wanted.unwrap_or_else(Uuid::new_v4);
        let mut registry = self.registry();
        if registry.commits.contains_key(&id) || registry.making.contains(&id) {
            return Err(Fault::Invalid(format!("commit {id} exists already")));
        }
        if registry.commits.len() + registry.making.len() >= self.limits.max_commits {
            return Err(Fault::Limit(format!(
                "the local platform holds at most {} commits; delete some, or start it with a higher limit",
                self.limits.max_commits
            )));
        }
        let previous = vm
            .record()
            .last_commit
            .filter(|id| registry.commits.contains_key(id));
        registry.making.insert(id);
        registry.pin(id);
        if let Some(previous) = previous {
            registry.pin(previous);
        }
        drop(registry);
        Ok(Reservation {
            manager: self.clone(),
            id,
            previous,
        })
    }

    async fn commit_held(
        self: &Arc<Self>,
        vm: &Vm,
        request: CommitRequest,
    ) -> Result<Reservation, Fault> {
        let record = vm.record();
        let handle = match (record.phase, &record.handle) {
            (Phase::Running | Phase::Paused, Some(handle)) => Some(handle.clone()),
            (Phase::Sleeping, _) => None,
            (phase, _) => {
                return Err(Fault::WrongState(format!(
                    "VM {} is {} and cannot be committed",
                    vm.id,
                    phase.word()
                )));
            }
        };
        let reservation = self.reserve(vm, request.commit_id)?;
        let id = reservation.id;
        let tmp = self.state.commit_in_progress(id);
        let frozen = handle.filter(|_| record.phase == Phase::Running);
        let made = self
            .copy_frozen(vm, &reservation, frozen, request.keep_paused)
            .await;
        let stats = match made {
            Ok(stats) => stats,
            Err(e) => {
                self.discard(tmp).await;
                return Err(e);
            }
        };
        let commit = CommitRecord {
            id,
            owner_id: self.owner,
            name: request.name.unwrap_or_else(|| {
                format!(
                    "commit-{}",
                    id.simple().to_string().get(..8).unwrap_or_default()
                )
            }),
            description: request.description,
            created_at: Timestamp::now(),
            is_public: false,
            vm: Some(vm.id),
            parent: record.origin,
            implicit: request.implicit,
            contents: Contents::DiskOnly,
            size: record.size,
            stats,
        };
        let (state, vm_id) = (self.state.clone(), vm.id);
        let finished = {
            let commit = commit.clone();
            blocking(move || finish(&state, vm_id, &commit)).await?
        };
        if let Err(e) = finished {
            self.discard(tmp).await;
            return Err(e);
        }
        self.registry().commits.insert(id, commit);
        // Only an optimisation of the next commit: not worth failing this one.
        if let Err(e) = self.change(vm, |r| r.last_commit = Some(id)).await {
            tracing::warn!("cannot record the newest commit of VM {}: {e}", vm.id);
        }
        Ok(reservation)
    }

    /// Copies the VM's layer while it stands still. `frozen`: the VM runs, and is frozen and thawed here.
    async fn copy_frozen(
        self: &Arc<Self>,
        vm: &Vm,
        reservation: &Reservation,
        frozen: Option<Handle>,
        keep_paused: bool,
    ) -> Result<crate::layers::SnapshotStats, Fault> {
        let tmp = self.state.commit_in_progress(reservation.id);
        let upper = self.state.vm(vm.id).join("upper");
        let previous = reservation
            .previous
            .map(|id| self.state.commit(id).join("layer"));
        {
            let tmp = tmp.clone();
            blocking(move || {
                std::fs::create_dir(&tmp)
                    .map_err(|e| Fault::Internal(format!("cannot create {}: {e}", tmp.display())))
            })
            .await??;
        }
        if let Some(handle) = &frozen {
            self.backend.freeze(handle).await?;
        }
        // Whatever happens in there, the VM must be thawed.
        let copied = AssertUnwindSafe(crate::layers::snapshot(
            &upper,
            previous.as_deref(),
            &tmp.join("layer"),
        ))
        .catch_unwind()
        .await;
        let copied = match copied {
            Ok(result) => result.map_err(Fault::from),
            Err(_) => Err(Fault::Internal(format!(
                "copying the disk of VM {} went wrong",
                vm.id
            ))),
        };
        if let Some(handle) = &frozen {
            if keep_paused && copied.is_ok() {
                self.change(vm, |r| r.phase = Phase::Paused).await?;
            } else if let Err(e) = self.backend.thaw(handle).await {
                // Say what is true: it stands still.
                self.change(vm, |r| r.phase = Phase::Paused).await?;
                return Err(e.into());
            }
        }
        copied
    }

    /// Changes a commit's description. One made by branching stays from now on.
    pub(crate) async fn update_commit(
        self: &Arc<Self>,
        id: Uuid,
        change: CommitChange,
    ) -> Result<CommitRecord, Fault> {
        let me = self.clone();
        self.owned(async move {
            blocking({
                let me = me.clone();
                move || {
                    let mut registry = me.registry();
                    let mut commit = registry.commit(id)?.clone();
                    commit.is_public = change.is_public;
                    commit.implicit = false;
                    if let Some(name) = change.name {
                        commit.name = name;
                    }
                    if let Some(description) = change.description {
                        commit.description = Some(description);
                    }
                    write_json(&me.state.commit(id).join("meta.json"), &commit)?;
                    registry.commits.insert(id, commit.clone());
                    Ok(commit)
                }
            })
            .await?
        })
        .await
    }

    /// Deletes a commit that nothing stands on.
    pub(crate) async fn delete_commit(self: &Arc<Self>, id: Uuid) -> Result<(), Fault> {
        let me = self.clone();
        self.owned(async move {
            {
                let mut registry = me.registry();
                registry.commit(id)?;
                if let Some(why) = registry.in_use(id) {
                    return Err(Fault::Conflict(why));
                }
                registry.commits.remove(&id);
            }
            me.discard(me.state.commit(id)).await;
            me.drop_unneeded().await;
            Ok(())
        })
        .await
    }

    /// Removes the commits made by branching that nothing needs any more.
    pub(super) async fn drop_unneeded(&self) {
        let unneeded = self.registry().take_unneeded();
        for id in unneeded {
            self.discard(self.state.commit(id)).await;
        }
    }
}

/// Completes a commit's directory, makes it durable and visible.
fn finish(state: &StateDir, vm: Uuid, commit: &CommitRecord) -> Result<(), Fault> {
    let tmp = state.commit_in_progress(commit.id);
    let io = |what: &str| {
        let what = format!("cannot {what} commit {}", commit.id);
        move |e: std::io::Error| Fault::Internal(format!("{what}: {e}"))
    };
    let host_key =
        std::fs::read(state.vm(vm).join("host_key")).map_err(io("read the host key for"))?;
    crate::state::write(&tmp.join("host_key"), &host_key)?;
    write_json(&tmp.join("meta.json"), commit)?;
    let dir = std::fs::File::open(state.path("commits")).map_err(io("open the directory of"))?;
    rustix::fs::syncfs(&dir).map_err(|e| io("store")(e.into()))?;
    std::fs::rename(&tmp, state.commit(commit.id)).map_err(io("publish"))?;
    dir.sync_all().map_err(io("store"))
}
