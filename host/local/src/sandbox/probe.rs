//! Finding out what works here, by doing it: settings and version numbers do not tell (containers, security modules,
//! file systems), a sandbox that runs does.

use super::cgroup::Groups;
use super::plan::Network;
use super::{Capabilities, Core, Error, Pause, SSH_SOCKET, Spec, Tier, launch};
use crate::layers::remove_tree;
use russh::keys::{Algorithm, PrivateKey};
use std::collections::BTreeMap;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use uuid::Uuid;

const BANNER_DEADLINE: Duration = Duration::from_secs(10);

pub(super) async fn probe(
    state_dir: &Path,
    wanted: Option<Tier>,
    helper: PathBuf,
    instance: &str,
) -> Result<(Core, Capabilities), Error> {
    let state_dir = tokio::fs::canonicalize(state_dir)
        .await
        .map_err(Error::io(format!("find {}", state_dir.display())))?;
    let mut notes = Vec::new();
    let groups = match Groups::prepare(instance) {
        Ok(groups) => {
            notes.extend(groups.note());
            Some(groups)
        }
        Err(reason) => {
            notes.push(format!(
                "no cgroup could be made ({reason}): VMs are paused with signals and have no limits; \
                 run as root, or under systemd-run --user --scope -p Delegate=yes"
            ));
            None
        }
    };
    let mut reasons = Vec::new();
    for tier in [Tier::Sandbox, Tier::UserSandbox] {
        if wanted.is_some_and(|w| w != tier) {
            continue;
        }
        let core = Core {
            tier,
            network: Network::None,
            helper: helper.clone(),
            instance: instance.to_owned(),
            state_dir: state_dir.clone(),
            groups: groups.clone(),
        };
        match attempt(&core).await {
            Ok(()) => {
                notes.splice(0..0, reasons);
                let capabilities = Capabilities {
                    tier,
                    memory_snapshots: false,
                    limits: groups.as_ref().is_some_and(Groups::limits),
                    pause: match groups {
                        Some(_) => Pause::Freezer,
                        None => Pause::Signal,
                    },
                    full_root: tier == Tier::Sandbox,
                    notes,
                };
                return Ok((core, capabilities));
            }
            Err(e) => reasons.push(format!("{}: {e}", name(tier))),
        }
    }
    if let Some(groups) = groups {
        groups.remove();
    }
    Err(Error::NoTier { reasons })
}

fn name(tier: Tier) -> &'static str {
    match tier {
        Tier::Sandbox => "tier 'sandbox'",
        Tier::UserSandbox => "tier 'user-sandbox'",
    }
}

/// Builds one, lets it answer, pauses it, ends it.
async fn attempt(core: &Core) -> Result<(), Error> {
    if core.tier == Tier::Sandbox && !rustix::process::geteuid().is_root() {
        return Err(Error::Io {
            what: "not tried".into(),
            source: std::io::Error::new(
                std::io::ErrorKind::PermissionDenied,
                "it needs root: start the platform with sudo for it",
            ),
        });
    }
    let id = Uuid::new_v4();
    let dir = core.state_dir.join(format!(".probe-{id}"));
    tokio::fs::create_dir(&dir)
        .await
        .map_err(Error::io(format!("make {}", dir.display())))?;
    let tried = try_in(core, id, &dir).await;
    remove_tree(&dir).await?;
    tried
}

async fn try_in(core: &Core, id: Uuid, dir: &Path) -> Result<(), Error> {
    let bad_key = |e: russh::keys::ssh_key::Error| Error::Start {
        id,
        step: format!("make a key: {e}"),
    };
    let key = PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519)
        .map_err(bad_key)?;
    let text = key
        .to_openssh(russh::keys::ssh_key::LineEnding::LF)
        .map_err(bad_key)?;
    let public = key.public_key().to_openssh().map_err(bad_key)?;
    let env = BTreeMap::new();
    let spec = Spec {
        id,
        dir,
        layers: &[],
        hostname: "probe",
        vcpu: 1,
        mem_mib: 256,
        authorized_key: &public,
        host_key: Path::new(""),
        env: &env,
    };
    let handle = core
        .start(core.plan(&spec, text.to_string()), 1, 256)
        .await?;
    let answered = async {
        let file = std::fs::File::open(dir)?;
        let path = format!("/proc/self/fd/{}/{SSH_SOCKET}", file.as_raw_fd());
        let mut banner = [0u8; 4];
        UnixStream::connect(path)
            .await?
            .read_exact(&mut banner)
            .await?;
        if &banner == b"SSH-" {
            Ok(())
        } else {
            Err(std::io::Error::other("it speaks another protocol than SSH"))
        }
    };
    let answered = tokio::time::timeout(BANNER_DEADLINE, answered)
        .await
        .map_err(|_| Error::Timeout {
            what: "waiting for the sandbox's SSH server".into(),
            after: BANNER_DEADLINE,
        })
        .and_then(|a| a.map_err(Error::io("talk to the sandbox's SSH server")));
    let frozen = match handle.groups() {
        Some(groups) => groups.freeze(true).await,
        None => Ok(()),
    };
    launch::end(&handle).await?;
    answered.and(frozen)
}
