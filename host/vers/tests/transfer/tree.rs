//! Trees of files: made, described, compared.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use pi_vers_system::files::{Access, Root};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use vers_client::transfer::{self, Options, Progress, Side, Summary};
use vers_client::{Error, Ssh};

use crate::lab::Lab;

/// What an entry is, for comparing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    Directory {
        mode: u32,
        time: (i64, i64),
    },
    File {
        mode: u32,
        time: (i64, i64),
        content: Vec<u8>,
    },
    Link {
        target: PathBuf,
        time: (i64, i64),
    },
    Other,
}

/// All of a tree, by path; the top is the empty path.
pub fn describe(top: &Path) -> BTreeMap<PathBuf, What> {
    let mut all = BTreeMap::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(path) = todo.pop() {
        let at = if path.as_os_str().is_empty() {
            top.to_owned()
        } else {
            top.join(&path)
        };
        // What is just being cleaned up may go meanwhile.
        let Ok(stat) = std::fs::symlink_metadata(&at) else {
            continue;
        };
        let (mode, time) = (stat.mode() & 0o7777, (stat.mtime(), stat.mtime_nsec()));
        let what = if stat.is_dir() {
            todo.extend(
                std::fs::read_dir(&at)
                    .into_iter()
                    .flatten()
                    .flatten()
                    .map(|entry| path.join(entry.file_name())),
            );
            What::Directory { mode, time }
        } else if stat.is_symlink() {
            What::Link {
                target: std::fs::read_link(&at).unwrap(),
                time,
            }
        } else if stat.is_file() {
            What::File {
                mode,
                time,
                content: std::fs::read(&at).unwrap(),
            }
        } else {
            What::Other
        };
        all.insert(path, what);
    }
    all
}

/// Compares two trees; says what differs.
pub fn assert_same(left: &Path, right: &Path) {
    let (left, right) = (describe(left), describe(right));
    let paths: std::collections::BTreeSet<_> = left.keys().chain(right.keys()).collect();
    for path in paths {
        let (one, other) = (left.get(path), right.get(path));
        if one != other {
            let short = |what: Option<&What>| {
                let mut text = format!("{what:?}");
                text.truncate(300);
                text
            };
            panic!("{path:?} differs: {} and {}", short(one), short(other));
        }
    }
}

/// Anything that a copy could have forgotten beneath this directory.
pub fn litter(top: &Path) -> Vec<PathBuf> {
    describe(top)
        .into_keys()
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.as_bytes().starts_with(b".vers-"))
        })
        .collect()
}

pub fn set_time(path: &Path, seconds: i64, nanos: i64) {
    use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanos,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// A file with data here and there.
pub fn sparse(path: &Path, size: u64, data: &[(u64, &[u8])]) {
    let file = std::fs::File::create(path).unwrap();
    for (offset, data) in data {
        file.write_all_at(data, *offset).unwrap();
    }
    file.set_len(size).unwrap();
}

pub fn blocks(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().blocks() * 512
}

pub fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

pub fn link(target: impl AsRef<Path>, at: &Path) {
    symlink(target, at).unwrap();
}

pub fn name(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}

/// Bytes that do not repeat.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A lab with a directory `here`, which is granted, and `there`, which is on the VM; on one disk in truth.
pub struct Scene {
    pub lab: Lab,
    pub ssh: Ssh,
    pub here: PathBuf,
    pub there: PathBuf,
}

impl Scene {
    pub async fn start() -> Self {
        let lab = Lab::start().await;
        let ssh = lab.ssh();
        let (here, there) = (lab.dir.path().join("here"), lab.dir.path().join("there"));
        std::fs::create_dir(&here).unwrap();
        std::fs::create_dir(&there).unwrap();
        Self {
            lab,
            ssh,
            here,
            there,
        }
    }

    pub fn local(&self, path: &str) -> Side {
        Side::Local {
            root: Root::open(&self.here, Access::ReadWrite).unwrap(),
            path: path.to_owned(),
        }
    }

    pub fn vm(&self, path: &str) -> Side {
        Side::Vm {
            ssh: self.ssh.clone(),
            vm: self.lab.vm,
            path: self.there.join(path).to_str().unwrap().to_owned(),
        }
    }

    /// Nothing is forgotten on either side.
    pub fn assert_clean(&self) {
        assert_eq!(litter(&self.here), Vec::<PathBuf>::new());
        assert_eq!(litter(&self.there), Vec::<PathBuf>::new());
    }
}

pub async fn copy(from: Side, to: Side) -> Result<Summary, Error> {
    copy_with(from, to, Options::default()).await
}

pub async fn copy_with(from: Side, to: Side, options: Options) -> Result<Summary, Error> {
    let (progress, _) = watch::channel(Progress::default());
    transfer::copy(from, to, options, progress, CancellationToken::new()).await
}
