//! Single files of a VM, over SFTP. Only regular files: opening a fifo waits for ever, and a device may never end.

use super::{MAX_FILE, session};
use crate::manager::{Fault, Manager};
use russh::Disconnect;
use russh_sftp::client::SftpSession;
use russh_sftp::client::error::Error as SftpError;
use russh_sftp::protocol::{FileAttributes, OpenFlags, StatusCode};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use uuid::Uuid;

const WITHIN: Duration = Duration::from_secs(60);

/// Refuses what is no path of a file.
pub(crate) fn check_path(path: &str) -> Result<(), Fault> {
    if !path.starts_with('/') || path.contains('\0') || path.len() > 4096 {
        return Err(Fault::Invalid(
            "path must be absolute, without NUL, at most 4096 bytes".into(),
        ));
    }
    Ok(())
}

fn failed<'a>(what: &'a str, path: &'a str) -> impl FnOnce(SftpError) -> Fault + 'a {
    move |e| match e {
        SftpError::Status(status) => match status.status_code {
            StatusCode::NoSuchFile => Fault::NotFound("file not found"),
            StatusCode::ConnectionLost | StatusCode::NoConnection => Fault::Internal(format!(
                "cannot {what} {path}: the connection to the VM was lost"
            )),
            _ => Fault::Invalid(format!("cannot {what} {path}: {}", status.error_message)),
        },
        e => Fault::Internal(format!("cannot {what} {path}: {e}")),
    }
}

fn io<'a>(what: &'a str, path: &'a str) -> impl FnOnce(std::io::Error) -> Fault + 'a {
    move |e| match e.kind() {
        std::io::ErrorKind::NotFound => Fault::NotFound("file not found"),
        _ => Fault::Invalid(format!("cannot {what} {path}: {e}")),
    }
}

async fn with_sftp<T>(
    manager: &Manager,
    vm: Uuid,
    work: impl AsyncFnOnce(SftpSession) -> Result<T, Fault>,
) -> Result<T, Fault> {
    manager.check_running(vm)?;
    let session = session::connect(manager, vm).await?;
    let working = async {
        let channel = session::open(&session, vm).await?;
        let lost = |e: &dyn std::fmt::Display| {
            Fault::Internal(format!("cannot start SFTP in VM {vm}: {e}"))
        };
        channel
            .request_subsystem(true, "sftp")
            .await
            .map_err(|e| lost(&e))?;
        let sftp = SftpSession::new(channel.into_stream())
            .await
            .map_err(|e| lost(&e))?;
        work(sftp).await
    };
    let result = match tokio::time::timeout(WITHIN, working).await {
        Ok(result) => result,
        Err(_) => Err(Fault::Internal(format!(
            "VM {vm} did not answer within {} s",
            WITHIN.as_secs()
        ))),
    };
    let _ = tokio::time::timeout(
        Duration::from_secs(1),
        session.disconnect(Disconnect::ByApplication, "", ""),
    )
    .await;
    result
}

/// A whole file.
pub(crate) async fn read(manager: &Manager, vm: Uuid, path: &str) -> Result<Vec<u8>, Fault> {
    check_path(path)?;
    with_sftp(manager, vm, async |sftp| {
        let found = sftp.metadata(path).await.map_err(failed("read", path))?;
        if !found.is_regular() {
            return Err(Fault::Invalid(format!("{path} is not a regular file")));
        }
        let file = sftp.open(path).await.map_err(failed("open", path))?;
        // Not by its size: files of /proc say 0.
        let mut content = Vec::new();
        file.take(MAX_FILE as u64 + 1)
            .read_to_end(&mut content)
            .await
            .map_err(io("read", path))?;
        if content.len() > MAX_FILE {
            return Err(Fault::TooLarge(format!(
                "{path} has more than {} MiB; fetch it over SSH (sftp, tar)",
                MAX_FILE >> 20
            )));
        }
        Ok(content)
    })
    .await
}

/// Writes a whole file, in place, with this mode.
pub(crate) async fn write(
    manager: &Manager,
    vm: Uuid,
    path: &str,
    content: &[u8],
    mode: u32,
    create_dirs: bool,
) -> Result<(), Fault> {
    check_path(path)?;
    if mode > 0o7777 {
        return Err(Fault::Invalid(format!(
            "mode must be at most 4095 (octal 7777), not {mode}"
        )));
    }
    if content.len() > MAX_FILE {
        return Err(Fault::TooLarge(format!(
            "a file may have at most {} MiB here; send it over SSH",
            MAX_FILE >> 20
        )));
    }
    with_sftp(manager, vm, async |sftp| {
        if create_dirs {
            make_parents(&sftp, path).await?;
        }
        match sftp.metadata(path).await {
            Ok(found) if !found.is_regular() => {
                return Err(Fault::Invalid(format!("{path} is not a regular file")));
            }
            _ => {}
        }
        let attributes = FileAttributes {
            permissions: Some(mode),
            ..FileAttributes::empty()
        };
        let flags = OpenFlags::CREATE | OpenFlags::TRUNCATE | OpenFlags::WRITE;
        let mut file = sftp
            .open_with_flags_and_attributes(path, flags, attributes.clone())
            .await
            .map_err(failed("open", path))?;
        file.write_all(content).await.map_err(io("write", path))?;
        file.close().await.map_err(io("write", path))?;
        // The umask, or an older file, may have said otherwise.
        sftp.set_metadata(path, attributes)
            .await
            .map_err(failed("set the mode of", path))
    })
    .await
}

async fn make_parents(sftp: &SftpSession, path: &str) -> Result<(), Fault> {
    for (end, _) in path.match_indices('/').skip(1) {
        let Some(dir) = path.get(..end) else { continue };
        match sftp.metadata(dir).await {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return Err(Fault::Invalid(format!("{dir} is not a directory"))),
            Err(_) => sftp.create_dir(dir).await.map_err(failed("create", dir))?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )]
    use super::check_path;

    #[test]
    fn only_absolute_paths_pass() {
        assert!(check_path("/a b").is_ok());
        for wrong in ["", "a", "./a", "/a\0b", &"/a".repeat(3000)] {
            assert!(check_path(wrong).is_err(), "{wrong:?}");
        }
    }
}
