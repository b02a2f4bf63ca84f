//! Mounts as values: a detached tree or file system is a descriptor, made by one function and put in place by another.
//!
//! Paths are relative to the working directory wherever they are ours: `fsconfig` takes at most 255 bytes, and state
//! directories may have long names.

use super::steps::{Failed, Named as _, Step};
use super::sys;
use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount,
    fsopen, move_mount, open_tree,
};
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Safe flags for everything that is not the root itself.
pub(super) fn nosuid_nodev() -> MountAttrFlags {
    MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV
}

/// Stops mount events between this mount namespace and the one it was copied from.
pub(super) fn make_private() -> Step<()> {
    rustix::mount::mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
    .named(|| "make all mounts private".into())
}

/// A detached copy of the mount that shows `path`, without (or with) what is mounted below it.
pub(super) fn clone_tree(path: &Path, recursive: bool) -> Step<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(CWD, path, flags).named(|| format!("copy the mount of {}", path.display()))
}

/// Puts a detached mount at `path`.
pub(super) fn attach(mount: &OwnedFd, path: &Path) -> Step<()> {
    move_mount(
        mount,
        "",
        CWD,
        path,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
    .named(|| format!("mount on {}", path.display()))
}

/// Shows `from` at `to`.
pub(super) fn bind(from: &Path, to: &Path) -> Step<()> {
    attach(&clone_tree(from, false)?, to)
}

/// Shows `from` and everything mounted below it at `to`, read-only.
pub(super) fn bind_read_only(from: &Path, to: &Path) -> Step<()> {
    let tree = clone_tree(from, true)?;
    sys::make_read_only(&tree)
        .named(|| format!("make the copy of {} read-only", from.display()))?;
    attach(&tree, to)
}

/// A mounted file system instance, detached.
pub(super) fn new_mount(
    kind: &str,
    options: &[(&str, &str)],
    attributes: MountAttrFlags,
) -> Step<OwnedFd> {
    let fs = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)
        .named(|| format!("open the file system {kind}"))?;
    for (key, value) in options {
        fsconfig_set_string(fs.as_fd(), *key, *value)
            .map_err(|e| refused(fs.as_fd(), &format!("{kind}: set {key}={value}"), e))?;
    }
    finish(fs.as_fd(), kind, attributes)
}

fn finish(fs: BorrowedFd<'_>, kind: &str, attributes: MountAttrFlags) -> Step<OwnedFd> {
    fsconfig_create(fs).map_err(|e| refused(fs, &format!("create the file system {kind}"), e))?;
    fsmount(fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes).named(|| format!("mount {kind}"))
}

/// The kernel leaves its reason as text in the descriptor.
fn refused(fs: BorrowedFd<'_>, what: &str, error: rustix::io::Errno) -> Failed {
    let mut reasons = Vec::new();
    let mut buffer = [0u8; 512];
    while let Ok(n) = rustix::io::read(fs, &mut buffer) {
        let Some(line) = buffer.get(..n).filter(|l| !l.is_empty()) else {
            break;
        };
        reasons.push(String::from_utf8_lossy(line).trim().to_owned());
    }
    if reasons.is_empty() {
        Failed::new(format!("{what}: {error}"))
    } else {
        Failed::new(format!("{what}: {error} ({})", reasons.join(", ")))
    }
}

/// How an overlay keeps its marks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Marks {
    /// `trusted.overlay.*`: needs real privilege.
    Trusted,
    /// `user.overlay.*`: for user namespaces.
    User,
}

/// An overlay, detached. Layers are short relative paths, topmost first.
pub(super) struct Overlay<'a> {
    pub(super) lower: &'a [String],
    /// `(upper, work)`; read-only without.
    pub(super) upper: Option<(&'a str, &'a str)>,
    pub(super) marks: Marks,
    /// Runs just before the file system is created, with the ids that its files shall be made with.
    pub(super) fs_id: Option<u32>,
}

