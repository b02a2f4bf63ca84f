//! Taking up a state directory: after a stop, a `kill -9` at any point, or a restart of the machine.
//!
//! In this order, under the directory's lock: read the records; adopt what lives (thaw it unless it is recorded as
//! paused), put to sleep what does not; finish removals and drop VMs whose first start was cut; move half commits and
//! unreadable VMs to the trash; kill what has no record; empty the trash in the background.

use super::registry::Registry;
use super::{Backend, Manager, Vm};
use crate::error::Error;
use crate::options::Limits;
use crate::sandbox::Handle;
use crate::state::record::{CommitRecord, Phase, RepositoryRecord, TagRecord, VmRecord};
use crate::state::{StateDir, list, read_json};
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

/// What was found, for the log.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Recovered {
    /// VMs that live on.
    pub(crate) adopted: usize,
    /// VMs that have a disk and no processes.
    pub(crate) sleeping: usize,
    /// VMs whose creation or removal had been cut short.
    pub(crate) removed: usize,
    /// Commits that had been cut short.
    pub(crate) half_commits: usize,
}

struct Found {
    registry: Registry,
    vms: Vec<VmRecord>,
    discard: Vec<PathBuf>,
    half_commits: usize,
    broken_vms: usize,
}

impl Manager {
    /// Reads the state directory, adopts what lives, and returns the manager of it.
    pub(crate) async fn open(
        state: StateDir,
        owner: Uuid,
        limits: Limits,
        backend: Box<dyn Backend>,
    ) -> Result<(Arc<Self>, Recovered), Error> {
        let found = {
            let state = state.clone();
            tokio::task::spawn_blocking(move || read(&state))
                .await
                .map_err(|e| Error::Damaged {
                    path: PathBuf::new(),
                    why: e.to_string(),
                })??
        };
        let manager = Arc::new(Self {
            state,
            owner,
            limits,
            backend,
            registry: Mutex::new(found.registry),
            tasks: TaskTracker::new(),
            refusing: AtomicBool::new(false),
            closing: CancellationToken::new(),
        });
        let mut recovered = Recovered {
            half_commits: found.half_commits,
            removed: found.broken_vms,
            ..Recovered::default()
        };
        let mut known: Vec<Handle> = Vec::new();
        for record in found.vms {
            manager.take_up(record, &mut known, &mut recovered).await;
        }
        for path in found.discard {
            manager.discard(path).await;
        }
        manager.backend.sweep(&known).await?;
        manager.drop_unneeded().await;
        let trash = manager.state.trash();
        manager.remove_later(trash);
        Ok((manager, recovered))
    }

    async fn take_up(
        self: &Arc<Self>,
        record: VmRecord,
        known: &mut Vec<Handle>,
        recovered: &mut Recovered,
    ) {
        let id = record.id;
        match (record.phase, record.handle.clone()) {
            (Phase::Running | Phase::Paused, Some(handle)) if self.backend.alive(&handle).await => {
                if record.phase == Phase::Running
                    && let Err(e) = self.backend.thaw(&handle).await
                {
                    tracing::warn!("cannot thaw VM {id}: {e}");
                }
                known.push(handle.clone());
                let vm = Arc::new(Vm::new(record));
                self.registry().vms.insert(id, vm.clone());
                self.watch(vm, handle);
                recovered.adopted += 1;
            }
            (Phase::Booting | Phase::Deleting, handle) => {
                if let Some(handle) = handle
                    && let Err(e) = self.backend.stop(&handle).await
                {
                    tracing::warn!("cannot end VM {id}, whose removal had been cut short: {e}");
                }
                self.discard(self.state.vm(id)).await;
                recovered.removed += 1;
            }
            (phase, handle) => {
                if let Some(handle) = handle
                    && let Err(e) = self.backend.stop(&handle).await
                {
                    tracing::warn!("cannot clean up after VM {id}: {e}");
                }
                let vm = Arc::new(Vm::new(record));
                self.registry().vms.insert(id, vm.clone());
                if matches!(phase, Phase::Running | Phase::Paused) {
                    let asleep = self.change(&vm, |r| {
                        r.phase = Phase::Sleeping;
                        r.handle = None;
                        r.note = Some(
                            "its processes ended while the platform was not running".to_owned(),
                        );
                    });
                    if let Err(e) = asleep.await {
                        tracing::warn!("cannot record that VM {id} is sleeping: {e}");
                    }
                }
                recovered.sleeping += 1;
            }
        }
    }
}

fn read(state: &StateDir) -> Result<Found, Error> {
    let mut registry = Registry::default();
    let mut found = Found {
        registry: Registry::default(),
        vms: Vec::new(),
        discard: Vec::new(),
        half_commits: 0,
        broken_vms: 0,
    };
    for dir in list(&state.path("commits")) {
        if name(&dir).is_some_and(|n| n.starts_with(".tmp-")) {
            found.half_commits += 1;
            found.discard.push(dir);
        } else if let Some(commit) = record::<CommitRecord>(&dir.join("meta.json"), &dir, |c| c.id)
        {
            registry.commits.insert(commit.id, commit);
        }
    }
    for dir in list(&state.path("vms")) {
        match record::<VmRecord>(&dir.join("meta.json"), &dir, |v| v.id) {
            Some(vm) => found.vms.push(vm),
            // A VM without a record never ran; one with files is left for people to look at.
            None if list(&dir.join("upper")).is_empty() => {
                found.broken_vms += 1;
                found.discard.push(dir);
            }
            None => tracing::warn!(
                "{} has files and no record; it is left alone",
                dir.display()
            ),
        }
    }
    for path in list(&state.path("commit_tags")) {
        if let Some(tag) = record::<TagRecord>(&path, &path, |t| t.tag_id) {
            registry.tags.insert(tag.tag_name.clone(), tag);
        }
    }
    for path in list(&state.path("repositories")) {
        if let Some(repository) = record::<RepositoryRecord>(&path, &path, |r| r.repo_id) {
            registry
                .repositories
                .insert(repository.name.clone(), repository);
        }
    }
    let env = state.path("env_vars.json");
    if env.exists() {
        registry.env = read_json(&env)?;
    }
    found.registry = registry;
    Ok(found)
}

fn name(path: &Path) -> Option<&str> {
    path.file_name().and_then(|n| n.to_str())
}

/// A record whose id is the name of the file or directory it lies in. Others are reported and left out.
fn record<T: DeserializeOwned>(
    path: &Path,
    named: &Path,
    id: impl FnOnce(&T) -> Uuid,
) -> Option<T> {
    let expected = named
        .file_stem()
        .and_then(|n| n.to_str())
        .and_then(|n| Uuid::try_parse(n).ok());
    match read_json::<T>(path) {
        Ok(record) if expected == Some(id(&record)) => Some(record),
        Ok(_) => {
            tracing::warn!(
                "{} does not belong where it lies; it is ignored",
                path.display()
            );
            None
        }
        Err(e) => {
            tracing::warn!("{e}; it is ignored");
            None
        }
    }
}
