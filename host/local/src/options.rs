//! What a platform is started with.

use crate::sandbox::{Network, Tier};
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// How to start a platform. [`Options::new`] gives the defaults; every field may be changed.
///
/// They go as JSON to the standard input of a detached server, so that no argument vector has to carry them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// Where everything is kept. Made with mode 0700 if it is not there. It must be on a file system that can hold an
    /// overlay's upper layer (not itself an overlay, not NFS).
    pub state_dir: PathBuf,
    /// Where the REST API listens. Loopback only; port 0 takes a free one.
    pub api_listen: SocketAddr,
    /// Where SSH over TLS listens. Loopback only; port 0 takes a free one.
    pub ssh_listen: SocketAddr,
    /// The tier of isolation to use; `None` takes the best that works here.
    pub tier: Option<Tier>,
    /// What VMs reach. [`Network::Host`] by default: agents need the Internet, and ports collide then. With
    /// [`Network::None`] every VM has loopback only, and all ports to itself.
    pub network: Network,
    /// A program whose `main` calls [`helper_main`](crate::helper_main) first, usually the current one.
    pub helper: PathBuf,
    /// How much there may be of everything.
    pub limits: Limits,
    /// Answer `verify-key` of the shell login with "verified" at once, without the link being opened. Any program of
    /// this machine can then get an API key: for tests only.
    pub auto_verify: bool,
}

impl Options {
    /// Defaults: free ports on 127.0.0.1, the best tier, the host's network, default limits, logins verified by their link.
    pub fn new(state_dir: impl Into<PathBuf>, helper: impl Into<PathBuf>) -> Self {
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            state_dir: state_dir.into(),
            api_listen: loopback,
            ssh_listen: loopback,
            tier: None,
            network: Network::Host,
            helper: helper.into(),
            limits: Limits::default(),
            auto_verify: false,
        }
    }
}

/// Upper bounds and default sizes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// VMs at a time, sleeping ones included. Default 64.
    pub max_vms: usize,
    /// Commits at a time, those made by branching included. Default 512.
    pub max_commits: usize,
    /// CPUs of a VM that asks for none. Default 1, as in the cloud.
    pub default_vcpu: u32,
    /// Memory in MiB of a VM that asks for none. Default 512, as in the cloud. Enforced only where
    /// [`Capabilities::limits`](crate::Capabilities) says so.
    pub default_mem_mib: u32,
    /// Disk in MiB of a VM that asks for none. Default 1024, as in the cloud. Recorded, never enforced.
    pub default_fs_mib: u32,
    /// The most CPUs a VM may ask for. Default 64.
    pub max_vcpu: u32,
    /// The most memory in MiB a VM may ask for. Default 1 TiB.
    pub max_mem_mib: u32,
    /// The most disk in MiB a VM may ask for. Default 16 TiB.
    pub max_fs_mib: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_vms: 64,
            max_commits: 512,
            default_vcpu: 1,
            default_mem_mib: 512,
            default_fs_mib: 1024,
            max_vcpu: 64,
            max_mem_mib: 1 << 20,
            max_fs_mib: 1 << 24,
        }
    }
}
