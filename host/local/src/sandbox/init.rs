//! Inside: from the first instant of the new namespaces to process 1, which starts the agent and reaps.
//!
//! The threat: everything below the new root was written by guests, links included. So whatever must come from the host
//! is taken as a detached mount *before* the root is changed, and put in place by names only *after*, when no link can
//! lead out any more.

use super::helper::{Inherited, scratch};
use super::link::{Link, Message};
use super::mounts::{self, Marks, Overlay, nosuid_nodev};
use super::plan::{Network, Plan};
use super::steps::{Failed, Named as _, Step};
use super::{Tier, base, etc, sys};
use crate::agent;
use rustix::mount::MountAttrFlags;
use rustix::process::{DumpableBehavior, Pid, WaitOptions, wait};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// An agent that ends sooner than this did not work.
const AGENT_WORKS_AFTER: Duration = Duration::from_secs(2);
/// Ends the sandbox when so many agents in a row did not work.
const MOST_BROKEN_AGENTS: u32 = 5;

/// Sets up the sandbox and stays as its process 1.
pub(super) fn run(plan: Plan, inherited: Inherited, link: Link) -> ! {
    match set_up(&plan, &inherited, &link).and_then(|()| agent_config(&plan)) {
        Ok(config) => {
            drop(plan);
            if link.send(&Message::Ready, None).is_err() {
                sys::exit_now(72); // the helper was killed: nobody knows of this sandbox
            }
            drop(link);
            keep_agent(&config, &inherited)
        }
        Err(e) => {
            let _ = link.send(&Message::Failed(e.to_string()), None);
            sys::exit_now(70)
        }
    }
}

fn agent_config(plan: &Plan) -> Step<agent::Config> {
    let env = plan.base_env.iter().chain(&plan.env);
    agent::Config::new(
        &plan.host_key,
        &plan.authorized_key,
        env.map(|(k, v)| (k.clone(), v.clone())),
    )
    .named(|| "read the VM's keys".into())
}

/// Reaps for ever; starts the agent anew when it ends (a guest may kill it: `kill -9 -1`), unless it never works.
fn keep_agent(config: &agent::Config, inherited: &Inherited) -> ! {
    let mut broken = 0;
    while broken < MOST_BROKEN_AGENTS {
        let started = Instant::now();
        let agent = match sys::fork() {
            Ok(sys::Forked::Parent(pid)) => pid,
            Ok(sys::Forked::Child) => {
                let _ = rustix::thread::set_name(c"vers-agent");
                let code = i32::from(agent::run(config, &inherited.ssh, &inherited.ports).is_err());
                sys::exit_now(code)
            }
            Err(_) => break,
        };
        reap_until(agent);
        if started.elapsed() < AGENT_WORKS_AFTER {
            broken += 1;
        } else {
            broken = 0;
        }
    }
    sys::exit_now(71)
}

fn reap_until(agent: Pid) {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, _))) if pid == agent => return,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

fn set_up(plan: &Plan, inherited: &Inherited, link: &Link) -> Step<()> {
    let (root, mut binds) = hear(link)?;
    become_root(plan.tier)?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    mounts::make_private()?;
    let mut parts = Vec::new();
    let root = match (plan.tier, root) {
        (Tier::Sandbox, Some(root)) => {
            mounts::attach(&root, Path::new("."))?;
            root
        }
        (Tier::UserSandbox, _) => own_root(plan, &mut parts)?,
        (Tier::Sandbox, None) => return Err(Failed::new("no root file system arrived")),
    };
    rustix::process::fchdir(&root).named(|| "enter the root file system".into())?;
    drop(root);
    let system = System::take(plan)?;
    parts.append(&mut binds);
    mounts::pivot_here()?;

    // From here on every name is one of the sandbox.
    system.put()?;
    for (point, tree) in parts {
        // The guest may have put something else there, or removed it; then it does without.
        let _ = fs::create_dir_all(&point);
        let _ = mounts::attach(&tree, &point);
    }
    own_standard_streams(inherited)?;
    write_environment(plan)?;
    rustix::system::sethostname(plan.hostname.as_bytes()).named(|| "set the host name".into())?;
    if plan.network == Network::None {
        sys::loopback_up().named(|| "bring loopback up".into())?;
    }
    let _ = rustix::thread::set_name(c"vers-init");
    // Guests must not trace us, nor reach the host's program file through /proc/1/exe.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .named(|| "close this process to the guest".into())?;
    // Out of the server's session: its terminal's signals are not for us.
    rustix::process::setsid().named(|| "start a session".into())?;
    Ok(())
}

