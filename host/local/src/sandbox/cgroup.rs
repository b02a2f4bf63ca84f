//! Control groups: to freeze, to kill everything at once, and (where controllers are to be had) to limit.
//!
//! Freezing and killing are part of the core of cgroup v2 and need no controller, so they are had even where v1 holds all
//! controllers and v2 is an empty tree beside it. Layout: `<v2 root>/pi-vers-<instance>/<vm>/`.

use super::{Error, sys};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::Interest;
use uuid::Uuid;

/// Most processes and threads of one VM.
const MOST_TASKS: u32 = 16_384;
/// For everything that the kernel does at once unless it is stuck.
const DEADLINE: Duration = Duration::from_secs(20);

/// The group that holds one instance's VMs.
#[derive(Debug, Clone)]
pub(super) struct Groups {
    v2: PathBuf,
    /// The same in the v1 pids hierarchy.
    pids_v1: Option<PathBuf>,
    /// v2 controllers that VMs get.
    controllers: Vec<&'static str>,
}

/// The groups of one VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Made {
    pub(super) v2: PathBuf,
    pub(super) pids_v1: Option<PathBuf>,
}

/// A mounted hierarchy.
#[derive(Debug, PartialEq, Eq)]
struct Mounted {
    at: PathBuf,
    v2: bool,
    pids: bool,
}

/// cgroup lines of `/proc/self/mountinfo`.
fn mounted(mountinfo: &str) -> Vec<Mounted> {
    mountinfo
        .lines()
        .filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let at = before.split(' ').nth(4)?;
            let mut after = after.split(' ');
            let kind = after.next()?;
            let options = after.nth(1).unwrap_or_default();
            matches!(kind, "cgroup" | "cgroup2").then(|| Mounted {
                at: at.into(),
                v2: kind == "cgroup2",
                pids: kind == "cgroup" && options.split(',').any(|o| o == "pids"),
            })
        })
        .collect()
}

/// This process's group in the v2 hierarchy.
fn own_group(text: &str) -> Option<&str> {
    text.lines().find_map(|l| l.strip_prefix("0::/"))
}

impl Groups {
    /// Makes the instance's group, or says why there is none.
    pub(super) fn prepare(instance: &str) -> Result<Self, String> {
        let info = fs::read_to_string("/proc/self/mountinfo").map_err(|e| e.to_string())?;
        let all = mounted(&info);
        let name = format!("pi-vers-{instance}");
        let mut reason = "no cgroup v2 hierarchy is mounted".to_owned();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        for v2 in all.iter().filter(|m| m.v2) {
            // At the top for root; below the own group for a user who was given it (systemd-run --user -p Delegate=yes).
            let below = own_group(&own).map(|o| v2.at.join(o));
            for parent in [Some(v2.at.clone()), below].into_iter().flatten() {
                match Self::try_at(&parent.join(&name)) {
                    Ok(controllers) => {
                        let pids_v1 = all
                            .iter()
                            .filter(|m| m.pids && !controllers.contains(&"pids"))
                            .map(|m| m.at.join(&name))
                            .find(|p| make_dir(p).is_ok());
                        return Ok(Self {
                            v2: parent.join(&name),
                            pids_v1,
                            controllers,
                        });
                    }
                    Err(e) => reason = format!("{}: {e}", parent.display()),
                }
            }
        }
        Err(reason)
    }

