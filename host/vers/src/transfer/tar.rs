//! As much of tar as copies need, both ways.
//!
//! Written: GNU's format, which GNU tar, busybox and bsdtar read. Long names in `L` and `K` entries (any bytes), large
//! numbers in base 256, holes as GNU's old sparse entries, nanoseconds in a pax entry before the file; the last two only
//! for a reader that says that it is GNU tar.
//!
//! Read: what GNU tar writes for a list of names that we gave it (`--format=gnu`, no directories, no hard links). Everything
//! else is refused. The names in the archive decide nothing: they only have to be the ones that were asked for, in that order.

use std::collections::VecDeque;

use bytes::{BufMut as _, Bytes, BytesMut};
use futures::{Stream, StreamExt as _};
use pi_vers_system::files::tree::{Stretch, Time};

pub(super) const BLOCK: usize = 512;
/// A name in a header.
const NAME: usize = 100;
/// A name, or a link's text, in an entry of its own.
const MOST_NAME: u64 = 64 << 10;
const MOST_STRETCHES: usize = 1_000_000;
/// Sparse stretches in the header, and in each block that goes on with them.
const IN_HEADER: usize = 4;
const IN_BLOCK: usize = 21;

/// What to write about an entry.
pub(super) struct Header<'a> {
    /// A directory's ends in `/`.
    pub(super) path: &'a [u8],
    pub(super) kind: u8,
    pub(super) link: &'a [u8],
    pub(super) mode: u32,
    pub(super) modified: Time,
    pub(super) size: u64,
    /// Of a file with holes.
    pub(super) stretches: Option<&'a [Stretch]>,
}

pub(super) const FILE: u8 = b'0';
pub(super) const LINK: u8 = b'2';
pub(super) const DIRECTORY: u8 = b'5';
const SPARSE: u8 = b'S';

/// Appends the blocks before an entry's data. `gnu`: whoever reads it is GNU tar.
pub(super) fn put_header(out: &mut BytesMut, header: &Header<'_>, gnu: bool) {
    if gnu && header.modified.nanos != 0 {
        put_times(out, header.modified);
    }
    if header.link.len() > NAME {
        put_long(out, b'K', header.link);
    }
    if header.path.len() > NAME {
        put_long(out, b'L', header.path);
    }
    let mut block = [0; BLOCK];
    set(
        &mut block,
        0,
        header.path.get(..NAME).unwrap_or(header.path),
    );
    set_number(&mut block, 100, 8, u64::from(header.mode & 0o7777));
    set_number(&mut block, 108, 8, 0);
    set_number(&mut block, 116, 8, 0);
    set_time(&mut block, header.modified.seconds);
    set(
        &mut block,
        157,
        header.link.get(..NAME).unwrap_or(header.link),
    );
    let mut more: &[Stretch] = &[];
    let (kind, stored) = match header.stretches {
        None => (header.kind, header.size),
        Some(stretches) => {
            let (first, rest) = stretches.split_at(stretches.len().min(IN_HEADER));
            for (place, stretch) in (386..).step_by(24).zip(first) {
                set_stretch(&mut block, place, *stretch);
            }
            more = rest;
            set(&mut block, 482, &[u8::from(!rest.is_empty())]);
            set_number(&mut block, 483, 12, header.size);
            (SPARSE, stretches.iter().map(|(_, length)| length).sum())
        }
    };
    set_number(&mut block, 124, 12, stored);
    finish(out, block, kind);
    let mut chunks = more.chunks(IN_BLOCK).peekable();
    while let Some(chunk) = chunks.next() {
        let mut block = [0; BLOCK];
        for (place, stretch) in (0..).step_by(24).zip(chunk) {
            set_stretch(&mut block, place, *stretch);
        }
        set(&mut block, 504, &[u8::from(chunks.peek().is_some())]);
        out.put_slice(&block);
    }
}