type Mounts = Vec<(PathBuf, OwnedFd)>;

fn hear(link: &Link) -> Step<(Option<OwnedFd>, Mounts)> {
    let mut root = None;
    let mut binds = Vec::new();
    loop {
        match link.receive()? {
            (Message::Root, Some(fd)) => root = Some(fd),
            (Message::Mount(at), Some(fd)) => binds.push((at, fd)),
            (Message::Go, None) => return Ok((root, binds)),
            (other, _) => return Err(Failed::new(format!("unexpected message {other:?}"))),
        }
    }
}

fn become_root(tier: Tier) -> Step<()> {
    use rustix::process::{Gid, Uid};
    if tier == Tier::Sandbox {
        set_thread_groups(&[]).named(|| "drop the host's groups".into())?;
    }
    set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT).named(|| "become group 0".into())?;
    set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).named(|| "become root inside".into())
}

/// Tier 2: an overlay of the VM's own layers over a skeleton; the host's directories are bound into it later.
fn own_root(plan: &Plan, parts: &mut Mounts) -> Step<OwnedFd> {
    let mut lower = scratch(plan, None)?;
    for name in ["skeleton", "new"] {
        fs::create_dir(name).named(|| format!("make the directory {name}"))?;
    }
    let shown = base::skeleton(Path::new("skeleton"), plan)?;
    lower.push("skeleton".into());
    let overlay = Overlay {
        lower: &lower,
        upper: Some(("vm/upper", "vm/work")),
        marks: Marks::User,
        fs_id: None,
    };
    let root = overlay.mount()?;
    mounts::attach(&root, Path::new("new"))?;
    for name in shown {
        let host = Path::new("/").join(&name);
        parts.push((host.clone(), read_only_copy(&host)?));
    }
    for hidden in &plan.hidden {
        // Only where a shown directory would show it; anywhere else there is nothing to hide.
        let shown = parts.iter().any(|(p, _)| hidden.starts_with(p));
        if shown && hidden.is_dir() {
            let empty = mounts::new_mount("tmpfs", &[("mode", "0")], nosuid_nodev())?;
            parts.push((hidden.clone(), empty));
        }
    }
    for tool in plan.tools.iter().filter(|t| t.is_dir()) {
        parts.push((tool.clone(), read_only_copy(tool)?));
    }
    let etc = Path::new("/").join(base::HOST_ETC);
    parts.push((etc, read_only_copy(Path::new("/etc"))?));
    Ok(root)
}

fn read_only_copy(path: &Path) -> Step<OwnedFd> {
    let tree = mounts::clone_tree(path, true)?;
    sys::make_read_only(&tree)
        .named(|| format!("make the copy of {} read-only", path.display()))?;
    Ok(tree)
}

