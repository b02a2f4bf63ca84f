//! The SFTP subsystem, version 3 (draft-ietf-secsh-filexfer-02), with OpenSSH's extensions.
//!
//! Not the server of `russh-sftp`: it decodes names as UTF-8, and file names are bytes.
//!
//! Requests of a channel are done one after the other, in tokio's blocking threads; clients that keep many in flight
//! lose no time by that, because the answers are as many.

mod attributes;
mod files;
mod wire;

use super::input::Input;
use files::Session;
use russh::Channel;
use russh::server::{Handle, Msg};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Longest request: 256 KiB of data and its header, as OpenSSH takes.
pub(super) const LONGEST_REQUEST: u32 = 256 * 1024 + 1024;
/// Requests that are read ahead, in bytes.
const AHEAD: usize = 512 * 1024;

/// Serves a channel to its end.
pub(super) async fn serve(channel: Channel<Msg>, handle: &Handle) {
    let id = channel.id();
    let (read, write) = channel.split();
    let (requests, sink) = tokio::io::simplex(AHEAD);
    let mut input = Input::new(read, sink);
    let served = async {
        let status = match answer(requests, write.make_writer()).await {
            Ok(()) => 0,
            Err(_) => 1,
        };
        let _ = handle.eof(id).await;
        let _ = handle.exit_status_request(id, status).await;
        let _ = handle.close(id).await;
    };
    tokio::select! {
        () = served => {}
        () = input.until_closed() => {}
    }
}

/// Until the end of the requests, or the first one that is no SFTP.
async fn answer(
    mut requests: impl AsyncRead + Unpin,
    mut answers: impl AsyncWrite + Unpin,
) -> io::Result<()> {
    let mut session = Session::new(super::command::HOME);
    loop {
        let length = match requests.read_u32().await {
            Ok(length) => length,
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(e) => return Err(e),
        };
        if length == 0 || length > LONGEST_REQUEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut request = vec![0; length as usize];
        requests.read_exact(&mut request).await?;
        let (back, reply) = tokio::task::spawn_blocking(move || {
            let reply = session.handle(&request);
            (session, reply)
        })
        .await?;
        session = back;
        answers.write_all(&reply?).await?;
    }
}
