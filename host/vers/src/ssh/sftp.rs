//! One SFTP session: what russh-sftp leaves to do.
//!
//! OpenSSH's handles are numbers in four bytes, which russh-sftp keeps as text; from 128 on that loses them. So no more
//! than [`HANDLES`] are open at once. A handle is closed when its [`OpenFile`] is dropped, also if whoever opened it gave
//! up before the answer came.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use russh::ChannelMsg;
use russh_sftp::client::error::Error as SftpError;
use russh_sftp::client::{Config, RawSftpSession};
use russh_sftp::protocol::{FileAttributes, OpenFlags, Packet, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::machine::Connection;
use super::tunnel::Tunnel;
use crate::error::{Error, Kind, Result, shown};

const POSIX_RENAME: &str = "posix-rename@openssh.com";
const FSYNC: &str = "fsync@openssh.com";
const LIMITS: &str = "limits@openssh.com";
const HANDLES: usize = 64;
/// One request; flushing a large file to a slow disk takes a while.
const REQUEST_SECONDS: u64 = 120;
const MAX_PACKET: u32 = 256 << 10;
/// Bytes of one read or write. With [`IN_FLIGHT`] of them under way, 2 MiB: sshd's window for what it is sent.
const CHUNK: u64 = 128 << 10;
pub(super) const IN_FLIGHT: usize = 16;
/// What every server takes.
const SAFE_CHUNK: u64 = 32 << 10;

pub(super) struct Sftp {
    raw: RawSftpSession,
    pub(super) posix_rename: bool,
    pub(super) fsync: bool,
    pub(super) read_chunk: u32,
    pub(super) write_chunk: usize,
    handles: Arc<Semaphore>,
    dead: AtomicBool,
    /// Held while the session lives.
    connection: Arc<Connection>,
}

impl Sftp {
    pub(super) async fn open(connection: Arc<Connection>) -> Result<Self> {
        let link = connection.link().clone();
        let what = format!("open the file session of VM {}", link.vm);
        let mut channel = link.open_session().await?;
        channel
            .request_subsystem(true, "sftp")
            .await
            .map_err(|_| link.lost(&what))?;
        loop {
            match channel.wait().await {
                Some(ChannelMsg::Success) => break,
                Some(ChannelMsg::Failure) => {
                    let _ = channel.close().await;
                    return Err(Error::other(format!(
                        "{what}: its SSH server has no SFTP; install it (openssh-sftp-server) there"
                    )));
                }
                Some(ChannelMsg::WindowAdjusted { .. }) => {}
                _ => return Err(link.lost(&what)),
            }
        }
        let config = Config {
            max_packet_len: MAX_PACKET,
            request_timeout_secs: REQUEST_SECONDS,
            ..Config::default()
        };
        let raw =
            RawSftpSession::new_with_config(Tunnel::new(channel, link.closed().clone()), config);
        let failed =
            |error: SftpError| Error::unavailable(format!("{what}: {}", shown(&error.to_string())));
        let version = raw.init().await.map_err(failed)?;
        let has = |name: &str| version.extensions.contains_key(name);
        let (mut read, mut write) = (SAFE_CHUNK, SAFE_CHUNK);
        if has(LIMITS) {
            let limits = raw.limits().await.map_err(failed)?;
            let within = |limit: u64| if limit == 0 { CHUNK } else { limit.min(CHUNK) };
            (read, write) = (within(limits.max_read_len), within(limits.max_write_len));
        }
        Ok(Self {
            posix_rename: has(POSIX_RENAME),
            fsync: has(FSYNC),
            read_chunk: u32::try_from(read).unwrap_or(u32::MAX),
            write_chunk: usize::try_from(write).unwrap_or(usize::MAX),
            raw,
            handles: Arc::new(Semaphore::new(HANDLES)),
            dead: AtomicBool::new(false),
            connection,
        })
    }

    pub(super) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// The plain requests.
    pub(super) fn raw(&self) -> &RawSftpSession {
        &self.raw
    }

    pub(super) fn is_closed(&self) -> bool {
        self.dead.load(Ordering::Relaxed) || self.connection.link().is_closed()
    }

    /// What a failure means; `what` names the operation and the path.
    pub(super) fn error(&self, what: &str, error: SftpError) -> Error {
        let vm = self.connection.link().vm;
        let line = |why: &str| format!("{what} on VM {vm}: {why}");
        match error {
            SftpError::Status(status) => {
                let (kind, why) = match status.status_code {
                    StatusCode::NoSuchFile => (
                        Kind::NotFound,
                        "there is no such file or directory".to_owned(),
                    ),
                    StatusCode::PermissionDenied => (Kind::Denied, "permission denied".to_owned()),
                    StatusCode::OpUnsupported => {
                        (Kind::Other, "its SFTP server cannot do that".to_owned())
                    }
                    // The catch-all of SFTP: a full disk, a directory that is not empty, a file in the way.
                    code => (
                        Kind::Other,
                        format!("{code} ({})", shown(&status.error_message)),
                    ),
                };
                Error::new(kind, line(&why))
            }
            SftpError::Timeout => Error::timed_out(line("no answer in time")),
            SftpError::Limited(why) => Error::new(Kind::Limit, line(&why)),
            SftpError::IO(_) | SftpError::UnexpectedPacket | SftpError::UnexpectedBehavior(_) => {
                self.dead.store(true, Ordering::Relaxed);
                Error::unavailable(line("the connection was lost"))
            }
        }
    }

    pub(super) async fn open_file(
        self: &Arc<Self>,
        path: &str,
        flags: OpenFlags,
        attributes: FileAttributes,
    ) -> Result<OpenFile, SftpError> {
        let path = path.to_owned();
        self.opened(
            move |sftp| async move { Ok(sftp.raw.open(path, flags, attributes).await?.handle) },
        )
        .await
    }

    pub(super) async fn open_directory(
        self: &Arc<Self>,
        path: &str,
    ) -> Result<OpenFile, SftpError> {
        let path = path.to_owned();
        self.opened(move |sftp| async move { Ok(sftp.raw.opendir(path).await?.handle) })
            .await
    }

    /// Opens in a task of its own: if the caller gives up, the handle that still comes is closed.
    async fn opened<F>(
        self: &Arc<Self>,
        open: impl FnOnce(Arc<Self>) -> F,
    ) -> Result<OpenFile, SftpError>
    where
        F: Future<Output = Result<String, SftpError>> + Send + 'static,
    {
        let gone = || SftpError::UnexpectedBehavior("session closed".into());
        let permit = self
            .handles
            .clone()
            .acquire_owned()
            .await
            .map_err(|_| gone())?;
        let (sftp, opening) = (self.clone(), open(self.clone()));
        let task = tokio::spawn(async move {
            Ok(OpenFile {
                handle: opening.await?,
                sftp,
                _permit: permit,
                open: true,
            })
        });
        task.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Replaces `to` in one step.
    pub(super) async fn replace(&self, from: &str, to: &str) -> Result<(), SftpError> {
        if !self.posix_rename {
            return self.raw.rename(from, to).await.map(drop);
        }
        let mut data = Vec::with_capacity(from.len() + to.len() + 8);
        for path in [from, to] {
            let length = u32::try_from(path.len())
                .map_err(|_| SftpError::Limited("the path is too long".into()))?;
            data.extend_from_slice(&length.to_be_bytes());
            data.extend_from_slice(path.as_bytes());
        }
        match self.raw.extended(POSIX_RENAME, data).await? {
            Packet::Status(status) if status.status_code == StatusCode::Ok => Ok(()),
            Packet::Status(status) => Err(SftpError::Status(status)),
            _ => Err(SftpError::UnexpectedPacket),
        }
    }
}

/// Whether this is the server's way to say that there is nothing of that name.
pub(super) fn is_missing(error: &SftpError) -> bool {
    matches!(error, SftpError::Status(status) if status.status_code == StatusCode::NoSuchFile)
}

/// Whether this is the server's way to say that there is no more.
pub(super) fn is_end(error: &SftpError) -> bool {
    matches!(error, SftpError::Status(status) if status.status_code == StatusCode::Eof)
}

/// A file or directory that is open on the VM until this is dropped.
pub(super) struct OpenFile {
    pub(super) sftp: Arc<Sftp>,
    pub(super) handle: String,
    open: bool,
    _permit: OwnedSemaphorePermit,
}

impl OpenFile {
    /// Closes it, and says whether that worked: some file systems report failed writes only then.
    pub(super) async fn close(mut self) -> Result<(), SftpError> {
        self.open = false;
        self.sftp.raw.close(self.handle.as_str()).await.map(drop)
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        if self.open
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let (sftp, handle) = (self.sftp.clone(), std::mem::take(&mut self.handle));
            runtime.spawn(async move { sftp.raw.close(handle).await });
        }
    }
}