/// The mounts of every Linux system, detached.
struct System {
    mounts: Vec<(&'static str, OwnedFd)>,
    devices: Vec<(&'static str, OwnedFd)>,
}

impl System {
    fn take(plan: &Plan) -> Step<Self> {
        let quiet = nosuid_nodev() | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let nosuid = MountAttrFlags::MOUNT_ATTR_NOSUID;
        let proc = mounts::new_mount("proc", &[], quiet).named(|| {
            "mount /proc (in a container: --security-opt systempaths=unconfined, or --privileged)".into()
        })?;
        let mut found = vec![("/proc", proc)];
        // A new sysfs needs a network namespace of our own; without one, or where the kernel refuses, /sys stays empty.
        if plan.network == Network::None
            && let Ok(sys) =
                mounts::new_mount("sysfs", &[], quiet | MountAttrFlags::MOUNT_ATTR_RDONLY)
        {
            found.push(("/sys", sys));
        }
        let dev = mounts::new_mount("tmpfs", &[("mode", "0755"), ("size", "64k")], nosuid)?;
        found.push(("/dev", dev));
        let mut pts = vec![("ptmxmode", "0666"), ("mode", "0620")];
        if plan.tier == Tier::Sandbox {
            pts.push(("gid", "5"));
        }
        found.push((
            "/dev/pts",
            mounts::new_mount("devpts", &pts, nosuid | MountAttrFlags::MOUNT_ATTR_NOEXEC)?,
        ));
        for (at, mode) in [("/dev/shm", "01777"), ("/run", "0755")] {
            found.push((
                at,
                mounts::new_mount("tmpfs", &[("mode", mode)], nosuid_nodev())?,
            ));
        }
        let mut devices = Vec::new();
        for name in [
            "/dev/null",
            "/dev/zero",
            "/dev/full",
            "/dev/random",
            "/dev/urandom",
            "/dev/tty",
        ] {
            devices.push((name, mounts::clone_tree(Path::new(name), false)?));
        }
        Ok(Self {
            mounts: found,
            devices,
        })
    }

    fn put(self) -> Step<()> {
        for (at, mount) in &self.mounts {
            let _ = fs::create_dir_all(at);
            mounts::attach(mount, Path::new(at))?;
        }
        for (at, device) in &self.devices {
            fs::write(at, "").named(|| format!("make {at}"))?;
            mounts::attach(device, Path::new(at))?;
        }
        for (name, target) in [
            ("/dev/ptmx", "pts/ptmx"),
            ("/dev/fd", "/proc/self/fd"),
            ("/dev/stdin", "/proc/self/fd/0"),
            ("/dev/stdout", "/proc/self/fd/1"),
            ("/dev/stderr", "/proc/self/fd/2"),
        ] {
            symlink(target, name).named(|| format!("link {name}"))?;
        }
        fs::create_dir("/run/lock")
            .and_then(|()| fs::set_permissions("/run/lock", fs::Permissions::from_mode(0o1777)))
            .named(|| "make /run/lock".into())?;
        close_kernel_settings()
    }
}

/// The kernel's settings belong to the host.
fn close_kernel_settings() -> Step<()> {
    for name in ["/proc/sys", "/proc/irq", "/proc/bus", "/proc/fs"].map(Path::new) {
        if name.exists() {
            mounts::bind_read_only(name, name)?;
        }
    }
    let null = Path::new("/dev/null");
    for name in ["sysrq-trigger", "kcore", "keys", "timer_list", "kmsg"] {
        let path = Path::new("/proc").join(name);
        if path.exists() {
            mounts::bind(null, &path)?;
        }
    }
    Ok(())
}

/// `/dev/null` of the sandbox for input and output, the VM's log on the host for errors.
fn own_standard_streams(inherited: &Inherited) -> Step<()> {
    let null = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")
        .named(|| "open /dev/null".into())?;
    rustix::stdio::dup2_stdin(&null)
        .and_then(|()| rustix::stdio::dup2_stdout(&null))
        .and_then(|()| rustix::stdio::dup2_stderr(&inherited.log))
        .named(|| "replace the standard streams".into())
}

fn write_environment(plan: &Plan) -> Step<()> {
    const FILE: &str = "/etc/environment";
    let before = fs::read(FILE).unwrap_or_default();
    let after = etc::merge_environment(&before, &plan.env);
    if after == before {
        return Ok(());
    }
    let _ = fs::create_dir_all("/etc");
    let new = "/etc/.environment.vers";
    let _ = fs::remove_file(new);
    fs::write(new, &after)
        .and_then(|()| fs::rename(new, FILE))
        .named(|| format!("write {FILE}"))
}
