//! A zip file of a few members, the same bytes each time.
//!
//! The crates for this bring ciphers, clocks and random numbers. What a bundle needs of the format is a header before each member
//! and a list of all at the end (APPNOTE.TXT, 4.3): no time, no comments, nothing of 4 GiB.

use std::io::Write as _;

use flate2::write::DeflateEncoder;
use flate2::{Compression, Crc};

/// 1 January 1980, midnight: the first moment that the format knows.
const TIME: u16 = 0;
const DATE: u16 = 0x21;
/// Version 2.0: deflate.
const VERSION: u16 = 20;
/// Names are UTF-8.
const FLAGS: u16 = 1 << 11;
const DEFLATE: u16 = 8;
/// Made on Unix: the permissions below mean what they say.
const UNIX: u16 = 3 << 8;

/// The format's numbers have 32 bits.
#[derive(Debug, thiserror::Error)]
#[error("it has 4 GiB or more")]
pub(super) struct TooLarge;

/// A zip file that is being made.
#[derive(Debug, Default)]
pub(super) struct Zip {
    bytes: Vec<u8>,
    list: Vec<u8>,
    members: u16,
}

fn small(size: usize) -> Result<u32, TooLarge> {
    u32::try_from(size).map_err(|_| TooLarge)
}

impl Zip {
    /// Adds a file with these permissions.
    pub(super) fn add(&mut self, name: &str, contents: &[u8], mode: u16) -> Result<(), TooLarge> {
        let mut crc = Crc::new();
        crc.update(contents);
        let mut packed = DeflateEncoder::new(Vec::new(), Compression::default());
        // Writing into memory does not fail.
        let packed = packed
            .write_all(contents)
            .and_then(|()| packed.finish())
            .map_err(|_| TooLarge)?;
        let start = small(self.bytes.len())?;

        let mut common = Vec::new();
        for number in [VERSION, FLAGS, DEFLATE, TIME, DATE] {
            common.extend(number.to_le_bytes());
        }
        for number in [crc.sum(), small(packed.len())?, small(contents.len())?] {
            common.extend(number.to_le_bytes());
        }
        let length = u16::try_from(name.len()).map_err(|_| TooLarge)?;
        common.extend(length.to_le_bytes());
        // No extra field.
        common.extend(0_u16.to_le_bytes());

        self.bytes.extend(b"PK\x03\x04");
        self.bytes.extend(&common);
        self.bytes.extend(name.as_bytes());
        self.bytes.extend(&packed);

        self.list.extend(b"PK\x01\x02");
        self.list.extend((UNIX | VERSION).to_le_bytes());
        self.list.extend(&common);
        // No comment, the first disk, no internal attributes.
        self.list.extend([0; 6]);
        let regular: u32 = 0o100_000;
        self.list
            .extend(((regular | u32::from(mode)) << 16).to_le_bytes());
        self.list.extend(start.to_le_bytes());
        self.list.extend(name.as_bytes());
        self.members = self.members.checked_add(1).ok_or(TooLarge)?;
        Ok(())
    }

    /// The whole file.
    pub(super) fn finish(mut self) -> Result<Vec<u8>, TooLarge> {
        let (start, length) = (small(self.bytes.len())?, small(self.list.len())?);
        self.bytes.extend(&self.list);
        self.bytes.extend(b"PK\x05\x06");
        // This disk is the first and the only one.
        self.bytes.extend([0; 4]);
        self.bytes.extend(self.members.to_le_bytes());
        self.bytes.extend(self.members.to_le_bytes());
        self.bytes.extend(length.to_le_bytes());
        self.bytes.extend(start.to_le_bytes());
        // No comment.
        self.bytes.extend(0_u16.to_le_bytes());
        Ok(self.bytes)
    }
}
