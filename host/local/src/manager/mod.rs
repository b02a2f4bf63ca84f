//! The state machine of VMs and their commits.
//!
//! ```text
//! booting -> running <-> paused      running, paused -> sleeping -> running      any -> deleting -> gone
//! ```
//!
//! Every operation on a VM holds that VM's one lock, and runs in a task of the manager: a client that goes away in the
//! middle of a commit leaves neither a frozen VM nor half a commit. Records on disk are written so that [`recover`] can
//! take up at any point: what is on disk never claims more than is true.

mod backend;
mod catalog;
mod commit;
mod create;
mod fault;
mod lifecycle;
mod recover;
mod registry;
mod vm;

#[cfg(test)]
mod tests;

pub(crate) use backend::Backend;
pub(crate) use catalog::TagChange;
pub(crate) use commit::{CommitChange, CommitRequest};
pub(crate) use create::{Branched, VmConfig};
pub(crate) use fault::Fault;
pub(crate) use vm::Vm;

use crate::options::Limits;
use crate::sandbox::{Capabilities, Handle, Service};
use crate::state::record::{Phase, VmRecord};
use crate::state::{StateDir, write_json};
use registry::Registry;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

/// The VMs, commits and names of one platform.
pub(crate) struct Manager {
    state: StateDir,
    owner: Uuid,
    limits: Limits,
    backend: Box<dyn Backend>,
    registry: Mutex<Registry>,
    tasks: TaskTracker,
    /// No new work: set before VMs are put to sleep or deleted for the last time.
    refusing: AtomicBool,
    closing: CancellationToken,
}

impl std::fmt::Debug for Manager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Manager")
            .field("state", &self.state.root())
            .finish_non_exhaustive()
    }
}

/// A VM with its lock.
struct Held {
    vm: Arc<Vm>,
    _op: OwnedMutexGuard<()>,
}

impl Manager {
    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn capabilities(&self) -> &Capabilities {
        self.backend.capabilities()
    }

    pub(crate) fn owner(&self) -> Uuid {
        self.owner
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// All VMs, oldest first.
    pub(crate) fn vms(&self) -> Vec<VmRecord> {
        let mut vms: Vec<_> = self.registry().vms.values().map(|vm| vm.record()).collect();
        vms.sort_by_key(|r| (r.created_at, r.id));
        vms
    }

    pub(crate) fn vm(&self, id: Uuid) -> Result<VmRecord, Fault> {
        self.registry().vm(id).map(|vm| vm.record())
    }

    /// Runs `work` to its end even when the caller does not wait for it.
    async fn owned<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl Future<Output = Result<T, Fault>> + Send + 'static,
    ) -> Result<T, Fault> {
        if self.refusing.load(Ordering::SeqCst) {
            return Err(Fault::Closing);
        }
        self.to_the_end(work).await
    }