/// Fills the last block of an entry's data.
pub(super) fn put_padding(out: &mut BytesMut, written: u64) {
    let short = usize::try_from(written % BLOCK as u64).unwrap_or(0);
    if short > 0 {
        out.put_bytes(0, BLOCK - short);
    }
}

/// The end of the archive.
pub(super) fn put_end(out: &mut BytesMut) {
    out.put_bytes(0, 2 * BLOCK);
}

fn put_long(out: &mut BytesMut, kind: u8, text: &[u8]) {
    let mut block = [0; BLOCK];
    set(&mut block, 0, b"././@LongLink");
    set_number(&mut block, 100, 8, 0o644);
    set_number(&mut block, 108, 8, 0);
    set_number(&mut block, 116, 8, 0);
    set_number(&mut block, 124, 12, text.len() as u64 + 1);
    set_time(&mut block, 0);
    finish(out, block, kind);
    out.put_slice(text);
    out.put_u8(0);
    put_padding(out, text.len() as u64 + 1);
}

/// A time as a decimal number, as pax and `touch` read it.
pub(super) fn decimal(time: Time) -> String {
    let (seconds, nanos) = (time.seconds, time.nanos);
    if seconds < 0 && nanos > 0 {
        // The fraction of a negative number counts the other way.
        let whole = seconds.saturating_add(1).unsigned_abs();
        return format!("-{whole}.{:09}", 1_000_000_000 - nanos);
    }
    format!("{seconds}.{nanos:09}")
}

fn put_times(out: &mut BytesMut, modified: Time) {
    let rest = format!(" mtime={}\n", decimal(modified));
    let mut length = rest.len() + 1;
    while length != rest.len() + length.to_string().len() {
        length = rest.len() + length.to_string().len();
    }
    let record = format!("{length}{rest}");
    let mut block = [0; BLOCK];
    set(&mut block, 0, b"./PaxHeaders/x");
    set_number(&mut block, 100, 8, 0o644);
    set_number(&mut block, 108, 8, 0);
    set_number(&mut block, 116, 8, 0);
    set_number(&mut block, 124, 12, record.len() as u64);
    set_time(&mut block, 0);
    finish(out, block, b'x');
    out.put_slice(record.as_bytes());
    put_padding(out, record.len() as u64);
}

fn finish(out: &mut BytesMut, mut block: [u8; BLOCK], kind: u8) {
    set(&mut block, 156, &[kind]);
    set(&mut block, 257, b"ustar  \0");
    set(&mut block, 148, b"        ");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    set(&mut block, 148, format!("{sum:06o}\0 ").as_bytes());
    out.put_slice(&block);
}

fn set(block: &mut [u8; BLOCK], at: usize, bytes: &[u8]) {
    if let Some(place) = block.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

fn set_number(block: &mut [u8; BLOCK], at: usize, width: usize, value: u64) {
    let octal = format!("{value:0digits$o}\0", digits = width - 1);
    if octal.len() == width {
        return set(block, at, octal.as_bytes());
    }
    set_binary(block, at, width, i128::from(value));
}

fn set_binary(block: &mut [u8; BLOCK], at: usize, width: usize, value: i128) {
    let bytes = value.to_be_bytes();
    let mut field = bytes.get(bytes.len() - width..).unwrap_or(&bytes).to_vec();
    if let Some(first) = field.first_mut() {
        *first |= 0x80;
    }
    set(block, at, &field);
}

fn set_time(block: &mut [u8; BLOCK], seconds: i64) {
    match u64::try_from(seconds) {
        Ok(seconds) => set_number(block, 136, 12, seconds),
        Err(_) => set_binary(block, 136, 12, i128::from(seconds)),
    }
}

fn set_stretch(block: &mut [u8; BLOCK], at: usize, (offset, length): Stretch) {
    set_number(block, at, 12, offset);
    set_number(block, at + 12, 12, length);
}

/// Why an archive is not read on.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Bad {
    /// It ends in the middle.
    #[error("it breaks off")]
    Short,
    /// It is not what was asked for.
    #[error("{0}")]
    Wrong(String),
}

