//! The VM's loopback ports, for the server outside.
//!
//! One connection is one TCP connection: two bytes of port number (big-endian) come in, one byte goes out (0, or an error
//! number of Linux), then bytes flow both ways.

use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;

const MOST_CONNECTIONS: usize = 1024;
const HELLO_DEADLINE: Duration = Duration::from_secs(10);

pub(super) async fn serve(listener: UnixListener) -> io::Result<()> {
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else {
            return Ok(());
        };
        let (stream, _) = super::server::accept(&listener).await?;
        tokio::spawn(async move {
            let _ = splice(stream).await;
            drop(place);
        });
    }
}

async fn splice(mut outside: UnixStream) -> io::Result<()> {
    let hello = async {
        let port = outside.read_u16().await?;
        let inside = dial_loopback(port).await;
        let code = match &inside {
            Ok(_) => 0,
            Err(e) => e
                .raw_os_error()
                .and_then(|n| u8::try_from(n).ok())
                .unwrap_or(111),
        };
        outside.write_u8(code).await?;
        inside
    };
    let mut inside = tokio::time::timeout(HELLO_DEADLINE, hello).await??;
    copy_bidirectional(&mut outside, &mut inside).await?;
    Ok(())
}

/// Programs listen on either loopback, or on both.
async fn dial_loopback(port: u16) -> io::Result<TcpStream> {
    let stream = match TcpStream::connect(("127.0.0.1", port)).await {
        Ok(stream) => stream,
        Err(first) => TcpStream::connect(("::1", port)).await.map_err(|_| first)?,
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The outside half: asks on a fresh connection for a port.
///
/// # Errors
/// Why the agent could not connect.
pub(crate) async fn ask_for_port(stream: &mut UnixStream, port: u16) -> io::Result<()> {
    stream.write_u16(port).await?;
    match stream.read_u8().await? {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code.into())),
    }
}
