//! The helper process: builds one sandbox and ends.
//!
//! A server has threads, and a process with threads must neither fork without exec nor change its namespaces. So the
//! server starts this same program again, which does it all before any thread exists. Nothing is ever mounted in the
//! host's mount namespace: the helper works in a copy that ends with it, and hands its mounts over as descriptors.

use super::init;
use super::link::{self, Link, Message};
use super::mounts::{self, Marks, Overlay};
use super::plan::{Answer, FIRST_ID, HELPER_ARGUMENT, IDS, Network, Plan};
use super::steps::{Failed, Named as _, Step};
use super::{Tier, base, sys};
use rustix::mount::MountAttrFlags;
use rustix::process::Pid;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// Most layers that are stacked; the kernel takes about 500.
const MOST_LAYERS: usize = 400;

/// Runs the sandbox helper if this process was started as one, and never returns then. Call it first in `main` of every
/// program that embeds the platform, before any thread is started.
pub fn helper_main() {
    if std::env::args_os()
        .nth(1)
        .is_some_and(|a| a == HELPER_ARGUMENT)
    {
        let code = match run() {
            Ok(()) => 0,
            Err(e) => {
                say(&Answer::Failed(e.to_string()));
                1
            }
        };
        sys::exit_now(code);
    }
}

fn say(answer: &Answer) {
    if let Ok(mut line) = serde_json::to_vec(answer) {
        line.push(b'\n');
        // Nobody to tell when the server is gone; the sandbox ends then because its link closes.
        let _ = std::io::stdout().write_all(&line);
        let _ = std::io::stdout().flush();
    }
}

/// What the sandbox's processes inherit.
pub(super) struct Inherited {
    pub(super) ssh: UnixListener,
    pub(super) ports: UnixListener,
    pub(super) log: fs::File,
}

fn run() -> Step<()> {
    let mut text = Vec::new();
    std::io::stdin()
        .read_to_end(&mut text)
        .named(|| "read the plan".into())?;
    let plan: Plan = serde_json::from_slice(&text).named(|| "understand the plan".into())?;
    drop(text);
    let inherited = Inherited {
        ssh: listen(&plan.dir, super::SSH_SOCKET)?,
        ports: listen(&plan.dir, super::PORT_SOCKET)?,
        log: fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(plan.dir.join("agent.log"))
            .named(|| "open agent.log".into())?,
    };
    // The sandbox's root is mounted on the working directory: its path may lead through places that are closed to the
    // sandbox's ids.
    rustix::process::chdir(plan.dir.join("root"))
        .named(|| format!("enter {}/root", plan.dir.display()))?;
    for procs in &plan.cgroups {
        fs::write(procs, "0").named(|| format!("join {}", procs.display()))?;
    }
    let (here, there) = link::pair()?;
    let namespaces = match plan.network {
        Network::None => sys::NAMESPACES | sys::NEW_NETWORK,
        Network::Host => sys::NAMESPACES,
    };
    let made = sys::clone_sibling(namespaces).named(|| {
        "make user, mount, pid and network namespaces (containers and hardened kernels refuse this: \
         allow user namespaces, or run as root)"
            .into()
    })?;
    match made {
        sys::Forked::Child => {
            drop(here);
            init::run(plan, inherited, there)
        }
        sys::Forked::Parent(pid) => {
            drop(there);
            drop(inherited);
            say(&Answer::Pid(pid.as_raw_nonzero().get()));
            supply(&plan, pid, &here)?;
            match here.receive()? {
                (Message::Ready, _) => {
                    say(&Answer::Ready);
                    Ok(())
                }
                (Message::Failed(step), _) => Err(Failed::new(step)),
                (other, _) => Err(Failed::new(format!("unexpected answer {other:?}"))),
            }
        }
    }
}

/// Binds a socket in the VM's directory; through a descriptor, because socket paths end at 107 bytes.
fn listen(dir: &Path, name: &str) -> Step<UnixListener> {
    let fd = fs::File::open(dir).named(|| format!("open {}", dir.display()))?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{name}", fd.as_raw_fd()));
    match fs::remove_file(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(e).named(|| format!("remove the old socket {name}"));
        }
        _ => {}
    }
    UnixListener::bind(&path).named(|| format!("bind the socket {name} in {}", dir.display()))
}

/// Gives the sandbox its ids and, in tier 1, its mounts.
fn supply(plan: &Plan, pid: Pid, link: &Link) -> Step<()> {
    let proc = PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
    match plan.tier {
        Tier::Sandbox => {
            let map = format!("0 {FIRST_ID} {IDS}");
            for file in ["uid_map", "gid_map"] {
                fs::write(proc.join(file), &map).named(|| format!("map ids ({file})"))?;
            }
            let userns = fs::File::open(proc.join("ns/user"))
                .named(|| "open the sandbox's user namespace".into())?;
            send_mounts(plan, &userns.into(), link)?;
        }
        Tier::UserSandbox => {
            let hint = "on Ubuntu: sysctl kernel.apparmor_restrict_unprivileged_userns=0";
            fs::write(proc.join("setgroups"), "deny")
                .named(|| format!("give up groups ({hint})"))?;
            let (uid, gid) = (rustix::process::getuid(), rustix::process::getgid());
            for (file, id) in [("uid_map", uid.as_raw()), ("gid_map", gid.as_raw())] {
                fs::write(proc.join(file), format!("0 {id} 1"))
                    .named(|| format!("map ids ({file}; {hint})"))?;
            }
        }
    }
    link.send(&Message::Go, None)
}

