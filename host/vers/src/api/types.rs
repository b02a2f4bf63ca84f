//! What the platform says, as far as it is understood. Unknown fields are ignored, unknown states kept as they are.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

use crate::error::{Error, shown};
use crate::secret::Secret;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self, Error> {
                match Uuid::try_parse(text.trim()) {
                    Ok(id) => Ok(Self(id)),
                    Err(_) => Err(Error::invalid(format!(
                        "{:?} is not the id of a {}; an id is a whole UUID", shown(text), $what
                    ))),
                }
            }
        }
    };
}

id!(
    /// The id of a VM: a UUID, always whole.
    VmId,
    "VM"
);
id!(
    /// The id of a commit (a snapshot of a VM): a UUID.
    CommitId,
    "commit"
);

/// The state of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum VmState {
    /// Starting for the first time.
    Booting,
    /// Up.
    Running,
    /// Stopped in memory; nothing answers until it is resumed.
    Paused,
    /// Put aside by the platform.
    Sleeping,
    /// Gone for good.
    Dead,
    /// A word that this version does not know, in lower case.
    Unknown(String),
}

impl VmState {
    /// The platform's word for it, in lower case.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Booting => "booting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Sleeping => "sleeping",
            Self::Dead => "dead",
            Self::Unknown(word) => word,
        }
    }
}

impl fmt::Display for VmState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(self.as_str()))
    }
}

impl From<&str> for VmState {
    fn from(word: &str) -> Self {
        match word.to_ascii_lowercase().as_str() {
            "booting" => Self::Booting,
            "running" => Self::Running,
            "paused" => Self::Paused,
            "sleeping" => Self::Sleeping,
            "dead" => Self::Dead,
            other => Self::Unknown(other.to_owned()),
        }
    }
}

impl<'de> Deserialize<'de> for VmState {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::from(String::deserialize(deserializer)?.as_str()))
    }
}

/// `null` reads as the default, like an absent field.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A VM as the platform lists it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Vm {
    /// Its id.
    #[serde(rename = "vm_id")]
    pub id: VmId,
    /// The id of the key that owns it: the first 36 characters of that key. A list holds VMs of the whole organisation.
    #[serde(default, deserialize_with = "or_default")]
    pub owner_id: String,
    /// Its state.
    #[serde(default = "unknown_state")]
    pub state: VmState,
    /// RFC 3339.
    #[serde(default, deserialize_with = "or_default")]
    pub created_at: String,
    /// Its labels, by name.
    #[serde(default, deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
}

fn unknown_state() -> VmState {
    VmState::Unknown(String::new())
}

/// What only the metadata of a VM tell.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct VmMetadata {
    /// Its id.
    #[serde(rename = "vm_id")]
    pub id: VmId,
    /// The id of the key that owns it.
    #[serde(default, deserialize_with = "or_default")]
    pub owner_id: String,
    /// Its state.
    #[serde(default = "unknown_state")]
    pub state: VmState,
    /// RFC 3339.
    #[serde(default, deserialize_with = "or_default")]
    pub created_at: String,
    /// RFC 3339, if it was deleted.
    pub deleted_at: Option<String>,
    /// Its address inside the platform.
    #[serde(default, deserialize_with = "or_default")]
    pub ip: String,
    /// The commit it was started from.
    pub parent_commit_id: Option<CommitId>,
    /// The VM that commit was taken of.
    pub grandparent_vm_id: Option<VmId>,
    /// Virtual processors, where the platform tells.
    pub vcpu_count: Option<u32>,
    /// Memory in MiB, where the platform tells.
    pub mem_size_mib: Option<u32>,
}

/// What a new VM shall be like; `None` leaves it to the platform.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct VmConfig {
    /// Virtual processors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vcpu_count: Option<u32>,
    /// Memory in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mem_size_mib: Option<u32>,
    /// Disk in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fs_size_mib: Option<u32>,
    /// Labels, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// What a VM is restored from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A commit.
    Commit(CommitId),
    /// `repository:tag`.
    Reference(String),
}

/// The two states a VM can be put in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetState {
    /// Stop it in memory.
    Paused,
    /// Go on.
    Running,
}

/// A commit, whichever endpoint tells of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Commit {
    /// Its id.
    #[serde(rename(serialize = "commit_id"), alias = "commit_id")]
    pub id: CommitId,
    /// Its name.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    /// The id of the key that owns it.
    #[serde(default, deserialize_with = "or_default")]
    pub owner_id: String,
    /// RFC 3339.
    #[serde(default, deserialize_with = "or_default")]
    pub created_at: String,
    /// Whether everybody may restore it.
    #[serde(default, deserialize_with = "or_default")]
    pub is_public: bool,
    /// What its owner wrote about it.
    pub description: Option<String>,
    /// The VM it was taken of.
    pub parent_vm_id: Option<VmId>,
    /// The commit that VM was started from.
    pub grandparent_commit_id: Option<CommitId>,
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitPage {
    /// The commits, newest first.
    pub commits: Vec<Commit>,
    /// How many there are in all, where the platform tells.
    #[serde(default)]
    pub total: Option<u64>,
}