fn wrong(what: impl Into<String>) -> Bad {
    Bad::Wrong(what.into())
}

/// A file's header in an archive. What it holds comes next.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) path: Vec<u8>,
    /// `None`: it is something else than a file by now, and has no data.
    pub(super) file: bool,
    pub(super) size: u64,
    pub(super) mode: u32,
    pub(super) seconds: i64,
    pub(super) stretches: Vec<Stretch>,
}

impl Found {
    pub(super) fn stored(&self) -> u64 {
        self.stretches.iter().map(|(_, length)| length).sum()
    }
}

/// Reads an archive from a stream of bytes.
pub(super) struct Reader<S> {
    source: S,
    chunks: VecDeque<Bytes>,
    ready: usize,
    /// Bytes taken so far.
    pub(super) taken: u64,
}

impl<S: Stream<Item = Bytes> + Unpin> Reader<S> {
    pub(super) fn new(source: S) -> Self {
        Self {
            source,
            chunks: VecDeque::new(),
            ready: 0,
            taken: 0,
        }
    }

    /// Whether nothing has come at all; waits for something.
    async fn is_over(&mut self) -> bool {
        while self.ready == 0 {
            match self.source.next().await {
                Some(chunk) => self.push(chunk),
                None => return true,
            }
        }
        false
    }

    fn push(&mut self, chunk: Bytes) {
        self.ready += chunk.len();
        self.chunks.push_back(chunk);
    }

    /// The next bytes, at most this many; `None` at the end.
    pub(super) async fn some(&mut self, most: u64) -> Option<Bytes> {
        if self.is_over().await {
            return None;
        }
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let chunk = loop {
            let chunk = self.chunks.front_mut()?;
            if !chunk.is_empty() {
                break chunk;
            }
            self.chunks.pop_front();
        };
        let part = chunk.split_to(chunk.len().min(most));
        if chunk.is_empty() {
            self.chunks.pop_front();
        }
        self.ready -= part.len();
        self.taken += part.len() as u64;
        Some(part)
    }

    /// Exactly this many bytes.
    pub(super) async fn exactly(&mut self, count: usize) -> Result<Bytes, Bad> {
        let first = match self.some(count as u64).await {
            Some(first) => first,
            None if count == 0 => return Ok(Bytes::new()),
            None => return Err(Bad::Short),
        };
        if first.len() == count {
            return Ok(first);
        }
        let mut all = BytesMut::with_capacity(count);
        all.put_slice(&first);
        while all.len() < count {
            let part = self
                .some((count - all.len()) as u64)
                .await
                .ok_or(Bad::Short)?;
            all.put_slice(&part);
        }
        Ok(all.freeze())
    }

    /// A file's data, and what fills its last block.
    pub(super) async fn data(&mut self, length: u64) -> Result<Bytes, Bad> {
        let length = usize::try_from(length).map_err(|_| wrong("a file is too long"))?;
        let data = self.exactly(length).await?;
        self.padding(length as u64).await?;
        Ok(data)
    }

    async fn padding(&mut self, length: u64) -> Result<(), Bad> {
        let short = usize::try_from(length % BLOCK as u64).unwrap_or(0);
        if short > 0 {
            self.exactly(BLOCK - short).await?;
        }
        Ok(())
    }

