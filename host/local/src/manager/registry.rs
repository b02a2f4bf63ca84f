//! What exists now: VMs, commits and names in memory, behind one short lock, so that "is it in use?" and "use it" are one step.

use super::fault::Fault;
use super::vm::Vm;
use crate::options::Limits;
use crate::state::record::{CommitRecord, RepositoryRecord, TagRecord, VmRecord};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use uuid::Uuid;

/// Overlay takes about 500 layers; long before that, look-ups get slow.
const MAX_DEPTH: usize = 128;

#[derive(Debug, Default)]
pub(crate) struct Registry {
    pub(crate) vms: HashMap<Uuid, Arc<Vm>>,
    pub(crate) commits: HashMap<Uuid, CommitRecord>,
    /// Ids of commits being made.
    pub(crate) making: HashSet<Uuid>,
    /// Commits that an operation is reading from.
    pub(crate) pins: HashMap<Uuid, usize>,
    pub(crate) tags: BTreeMap<String, TagRecord>,
    pub(crate) repositories: BTreeMap<String, RepositoryRecord>,
    pub(crate) env: BTreeMap<String, String>,
}

impl Registry {
    pub(crate) fn vm(&self, id: Uuid) -> Result<Arc<Vm>, Fault> {
        self.vms.get(&id).cloned().ok_or(Fault::NOT_FOUND)
    }

    pub(crate) fn commit(&self, id: Uuid) -> Result<&CommitRecord, Fault> {
        self.commits.get(&id).ok_or(Fault::COMMIT_NOT_FOUND)
    }

    /// Adds VMs, all or none.
    pub(crate) fn add_vms(
        &mut self,
        records: Vec<VmRecord>,
        limits: &Limits,
    ) -> Result<Vec<Arc<Vm>>, Fault> {
        self.room_for(records.len(), limits)?;
        for record in &records {
            if let Some(origin) = record.origin {
                self.commit(origin)?;
            }
        }
        Ok(records
            .into_iter()
            .map(|record| {
                let vm = Arc::new(Vm::new(record));
                self.vms.insert(vm.id, vm.clone());
                vm
            })
            .collect())
    }

    pub(crate) fn room_for(&self, more: usize, limits: &Limits) -> Result<(), Fault> {
        if self.vms.len().saturating_add(more) > limits.max_vms {
            return Err(Fault::Limit(format!(
                "the local platform holds at most {} VMs and has {}; delete some, or start it with a higher limit",
                limits.max_vms,
                self.vms.len()
            )));
        }
        Ok(())
    }

    /// The commit and those below it, newest first. Ends at a commit that is missing.
    pub(crate) fn chain(&self, from: Uuid) -> Vec<&CommitRecord> {
        let mut chain = Vec::new();
        let mut next = Some(from);
        while let Some(commit) = next.and_then(|id| self.commits.get(&id)) {
            if chain.len() >= MAX_DEPTH * 2 {
                break;
            }
            chain.push(commit);
            next = commit.parent;
        }
        chain
    }

    /// The layers below a VM that comes from `origin`.
    pub(crate) fn layers(
        &self,
        origin: Option<Uuid>,
        path: impl Fn(Uuid) -> PathBuf,
    ) -> Result<Vec<PathBuf>, Fault> {
        let Some(origin) = origin else {
            return Ok(Vec::new());
        };
        let chain = self.chain(origin);
        match chain.last() {
            Some(last) if last.parent.is_none() => {}
            _ => {
                return Err(Fault::Internal(format!(
                    "commit {origin} stands on a commit that is missing"
                )));
            }
        }
        if chain.len() > MAX_DEPTH {
            return Err(Fault::Limit(format!(
                "commit {origin} stands on {} others, and the local platform stacks at most {MAX_DEPTH}; copy the files into a new VM and commit that",
                chain.len() - 1
            )));
        }
        Ok(chain.iter().map(|c| path(c.id).join("layer")).collect())
    }

    /// What keeps a commit from being deleted, in the platform's words.
    pub(crate) fn in_use(&self, id: Uuid) -> Option<String> {
        let vms = self
            .vms
            .values()
            .filter(|vm| vm.record().origin == Some(id))
            .count();
        if vms > 0 {
            return Some(format!("commit still has {vms} active VM(s)"));
        }
        let commits = self
            .commits
            .values()
            .filter(|c| c.parent == Some(id))
            .count();
        if commits > 0 {
            return Some(format!("commit still has {commits} child commit(s)"));
        }
        let tags = self
            .tags
            .values()
            .chain(self.repositories.values().flat_map(|r| r.tags.values()));
        let tags = tags.filter(|t| t.commit_id == id).count();
        if tags > 0 {
            return Some(format!("commit still has {tags} tag(s)"));
        }
        self.pins
            .contains_key(&id)
            .then(|| "commit is being read by another operation".to_owned())
    }

    /// Takes out the commits that nobody asked for and nothing needs.
    pub(crate) fn take_unneeded(&mut self) -> Vec<Uuid> {
        let mut taken = Vec::new();
        // One may have stood on another.
        while let Some(id) = self
            .commits
            .values()
            .find(|c| c.implicit && self.in_use(c.id).is_none())
            .map(|c| c.id)
        {
            self.commits.remove(&id);
            taken.push(id);
        }
        taken
    }

    pub(crate) fn pin(&mut self, id: Uuid) {
        *self.pins.entry(id).or_default() += 1;
    }

    pub(crate) fn unpin(&mut self, id: Uuid) {
        if let Some(n) = self.pins.get_mut(&id) {
            *n = n.saturating_sub(1);
            if *n == 0 {
                self.pins.remove(&id);
            }
        }
    }
}
