//! Answers of an SFTP server: packets of any content, in a session that asks for what the client asks for.

#![cfg_attr(feature = "engine", no_main)]

use std::time::Duration;

use bytes::Bytes;
use russh_sftp::client::RawSftpSession;
use russh_sftp::protocol::Packet;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Longer answers say nothing new.
const MOST: usize = 4096;

fn run(data: &[u8]) {
    let data = data.get(..MOST).unwrap_or(data);
    // A packet by itself.
    let mut bytes = Bytes::copy_from_slice(data);
    let _ = Packet::try_from(&mut bytes);
    // The same as the answers to a client: the first begins the session.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let Ok(runtime) = runtime else { return };
    runtime.block_on(async {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let (mut read, mut write) = tokio::io::split(theirs);
        let server = async {
            // The version, so that what follows is an answer to something.
            let _ = write.write_all(&[0, 0, 0, 5, 2, 0, 0, 0, 3]).await;
            let mut rest = data;
            while let Some((first, more)) = rest.split_first() {
                let (packet, more) = more.split_at(usize::from(*first).min(more.len()));
                let length = u32::try_from(packet.len()).unwrap_or(0).to_be_bytes();
                if write.write_all(&length).await.is_err() || write.write_all(packet).await.is_err()
                {
                    break;
                }
                rest = more;
            }
            let _ = write.shutdown().await;
            let mut asked = Vec::new();
            let _ = read.read_to_end(&mut asked).await;
        };
        let client = async {
            let session = RawSftpSession::new(ours);
            if session.init().await.is_ok() {
                let _ = session.stat("/").await;
                let _ = session.opendir("/").await;
                let _ = session.readdir("h").await;
                let _ = session.read("h", 0, 32).await;
                let _ = session.readlink("/l").await;
                let _ = session.realpath(".").await;
            }
            drop(session);
        };
        let both = futures::future::join(server, client);
        // A peer that is silent is the client's deadline's business.
        let _ = tokio::time::timeout(Duration::from_millis(20), both).await;
    });
}

pi_vers_fuzz::target!(run);