impl Overlay<'_> {
    pub(super) fn mount(&self) -> Step<OwnedFd> {
        let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)
            .named(|| "open the file system overlay (is the module loaded?)".into())?;
        let set = |key: &str, value: &str| {
            fsconfig_set_string(fs.as_fd(), key, value)
                .map_err(|e| refused(fs.as_fd(), &format!("overlay: set {key}={value}"), e))
        };
        set("source", "vers-local")?;
        // Linux 6.5 takes layers one by one; before that they share one option of 255 bytes.
        let one_by_one = match self.lower {
            [first, ..] => fsconfig_set_string(fs.as_fd(), "lowerdir+", first.as_str()).is_ok(),
            [] => return Err(Failed::new("overlay without a layer below")),
        };
        if one_by_one {
            for layer in self.lower.iter().skip(1) {
                set("lowerdir+", layer)?;
            }
        } else {
            set("lowerdir", &self.lower.join(":"))?;
        }
        if let Some((upper, work)) = self.upper {
            set("upperdir", upper)?;
            set("workdir", work)?;
            // A copy of a layer (that is what a restore is made of) has other inodes than the index remembers.
            set("index", "off")?;
        }
        match self.marks {
            Marks::Trusted => set("redirect_dir", "on")?,
            Marks::User => fsconfig_set_flag(fs.as_fd(), "userxattr")
                .map_err(|e| refused(fs.as_fd(), "overlay: set userxattr", e))?,
        }
        let Some(id) = self.fs_id else {
            return finish(fs.as_fd(), "overlay", MountAttrFlags::empty());
        };
        // The overlay makes work/work with the mounter's file system ids. Ours do not exist in an id-mapped layer, and
        // then it would silently be read-only.
        sys::set_fs_ids(id).named(|| "take the sandbox's file system ids".into())?;
        let mounted = finish(fs.as_fd(), "overlay", MountAttrFlags::empty());
        sys::set_fs_ids(0).named(|| "take back root's file system ids".into())?;
        mounted
    }
}

/// Makes the working directory the root, and drops the old root.
pub(super) fn pivot_here() -> Step<()> {
    rustix::process::pivot_root(".", ".").named(|| {
        "pivot_root (is the host's root an initramfs? then no sandbox can be built)".into()
    })?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).named(|| "detach the old root".into())?;
    rustix::process::chdir("/").named(|| "enter the new root".into())
}

/// The mount points of this process's mount namespace, in mount order.
pub(super) fn mount_points() -> Step<Vec<std::path::PathBuf>> {
    let text =
        std::fs::read("/proc/self/mountinfo").named(|| "read /proc/self/mountinfo".into())?;
    Ok(parse_mount_points(&text))
}

/// Field 5 of each line, with its octal escapes undone.
fn parse_mount_points(text: &[u8]) -> Vec<std::path::PathBuf> {
    use std::os::unix::ffi::OsStringExt as _;
    text.split(|b| *b == b'\n')
        .filter_map(|line| line.split(|b| *b == b' ').nth(4))
        .map(|field| std::ffi::OsString::from_vec(unescape(field)).into())
        .collect()
}

fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte == b'\\'
            && let Some((digits, after)) = tail.split_at_checked(3)
            && let Some(value) = digits.iter().try_fold(0u32, |v, d| {
                (b'0'..=b'7')
                    .contains(d)
                    .then(|| v * 8 + u32::from(d - b'0'))
            })
            && let Ok(value) = u8::try_from(value)
        {
            out.push(value);
            rest = after;
        } else {
            out.push(byte);
        }
    }
    out
}

/// For names that come from the kernel or from constants.
pub(super) fn c_string(bytes: &[u8]) -> Step<CString> {
    CString::new(bytes).named(|| "a name with a zero byte".into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn mount_points_with_spaces_are_read() {
        let text =
            b"28 1 8:1 / / rw - ext4 /dev/a rw\n30 28 0:4 / /mnt/a\\040b rw,x shared:1 - proc p rw\n";
        assert_eq!(
            parse_mount_points(text),
            [Path::new("/"), Path::new("/mnt/a b")]
        );
    }

    proptest! {
        #[test]
        fn unescape_undoes_the_kernels_escapes(name in proptest::collection::vec(1u8.., 0..40)) {
            let mut escaped = Vec::new();
            for b in &name {
                match b {
                    b' ' | b'\t' | b'\n' | b'\\' => escaped.extend(format!("\\{b:03o}").bytes()),
                    b => escaped.push(*b),
                }
            }
            prop_assert_eq!(unescape(&escaped), name);
        }

        #[test]
        fn unescape_takes_anything(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            prop_assert!(unescape(&bytes).len() <= bytes.len());
        }
    }
}