    /// Makes the group and proves that this user can freeze in it and move processes into it.
    fn try_at(group: &Path) -> io::Result<Vec<&'static str>> {
        make_dir(group)?;
        let works = || {
            let trial = group.join(format!("trial-{}", Uuid::new_v4()));
            fs::create_dir(&trial)?;
            let works = ["cgroup.freeze", "cgroup.kill", "cgroup.events"]
                .iter()
                .try_for_each(|f| fs::metadata(trial.join(f)).map(drop))
                .and_then(|()| {
                    fs::OpenOptions::new()
                        .write(true)
                        .open(trial.join("cgroup.procs"))
                        .map(drop)
                });
            fs::remove_dir(&trial)?;
            works
        };
        if let Err(e) = works() {
            let _ = fs::remove_dir(group);
            return Err(e);
        }
        enable_controllers(group)
    }

    /// Whether memory and CPU limits hold.
    pub(super) fn limits(&self) -> bool {
        self.controllers.contains(&"memory") && self.controllers.contains(&"cpu")
    }

    /// What is missing, for people.
    pub(super) fn note(&self) -> Option<String> {
        if self.limits() {
            return None;
        }
        let tasks = if self.pids_v1.is_some() || self.controllers.contains(&"pids") {
            format!("only the number of processes is limited, to {MOST_TASKS}")
        } else {
            "nothing is limited".to_owned()
        };
        Some(format!(
            "memory and CPU limits are not enforced, {tasks}: cgroup v2 has no memory and cpu controllers to give here"
        ))
    }

    /// Makes a VM's groups with its limits. An old empty one is used again.
    pub(super) fn make(&self, id: Uuid, vcpu: u32, mem_mib: u32) -> Result<Made, Error> {
        let name = id.to_string();
        let v2 = self.v2.join(&name);
        let mut made = Err(io::ErrorKind::NotFound.into());
        // The last VM takes the instance's group with it when it ends, perhaps right now.
        for _ in 0..100 {
            made = make_dir(&self.v2)
                .and_then(|()| enable_controllers(&self.v2))
                .and_then(|_| make_dir(&v2));
            if !matches!(&made, Err(e) if e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(libc::ENODEV))
            {
                break;
            }
        }
        made.map_err(Error::io(format!("make the cgroup {}", v2.display())))?;
        let limit = |file: &str, value: String| {
            let path = v2.join(file);
            fs::write(&path, value).map_err(Error::io(format!("set {}", path.display())))
        };
        for controller in &self.controllers {
            match *controller {
                "memory" => limit("memory.max", (u64::from(mem_mib.max(16)) << 20).to_string())?,
                "cpu" => limit(
                    "cpu.max",
                    format!("{} 100000", u64::from(vcpu.max(1)) * 100_000),
                )?,
                _ => limit("pids.max", MOST_TASKS.to_string())?,
            }
        }
        let pids_v1 = self.pids_v1.as_ref().map(|p| p.join(&name)).filter(|p| {
            let above = p.parent().map_or(Ok(()), make_dir);
            above.and_then(|()| make_dir(p)).is_ok()
                && fs::write(p.join("pids.max"), MOST_TASKS.to_string()).is_ok()
        });
        Ok(Made { v2, pids_v1 })
    }

    /// The VMs of this instance that have groups.
    pub(super) fn all(&self) -> Vec<Made> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.v2).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                let pids_v1 = self.pids_v1.as_ref().map(|p| p.join(entry.file_name()));
                found.push(Made {
                    v2: entry.path(),
                    pids_v1,
                });
            }
        }
        found
    }

    /// Removes the instance's own groups if they are empty.
    pub(super) fn remove(&self) {
        for path in std::iter::once(&self.v2).chain(&self.pids_v1) {
            let _ = fs::remove_dir(path);
        }
    }
}

/// Hands on to VMs the controllers that the group has.
fn enable_controllers(group: &Path) -> io::Result<Vec<&'static str>> {
    let had = fs::read_to_string(group.join("cgroup.controllers"))?;
    let mut enabled = Vec::new();
    for name in ["memory", "cpu", "pids"] {
        if had.split_ascii_whitespace().any(|c| c == name)
            && fs::write(group.join("cgroup.subtree_control"), format!("+{name}")).is_ok()
        {
            enabled.push(name);
        }
    }
    Ok(enabled)
}

