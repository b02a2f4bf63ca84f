//! What a VM sees of the host, as one layer that is built anew in a tmpfs at every start.
//!
//! The threat: a guest's root reads whatever its root file system shows, also what only the host's root may read. So the
//! host is shown by an allow list of top directories; everything else is private and empty. Inside `/etc`, every file
//! that the host keeps from ordinary users is kept from the guest too, by its mode, so that no list of names has to be
//! complete.
//!
//! Tier 1 puts this layer *over* the host's root, as whiteouts and opaque directories ([`mask`]); tier 2, which cannot
//! overlay the host's root, builds a root of its own in it and binds the shown directories into that ([`skeleton`]).
//!
//! Limits: a top directory that the host makes while a VM runs becomes visible in that VM; files under `/usr` and `/opt`
//! that only the host's root can read are readable by tier 1 guests.

use super::etc;
use super::mounts::c_string;
use super::plan::{FIRST_ID, IDS, Plan};
use super::steps::{Named as _, Step};
use super::tools::SHOWN;
use rustix::fs::{CWD, FileType, Mode, XattrFlags};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

/// Directories that every VM has for itself, empty at first.
const PRIVATE: [(&str, u32); 11] = [
    ("root", 0o700),
    ("home", 0o755),
    ("tmp", 0o1777),
    ("srv", 0o755),
    ("mnt", 0o755),
    ("media", 0o755),
    ("run", 0o755),
    ("dev", 0o755),
    ("proc", 0o755),
    ("sys", 0o755),
    ("boot", 0o755),
];

/// `/var` as a fresh machine has it.
const VAR: [(&str, u32); 13] = [
    ("var/tmp", 0o1777),
    ("var/log", 0o755),
    ("var/log/apt", 0o755),
    ("var/cache", 0o755),
    ("var/cache/apt", 0o755),
    ("var/cache/apt/archives", 0o755),
    ("var/cache/apt/archives/partial", 0o700),
    ("var/spool", 0o755),
    ("var/mail", 0o755),
    ("var/local", 0o755),
    ("var/opt", 0o755),
    ("var/backups", 0o755),
    ("var/lib/misc", 0o755),
];

/// Package databases: without them no package can be installed.
const PACKAGE_DATABASES: [&str; 6] = ["dpkg", "apt", "rpm", "pacman", "pam", "ucf"];

/// Where tier 2 shows the host's `/etc`.
pub(super) const HOST_ETC: &str = "run/host/etc";

/// A layer under construction.
struct Layer<'a> {
    root: &'a Path,
    /// Added to ids inside to get ids on disk.
    first_id: Option<u32>,
}

impl Layer<'_> {
    fn at(&self, rel: &Path) -> PathBuf {
        self.root.join(rel)
    }

    fn own(&self, rel: &Path, uid: u32, gid: u32) -> Step<()> {
        let Some(first) = self.first_id else {
            return Ok(());
        };
        let id = |id: u32| Some(first + if id < IDS { id } else { 0 });
        std::os::unix::fs::lchown(self.at(rel), id(uid), id(gid))
            .named(|| format!("set the owner of /{}", rel.display()))
    }

    fn dir(&self, rel: &Path, mode: u32) -> Step<()> {
        let path = self.at(rel);
        match fs::create_dir(&path) {
            Ok(()) => self.own(rel, 0, 0)?,
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e).named(|| format!("make /{}", rel.display())),
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))
            .named(|| format!("set the mode of /{}", rel.display()))
    }

    /// Makes the directories above `rel`, looking like the host's (a merged directory looks like its topmost layer).
    fn parents(&self, rel: &Path) -> Step<()> {
        let mut above = PathBuf::new();
        for part in rel.parent().unwrap_or(Path::new("")).components() {
            above.push(part);
            if self.at(&above).is_dir() {
                continue;
            }
            match fs::symlink_metadata(Path::new("/").join(&above)) {
                Ok(m) if m.is_dir() && !private(&above) => {
                    self.dir(&above, m.mode() & 0o7777)?;
                    self.own(&above, m.uid(), m.gid())?;
                }
                _ => self.dir(&above, 0o755)?,
            }
        }
        Ok(())
    }

    fn file(&self, rel: &str, mode: u32, contents: &[u8]) -> Step<()> {
        let rel = Path::new(rel);
        self.parents(rel)?;
        fs::write(self.at(rel), contents).named(|| format!("write /{}", rel.display()))?;
        fs::set_permissions(self.at(rel), fs::Permissions::from_mode(mode))
            .named(|| format!("set the mode of /{}", rel.display()))?;
        self.own(rel, 0, 0)
    }

    fn link(&self, rel: &str, target: &Path) -> Step<()> {
        symlink(target, self.at(Path::new(rel))).named(|| format!("make the link /{rel}"))?;
        self.own(Path::new(rel), 0, 0)
    }

    /// Hides a name of the layers below.
    fn whiteout(&self, rel: &Path) -> Step<()> {
        self.parents(rel)?;
        rustix::fs::mknodat(
            CWD,
            self.at(rel),
            FileType::CharacterDevice,
            Mode::empty(),
            0,
        )
        .named(|| format!("hide /{}", rel.display()))
    }

    /// A directory that shows nothing of the layers below.
    fn opaque(&self, rel: &Path, mode: u32) -> Step<()> {
        self.parents(rel)?;
        self.dir(rel, mode)?;
        rustix::fs::lsetxattr(
            self.at(rel),
            "trusted.overlay.opaque",
            b"y",
            XattrFlags::empty(),
        )
        .named(|| format!("hide what is in /{}", rel.display()))
    }

    /// Hides everything in the host's directory `rel` except `kept`.
    fn only(&self, rel: &str, kept: impl Fn(&std::ffi::OsStr) -> bool) -> Step<()> {
        let host = Path::new("/").join(rel);
        let Ok(entries) = fs::read_dir(&host) else {
            return Ok(());
        };
        for entry in entries {
            let name = entry
                .named(|| format!("list {}", host.display()))?
                .file_name();
            if !kept(&name) {
                self.whiteout(&Path::new(rel).join(&name))?;
            }
        }
        Ok(())
    }

    /// The files of `/etc` that are the VM's own.
    fn own_etc(&self, plan: &Plan) -> Step<()> {
        self.file("etc/hosts", 0o644, etc::hosts(&plan.hostname).as_bytes())?;
        self.file(
            "etc/hostname",
            0o644,
            format!("{}\n", plan.hostname).as_bytes(),
        )?;
        let host = fs::read("/etc/resolv.conf").unwrap_or_default();
        self.file(
            "etc/resolv.conf",
            0o644,
            &etc::resolv_conf(plan.network, &host),
        )
    }

    /// Where tools of the host's homes will be mounted.
    fn tool_mount_points(&self, plan: &Plan) -> Step<()> {
        for tool in &plan.tools {
            if let Ok(rel) = tool.strip_prefix("/") {
                self.parents(rel)?;
                self.dir(rel, 0o755)?;
            }
        }
        Ok(())
    }
}

