//! The REST API of the platform.
//!
//! Each call has a deadline that covers all its attempts: a minute, or five where the platform has to boot or snapshot
//! a VM. Dropping a call's future gives up waiting; a request that was already sent may still take effect.

mod failure;
pub(crate) mod http;
mod types;

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use self::http::{Call, Http};
pub use self::types::{
    Account, Commit, CommitId, CommitPage, Identity, KeyInfo, Organization, Origin, SetState,
    SshKey, SystemVersion, Tag, Vm, VmConfig, VmId, VmMetadata, VmState,
};
use self::types::{BranchAnswer, CommitIdAnswer, SshKeyAnswer, Tags, Validity, VmIdAnswer};
use crate::config::Settings;
use crate::error::{Error, Kind, Result, shown};
use crate::secret::Secret;

/// For calls in which the platform boots, snapshots or resumes VMs.
const LONG: Duration = Duration::from_secs(300);

/// The platform's largest page.
pub const MAX_PAGE: u32 = 100;

/// The REST API. Cheap to clone; all clones share their connections.
#[derive(Clone)]
pub struct Api {
    http: Http,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api")
            .field("base_url", &self.settings().base_url().as_str())
            .finish()
    }
}

impl Api {
    /// Connects nowhere yet.
    ///
    /// # Errors
    /// [`Kind::Invalid`] if the file of extra certificates cannot be used.
    pub fn new(settings: Settings) -> Result<Self> {
        Ok(Self {
            http: Http::new(settings)?,
        })
    }

    /// The settings this works by.
    pub fn settings(&self) -> &Settings {
        self.http.settings()
    }

    fn call(&self, what: impl Into<String>, method: Method, path: &[&str]) -> Call {
        Call::new(what, method, self.settings().base_url(), path)
    }

    fn vm_call(&self, what: &str, method: Method, vm: VmId, path: &[&str]) -> Call {
        let id = vm.to_string();
        let path: Vec<&str> = ["vm", id.as_str()]
            .into_iter()
            .chain(path.iter().copied())
            .collect();
        self.call(format!("{what} {vm}"), method, &path)
    }

    /// All VMs that the key sees: those of its whole organisation.
    pub async fn list_vms(&self) -> Result<Vec<Vm>> {
        self.http
            .json(self.call("list VMs", Method::GET, &["vms"]))
            .await
    }

    /// One VM.
    pub async fn vm(&self, vm: VmId) -> Result<Vm> {
        self.http
            .json(self.vm_call("get VM", Method::GET, vm, &["status"]))
            .await
    }

    /// What only the metadata of a VM tell: its ancestry and its address.
    pub async fn metadata(&self, vm: VmId) -> Result<VmMetadata> {
        self.http
            .json(self.vm_call("get metadata of VM", Method::GET, vm, &["metadata"]))
            .await
    }

    /// The VM whose id begins with `prefix`. A whole id is taken as it is, unchecked.
    ///
    /// # Errors
    /// [`Kind::NotFound`], or [`Kind::Conflict`] with the candidates.
    pub async fn resolve(&self, prefix: &str) -> Result<VmId> {
        self.resolve_among(prefix, |_| true).await
    }

