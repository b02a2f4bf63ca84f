//! New VMs: from nothing, from a commit, and many at once by branching.

use super::{Fault, Held, Manager, Vm, blocking};
use crate::keys;
use crate::sandbox::Spec;
use crate::state::record::{Phase, Size, VmRecord};
use futures::stream::{FuturesUnordered, StreamExt as _};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::Semaphore;
use uuid::Uuid;

/// How many sandboxes are built side by side: more only wait for each other in the kernel.
const SIDE_BY_SIDE: usize = 8;

/// What a new root VM is asked to be. Absent sizes take the platform's defaults.
#[derive(Debug, Clone, Default)]
pub(crate) struct VmConfig {
    pub(crate) vcpu: Option<u32>,
    pub(crate) mem_mib: Option<u32>,
    pub(crate) fs_mib: Option<u32>,
    pub(crate) labels: BTreeMap<String, String>,
}

/// What came of starting several VMs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Branched {
    pub(crate) vms: Vec<Uuid>,
    /// Why others were not started. Nothing of them is left.
    pub(crate) failed: Vec<String>,
}

impl Manager {
    fn size(&self, config: &VmConfig) -> Result<Size, Fault> {
        let within = |name: &str, value: Option<u32>, default: u32, max: u32| {
            let value = value.unwrap_or(default);
            if value == 0 || value > max {
                return Err(Fault::Invalid(format!(
                    "{name} must be between 1 and {max}, not {value}"
                )));
            }
            Ok(value)
        };
        let l = &self.limits;
        Ok(Size {
            vcpu: within("vcpu_count", config.vcpu, l.default_vcpu, l.max_vcpu)?,
            mem_mib: within(
                "mem_size_mib",
                config.mem_mib,
                l.default_mem_mib,
                l.max_mem_mib,
            )?,
            fs_mib: within("fs_size_mib", config.fs_mib, l.default_fs_mib, l.max_fs_mib)?,
        })
    }

    fn new_record(&self, size: Size) -> VmRecord {
        VmRecord {
            id: Uuid::new_v4(),
            owner_id: self.owner,
            created_at: Timestamp::now(),
            phase: Phase::Booting,
            size,
            labels: BTreeMap::new(),
            origin: None,
            parent_vm: None,
            last_commit: None,
            handle: None,
            note: None,
        }
    }

    /// Creates a VM on the machine's own files. Without `wait_boot` it answers while the VM boots, and a start that
    /// fails shows as state `dead`.
    pub(crate) async fn new_root(
        self: &Arc<Self>,
        config: VmConfig,
        wait_boot: bool,
    ) -> Result<Uuid, Fault> {
        super::check_labels(&config.labels)?;
        let mut record = self.new_record(self.size(&config)?);
        record.labels = config.labels;
        let me = self.clone();
        self.owned(async move {
            let mut held = me.register(vec![record])?;
            let Some(held) = held.pop() else {
                return Err(Fault::Internal("no VM was made".into()));
            };
            let id = held.vm.id;
            // So that a VM that was answered is on disk.
            if let Err(e) = me.prepare(&held.vm, None).await {
                me.scrap(held).await;
                return Err(e);
            }
            if wait_boot {
                if let Err(e) = me.boot(&held.vm).await {
                    me.scrap(held).await;
                    return Err(e);
                }
            } else {
                let booting = me.clone();
                me.tasks.spawn(async move {
                    // The whole of it: a closure would take the VM alone, and let the lock go.
                    let held = held;
                    if let Err(e) = booting.boot(&held.vm).await {
                        tracing::error!("VM {id} did not start: {e}");
                        let note = Some(e.to_string());
                        let dead = booting.change(&held.vm, |r| {
                            r.phase = Phase::Dead;
                            r.note = note;
                        });
                        if let Err(e) = dead.await {
                            tracing::error!("cannot record that VM {id} is dead: {e}");
                        }
                    }
                });
            }
            Ok(id)
        })
        .await
    }

    /// Starts `count` VMs from a commit, side by side.
    pub(crate) async fn start_from(
        self: &Arc<Self>,
        commit: Uuid,
        count: usize,
    ) -> Result<Branched, Fault> {
        let me = self.clone();
        self.owned(async move { me.start_many(commit, count).await })
            .await
    }

    /// Starts one VM from a commit.
    pub(crate) async fn restore(self: &Arc<Self>, commit: Uuid) -> Result<Uuid, Fault> {
        let Branched { vms, failed } = self.start_from(commit, 1).await?;
        match vms.first() {
            Some(id) => Ok(*id),
            None => Err(Fault::Internal(
                failed
                    .into_iter()
                    .next()
                    .unwrap_or_else(|| "no VM was started".into()),
            )),
        }
    }