/// A tag of the flat name space.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Tag {
    /// Its name.
    #[serde(rename = "tag_name")]
    pub name: String,
    /// The commit it stands for.
    pub commit_id: CommitId,
    /// What its owner wrote about it.
    pub description: Option<String>,
}

/// The key pair's private half that lets root in on a VM.
#[derive(Debug, Clone)]
pub struct SshKey {
    /// OpenSSH format, no passphrase.
    pub private_key: Secret,
    /// Where the platform forwards SSH to inside; not for dialling.
    pub port: Option<u16>,
}

/// Who the key belongs to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Identity {
    /// The person.
    #[serde(default)]
    pub user: Account,
    /// The organisation.
    #[serde(default)]
    pub org: Organization,
    /// The key itself; its secret half is not told.
    #[serde(default)]
    pub api_key: KeyInfo,
}

/// A person at the platform.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Account {
    /// Its id.
    #[serde(default, deserialize_with = "or_default")]
    pub id: String,
    /// Its mail address.
    #[serde(default, deserialize_with = "or_default")]
    pub email: String,
}

/// An organisation at the platform.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Organization {
    /// Its id.
    #[serde(default, deserialize_with = "or_default")]
    pub id: String,
    /// Its name.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
}

/// What is known of an API key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct KeyInfo {
    /// Its id, the `owner_id` of what it makes.
    #[serde(default, deserialize_with = "or_default")]
    pub id: String,
    /// What its owner calls it.
    #[serde(default, deserialize_with = "or_default")]
    pub label: String,
    /// RFC 3339, if it expires.
    pub expires_at: Option<String>,
}

/// Which build of the platform answers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct SystemVersion {
    /// The program's name.
    #[serde(default, deserialize_with = "or_default")]
    pub executable_name: String,
    /// The commit it was built from.
    #[serde(default, deserialize_with = "or_default")]
    pub git_hash: String,
    /// Its version.
    #[serde(default, deserialize_with = "or_default")]
    pub workspace_version: String,
}

#[derive(Deserialize)]
pub(super) struct VmIdAnswer {
    pub(super) vm_id: VmId,
}

#[derive(Deserialize)]
pub(super) struct CommitIdAnswer {
    pub(super) commit_id: CommitId,
}

/// Today's answer holds `vms`, older platforms' a single `vm_id`.
#[derive(Deserialize)]
pub(super) struct BranchAnswer {
    #[serde(default)]
    pub(super) vms: Vec<VmIdAnswer>,
    #[serde(default)]
    pub(super) vm_id: Option<VmId>,
}

#[derive(Deserialize)]
pub(super) struct SshKeyAnswer {
    pub(super) ssh_private_key: String,
    #[serde(default)]
    pub(super) ssh_port: Option<u16>,
}

#[derive(Deserialize)]
pub(super) struct Validity {
    #[serde(default)]
    pub(super) valid: bool,
    #[serde(default)]
    pub(super) message: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Tags {
    pub(super) tags: Vec<Tag>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const ID: &str = "3f2c9a1e-7b4d-4c1a-9e55-0a1b2c3d4e5f";

    #[test]
    fn an_id_is_a_whole_uuid() {
        assert_eq!(ID.parse::<VmId>().unwrap().to_string(), ID);
        assert_eq!(
            format!(" {} ", ID.to_uppercase())
                .parse::<VmId>()
                .unwrap()
                .to_string(),
            ID
        );
        assert!(
            "3f2c9a1e"
                .parse::<VmId>()
                .unwrap_err()
                .to_string()
                .contains("whole UUID")
        );
        assert!("../../etc".parse::<CommitId>().is_err());
    }

    #[test]
    fn lists_of_newer_and_older_platforms_are_understood() {
        let vm: Vm = serde_json::from_str(&format!(
            r#"{{"vm_id":"{ID}","owner_id":"o","state":"hibernating","created_at":"t","labels":null,"news":[1]}}"#
        ))
        .unwrap();
        assert_eq!(vm.state, VmState::Unknown("hibernating".into()));
        let vm: Vm = serde_json::from_str(&format!(
            r#"{{"vm_id":"{ID}","state":"Running","labels":{{"a":"b"}}}}"#
        ))
        .unwrap();
        assert_eq!((vm.state, vm.labels.len()), (VmState::Running, 1));
        let vm: Vm = serde_json::from_str(&format!(r#"{{"vm_id":"{ID}","parent":"x"}}"#)).unwrap();
        assert_eq!(vm.state.as_str(), "");
        for field in ["id", "commit_id"] {
            let commit: Commit =
                serde_json::from_str(&format!(r#"{{"{field}":"{ID}","name":"n"}}"#)).unwrap();
            assert_eq!(commit.id.to_string(), ID);
        }
    }
}
