//! Byte streams: every read has a bound.

use crate::{Error, contract};

#[cfg(not(target_family = "wasm"))]
pub use crate::testing::contract::{FutureReader, StreamReader, StreamWriter};
/// How a read or a write of a stream went.
pub use wit_bindgen::StreamResult;
#[cfg(target_family = "wasm")]
pub use wit_bindgen::{FutureReader, StreamReader, StreamWriter};

/// How much is read at a time, in bytes.
pub const CHUNK: usize = 64 * 1024;

/// The next bytes of a stream, at most [`CHUNK`]; `None` at its end. `buffer` is reused: give back what
/// the last call returned. Dropping the future may lose bytes that were under way.
pub async fn next(stream: &mut StreamReader<u8>, mut buffer: Vec<u8>) -> Option<Vec<u8>> {
    buffer.clear();
    buffer.reserve(CHUNK);
    loop {
        let (result, bytes) = stream.read(buffer).await;
        match result {
            StreamResult::Complete(_) if bytes.is_empty() => buffer = bytes,
            StreamResult::Complete(_) => return Some(bytes),
            StreamResult::Dropped | StreamResult::Cancelled => return None,
        }
    }
}

/// Reads a stream to its end.
///
/// # Errors
/// `Error::Limit` as soon as there are more than `limit` bytes; the stream is then dropped.
pub async fn read_to_end(mut stream: StreamReader<u8>, limit: usize) -> Result<Vec<u8>, Error> {
    let mut all = Vec::new();
    let mut buffer = Vec::new();
    while let Some(bytes) = next(&mut stream, buffer).await {
        if all.len() + bytes.len() > limit {
            return Err(Error::Limit(format!("more than {limit} bytes")));
        }
        all.extend_from_slice(&bytes);
        buffer = bytes;
    }
    Ok(all)
}

/// A new stream: what is written to the one end is read from the other.
#[must_use]
pub fn pipe() -> (StreamWriter<u8>, StreamReader<u8>) {
    contract::pipe()
}

/// Gives `bytes` to `consume` as a stream and feeds it until the consumer has it all or lets go.
pub async fn feed<T, F: Future<Output = T>>(
    bytes: Vec<u8>,
    consume: impl FnOnce(StreamReader<u8>) -> F,
) -> T {
    let (mut writer, reader) = pipe();
    let write = async move {
        // What a consumer did not take, it says in its own result.
        let _rest = writer.write_all(bytes).await;
    };
    futures::join!(consume(reader), write).0
}
