//! Lines of bounded length from a byte stream that is not trusted to send any.
//!
//! A peer could send a line without end: it is refused at the limit, with no more than that held. Whoever asks for the next line after
//! that gets the one behind it, as the rest of the long one is passed over. What comes at the end of
//! the stream without a line feed is a line that its sender did not finish, and is none.

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The longest line of the protocol, without its line feed.
pub(crate) const LONGEST: usize = 16 << 20;

/// How much is asked of the stream at once.
const PIECE: usize = 64 << 10;

/// Why there are no more lines.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    /// The limit.
    #[error("a line is longer than {} MiB", .0 >> 20)]
    TooLong(usize),
    /// The stream.
    #[error("it can't be read: {0}")]
    Stream(#[from] std::io::Error),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Lines<R> {
    stream: R,
    longest: usize,
    held: BytesMut,
    /// So much of what is held has no line feed.
    looked: usize,
    /// The rest of a line that was refused is still to come.
    skipping: bool,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(crate) fn new(stream: R, longest: usize) -> Self {
        Self {
            stream,
            longest,
            held: BytesMut::new(),
            looked: 0,
            skipping: false,
        }
    }

    /// The next line without its line feed; `None` at the end of the stream. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Option<BytesMut>, Broken> {
        loop {
            let fresh = self.held.get(self.looked..).unwrap_or_default();
            if let Some(at) = fresh.iter().position(|byte| *byte == b'\n') {
                let line = self.held.split_to(self.looked + at);
                self.held.advance(1);
                self.looked = 0;
                if std::mem::take(&mut self.skipping) {
                    continue;
                }
                if line.len() > self.longest {
                    return Err(Broken::TooLong(self.longest));
                }
                return Ok(Some(line));
            }
            self.looked = self.held.len();
            if self.skipping || self.looked > self.longest {
                self.held.clear();
                self.looked = 0;
                if !std::mem::replace(&mut self.skipping, true) {
                    return Err(Broken::TooLong(self.longest));
                }
            }
            self.held.reserve(PIECE);
            if self.stream.read_buf(&mut self.held).await? == 0 {
                return Ok(None);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use proptest::prelude::*;
    use std::io::Cursor;

    /// Hands out pieces of these sizes, again and again.
    struct Pieces {
        bytes: Cursor<Vec<u8>>,
        sizes: Vec<usize>,
        turn: usize,
    }

    impl AsyncRead for Pieces {
        fn poll_read(
            mut self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
            buf: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            let size = self.sizes[self.turn % self.sizes.len()];
            self.turn += 1;
            let mut piece = vec![0; size.min(buf.remaining())];
            let mut small = tokio::io::ReadBuf::new(&mut piece);
            let read = std::pin::Pin::new(&mut self.bytes).poll_read(cx, &mut small);
            buf.put_slice(small.filled());
            read
        }
    }

    async fn all(bytes: &[u8], sizes: Vec<usize>, longest: usize) -> (Vec<Vec<u8>>, bool) {
        let stream = Pieces {
            bytes: Cursor::new(bytes.to_vec()),
            sizes,
            turn: 0,
        };
        let mut lines = Lines::new(stream, longest);
        let mut found = Vec::new();
        loop {
            match lines.next().await {
                Ok(Some(line)) => found.push(line.to_vec()),
                Ok(None) => return (found, true),
                Err(_) => return (found, false),
            }
        }
    }

    #[tokio::test]
    async fn a_line_of_the_limit_is_taken_and_one_byte_more_is_not() {
        let (found, whole) = all(b"1234\n\n1234\n", vec![3], 4).await;
        assert_eq!(
            (found, whole),
            (vec![b"1234".to_vec(), Vec::new(), b"1234".to_vec()], true)
        );
        let (found, whole) = all(b"12\n12345\n1\n", vec![64], 4).await;
        assert_eq!((found, whole), (vec![b"12".to_vec()], false));
        // Without a line feed in sight it is refused all the same.
        assert_eq!(all(&[b'x'; 100], vec![7], 4).await, (vec![], false));
    }

    #[tokio::test]
    async fn behind_a_line_that_was_too_long_comes_the_next_one() {
        for size in [1, 3, 64] {
            let stream = Pieces {
                bytes: Cursor::new(b"12\n1234567890\n34\n12345\n56\n".to_vec()),
                sizes: vec![size],
                turn: 0,
            };
            let mut lines = Lines::new(stream, 4);
            let mut found = Vec::new();
            loop {
                match lines.next().await {
                    Ok(Some(line)) => found.push(String::from_utf8(line.to_vec()).unwrap()),
                    Ok(None) => break,
                    Err(_) => found.push("!".into()),
                }
            }
            assert_eq!(found, ["12", "!", "34", "!", "56"]);
        }
    }

    #[tokio::test]
    async fn an_unfinished_line_is_none() {
        assert_eq!(
            all(b"{}\n{\"t\":", vec![64], 64).await,
            (vec![b"{}".to_vec()], true)
        );
    }

    proptest! {
        #[test]
        fn lines_are_the_same_however_the_bytes_come(
            bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..400),
            sizes in proptest::collection::vec(1_usize..50, 1..5),
            longest in 0_usize..64,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (found, whole) = runtime.block_on(all(&bytes, sizes, longest));
            let mut expected: Vec<Vec<u8>> = bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
            let tail = expected.pop().unwrap_or_default();
            let fit = expected.iter().take_while(|line| line.len() <= longest).count();
            prop_assert_eq!(whole, fit == expected.len() && tail.len() <= longest);
            expected.truncate(fit);
            prop_assert_eq!(found, expected);
        }
    }
}