    /// The next file; `None` at the end of the archive.
    pub(super) async fn next(&mut self) -> Result<Option<Found>, Bad> {
        let mut long_path = None;
        loop {
            if self.is_over().await {
                return Err(Bad::Short);
            }
            let block = self.exactly(BLOCK).await?;
            if block.iter().all(|byte| *byte == 0) {
                return Ok(None);
            }
            check_sum(&block)?;
            let kind = block.get(156).copied().unwrap_or(0);
            let stored = number(&block, 124, 12)?;
            match kind {
                b'L' | b'K' => {
                    if stored > MOST_NAME {
                        return Err(wrong("a name is too long"));
                    }
                    let text = self.data(stored).await?;
                    if kind == b'L' {
                        long_path = Some(until_nul(&text).to_vec());
                    }
                }
                b'0' | 0 | SPARSE | b'1'..=b'7' => {
                    let path = long_path
                        .take()
                        .unwrap_or_else(|| until_nul(field(&block, 0, NAME)).to_vec());
                    let file = matches!(kind, b'0' | 0 | SPARSE | b'7');
                    let mode = u32::try_from(number(&block, 100, 8)? & 0o7777).unwrap_or(0);
                    let seconds = time(&block)?;
                    let (size, stretches) = match kind {
                        SPARSE => self.sparse(&block, stored).await?,
                        _ if !file || stored == 0 => (0, Vec::new()),
                        _ => (stored, vec![(0, stored)]),
                    };
                    return Ok(Some(Found {
                        path,
                        file,
                        size,
                        mode,
                        seconds,
                        stretches,
                    }));
                }
                other => return Err(wrong(format!("an entry of kind {:?}", char::from(other)))),
            }
        }
    }

    async fn sparse(&mut self, block: &[u8], stored: u64) -> Result<(u64, Vec<Stretch>), Bad> {
        let mut stretches = Vec::new();
        let mut more = take_stretches(block, 386, IN_HEADER, &mut stretches)?
            && block.get(482).is_some_and(|more| *more != 0);
        while more {
            let block = self.exactly(BLOCK).await?;
            more = take_stretches(&block, 0, IN_BLOCK, &mut stretches)?
                && block.get(504).is_some_and(|more| *more != 0);
            if stretches.len() > MOST_STRETCHES {
                return Err(wrong("a file has too many holes"));
            }
        }
        let size = number(block, 483, 12)?;
        let mut at = 0u64;
        for (offset, length) in &stretches {
            if *offset < at {
                return Err(wrong("the stretches of a file overlap"));
            }
            at = offset
                .checked_add(*length)
                .ok_or_else(|| wrong("a file is too long"))?;
        }
        if at > size || stretches.iter().map(|(_, length)| length).sum::<u64>() != stored {
            return Err(wrong("the stretches of a file do not fit its size"));
        }
        // The last one is empty and says where the file ends.
        stretches.retain(|(_, length)| *length > 0);
        Ok((size, stretches))
    }
}

/// `false`: this was the last one.
fn take_stretches(
    block: &[u8],
    at: usize,
    count: usize,
    to: &mut Vec<Stretch>,
) -> Result<bool, Bad> {
    for place in (at..).step_by(24).take(count) {
        if block.get(place).is_none_or(|byte| *byte == 0) {
            return Ok(false);
        }
        to.push((number(block, place, 12)?, number(block, place + 12, 12)?));
    }
    Ok(true)
}

fn field(block: &[u8], at: usize, width: usize) -> &[u8] {
    block.get(at..at + width).unwrap_or_default()
}

