//! The records as they lie in the state directory. Fields may be added; readers ignore what they do not know.

use crate::layers::SnapshotStats;
use crate::sandbox::Handle;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Where a VM stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    /// Its first start is under way.
    Booting,
    /// It has processes and they run.
    Running,
    /// It has processes and they are frozen.
    Paused,
    /// It has a disk and no processes (its first process died, the machine was restarted, the platform was stopped).
    Sleeping,
    /// Its first start failed. It can only be deleted, or started again.
    Dead,
    /// It is being removed.
    Deleting,
}

impl Phase {
    /// The platform's word for it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Booting => "booting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Sleeping => "sleeping",
            Self::Dead | Self::Deleting => "dead",
        }
    }
}

/// CPUs, memory and disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Size {
    pub(crate) vcpu: u32,
    pub(crate) mem_mib: u32,
    pub(crate) fs_mib: u32,
}

/// `vms/<id>/meta.json`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct VmRecord {
    pub(crate) id: Uuid,
    pub(crate) owner_id: Uuid,
    pub(crate) created_at: Timestamp,
    pub(crate) phase: Phase,
    pub(crate) size: Size,
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    /// The commit it was restored or branched from: its layers lie below this VM's own.
    #[serde(default)]
    pub(crate) origin: Option<Uuid>,
    /// The VM that commit was taken from.
    #[serde(default)]
    pub(crate) parent_vm: Option<Uuid>,
    /// The newest commit of this VM, which the next one may share files with.
    #[serde(default)]
    pub(crate) last_commit: Option<Uuid>,
    #[serde(default)]
    pub(crate) handle: Option<Handle>,
    /// Why it is sleeping or dead, for people.
    #[serde(default)]
    pub(crate) note: Option<String>,
}

/// What a commit holds. Never more than the disk, on this platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Contents {
    /// Files, without memory and processes.
    #[default]
    DiskOnly,
}

/// `commits/<id>/meta.json`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct CommitRecord {
    pub(crate) id: Uuid,
    pub(crate) owner_id: Uuid,
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) description: Option<String>,
    pub(crate) created_at: Timestamp,
    #[serde(default)]
    pub(crate) is_public: bool,
    /// The VM it was taken from.
    #[serde(default)]
    pub(crate) vm: Option<Uuid>,
    /// The commit that VM came from: the next layer below.
    #[serde(default)]
    pub(crate) parent: Option<Uuid>,
    /// Made by branching a VM, by nobody's wish: goes when nothing needs it any more.
    #[serde(default)]
    pub(crate) implicit: bool,
    #[serde(default)]
    pub(crate) contents: Contents,
    pub(crate) size: Size,
    #[serde(default)]
    pub(crate) stats: SnapshotStats,
}

/// A name for a commit: `commit_tags/<tag_id>.json`, and inside a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TagRecord {
    pub(crate) tag_id: Uuid,
    pub(crate) tag_name: String,
    pub(crate) commit_id: Uuid,
    #[serde(default)]
    pub(crate) description: Option<String>,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
}

/// `repositories/<repo_id>.json`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RepositoryRecord {
    pub(crate) repo_id: Uuid,
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) description: Option<String>,
    #[serde(default)]
    pub(crate) is_public: bool,
    pub(crate) created_at: Timestamp,
    #[serde(default)]
    pub(crate) tags: BTreeMap<String, TagRecord>,
}
