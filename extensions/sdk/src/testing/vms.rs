//! VMs that are a list.

use serde_json::json;

use super::Kit;
use super::world::{wait_for, world};
use crate::Error;
use crate::bindings::vers::platform::vms::{CommitInfo, Origin, State, Vm, VmConfig};

#[derive(Default)]
pub(crate) struct Vms {
    all: Vec<Vm>,
    commits: Vec<CommitInfo>,
    made: u32,
}

const CREATED: &str = "2026-01-01T00:00:00Z";

impl Vms {
    fn find(&mut self, id: &str) -> Result<&mut Vm, Error> {
        let found = self.all.iter_mut().find(|vm| vm.id == id);
        found.ok_or_else(|| Error::NotFound(format!("there is no VM {id}")))
    }

    /// A VM that commands can run on.
    pub(crate) fn awake(&mut self, id: &str) -> Result<(), Error> {
        match self.find(id)?.state {
            State::Running | State::Unknown => Ok(()),
            state => Err(Error::Unavailable(format!(
                "VM {id} is {}",
                format!("{state:?}").to_lowercase()
            ))),
        }
    }

    fn id(&mut self, kind: char) -> String {
        self.made += 1;
        format!("{kind}e570000-0000-4000-8000-{:012}", self.made)
    }

    fn add(&mut self, labels: Vec<(String, String)>) -> String {
        let id = self.id('a');
        self.all.push(Vm {
            id: id.clone(),
            owner_id: "owner".into(),
            state: State::Running,
            created_at: CREATED.into(),
            labels,
        });
        id
    }
}

/// All VMs that the key sees.
pub async fn list() -> Result<Vec<Vm>, Error> {
    wait_for("vms.list", json!({})).await?;
    Ok(world(|world| world.vms.all.clone()))
}

/// One VM.
pub async fn get(id: String) -> Result<Vm, Error> {
    wait_for("vms.get", json!({ "id": id })).await?;
    world(|world| world.vms.find(&id).cloned())
}

/// The VM whose id begins with this.
pub async fn resolve(prefix: String) -> Result<String, Error> {
    wait_for("vms.resolve", json!({ "prefix": prefix })).await?;
    world(|world| {
        let fits: Vec<&str> = world
            .vms
            .all
            .iter()
            .map(|vm| vm.id.as_str())
            .filter(|id| id.starts_with(&prefix))
            .collect();
        match fits.as_slice() {
            [] => Err(Error::NotFound(format!("there is no VM {prefix}"))),
            [one] => Ok((*one).to_owned()),
            several => Err(Error::Conflict(several.join(", "))),
        }
    })
}

/// Starts a fresh VM.
pub async fn create(config: VmConfig, wait_boot: bool) -> Result<String, Error> {
    let with = json!({
        "vcpu-count": config.vcpu_count,
        "mem-size-mib": config.mem_size_mib,
        "fs-size-mib": config.fs_size_mib,
        "labels": config.labels,
        "wait-boot": wait_boot,
    });
    wait_for("vms.create", with).await?;
    Ok(world(|world| world.vms.add(config.labels)))
}

/// Deletes a VM for good.
pub async fn delete(id: String) -> Result<(), Error> {
    wait_for("vms.delete", json!({ "id": id })).await?;
    world(|world| world.vms.find(&id).map(drop))?;
    world(|world| world.vms.all.retain(|vm| vm.id != id));
    super::processes::end_on(&id);
    Ok(())
}

/// Clones a running VM.
pub async fn branch(id: String, count: u32) -> Result<Vec<String>, Error> {
    wait_for("vms.branch", json!({ "id": id, "count": count })).await?;
    world(|world| {
        world.vms.awake(&id).map_err(|why| match why {
            Error::Unavailable(why) => Error::Conflict(why),
            why => why,
        })?;
        let new: Vec<String> = (0..count).map(|_| world.vms.add(Vec::new())).collect();
        for one in &new {
            world.files.tree.clone_vm(&id, one);
        }
        Ok(new)
    })
}

