//! The few requests that this crate itself sends to a running server, over HTTP/1.0: one request, one answer that ends
//! with the connection. No client library is worth that.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const MAX_ANSWER: u64 = 16 << 20;

/// A request.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) key: &'a str,
    pub(crate) body: &'a [u8],
}

/// Sends it; status and body of the answer.
pub(crate) async fn send(
    to: SocketAddr,
    request: &Request<'_>,
    within: Duration,
) -> io::Result<(u16, Vec<u8>)> {
    let exchange = async {
        let mut stream = TcpStream::connect(to).await?;
        let head = format!(
            "{} {} HTTP/1.0\r\nHost: {to}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            request.method,
            request.path,
            request.key,
            request.body.len()
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(request.body).await?;
        let mut answer = Vec::new();
        stream.take(MAX_ANSWER).read_to_end(&mut answer).await?;
        parse(&answer)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP"))
    };
    match tokio::time::timeout(within, exchange).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no answer within {} s", within.as_secs()),
        )),
    }
}

fn parse(answer: &[u8]) -> Option<(u16, Vec<u8>)> {
    let at = answer.windows(4).position(|w| w == b"\r\n\r\n")?;
    let (head, body) = answer.split_at_checked(at)?;
    let head = std::str::from_utf8(head).ok()?;
    let mut words = head.lines().next()?.split(' ');
    if !words.next()?.starts_with("HTTP/1.") {
        return None;
    }
    let status = words.next()?.parse().ok()?;
    Some((status, body.get(4..)?.to_vec()))
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn status_and_body_are_read() {
        assert_eq!(
            parse(b"HTTP/1.0 200 OK\r\na: b\r\n\r\n{}"),
            Some((200, b"{}".to_vec()))
        );
        assert_eq!(
            parse(b"HTTP/1.1 403 Forbidden\r\n\r\n"),
            Some((403, Vec::new()))
        );
        assert_eq!(parse(b"SSH-2.0-x\r\n\r\n"), None);
        assert_eq!(parse(b"HTTP/1.0 200 OK\r\n"), None);
    }

    proptest! {
        #[test]
        fn junk_never_panics(junk in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&junk);
        }
    }
}
