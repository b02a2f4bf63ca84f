//! What a snapshot saw of the live files, for the next one.
//!
//! Form: the line `vers-manifest 1`, then per file its inode, size, change time (seconds, nanoseconds) in decimal, a
//! space, its path, and a zero byte. Paths are bytes. A manifest that cannot be read costs only time: everything is copied.

use std::collections::HashMap;
use std::fs::Metadata;
use std::io::Write;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const HEADER: &[u8] = b"vers-manifest 1\n";

/// A file changed so shortly before the snapshot may change again unnoticed.
pub(super) const RACY: Duration = Duration::from_secs(1);

/// The state of a file by which a change is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) inode: u64,
    pub(super) size: u64,
    pub(super) changed: (i64, i64),
}

impl Seen {
    pub(super) fn of(m: &Metadata) -> Self {
        Self {
            inode: m.ino(),
            size: m.size(),
            changed: (m.ctime(), m.ctime_nsec()),
        }
    }

    /// Whether a later change would surely show, for a snapshot that started at `start`.
    pub(super) fn settled(&self, start: SystemTime) -> bool {
        let limit = start
            .checked_sub(RACY)
            .and_then(|t| t.duration_since(UNIX_EPOCH).ok());
        limit.is_some_and(|limit| {
            let limit = (
                i64::try_from(limit.as_secs()).unwrap_or(0),
                i64::from(limit.subsec_nanos()),
            );
            self.changed < limit
        })
    }
}

/// The settled files of a snapshot.
pub(super) type Manifest = HashMap<PathBuf, Seen>;

/// `None` when it is no manifest.
pub(super) fn parse(bytes: &[u8]) -> Option<Manifest> {
    let mut found = Manifest::new();
    let mut rest = bytes.strip_prefix(HEADER)?;
    while !rest.is_empty() {
        let end = rest.iter().position(|b| *b == 0)?;
        let (line, after) = rest.split_at_checked(end)?;
        rest = after.get(1..)?;
        let mut fields = line.splitn(5, |b| *b == b' ');
        let mut number =
            || -> Option<i64> { std::str::from_utf8(fields.next()?).ok()?.parse().ok() };
        let inode = u64::try_from(number()?).ok()?;
        let size = u64::try_from(number()?).ok()?;
        let changed = (number()?, number()?);
        let path = Path::new(std::ffi::OsStr::from_bytes(fields.next()?)).to_path_buf();
        let seen = Seen {
            inode,
            size,
            changed,
        };
        found.insert(path, seen);
    }
    Some(found)
}

/// Writes in the order of the calls.
pub(super) struct Writer<W>(W);

impl<W: Write> Writer<W> {
    pub(super) fn new(mut to: W) -> std::io::Result<Self> {
        to.write_all(HEADER)?;
        Ok(Self(to))
    }

    pub(super) fn add(&mut self, path: &Path, seen: &Seen) -> std::io::Result<()> {
        let Seen {
            inode,
            size,
            changed,
        } = seen;
        write!(self.0, "{inode} {size} {} {} ", changed.0, changed.1)?;
        self.0.write_all(path.as_os_str().as_bytes())?;
        self.0.write_all(b"\0")
    }

    pub(super) fn finish(mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use std::ffi::OsStr;

    proptest! {
        #[test]
        fn what_is_written_is_read(entries in proptest::collection::hash_map(
            proptest::collection::vec(1u8.., 1..20),
            (0..=i64::MAX as u64, 0..=i64::MAX as u64, any::<i64>(), 0..1_000_000_000i64), 0..8)) {
            let mut out = Vec::new();
            let mut w = Writer::new(&mut out).unwrap();
            let mut want = Manifest::new();
            for (path, (inode, size, s, n)) in entries {
                let seen = Seen { inode, size, changed: (s, n) };
                let path = Path::new(OsStr::from_bytes(&path)).to_path_buf();
                w.add(&path, &seen).unwrap();
                want.insert(path, seen);
            }
            w.finish().unwrap();
            prop_assert_eq!(parse(&out), Some(want));
        }

        #[test]
        fn foreign_bytes_are_refused_or_read(tail in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse(&tail);
            let mut bytes = HEADER.to_vec();
            bytes.extend(tail);
            let _ = parse(&bytes);
        }
    }

    #[test]
    fn a_file_changed_just_now_is_not_settled() {
        let start = UNIX_EPOCH + Duration::from_secs(1000);
        let at = |s, n| Seen {
            inode: 1,
            size: 1,
            changed: (s, n),
        };
        assert!(at(998, 999_999_999).settled(start));
        assert!(!at(999, 0).settled(start));
        assert!(!at(1000, 0).settled(start));
        assert!(!at(5000, 0).settled(start), "a clock that went back");
    }
}