fn private(rel: &Path) -> bool {
    PRIVATE.iter().any(|(p, _)| rel.starts_with(p))
}

/// Builds the layer that goes directly over the host's root, in the (empty) directory `root`.
pub(super) fn mask(root: &Path, plan: &Plan) -> Step<()> {
    let layer = Layer {
        root,
        first_id: Some(FIRST_ID),
    };
    layer.dir(Path::new(""), 0o755)?;
    layer.own(Path::new(""), 0, 0)?;
    for (name, mode) in PRIVATE {
        layer.opaque(Path::new(name), mode)?;
    }
    layer.only("", |name| {
        SHOWN.iter().any(|s| name == *s)
            || PRIVATE.iter().any(|(p, _)| name == *p)
            || name == "etc"
            || name == "var"
    })?;
    mask_var(&layer)?;
    for (name, rest, users) in [
        ("etc/shadow", ":*:19000:0:99999:7:::", "/etc/passwd"),
        ("etc/gshadow", ":*::", "/etc/group"),
    ] {
        let names = fs::read(users).unwrap_or_default();
        layer.file(name, 0o640, &etc::without_passwords(&names, rest))?;
    }
    layer.own_etc(plan)?;
    hide_secrets(&layer, Path::new("etc"))?;
    for hidden in &plan.hidden {
        if let Ok(rel) = hidden.strip_prefix("/")
            && matches!(rel.components().next(), Some(top) if SHOWN.iter().any(|s| top.as_os_str() == *s) || top.as_os_str() == "etc")
            && fs::symlink_metadata(layer.at(rel)).is_err()
        {
            layer.whiteout(rel)?;
        }
    }
    layer.tool_mount_points(plan)
}

fn mask_var(layer: &Layer<'_>) -> Step<()> {
    layer.only("var", |name| {
        name == "lib" || name == "run" || name == "lock"
    })?;
    layer.only("var/lib", |name| {
        PACKAGE_DATABASES.iter().any(|p| name == *p)
    })?;
    // What `only` hid and a fresh machine has, comes back empty.
    for (name, mode) in VAR {
        let rel = Path::new(name);
        match fs::symlink_metadata(layer.at(rel)) {
            Ok(m) if !m.is_dir() => {
                fs::remove_file(layer.at(rel)).named(|| format!("make /{name}"))?;
            }
            _ => {}
        }
        layer.opaque(rel, mode)?;
    }
    Ok(())
}

/// Hides what the host keeps from ordinary users, under `rel`.
fn hide_secrets(layer: &Layer<'_>, rel: &Path) -> Step<()> {
    let host = Path::new("/").join(rel);
    let entries = fs::read_dir(&host).named(|| format!("list {}", host.display()))?;
    for entry in entries {
        let entry = entry.named(|| format!("list {}", host.display()))?;
        let rel = rel.join(entry.file_name());
        let Ok(meta) = entry.metadata() else {
            continue; // gone meanwhile
        };
        if meta.is_symlink() || layer.at(&rel).is_file() {
            continue;
        }
        let secret = secret(&rel, meta.mode(), meta.is_dir());
        match (meta.is_dir(), secret) {
            (true, true) => layer.opaque(&rel, meta.mode() & 0o7777)?,
            (true, false) => hide_secrets(layer, &rel)?,
            (false, true) => layer.whiteout(&rel)?,
            (false, false) => {}
        }
    }
    Ok(())
}