fn until_nul(text: &[u8]) -> &[u8] {
    text.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn check_sum(block: &[u8]) -> Result<(), Bad> {
    let sum: u64 = block
        .iter()
        .enumerate()
        .map(|(at, byte)| {
            if (148..156).contains(&at) {
                32
            } else {
                u64::from(*byte)
            }
        })
        .sum();
    if number(block, 148, 8)? == sum {
        return Ok(());
    }
    Err(wrong("it is no tar archive"))
}

fn signed(block: &[u8], at: usize, width: usize) -> Result<i128, Bad> {
    let field = field(block, at, width);
    let malformed = || wrong("it is no tar archive");
    match field.first() {
        Some(first @ 0x80..) => {
            // Base 256, in two's complement of one bit less.
            let start = i128::from(first & 0x3f) - i128::from(first & 0x40);
            field.iter().skip(1).try_fold(start, |value, byte| {
                value
                    .checked_mul(256)
                    .map(|value| value + i128::from(*byte))
                    .ok_or_else(malformed)
            })
        }
        _ => {
            let text = std::str::from_utf8(field).map_err(|_| malformed())?;
            match text.trim_matches(['\0', ' ']) {
                "" => Ok(0),
                octal => i128::from_str_radix(octal, 8).map_err(|_| malformed()),
            }
        }
    }
}

fn number(block: &[u8], at: usize, width: usize) -> Result<u64, Bad> {
    let value = signed(block, at, width)?;
    u64::try_from(value)
        .ok()
        .filter(|value| *value < 1 << 62)
        .ok_or_else(|| wrong("a number is too large"))
}

fn time(block: &[u8]) -> Result<i64, Bad> {
    i64::try_from(signed(block, 136, 12)?).map_err(|_| wrong("a time is too large"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    fn reader(data: Vec<u8>, size: usize) -> Reader<impl Stream<Item = Bytes> + Unpin> {
        let parts: Vec<_> = data
            .chunks(size.max(1))
            .map(Bytes::copy_from_slice)
            .collect();
        Reader::new(futures::stream::iter(parts))
    }

    fn archive(
        path: &[u8],
        modified: Time,
        size: u64,
        stretches: Option<&[Stretch]>,
        data: &[u8],
    ) -> Vec<u8> {
        let mut out = BytesMut::new();
        let header = Header {
            path,
            kind: FILE,
            link: b"",
            mode: 0o751,
            modified,
            size,
            stretches,
        };
        put_header(&mut out, &header, false);
        out.put_slice(data);
        put_padding(&mut out, data.len() as u64);
        put_end(&mut out);
        out.to_vec()
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            path in prop::collection::vec(1u8..=255, 1..300),
            seconds in prop::num::i64::ANY.prop_map(|s| s >> 3),
            gaps in prop::collection::vec((0u64..1 << 40, 1u64..50), 0..60),
            chunk in 1usize..2000,
        ) {
            let mut at = 0;
            let stretches: Vec<_> = gaps.into_iter().map(|(gap, length)| { let start = at + gap; at = start + length; (start, length) }).collect();
            let stored: u64 = stretches.iter().map(|s| s.1).sum();
            let data: Vec<u8> = (0..stored).map(|i| i as u8).collect();
            let modified = Time { seconds, nanos: 0 };
            let bytes = archive(&path, modified, at + 7, Some(&stretches), &data);
            futures::executor::block_on(async {
                let mut reader = reader(bytes, chunk);
                let found = reader.next().await.unwrap().unwrap();
                assert_eq!((&found.path, found.size, found.mode, found.seconds), (&path, at + 7, 0o751, seconds));
                assert_eq!(&found.stretches, &stretches);
                assert_eq!(&reader.data(found.stored()).await.unwrap()[..], &data);
                assert_eq!(reader.next().await, Ok(None));
            });
        }

        #[test]
        fn foreign_bytes_are_refused_and_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..3000), at in 0usize..1024, byte: u8) {
            futures::executor::block_on(async {
                let mut noise = reader(std::mem::take(&mut bytes), 700);
                let _ = noise.next().await;
                let mut damaged = archive(b"name", Time::default(), 100, Some(&[(3, 4), (50, 3)]), b"1234567");
                damaged[at] = byte;
                let mut damaged = reader(damaged, 512);
                while let Ok(Some(found)) = damaged.next().await {
                    if found.stored() > 1 << 20 || damaged.data(found.stored()).await.is_err() { break; }
                }
            });
        }
    }

    #[test]
    fn an_archive_that_breaks_off_is_no_archive() {
        let whole = archive(b"name", Time::default(), 5, None, b"12345");
        for cut in [0, 100, 512, 514, 1024] {
            let read = futures::executor::block_on(async {
                let mut reader = reader(whole[..cut].to_vec(), 100);
                while let Some(found) = reader.next().await? {
                    reader.data(found.stored()).await?;
                }
                Ok(())
            });
            assert_eq!(read, Err(Bad::Short), "{cut}");
        }
    }
}