    pub(super) async fn start_many(
        self: &Arc<Self>,
        commit: Uuid,
        count: usize,
    ) -> Result<Branched, Fault> {
        let records = {
            let registry = self.registry();
            let commit = registry.commit(commit)?;
            registry.layers(Some(commit.id), |id| self.state.commit(id))?;
            registry.room_for(count, &self.limits)?;
            (0..count)
                .map(|_| VmRecord {
                    origin: Some(commit.id),
                    parent_vm: commit.vm,
                    ..self.new_record(commit.size)
                })
                .collect()
        };
        let room = Semaphore::new(SIDE_BY_SIDE);
        let mut starts: FuturesUnordered<_> = self
            .register(records)?
            .into_iter()
            .enumerate()
            .map(|(n, held)| {
                let room = &room;
                async move {
                    let _permit = room.acquire().await;
                    let id = held.vm.id;
                    let started = match self.prepare(&held.vm, Some(commit)).await {
                        Ok(()) => self.boot(&held.vm).await,
                        Err(e) => Err(e),
                    };
                    if started.is_err() {
                        self.scrap(held).await;
                    }
                    (n, started.map(|()| id))
                }
            })
            .collect();
        let mut done = Vec::with_capacity(count);
        while let Some(one) = starts.next().await {
            done.push(one);
        }
        done.sort_by_key(|(n, _)| *n);
        let mut branched = Branched::default();
        for (_, result) in done {
            match result {
                Ok(id) => branched.vms.push(id),
                Err(e) => branched.failed.push(e.to_string()),
            }
        }
        Ok(branched)
    }

    /// Makes the VMs known, each with its lock taken, before anybody can see them.
    fn register(&self, records: Vec<VmRecord>) -> Result<Vec<Held>, Fault> {
        let mut registry = self.registry();
        // Looked at under the lock: who ends all VMs sets it first, and then sees all there are.
        if self.refusing.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(Fault::Closing);
        }
        let vms = registry.add_vms(records, &self.limits)?;
        vms.into_iter()
            .map(|vm| match vm.op.clone().try_lock_owned() {
                Ok(op) => Ok(Held { vm, _op: op }),
                Err(_) => Err(Fault::Internal(format!(
                    "VM {} was taken before it was made",
                    vm.id
                ))),
            })
            .collect()
    }

    /// Makes the VM's directory, record and keys.
    async fn prepare(&self, vm: &Vm, from: Option<Uuid>) -> Result<(), Fault> {
        let dir = self.state.vm(vm.id);
        let inherited = from.map(|id| self.state.commit(id).join("host_key"));
        let record = vm.record();
        blocking(move || -> Result<(), Fault> {
            let broken = |what: String| Fault::Internal(what);
            std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700)
                .create(&dir)
                .map_err(|e| broken(format!("cannot create {}: {e}", dir.display())))?;
            crate::state::write_json(&dir.join("meta.json"), &record)?;
            let key =
                keys::generate().map_err(|e| broken(format!("cannot make an SSH key: {e}")))?;
            crate::state::write(&dir.join("ssh_key"), key.as_bytes())?;
            let host_key = match inherited {
                Some(path) => std::fs::read(&path)
                    .map_err(|e| broken(format!("cannot read {}: {e}", path.display())))?,
                None => keys::generate()
                    .map_err(|e| broken(format!("cannot make a host key: {e}")))?
                    .into_bytes(),
            };
            crate::state::write(&dir.join("host_key"), &host_key)?;
            Ok(())
        })
        .await?
    }

    /// Starts the VM's processes on the disk it has. The caller holds the VM's lock.
    pub(super) async fn boot(self: &Arc<Self>, vm: &Arc<Vm>) -> Result<(), Fault> {
        let record = vm.record();
        let dir = self.state.vm(vm.id);
        let host_key = dir.join("host_key");
        let (layers, env): (Vec<PathBuf>, _) = {
            let registry = self.registry();
            (
                registry.layers(record.origin, |id| self.state.commit(id))?,
                registry.env.clone(),
            )
        };
        let key = dir.join("ssh_key");
        let authorized_key = blocking(move || {
            keys::read(&key).and_then(|k| k.public_key().to_openssh().map_err(|e| e.to_string()))
        })
        .await?
        .map_err(Fault::Internal)?;
        let handle = self
            .backend
            .start(Spec {
                id: vm.id,
                dir: &dir,
                layers: &layers,
                hostname: &vm.id.to_string(),
                vcpu: record.size.vcpu,
                mem_mib: record.size.mem_mib,
                authorized_key: &authorized_key,
                host_key: &host_key,
                env: &env,
            })
            .await?;
        let recorded = self
            .change(vm, |r| {
                r.phase = Phase::Running;
                r.handle = Some(handle.clone());
                r.note = None;
            })
            .await;
        if let Err(e) = recorded {
            // Unrecorded, it would be lost at the next start.
            if let Err(stop) = self.backend.stop(&handle).await {
                tracing::error!("VM {} could be neither recorded nor stopped: {stop}", vm.id);
            }
            return Err(e);
        }
        self.watch(vm.clone(), handle);
        Ok(())
    }

    /// Removes a VM that never ran.
    async fn scrap(&self, held: Held) {
        let id = held.vm.id;
        self.registry().vms.remove(&id);
        let mut dead = held.vm.record();
        dead.phase = Phase::Deleting;
        held.vm.set(dead);
        self.discard(self.state.vm(id)).await;
        self.drop_unneeded().await;
    }

    /// Moves a tree to the trash and removes it in the background.
    pub(super) async fn discard(&self, path: PathBuf) {
        let state = self.state.clone();
        match blocking(move || state.discard(&path)).await {
            Ok(Ok(Some(tree))) => self.remove_later([tree]),
            Ok(Ok(None)) => {}
            Ok(Err(e)) => tracing::warn!("{e}"),
            Err(e) => tracing::warn!("{e}"),
        }
    }
}
