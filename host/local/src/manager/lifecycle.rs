//! Pause, resume, cold start, exit, sleep and delete.

use super::{Fault, Manager, Vm};
use crate::sandbox::Handle;
use crate::state::record::Phase;
use futures::future::join_all;
use std::sync::Arc;
use uuid::Uuid;

impl Manager {
    /// Freezes a running VM. A paused one stays as it is.
    pub(crate) async fn pause(
        self: &Arc<Self>,
        id: Uuid,
        skip_wait_boot: bool,
    ) -> Result<(), Fault> {
        let me = self.clone();
        self.owned(async move {
            let held = me.hold(id, skip_wait_boot).await?;
            let record = held.vm.record();
            match (record.phase, record.handle) {
                (Phase::Paused, _) => Ok(()),
                (Phase::Running, Some(handle)) => {
                    me.backend.freeze(&handle).await?;
                    // The record follows: after a crash in between, the VM is thawed, and nobody was told otherwise.
                    if let Err(e) = me.change(&held.vm, |r| r.phase = Phase::Paused).await {
                        me.backend.thaw(&handle).await?;
                        return Err(e);
                    }
                    Ok(())
                }
                (phase, _) => Err(Fault::WrongState(format!(
                    "VM {id} is {} and cannot be paused",
                    phase.word()
                ))),
            }
        })
        .await
    }

    /// Thaws a paused VM, or starts a sleeping one on its disk. A running one stays as it is.
    pub(crate) async fn resume(
        self: &Arc<Self>,
        id: Uuid,
        skip_wait_boot: bool,
    ) -> Result<(), Fault> {
        let me = self.clone();
        self.owned(async move {
            let held = me.hold(id, skip_wait_boot).await?;
            let record = held.vm.record();
            match (record.phase, &record.handle) {
                (Phase::Running, _) => Ok(()),
                (Phase::Paused, Some(handle)) => {
                    // The record goes first: after a crash in between, the next start thaws what is recorded as running.
                    me.change(&held.vm, |r| r.phase = Phase::Running).await?;
                    if let Err(e) = me.backend.thaw(handle).await {
                        me.change(&held.vm, |r| r.phase = Phase::Paused).await?;
                        return Err(e.into());
                    }
                    Ok(())
                }
                (Phase::Sleeping | Phase::Dead, _) => {
                    // Only in memory: on disk it stays asleep until it runs, so that a crash leaves its disk alone.
                    let before = record.clone();
                    held.vm.set(crate::state::record::VmRecord {
                        phase: Phase::Booting,
                        ..record
                    });
                    let started = me.boot(&held.vm).await;
                    if started.is_err() {
                        held.vm.set(before);
                    }
                    started
                }
                (phase, _) => Err(Fault::WrongState(format!(
                    "VM {id} is {} and cannot be started",
                    phase.word()
                ))),
            }
        })
        .await
    }

    /// Ends a VM and all it holds. Answers when its processes are gone; its files are removed in the background.
    pub(crate) async fn delete(
        self: &Arc<Self>,
        id: Uuid,
        skip_wait_boot: bool,
    ) -> Result<(), Fault> {
        let me = self.clone();
        self.owned(async move { me.delete_now(id, skip_wait_boot).await })
            .await
    }

    async fn delete_now(&self, id: Uuid, skip_wait_boot: bool) -> Result<(), Fault> {
        let held = self.hold(id, skip_wait_boot).await?;
        let before = held.vm.record();
        // A full disk must not keep a VM from being deleted: then memory alone says so.
        if let Err(e) = self.change(&held.vm, |r| r.phase = Phase::Deleting).await {
            tracing::warn!("cannot record that VM {id} is being deleted: {e}");
            held.vm.set(crate::state::record::VmRecord {
                phase: Phase::Deleting,
                ..before.clone()
            });
        }
        if let Some(handle) = &before.handle
            && let Err(e) = self.backend.stop(handle).await
        {
            let note = Some(format!("it could not be deleted: {e}"));
            held.vm.set(crate::state::record::VmRecord {
                phase: Phase::Dead,
                note,
                ..before
            });
            return Err(e.into());
        }
        self.registry().vms.remove(&id);
        self.discard(self.state.vm(id)).await;
        self.drop_unneeded().await;
        Ok(())
    }

    /// Ends a VM's processes and keeps its disk.
    async fn sleep(self: &Arc<Self>, id: Uuid) -> Result<bool, Fault> {
        let held = self.hold(id, false).await?;
        let record = held.vm.record();
        let Some(handle) = record.handle else {
            return Ok(false);
        };
        held.vm.started();
        self.backend.stop(&handle).await?;
        self.change(&held.vm, |r| {
            r.phase = Phase::Sleeping;
            r.handle = None;
            r.note = Some("it was put to sleep when the platform was stopped".to_owned());
        })
        .await?;
        Ok(true)
    }

    /// Puts every VM to sleep. How many had processes, and what went wrong.
    pub(crate) async fn sleep_all(self: &Arc<Self>) -> (usize, Vec<Fault>) {
        let all = join_all(self.vms().into_iter().map(|vm| {
            let me = self.clone();
            async move {
                let asleep = me.clone();
                me.to_the_end(async move { asleep.sleep(vm.id).await })
                    .await
            }
        }))
        .await;
        let mut slept = 0;
        let mut failed = Vec::new();
        for result in all {
            match result {
                Ok(true) => slept += 1,
                // Deleted in the meantime: as well.
                Ok(false) | Err(Fault::NotFound(_)) => {}
                Err(e) => failed.push(e),
            }
        }
        (slept, failed)
    }

    /// Deletes every VM.
    pub(crate) async fn delete_all(self: &Arc<Self>) -> Vec<Fault> {
        let all = join_all(self.vms().into_iter().map(|vm| {
            let me = self.clone();
            async move {
                let deleting = me.clone();
                me.to_the_end(async move { deleting.delete_now(vm.id, false).await })
                    .await
            }
        }))
        .await;
        all.into_iter()
            .filter_map(Result::err)
            .filter(|e| !matches!(e, Fault::NotFound(_)))
            .collect()
    }

    /// Notices the end of a VM's first process, by whatever cause.
    pub(super) fn watch(self: &Arc<Self>, vm: Arc<Vm>, handle: Handle) {
        let me = self.clone();
        let this = vm.started();
        self.tasks.spawn(async move {
            tokio::select! {
                () = me.closing.cancelled() => return,
                () = me.backend.exited(&handle) => {}
            }
            let _op = vm.op.clone().lock_owned().await;
            if vm.current_start() != this
                || !matches!(vm.record().phase, Phase::Running | Phase::Paused)
            {
                return;
            }
            tracing::info!("VM {} is sleeping: its first process ended", vm.id);
            if let Err(e) = me.backend.stop(&handle).await {
                tracing::warn!("VM {} left something behind: {e}", vm.id);
            }
            let asleep = me.change(&vm, |r| {
                r.phase = Phase::Sleeping;
                r.handle = None;
                r.note = Some("its first process ended".to_owned());
            });
            if let Err(e) = asleep.await {
                tracing::error!("cannot record that VM {} is sleeping: {e}", vm.id);
                let mut record = vm.record();
                record.phase = Phase::Sleeping;
                record.handle = None;
                vm.set(record);
            }
        });
    }
}
