//! What the server tells the helper (one JSON document on its standard input) and what the helper answers.

use super::Tier;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use uuid::Uuid;

/// First argument of the helper process.
pub(super) const HELPER_ARGUMENT: &str = "__vers-local-sandbox";

/// First id of the range that a tier 1 sandbox's ids are mapped to on the host. High enough to be out of the way of
/// `/etc/subuid` (which starts at 100 000) and of systemd's ranges (below 2^29).
pub(super) const FIRST_ID: u32 = 1_000_000_000;
/// How many ids a tier 1 sandbox has.
pub(super) const IDS: u32 = 65_536;

/// How a VM reaches the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// A network of its own with nothing but loopback. Ports never collide; nothing outside can be reached.
    None,
    /// The host's network: everything the host reaches can be reached, and ports collide with the host's and other VMs'.
    Host,
}

/// Everything the helper needs. It holds the VM's private host key: never log it, never put it in an argument.
#[derive(Serialize, Deserialize)]
pub(super) struct Plan {
    pub(super) id: Uuid,
    pub(super) tier: Tier,
    pub(super) network: Network,
    pub(super) dir: PathBuf,
    /// Newest first, without the base.
    pub(super) layers: Vec<PathBuf>,
    pub(super) hostname: String,
    /// `cgroup.procs` files to join.
    pub(super) cgroups: Vec<PathBuf>,
    /// Directories of the host that must not be seen (the state directory).
    pub(super) hidden: Vec<PathBuf>,
    /// Directories under private homes that are shown read-only (tools on `PATH`).
    pub(super) tools: Vec<PathBuf>,
    pub(super) authorized_key: String,
    pub(super) host_key: String,
    /// Goes to `/etc/environment`.
    pub(super) env: BTreeMap<String, String>,
    /// Goes to every command, but to no file.
    pub(super) base_env: BTreeMap<String, String>,
}

/// One line of the helper's answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Answer {
    /// The sandbox's first process exists.
    Pid(i32),
    /// The SSH server listens.
    Ready,
    /// A step failed.
    Failed(String),
}