/// Snapshots a VM.
pub async fn commit(id: String, keep_paused: bool) -> Result<String, Error> {
    wait_for(
        "vms.commit",
        json!({ "id": id, "keep-paused": keep_paused }),
    )
    .await?;
    world(|world| {
        let vm = world.vms.find(&id)?;
        if keep_paused {
            vm.state = State::Paused;
        }
        let commit = world.vms.id('c');
        world.vms.commits.insert(
            0,
            CommitInfo {
                id: commit.clone(),
                name: String::new(),
                created_at: CREATED.into(),
                parent_vm: Some(id.clone()),
                parent_commit: None,
                is_public: false,
            },
        );
        world.files.tree.clone_vm(&id, &commit);
        Ok(commit)
    })
}

/// Starts a VM from a snapshot.
pub async fn restore(origin: Origin) -> Result<String, Error> {
    let commit = match origin {
        Origin::Commit(commit) => commit,
        Origin::Reference(reference) => reference,
    };
    wait_for("vms.restore", json!({ "origin": commit })).await?;
    world(|world| {
        if !world.vms.commits.iter().any(|one| one.id == commit) {
            return Err(Error::NotFound(format!("there is no commit {commit}")));
        }
        let vm = world.vms.add(Vec::new());
        world.files.tree.clone_vm(&commit, &vm);
        Ok(vm)
    })
}

/// `running` or `paused`.
pub async fn set_state(id: String, state: State) -> Result<(), Error> {
    wait_for(
        "vms.set-state",
        json!({ "id": id, "state": format!("{state:?}").to_lowercase() }),
    )
    .await?;
    world(|world| world.vms.find(&id).map(|vm| vm.state = state))
}

/// Sets these labels.
pub async fn set_labels(id: String, labels: Vec<(String, String)>) -> Result<(), Error> {
    wait_for("vms.set-labels", json!({ "id": id, "labels": labels })).await?;
    world(|world| {
        let vm = world.vms.find(&id)?;
        vm.labels
            .retain(|(name, _)| !labels.iter().any(|(new, _)| new == name));
        vm.labels.extend(labels);
        Ok(())
    })
}

/// Grows the disk.
pub async fn resize_disk(id: String, fs_size_mib: u32) -> Result<(), Error> {
    wait_for(
        "vms.resize-disk",
        json!({ "id": id, "fs-size-mib": fs_size_mib }),
    )
    .await?;
    world(|world| world.vms.find(&id).map(drop))
}

/// One page of the commits, newest first.
pub async fn list_commits(limit: u32, offset: u32) -> Result<Vec<CommitInfo>, Error> {
    wait_for(
        "vms.list-commits",
        json!({ "limit": limit, "offset": offset }),
    )
    .await?;
    Ok(world(|world| {
        let all = world.vms.commits.iter().skip(offset as usize);
        all.take(limit as usize).cloned().collect()
    }))
}

/// Deletes a commit.
pub async fn delete_commit(id: String) -> Result<(), Error> {
    wait_for("vms.delete-commit", json!({ "id": id })).await?;
    world(|world| world.vms.commits.retain(|one| one.id != id));
    Ok(())
}

/// Makes a commit public or private.
pub async fn set_commit_public(id: String, is_public: bool) -> Result<(), Error> {
    wait_for(
        "vms.set-commit-public",
        json!({ "id": id, "is-public": is_public }),
    )
    .await?;
    world(|world| {
        let found = world.vms.commits.iter_mut().find(|one| one.id == id);
        let commit = found.ok_or_else(|| Error::NotFound(format!("there is no commit {id}")))?;
        commit.is_public = is_public;
        Ok(())
    })
}

impl Kit {
    /// Adds a VM that runs.
    pub fn add_vm(&self, id: &str) {
        world(|world| {
            world.vms.all.push(Vm {
                id: id.into(),
                owner_id: "owner".into(),
                state: State::Running,
                created_at: CREATED.into(),
                labels: Vec::new(),
            });
        });
    }

    /// The VMs there are.
    #[must_use]
    pub fn vms(&self) -> Vec<Vm> {
        world(|world| world.vms.all.clone())
    }

    /// Changes a VM behind the extension's back: its state, its labels.
    pub fn change_vm(&self, id: &str, change: impl FnOnce(&mut Vm)) {
        world(|world| match world.vms.find(id) {
            Ok(vm) => change(vm),
            Err(_) => panic!("there is no VM {id}"),
        });
    }

    /// Takes a VM away behind the extension's back, with all that runs on it.
    pub fn lose_vm(&self, id: &str) {
        world(|world| world.vms.all.retain(|vm| vm.id != id));
        super::processes::end_on(id);
        self.settle();
    }
}
