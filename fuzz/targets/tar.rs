//! Archives that a VM sends: read to their end or to the first thing that is wrong with them.

#![cfg_attr(feature = "engine", no_main)]

#[allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "they are used in the client"
)]
#[path = "."]
mod transfer {
    #[path = "../../host/vers/src/transfer/tar.rs"]
    mod tar;

    /// Reads the files of an archive that comes in pieces; how many bytes of it were taken.
    pub(crate) async fn read(data: &[u8], step: usize) -> u64 {
        let chunks = data.chunks(step).map(bytes::Bytes::copy_from_slice);
        let mut reader = tar::Reader::new(futures::stream::iter(chunks.collect::<Vec<_>>()));
        while let Ok(Some(found)) = reader.next().await {
            let mut left = found.stored();
            while left > 0 {
                match reader.some(left).await {
                    Some(part) => left -= part.len() as u64,
                    None => return reader.taken,
                }
            }
            let short = found.stored() % 512;
            if short > 0 && reader.exactly(512 - short as usize).await.is_err() {
                break;
            }
        }
        reader.taken
    }
}

/// Makes the sums of headers right: an engine does not find them by chance.
fn with_sums(data: &[u8]) -> Vec<u8> {
    let mut archive = data.to_vec();
    for block in archive.chunks_exact_mut(512) {
        if let Some(field) = block.get_mut(148..156) {
            field.fill(b' ');
        }
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        let text = format!("{sum:06o}\0 ");
        if let Some(field) = block.get_mut(148..156) {
            field.copy_from_slice(text.as_bytes());
        }
    }
    archive
}

fn run(data: &[u8]) {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let mut read = |archive: &[u8], step| {
        let reading = std::pin::pin!(transfer::read(archive, step));
        match reading.poll(&mut context) {
            std::task::Poll::Ready(taken) => taken,
            // A stream that is there never waits.
            std::task::Poll::Pending => u64::MAX,
        }
    };
    for archive in [data.to_vec(), with_sums(data)] {
        let taken = read(&archive, 1 << 20);
        assert!(taken <= archive.len() as u64);
        assert_eq!(taken, read(&archive, 100), "the pieces make no difference");
    }
}

pi_vers_fuzz::target!(run);
