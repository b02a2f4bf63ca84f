//! The system calls that rustix does not wrap. This is the only module of the crate with `unsafe` code, and it only
//! wraps: one call each, plain types in, `io::Result` out.
#![allow(unsafe_code)]

use rustix::process::Pid;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// New namespaces for a sandbox.
pub(crate) const NAMESPACES: u64 = (libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC) as u64;
/// A network namespace of its own.
pub(crate) const NEW_NETWORK: u64 = libc::CLONE_NEWNET as u64;

/// Which side of a fork this is.
pub(crate) enum Forked {
    /// The one that called.
    Parent(Pid),
    /// The new process.
    Child,
}

/// `struct mount_attr` of `mount_setattr(2)`.
#[repr(C)]
#[derive(Default)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

fn check(r: libc::c_long) -> io::Result<libc::c_long> {
    if r < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(r)
    }
}

/// Refuses to fork a process with several threads: locks held by the others would stay locked for ever in the child.
fn single_threaded() -> io::Result<()> {
    if std::fs::read_dir("/proc/self/task")?.count() == 1 {
        Ok(())
    } else {
        Err(io::Error::other(
            "this process has several threads and must not fork; call helper_main first in main",
        ))
    }
}

/// `clone3` into new namespaces, as a sibling (`CLONE_PARENT`): the child belongs to the caller's parent.
///
/// # Errors
/// The kernel's, or several threads.
pub(crate) fn clone_sibling(namespaces: u64) -> io::Result<Forked> {
    single_threaded()?;
    // SAFETY: all-zero is a valid `clone_args`: every field is an integer and zero means "not used".
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = namespaces | libc::CLONE_PARENT as u64;
    // SAFETY: `args` lives through the call and its size is passed. No stack, thread area or shared memory is asked for,
    // so the child is a copy of this process, like after fork(2). The process has one thread (checked above), so no lock
    // is held by anybody else and the child may go on with ordinary code.
    let pid = check(unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw mut args,
            std::mem::size_of::<libc::clone_args>(),
        )
    })?;
    Ok(forked(pid))
}

/// `fork`, through libc so that its idea of the process's ids is right in the child.
///
/// # Errors
/// The kernel's, or several threads.
pub(crate) fn fork() -> io::Result<Forked> {
    single_threaded()?;
    // SAFETY: the process has one thread (checked above), so the child may go on with ordinary code.
    let pid = check(unsafe { libc::fork() }.into())?;
    Ok(forked(pid))
}

fn forked(pid: libc::c_long) -> Forked {
    match i32::try_from(pid).ok().and_then(Pid::from_raw) {
        Some(pid) => Forked::Parent(pid),
        None => Forked::Child,
    }
}

/// Ends the process at once: no destructors, no exit handlers (they belong to the process this one was copied from).
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: takes an integer and does not return.
    unsafe { libc::_exit(code) }
}

/// Leaves the mount namespace for a private copy.
///
/// # Errors
/// The kernel's.
pub(crate) fn unshare_mounts() -> io::Result<()> {
    // SAFETY: `NEWNS` does not touch the file descriptor table.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }?;
    Ok(())
}

fn mount_setattr(mount: &impl AsFd, recursive: bool, attr: &MountAttr) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a C string constant, `attr` has the layout of `struct mount_attr` and lives through the call,
    // and its size is passed.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attr),
            std::mem::size_of::<MountAttr>(),
        )
    })?;
    Ok(())
}

/// Makes a detached mount and everything below it read-only.
///
/// # Errors
/// The kernel's.
pub(crate) fn make_read_only(mount: &impl AsFd) -> io::Result<()> {
    mount_setattr(
        mount,
        true,
        &MountAttr {
            set: libc::MOUNT_ATTR_RDONLY,
            ..MountAttr::default()
        },
    )
}

/// Shows the files of a detached mount with their ids mapped through a user namespace.
///
/// # Errors
/// `EINVAL` when the file system cannot.
pub(crate) fn map_ids(mount: &impl AsFd, userns: &impl AsFd) -> io::Result<()> {
    let userns = u64::try_from(userns.as_fd().as_raw_fd())
        .map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    mount_setattr(
        mount,
        false,
        &MountAttr {
            set: libc::MOUNT_ATTR_IDMAP,
            userns,
            ..MountAttr::default()
        },
    )
}

/// Sets the ids that file system accesses are made with, and gets back the capabilities that this drops.
///
/// # Errors
/// The kernel's.
pub(crate) fn set_fs_ids(id: u32) -> io::Result<()> {
    // SAFETY: plain integers; the calls cannot fail in a way that they report.
    unsafe {
        libc::setfsgid(id);
        libc::setfsuid(id);
    }
    let mut caps = rustix::thread::capabilities(None)?;
    caps.effective = caps.permitted;
    rustix::thread::set_capabilities(None, caps)?;
    Ok(())
}

/// Brings the loopback interface up.
///
/// # Errors
/// The kernel's.
pub(crate) fn loopback_up() -> io::Result<()> {
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        None,
    )?;
    // SAFETY: all-zero is a valid `ifreq`: an empty name and a union of integers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo\0") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads an `ifreq`, which lives through the call; the socket is open.
    let done = unsafe {
        libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCSIFFLAGS as _,
            &raw const request,
        )
    };
    check(done.into())?;
    Ok(())
}

/// Makes the command start in a session of its own; with `terminal`, its standard input becomes the controlling terminal.
pub(crate) fn own_session(command: &mut std::process::Command, terminal: bool) {
    // SAFETY: between fork and exec the closure makes two system calls and nothing else: no allocation, no lock.
    unsafe {
        command.pre_exec(move || {
            rustix::process::setsid()?;
            if terminal {
                rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
            }
            Ok(())
        });
    }
}

/// A descriptor whose readiness tokio watches.
///
/// # Errors
/// The kernel's, when the descriptor cannot be polled.
pub(crate) fn watched(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open as long as it lives and always names the same description, and the `AsyncFd` owns it
    // until it has deregistered it. Nobody here replaces it through `get_mut`.
    unsafe { Ok(AsyncFd::register_with_interest(fd, interest)?) }
}
