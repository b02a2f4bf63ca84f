//! What the system tells of directories that are watched: inotify, awaited.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;

use rustix::fs::inotify;
pub(crate) use rustix::fs::inotify::{ReadFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

/// See the module.
pub(crate) struct Notices(AsyncFd<OwnedFd>);

/// Something has happened in a directory.
pub(crate) struct Notice {
    /// The directory's number, as [`Notices::add`] gave it.
    pub(crate) directory: i32,
    /// To which of its entries; `None` where it is told of no one.
    pub(crate) name: Option<OsString>,
    /// What.
    pub(crate) what: ReadFlags,
}

impl Notice {
    /// More has happened than was told.
    pub(crate) fn is_incomplete(&self) -> bool {
        self.what.contains(ReadFlags::QUEUE_OVERFLOW)
    }
}

impl Notices {
    /// Of no directory yet. Must be made within a tokio runtime.
    pub(crate) fn new() -> std::io::Result<Self> {
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let told = inotify::init(flags)?;
        #[allow(
            deprecated,
            reason = "deprecated for types that may change their descriptor: `OwnedFd` does not, and the other way is unsafe"
        )]
        AsyncFd::new(told).map(Self)
    }

    /// Watches this directory, too; its number.
    pub(crate) fn add(&self, directory: &Path, what: WatchFlags) -> Result<i32, Errno> {
        inotify::add_watch(self.0.get_ref(), directory, what)
    }

    /// What has happened since the last time, at least one thing. Cancel-safe.
    ///
    /// # Errors
    /// Nothing will be told any more.
    pub(crate) async fn next(&self) -> std::io::Result<Vec<Notice>> {
        loop {
            let mut ready = self.0.readable().await?;
            let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
            let mut reader = inotify::Reader::new(self.0.get_ref(), &mut buffer);
            let mut all = Vec::new();
            loop {
                match reader.next() {
                    Ok(event) => all.push(Notice {
                        directory: event.wd(),
                        name: event
                            .file_name()
                            .map(|name| OsString::from_vec(name.to_bytes().to_vec())),
                        what: event.events(),
                    }),
                    Err(Errno::AGAIN) => break,
                    Err(Errno::INTR) => {}
                    Err(why) => return Err(why.into()),
                }
            }
            ready.clear_ready();
            if !all.is_empty() {
                return Ok(all);
            }
        }
    }
}