/// Tier 1: builds the root from outside, with real privilege, and hands it over.
fn send_mounts(plan: &Plan, userns: &OwnedFd, link: &Link) -> Step<()> {
    sys::unshare_mounts().named(|| "leave the host's mount namespace".into())?;
    mounts::make_private()?;
    let below = base::mounts_below_shown(&mounts::mount_points()?, &plan.hidden);
    let mut extra = Vec::new();
    for point in below {
        // Not every file system can map ids; its files are then owned by nobody inside, and readable all the same.
        let tree = mounts::clone_tree(&point, false)?;
        let _ = sys::map_ids(&tree, userns);
        extra.push((point, tree));
    }
    for tool in plan.tools.iter().filter(|t| t.is_dir()) {
        let tree = mounts::clone_tree(tool, true)?;
        let _ = sys::map_ids(&tree, userns);
        extra.push((tool.clone(), tree));
    }
    let root = root_overlay(plan, userns)?;
    link.send(&Message::Root, Some(&root))?;
    for (point, tree) in extra {
        sys::make_read_only(&tree)
            .named(|| format!("make the copy of {} read-only", point.display()))?;
        link.send(&Message::Mount(point), Some(&tree))?;
    }
    Ok(())
}

fn root_overlay(plan: &Plan, userns: &OwnedFd) -> Step<OwnedFd> {
    let mut lower = scratch(plan, Some(userns))?;
    let here = |name: &str| -> Step<()> {
        fs::create_dir(name).named(|| format!("make the directory {name}"))
    };
    here("mask")?;
    base::mask(Path::new("mask"), plan)?;
    here("host")?;
    let host = mounts::clone_tree(Path::new("/"), false)?;
    sys::map_ids(&host, userns).named(|| {
        "map the ids of the host's root file system (needs Linux 5.19 and ext4, xfs, btrfs or tmpfs)".into()
    })?;
    mounts::attach(&host, Path::new("host"))?;
    let below = ["mask".to_owned(), "host".to_owned()];
    if host_is_overlay() {
        // One overlay may lie on another, but not on two.
        lower.extend(below);
    } else {
        // Layers that lie in the host's root themselves (commits, where the state directory is on the same file system)
        // may not be beside it in one overlay: the kernel refuses overlapping layers. So the host goes into one of its own.
        here("base")?;
        let base = Overlay {
            lower: &below,
            upper: None,
            marks: Marks::Trusted,
            fs_id: None,
        };
        mounts::attach(&base.mount()?, Path::new("base"))?;
        lower.push("base".into());
    }
    let root = Overlay {
        lower: &lower,
        upper: Some(("vm/upper", "vm/work")),
        marks: Marks::Trusted,
        fs_id: Some(FIRST_ID),
    };
    root.mount()
}

fn host_is_overlay() -> bool {
    const OVERLAYFS_SUPER_MAGIC: i64 = 0x794c_7630;
    rustix::fs::statfs("/").is_ok_and(|s| s.f_type == OVERLAYFS_SUPER_MAGIC)
}

/// Mounts a tmpfs on the working directory, enters it, and shows the VM's directory in it as `vm` and its layers as
/// `l0`, `l1`, … (returned, topmost first).
pub(super) fn scratch(plan: &Plan, userns: Option<&OwnedFd>) -> Step<Vec<String>> {
    if plan.layers.len() > MOST_LAYERS {
        return Err(Failed::new(format!(
            "{} layers are more than the {MOST_LAYERS} that can be stacked",
            plan.layers.len()
        )));
    }
    let tmpfs = mounts::new_mount(
        "tmpfs",
        &[("mode", "0755"), ("size", "16m")],
        MountAttrFlags::empty(),
    )?;
    mounts::attach(&tmpfs, Path::new("."))?;
    rustix::process::fchdir(&tmpfs).named(|| "enter the scratch file system".into())?;
    let show = |from: &Path, name: &str| -> Step<()> {
        fs::create_dir(name).named(|| format!("make the directory {name}"))?;
        let tree = mounts::clone_tree(from, false)?;
        if let Some(userns) = userns {
            sys::map_ids(&tree, userns).named(|| {
                format!(
                    "map the ids of {} (put the state directory on ext4, xfs or btrfs)",
                    from.display()
                )
            })?;
        }
        mounts::attach(&tree, Path::new(name))
    };
    show(&plan.dir, "vm")?;
    let mut names = Vec::new();
    for (i, layer) in plan.layers.iter().enumerate() {
        let name = format!("l{i}");
        show(layer, &name)?;
        names.push(name);
    }
    Ok(names)
}