    async fn to_the_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Fault>> + Send + 'static,
    ) -> Result<T, Fault> {
        match self.tasks.spawn(work).await {
            Ok(result) => result,
            Err(e) => Err(Fault::Internal(format!(
                "an operation of the local platform ended early: {e}"
            ))),
        }
    }

    /// Lets no new work in; what runs goes on.
    pub(crate) fn refuse(&self) {
        self.refusing.store(true, Ordering::SeqCst);
    }

    /// Waits for the VM's lock. `skip_wait_boot`: an error at once if it is still booting.
    async fn hold(&self, id: Uuid, skip_wait_boot: bool) -> Result<Held, Fault> {
        let vm = self.registry().vm(id)?;
        if skip_wait_boot && vm.record().phase == Phase::Booting {
            return Err(Fault::WrongState(format!("VM {id} is still booting")));
        }
        let op = vm.op.clone().lock_owned().await;
        // It may have been deleted while we waited.
        self.registry().vm(id)?;
        if vm.record().phase == Phase::Deleting {
            return Err(Fault::NOT_FOUND);
        }
        Ok(Held { vm, _op: op })
    }

    /// Changes the record on disk, then in memory. The caller holds the VM's lock.
    async fn change(&self, vm: &Vm, change: impl FnOnce(&mut VmRecord)) -> Result<VmRecord, Fault> {
        let mut record = vm.record();
        change(&mut record);
        let path = self.state.vm(vm.id).join("meta.json");
        let record = blocking(move || write_json(&path, &record).map(|()| record)).await??;
        vm.set(record.clone());
        Ok(record)
    }

    /// Where to reach a running VM.
    fn running_handle(&self, id: Uuid) -> Result<Handle, Fault> {
        let record = self.vm(id)?;
        match (record.phase, record.handle) {
            (Phase::Running, Some(handle)) => Ok(handle),
            (phase, _) => Err(Fault::WrongState(format!(
                "VM {id} is {}, not running{}",
                phase.word(),
                match phase {
                    Phase::Paused | Phase::Sleeping => "; set its state to Running first",
                    _ => "",
                }
            ))),
        }
    }

    /// Refuses what needs a running VM and has none. One that is booting passes: `dial` waits for it.
    pub(crate) fn check_running(&self, id: Uuid) -> Result<(), Fault> {
        match self.vm(id)?.phase {
            Phase::Booting => Ok(()),
            _ => self.running_handle(id).map(|_| ()),
        }
    }

    /// Connects to a service of a running VM. Waits for a VM that is booting.
    pub(crate) async fn dial(&self, id: Uuid, to: Service) -> Result<UnixStream, Fault> {
        let vm = self.registry().vm(id)?;
        if vm.record().phase == Phase::Booting {
            drop(vm.op.lock().await);
        }
        let handle = self.running_handle(id)?;
        Ok(self.backend.dial(&handle, to).await?)
    }

    /// Whether a connection to this VM has any chance.
    pub(crate) fn is_reachable(&self, id: Uuid) -> bool {
        self.vm(id)
            .is_ok_and(|r| matches!(r.phase, Phase::Running | Phase::Booting))
    }

    /// The sandboxes of all VMs that have one.
    pub(crate) fn handles(&self) -> Vec<Handle> {
        self.registry()
            .vms
            .values()
            .filter_map(|vm| vm.record().handle)
            .collect()
    }

    /// Ends what has no record, and gives back what the machine holds for this platform as a whole.
    pub(crate) async fn sweep(&self) -> Result<(), Fault> {
        Ok(self.backend.sweep(&self.handles()).await?)
    }

    /// Directory of a VM's files.
    pub(crate) fn vm_dir(&self, id: Uuid) -> PathBuf {
        self.state.vm(id)
    }

    /// Changes a VM's labels. A change that ends with too many, or too long ones, is refused as a whole.
    pub(crate) async fn edit_labels(
        self: &Arc<Self>,
        id: Uuid,
        edit: impl FnOnce(&mut Labels) -> Result<(), Fault> + Send + 'static,
    ) -> Result<(), Fault> {
        let me = self.clone();
        self.owned(async move {
            let held = me.hold(id, false).await?;
            let mut labels = held.vm.record().labels;
            edit(&mut labels)?;
            check_labels(&labels)?;
            me.change(&held.vm, |r| r.labels = labels).await.map(|_| ())
        })
        .await
    }

    /// Records a larger disk. The size is not enforced.
    pub(crate) async fn resize_disk(
        self: &Arc<Self>,
        id: Uuid,
        fs_mib: u32,
        skip_wait_boot: bool,
    ) -> Result<(), Fault> {
        if fs_mib > self.limits.max_fs_mib {
            return Err(Fault::Invalid(format!(
                "fs_size_mib must be at most {}",
                self.limits.max_fs_mib
            )));
        }
        let me = self.clone();
        self.owned(async move {
            let held = me.hold(id, skip_wait_boot).await?;
            let now = held.vm.record().size.fs_mib;
            if fs_mib <= now {
                return Err(Fault::Invalid(format!(
                    "fs_size_mib must be strictly greater than the current size, {now} MiB"
                )));
            }
            me.change(&held.vm, |r| r.size.fs_mib = fs_mib)
                .await
                .map(|_| ())
        })
        .await
    }

    /// Removes trees in the background; the tasks belong to the manager.
    fn remove_later(&self, trees: impl IntoIterator<Item = PathBuf>) {
        for tree in trees {
            self.tasks.spawn(async move {
                if let Err(e) = crate::layers::remove_tree(&tree).await {
                    tracing::warn!(
                        "cannot empty the trash of {}: {e}; the next start tries again",
                        tree.display()
                    );
                }
            });
        }
    }

    /// Ends the manager: refuses new work, waits for what runs. VMs stay as they are.
    pub(crate) async fn close(&self, within: Duration) -> bool {
        self.refuse();
        self.closing.cancel();
        self.tasks.close();
        tokio::time::timeout(within, self.tasks.wait())
            .await
            .is_ok()
    }
}

/// Names and values that clients attach to a VM.
pub(crate) type Labels = std::collections::BTreeMap<String, String>;

fn check_labels(labels: &Labels) -> Result<(), Fault> {
    let fits = |(k, v): (&String, &String)| (1..=256).contains(&k.len()) && v.len() <= 4096;
    if labels.len() > 256 || !labels.iter().all(fits) {
        return Err(Fault::Invalid(
            "a VM may have at most 256 labels, with names of 1 to 256 bytes and values of at most 4096".into(),
        ));
    }
    Ok(())
}

/// Runs file work off the async threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Fault> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Fault::Internal(format!("file work of the local platform ended early: {e}")))
}