/// Whether the host keeps this from ordinary users, or (whatever its mode) it is a key by its name.
fn secret(rel: &Path, mode: u32, dir: bool) -> bool {
    let unreadable = mode & 0o004 == 0 || (dir && mode & 0o001 == 0);
    let name = rel.file_name().unwrap_or_default().as_bytes();
    let key = name.starts_with(b"ssh_host_") && name.ends_with(b"_key");
    unreadable || key || rel == Path::new("etc/ssl/private")
}

/// Builds the root of a tier 2 sandbox in the (empty) directory `root`, but for the host's directories, which the
/// caller binds: their names are returned.
pub(super) fn skeleton(root: &Path, plan: &Plan) -> Step<Vec<PathBuf>> {
    let layer = Layer {
        root,
        first_id: None,
    };
    layer.dir(Path::new(""), 0o755)?;
    for (name, mode) in PRIVATE
        .into_iter()
        .chain([("etc", 0o755), ("var", 0o755), ("var/lib", 0o755)])
        .chain(VAR)
    {
        layer.dir(Path::new(name), mode)?;
    }
    layer.link("var/run", Path::new("/run"))?;
    layer.link("var/lock", Path::new("/run/lock"))?;
    let mut shown = Vec::new();
    for name in SHOWN {
        let host = Path::new("/").join(name);
        match fs::symlink_metadata(&host) {
            Ok(m) if m.is_symlink() => {
                let target = fs::read_link(&host).named(|| format!("read the link /{name}"))?;
                layer.link(name, &target)?;
            }
            Ok(m) if m.is_dir() => {
                layer.dir(Path::new(name), 0o755)?;
                shown.push(PathBuf::from(name));
            }
            _ => {}
        }
    }
    layer.own_etc(plan)?;
    link_etc(&layer)?;
    layer.tool_mount_points(plan)?;
    Ok(shown)
}

/// Every name of the host's `/etc` as a link, so that each can be replaced by a file of the VM's own.
fn link_etc(layer: &Layer<'_>) -> Step<()> {
    let ours = BTreeSet::from(["hosts", "hostname", "resolv.conf", "environment"].map(Path::new));
    for entry in fs::read_dir("/etc").named(|| "list /etc".into())? {
        let name = PathBuf::from(entry.named(|| "list /etc".into())?.file_name());
        if ours.contains(name.as_path()) {
            continue;
        }
        // A link is taken over as it is: its target may be relative to /etc.
        let target = fs::read_link(Path::new("/etc").join(&name))
            .unwrap_or_else(|_| Path::new("/").join(HOST_ETC).join(&name));
        let at = layer.at(&Path::new("etc").join(&name));
        symlink(&target, &at).named(|| format!("link /etc/{}", name.display()))?;
    }
    let environment = fs::read("/etc/environment").unwrap_or_default();
    layer.file("etc/environment", 0o644, &environment)
}

/// The host's mounts below the shown directories: an overlay shows empty directories in their places.
pub(super) fn mounts_below_shown(points: &[PathBuf], hidden: &[PathBuf]) -> Vec<PathBuf> {
    let mut below: Vec<PathBuf> = points
        .iter()
        .filter(|p| {
            matches!(p.components().nth(1), Some(top) if SHOWN.iter().any(|s| top.as_os_str() == *s))
                && !hidden.iter().any(|h| p.starts_with(h))
                && c_string(p.as_os_str().as_bytes()).is_ok()
        })
        .cloned()
        .collect();
    below.dedup();
    below
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ordinary_users_cannot_read_is_secret() {
        assert!(secret(Path::new("etc/x"), 0o100_640, false));
        assert!(!secret(Path::new("etc/x"), 0o100_644, false));
        assert!(secret(Path::new("etc/d"), 0o040_754, true));
        assert!(!secret(Path::new("etc/d"), 0o040_755, true));
        assert!(secret(
            Path::new("etc/ssh/ssh_host_rsa_key"),
            0o100_644,
            false
        ));
        assert!(secret(Path::new("etc/ssl/private"), 0o040_755, true));
    }

    #[test]
    fn mounts_below_shown_directories_are_found_and_the_state_is_not() {
        let points = [
            "/",
            "/usr",
            "/opt/a",
            "/home",
            "/opt/state/x",
            "/var/lib/x",
            "/usrx",
        ]
        .map(PathBuf::from);
        assert_eq!(
            mounts_below_shown(&points, &["/opt/state".into()]),
            ["/usr", "/opt/a"].map(PathBuf::from)
        );
    }
}