    /// The same among the VMs for which this holds: of others nothing is told, not even that there are any.
    ///
    /// # Errors
    /// As [`Self::resolve`].
    pub async fn resolve_among(&self, prefix: &str, seen: impl Fn(&Vm) -> bool) -> Result<VmId> {
        if let Ok(id) = prefix.parse() {
            return Ok(id);
        }
        let wanted = prefix.trim().to_ascii_lowercase();
        if wanted.is_empty() || !wanted.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-') {
            return Err(Error::invalid(format!(
                "{:?} cannot begin the id of a VM",
                shown(prefix)
            )));
        }
        let vms = self.list_vms().await?;
        let matching: Vec<VmId> = vms
            .iter()
            .filter(|vm| vm.id.to_string().starts_with(&wanted) && seen(vm))
            .map(|vm| vm.id)
            .collect();
        match matching.as_slice() {
            [] => Err(Error::new(
                Kind::NotFound,
                format!("no VM has an id that begins with {wanted}; list the VMs"),
            )),
            [id] => Ok(*id),
            several => {
                let mut ids: Vec<String> = several.iter().take(5).map(VmId::to_string).collect();
                if several.len() > ids.len() {
                    ids.push(format!("and {} more", several.len() - ids.len()));
                }
                Err(Error::new(
                    Kind::Conflict,
                    format!(
                        "{wanted} begins the ids of several VMs: {}; give more of the id",
                        ids.join(", ")
                    ),
                ))
            }
        }
    }

    /// Starts a fresh VM. With `wait_boot` the answer comes when it runs.
    pub async fn create_vm(&self, config: &VmConfig, wait_boot: bool) -> Result<VmId> {
        let config =
            serde_json::to_value(config).map_err(|e| Error::invalid(format!("create VM: {e}")))?;
        let call = self
            .call("create VM", Method::POST, &["vm", "new_root"])
            .query("wait_boot", wait_boot)
            .json(json!({ "vm_config": config }))
            .deadline(LONG);
        Ok(self.http.json::<VmIdAnswer>(call).await?.vm_id)
    }

    /// Deletes a VM for good.
    ///
    /// # Errors
    /// The platform answers [`Kind::Denied`] for a VM that does not exist, too.
    pub async fn delete_vm(&self, vm: VmId) -> Result<()> {
        self.http
            .unit(
                self.vm_call("delete VM", Method::DELETE, vm, &[])
                    .deadline(LONG),
            )
            .await
    }

    /// Clones a VM `count` times from one snapshot.
    pub async fn branch(&self, vm: VmId, count: u32) -> Result<Vec<VmId>> {
        if count == 0 {
            return Ok(Vec::new());
        }
        let what = format!("branch VM {vm}");
        let call = self
            .call(
                what.as_str(),
                Method::POST,
                &["vm", "branch", "by_vm", &vm.to_string()],
            )
            .query("count", count)
            .deadline(LONG);
        let answer: BranchAnswer = self.http.json(call).await?;
        let ids: Vec<VmId> = answer
            .vms
            .into_iter()
            .map(|vm| vm.vm_id)
            .chain(answer.vm_id)
            .collect();
        if ids.is_empty() {
            return Err(Error::other(format!(
                "{what}: the platform names no new VM; list the VMs"
            )));
        }
        Ok(ids)
    }

    /// Snapshots a VM, memory and running processes included. `keep_paused` leaves it paused afterwards.
    pub async fn commit(&self, vm: VmId, keep_paused: bool) -> Result<CommitId> {
        let call = self
            .vm_call("commit VM", Method::POST, vm, &["commit"])
            .query("keep_paused", keep_paused)
            .json(json!({}))
            .deadline(LONG);
        Ok(self.http.json::<CommitIdAnswer>(call).await?.commit_id)
    }

    /// Starts a VM from a snapshot.
    pub async fn restore(&self, origin: &Origin) -> Result<VmId> {
        let (what, body) = match origin {
            Origin::Commit(id) => (format!("restore commit {id}"), json!({ "commit_id": id })),
            Origin::Reference(reference) => {
                // The platform's own message for a malformed one is about JSON.
                if !matches!(reference.split_once(':'), Some((repository, tag)) if !repository.is_empty() && !tag.is_empty())
                {
                    return Err(Error::invalid(format!(
                        "{:?} is not a reference; write it as repository:tag",
                        shown(reference)
                    )));
                }
                (
                    format!("restore {}", shown(reference)),
                    json!({ "ref": reference }),
                )
            }
        };
        let call = self
            .call(what, Method::POST, &["vm", "from_commit"])
            .json(body)
            .deadline(LONG);
        Ok(self.http.json::<VmIdAnswer>(call).await?.vm_id)
    }

    /// Pauses or resumes a VM.
    pub async fn set_state(&self, vm: VmId, state: SetState) -> Result<()> {
        let (what, word) = match state {
            SetState::Paused => ("pause VM", "Paused"),
            SetState::Running => ("resume VM", "Running"),
        };
        self.http
            .unit(
                self.vm_call(what, Method::PATCH, vm, &["state"])
                    .json(json!({ "state": word }))
                    .deadline(LONG),
            )
            .await
    }

    /// Sets these labels.
    pub async fn set_labels(&self, vm: VmId, labels: &BTreeMap<String, String>) -> Result<()> {
        self.http
            .unit(
                self.vm_call("label VM", Method::PATCH, vm, &["label"])
                    .json(json!({ "labels": labels })),
            )
            .await
    }

    /// Grows a VM's disk to `fs_size_mib`, which must be more than it has.
    pub async fn resize_disk(&self, vm: VmId, fs_size_mib: u32) -> Result<()> {
        let call = self
            .vm_call("resize the disk of VM", Method::PATCH, vm, &["disk"])
            .json(json!({ "fs_size_mib": fs_size_mib }));
        self.http.unit(call.deadline(LONG)).await
    }

    /// The private key that lets root in on a VM.
    pub async fn ssh_key(&self, vm: VmId) -> Result<SshKey> {
        let answer: SshKeyAnswer = self
            .http
            .json(self.vm_call("get SSH key of VM", Method::GET, vm, &["ssh_key"]))
            .await?;
        Ok(SshKey {
            private_key: Secret::new(answer.ssh_private_key),
            port: answer.ssh_port,
        })
    }

    /// A page of the commits, newest first; `limit` is cut to [`MAX_PAGE`].
    pub async fn list_commits(&self, limit: u32, offset: u32) -> Result<CommitPage> {
        self.commits("list commits", &["commits"], limit, offset)
            .await
    }

    /// The same of those that everybody may restore.
    pub async fn list_public_commits(&self, limit: u32, offset: u32) -> Result<CommitPage> {
        let path = ["commits", "public"];
        self.commits("list public commits", &path, limit, offset)
            .await
    }

    async fn commits(
        &self,
        what: &'static str,
        path: &[&str],
        limit: u32,
        offset: u32,
    ) -> Result<CommitPage> {
        let call = self
            .call(what, Method::GET, path)
            .query("limit", limit.clamp(1, MAX_PAGE))
            .query("offset", offset);
        self.http.json(call).await
    }

    /// A commit and its ancestors, from itself to the root.
    pub async fn commit_parents(&self, commit: CommitId) -> Result<Vec<Commit>> {
        let id = commit.to_string();
        self.http
            .json(self.call(
                format!("get parents of commit {commit}"),
                Method::GET,
                &["vm", "commits", &id, "parents"],
            ))
            .await
    }

    /// Deletes a commit.
    ///
    /// # Errors
    /// [`Kind::Conflict`] while a VM descends from it.
    pub async fn delete_commit(&self, commit: CommitId) -> Result<()> {
        let id = commit.to_string();
        self.http
            .unit(self.call(
                format!("delete commit {commit}"),
                Method::DELETE,
                &["commits", &id],
            ))
            .await
    }

    /// Makes a commit public or private.
    pub async fn set_commit_public(&self, commit: CommitId, is_public: bool) -> Result<()> {
        let id = commit.to_string();
        let call = self.call(
            format!("publish commit {commit}"),
            Method::PATCH,
            &["commits", &id],
        );
        self.http
            .unit(call.json(json!({ "is_public": is_public })))
            .await
    }

    /// All tags of the flat name space.
    pub async fn list_tags(&self) -> Result<Vec<Tag>> {
        Ok(self
            .http
            .json::<Tags>(self.call("list tags", Method::GET, &["commit_tags"]))
            .await?
            .tags)
    }

    /// One tag.
    pub async fn tag(&self, name: &str) -> Result<Tag> {
        self.http
            .json(self.call(
                format!("get tag {}", shown(name)),
                Method::GET,
                &["commit_tags", tag_name(name)?],
            ))
            .await
    }

    /// Makes a tag.
    ///
    /// # Errors
    /// [`Kind::Conflict`] if there is one of this name.
    pub async fn create_tag(
        &self,
        name: &str,
        commit: CommitId,
        description: Option<&str>,
    ) -> Result<()> {
        let mut body = json!({ "tag_name": tag_name(name)?, "commit_id": commit });
        if let (Some(text), Some(object)) = (description, body.as_object_mut()) {
            object.insert("description".into(), Value::String(text.into()));
        }
        self.http
            .unit(
                self.call(format!("create tag {name}"), Method::POST, &["commit_tags"])
                    .json(body),
            )
            .await
    }

    /// Makes a tag stand for another commit.
    pub async fn move_tag(&self, name: &str, commit: CommitId) -> Result<()> {
        let call = self.call(
            format!("move tag {}", shown(name)),
            Method::PATCH,
            &["commit_tags", tag_name(name)?],
        );
        self.http
            .unit(call.json(json!({ "commit_id": commit })))
            .await
    }

    /// Deletes a tag; the commit stays.
    pub async fn delete_tag(&self, name: &str) -> Result<()> {
        self.http
            .unit(self.call(
                format!("delete tag {}", shown(name)),
                Method::DELETE,
                &["commit_tags", tag_name(name)?],
            ))
            .await
    }

    /// Who the key belongs to. Older platforms answer [`Kind::NotFound`].
    pub async fn whoami(&self) -> Result<Identity> {
        self.http
            .json(self.call("ask who the key belongs to", Method::GET, &["whoami"]))
            .await
    }

    /// Whether the platform accepts the key.
    ///
    /// # Errors
    /// [`Kind::Unauthorized`] if it does not.
    pub async fn validate_key(&self) -> Result<()> {
        let answer: Validity = self
            .http
            .json(self.call("check the API key", Method::POST, &["keys", "validate"]))
            .await?;
        if answer.valid {
            return Ok(());
        }
        let why = answer.message.unwrap_or_else(|| "it is not valid".into());
        Err(Error::new(
            Kind::Unauthorized,
            format!(
                "check the API key: {}; log in with `pi-vers login`",
                shown(&why)
            ),
        ))
    }

    /// Which build of the platform answers. Needs no key.
    pub async fn system_version(&self) -> Result<SystemVersion> {
        self.http
            .json(
                self.call(
                    "get the platform's version",
                    Method::GET,
                    &["system", "version"],
                )
                .public(),
            )
            .await
    }
}

/// The platform's rule for tag names. Besides, `.` and `..` would change the path.
fn tag_name(name: &str) -> Result<&str> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if (1..=64).contains(&name.len())
        && name.bytes().all(allowed)
        && name.bytes().any(|b| b != b'.')
    {
        Ok(name)
    } else {
        Err(Error::invalid(format!(
            "{:?} is not a tag name: 1 to 64 letters, digits, '-', '_' and '.'",
            shown(name)
        )))
    }
}