fn make_dir(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

impl Made {
    /// Files that a process writes `0` to, to join.
    pub(super) fn join_files(&self) -> Vec<PathBuf> {
        std::iter::once(&self.v2)
            .chain(&self.pids_v1)
            .map(|p| p.join("cgroup.procs"))
            .collect()
    }

    /// Freezes or thaws, and waits until the kernel says that it is done. After a time-out it is thawed again.
    pub(super) async fn freeze(&self, frozen: bool) -> Result<(), Error> {
        self.set_frozen(frozen)?;
        let want = if frozen { "frozen 1" } else { "frozen 0" };
        let done = self.wait_for(want).await;
        if done.is_err() && frozen {
            let _ = self.set_frozen(false);
        }
        done
    }

    fn set_frozen(&self, frozen: bool) -> Result<(), Error> {
        let path = self.v2.join("cgroup.freeze");
        fs::write(&path, if frozen { "1" } else { "0" })
            .map_err(Error::io(format!("write {}", path.display())))
    }

    /// Kills everything in it, frozen or not, waits until nothing is left, removes it.
    pub(super) async fn end(&self) -> Result<(), Error> {
        let kill = self.v2.join("cgroup.kill");
        match fs::write(&kill, "1") {
            Ok(()) => self.wait_for("populated 0").await?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e).map_err(Error::io(format!("write {}", kill.display()))),
        }
        for path in std::iter::once(&self.v2).chain(&self.pids_v1) {
            remove_group(path).await?;
            if let Some(instance) = path.parent() {
                // Succeeds for the last VM only.
                let _ = fs::remove_dir(instance);
            }
        }
        Ok(())
    }

    /// Waits for a line of `cgroup.events`; the kernel signals every change to whoever polls the file.
    async fn wait_for(&self, line: &str) -> Result<(), Error> {
        let path = self.v2.join("cgroup.events");
        let told = async {
            let file = fs::File::open(&path)?;
            let events = sys::watched(file.into(), Interest::PRIORITY)?;
            let mut text = [0u8; 256];
            loop {
                let n = rustix::io::pread(events.get_ref(), &mut text, 0)?;
                let now = text.get(..n).unwrap_or_default();
                if now.split(|b| *b == b'\n').any(|l| l == line.as_bytes()) {
                    return Ok(());
                }
                events.ready(Interest::PRIORITY).await?.clear_ready();
            }
        };
        match tokio::time::timeout(DEADLINE, told).await {
            Ok(done) => done.map_err(Error::io(format!(
                "wait for '{line}' in {}",
                path.display()
            ))),
            Err(_) => Err(Error::Timeout {
                what: format!("waiting for '{line}' in {}", path.display()),
                after: DEADLINE,
            }),
        }
    }
}

/// A dead process leaves its groups a moment after it is reported dead, without an event in v1: hence the retries.
async fn remove_group(path: &Path) -> Result<(), Error> {
    let remove = async {
        let mut pause = Duration::from_micros(200);
        loop {
            match fs::remove_dir(path) {
                Err(e) if e.raw_os_error() == Some(libc::EBUSY) => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_millis(50));
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
                other => return other,
            }
        }
    };
    match tokio::time::timeout(DEADLINE, remove).await {
        Ok(done) => done.map_err(Error::io(format!("remove the cgroup {}", path.display()))),
        Err(_) => Err(Error::Timeout {
            what: format!("removing the cgroup {}", path.display()),
            after: DEADLINE,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_found_wherever_they_are_mounted() {
        let info = "30 23 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n\
                    31 23 0:27 / /sys/fs/cgroup/pids rw shared:9 - cgroup cgroup rw,pids\n\
                    32 1 8:1 / / rw - ext4 /dev/sda rw\n";
        assert_eq!(
            mounted(info),
            [
                Mounted {
                    at: "/sys/fs/cgroup/unified".into(),
                    v2: true,
                    pids: false
                },
                Mounted {
                    at: "/sys/fs/cgroup/pids".into(),
                    v2: false,
                    pids: true
                },
            ]
        );
    }

    #[test]
    fn the_own_group_is_the_one_of_v2() {
        assert_eq!(
            own_group("8:pids:/x\n0::/user.slice/a\n"),
            Some("user.slice/a")
        );
        assert_eq!(own_group("8:pids:/x\n"), None);
    }
}
