//! Copies of files and trees between this machine and VMs.
//!
//! # The threat
//!
//! Both sides may be hostile. A VM lists names such as `../x`, sends what was not asked for, makes a link and then a
//! file that would go through it, never ends a file. A local tree changes while it is read. And connections break at the
//! worst moment. Nothing may be written outside of the target, nothing lost or doubled, and nothing unfinished left behind.
//!
//! # How
//!
//! The source is listed first, so that it is known what there is to do. Small files travel in batches, each a tar stream
//! over one channel; big ones one by one, as a stream that goes on at an offset, on a connection for bulk data that
//! keeps commands from waiting behind it. On this machine every entry is resolved
//! part by part beneath an open directory, and no link is followed (`local.rs`); what a VM sends has to be exactly
//! what the list named, in that order (`tar.rs`, `vm/source.rs`). On a VM, archives are unpacked into a temporary
//! directory beside their place and moved from there (`vm/unpack.sh`), so each file appears in one step there too.
//!
//! Why not SFTP: it costs round trips for each file, its client here cannot hold names that are no UTF-8, and as
//! a stream it is a tenth slower. Why not tar's own extraction for what comes from a VM: it follows links that were
//! there before, and does not know what was asked for.
//!
//! # After a cut
//!
//! A batch that the target has not confirmed is sent again, in halves; a file that does not even get through alone is
//! treated like a big one. A big file goes on where its temporary file ends, if the source still has its size and
//! time; else it begins anew. The copy gives up when nothing has come to stay for [`Options::patience`].
//!
//! # What is not covered
//!
//! If this process is killed, or a VM cannot be reached any more, while a big file is under way, its temporary file
//! (`.vers-….tmp`) stays on the VM. Owners, ACLs, extended attributes and hard links are not copied.
//!
//! A VM needs any tar to be copied to. To be copied from, it should have GNU find and GNU tar; one that lacks either is
//! read by shell scripts, for which busybox is enough. Then holes travel as zeros and become data in the copy, and a
//! small file costs a process on the VM, about a millisecond.

mod engine;
mod entry;
mod exclude;
mod local;
mod meter;
mod tar;
mod vm;

use std::time::Duration;

use pi_vers_system::files::Root;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::entry::{Entry, path_shown};
use crate::api::VmId;
use crate::error::{Error, Kind, Result};
use crate::ssh::Ssh;

/// Bytes of a file that still travels in a batch. Beyond, the two commands that a file of its own costs
/// (about 15 ms, or two round trips) weigh less than sending it again after a cut would.
const SMALL: u64 = 4 << 20;
/// Entries of a source.
const MOST_ENTRIES: usize = 1_000_000;
/// Bytes of a path: as many as Linux takes.
const MOST_PATH: usize = 4000;

/// One end of a copy.
#[derive(Debug, Clone)]
pub enum Side {
    /// On this machine, beneath a directory that was granted.
    Local {
        /// The directory.
        root: Root,
        /// Relative to it.
        path: String,
    },
    /// On a VM.
    Vm {
        /// The way there.
        ssh: Ssh,
        /// Which one.
        vm: VmId,
        /// Absolute, or relative to root's home directory.
        path: String,
    },
}

/// How to copy.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whether a directory may be copied; `None`: if the source is one.
    pub recursive: Option<bool>,
    /// Paths relative to the source, as in `.gitignore`.
    pub exclude: Vec<String>,
    /// How long to go on trying while connections break and nothing is finished.
    pub patience: Duration,
}

impl Default for Options {
    /// A directory if the source is one, nothing left out, a minute of patience.
    fn default() -> Self {
        Self {
            recursive: None,
            exclude: Vec::new(),
            patience: Duration::from_secs(60),
        }
    }
}

/// How far a copy has come. Never goes backwards.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Files that are in their place.
    pub files: u64,
    /// Bytes of content, of finished files and those under way.
    pub bytes: u64,
    /// Files there are, once that is known.
    pub total_files: Option<u64>,
    /// Bytes there are, once that is known.
    pub total_bytes: Option<u64>,
    /// What moved last, relative to the source. Bytes that are no UTF-8 are replaced.
    pub current: String,
}

/// What a copy did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// Regular files.
    pub files: u64,
    /// Directories, the source itself among them.
    pub directories: u64,
    /// Links.
    pub links: u64,
    /// Bytes of the files' content, holes included.
    pub bytes: u64,
    /// Devices, sockets and named pipes, which are not copied.
    pub left_out: u64,
    /// Whether the source is a directory.
    pub was_directory: bool,
}

/// Copies a file or a tree. The target is the exact name of the copy; missing directories above it are made. A file
/// replaces a file in one step; a directory is merged into one that is there, and what has the same name is replaced.
/// Links at the end of either path are followed; links inside are copied as links, and never followed.
///
/// Permission bits and times to the nanosecond come along (to this machine without set-user-id and the like); holes
/// stay holes, except from a VM without GNU find and GNU tar. `progress` holds the newest state and is never waited for.
///
/// Cancelling the token stops the copy, cleans up behind it, and makes this fail with [`Kind::Cancelled`]. Dropping the
/// future does the same in the background. Either way what was finished stays, and nothing else.
///
/// # Errors
/// [`Kind::NotFound`]: there is no source. [`Kind::Conflict`]: a file would replace a directory or the other way round, or
/// a file kept changing while it was read. [`Kind::Denied`]: a name would lead out of the target. [`Kind::Invalid`]: the
/// source is a directory, and [`Options::recursive`] says no. [`Kind::Unavailable`]: connections kept breaking.
pub async fn copy(
    source: Side,
    target: Side,
    options: Options,
    progress: watch::Sender<Progress>,
    cancel: CancellationToken,
) -> Result<Summary> {
    let given_up = cancel.child_token();
    let _guard = given_up.clone().drop_guard();
    // A task of its own: it cleans up after whoever waits for it is gone, with a deadline.
    let task = tokio::spawn(engine::run(source, target, options, progress, given_up));
    task.await.unwrap_or_else(|error| {
        Err(Error::other(format!(
            "copy: its task was abandoned: {error}"
        )))
    })
}

fn changed(entry: &Entry) -> Error {
    Error::new(
        Kind::Conflict,
        format!(
            "copy: {} changes while it is read; try again when it is at rest",
            entry.shown()
        ),
    )
}

fn conflict_at_top() -> Error {
    Error::new(
        Kind::Conflict,
        "copy: the target is a directory, and the source is none; name the file in it",
    )
}

fn too_many() -> Error {
    Error::new(
        Kind::Limit,
        format!(
            "copy: the source has more than {MOST_ENTRIES} entries; copy parts of it, or leave some out"
        ),
    )
}

fn too_deep(path: &[u8]) -> Error {
    Error::new(
        Kind::Limit,
        format!(
            "copy: {} has a path of more than {MOST_PATH} bytes",
            path_shown(path)
        ),
    )
}
