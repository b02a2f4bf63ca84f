//! File attributes, in packets and in the long names of listings.

use super::wire::{Reader, Writer};
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

const SIZE: u32 = 1;
const OWNER: u32 = 2;
const MODE: u32 = 4;
const TIMES: u32 = 8;
const EXTENDED: u32 = 0x8000_0000;

/// What a client sets.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Attributes {
    pub(super) size: Option<u64>,
    pub(super) owner: Option<(u32, u32)>,
    pub(super) mode: Option<u32>,
    /// Access and modification, in seconds.
    pub(super) times: Option<(u32, u32)>,
}

/// What attributes are set on.
#[derive(Clone, Copy)]
pub(super) enum Target<'a> {
    Path(&'a Path),
    Link(&'a Path),
    File(&'a std::fs::File),
}

impl Attributes {
    pub(super) fn read(r: &mut Reader<'_>) -> Option<Self> {
        let flags = r.u32()?;
        let mut a = Self::default();
        if flags & SIZE != 0 {
            a.size = Some(r.u64()?);
        }
        if flags & OWNER != 0 {
            a.owner = Some((r.u32()?, r.u32()?));
        }
        if flags & MODE != 0 {
            a.mode = Some(r.u32()?);
        }
        if flags & TIMES != 0 {
            a.times = Some((r.u32()?, r.u32()?));
        }
        if flags & EXTENDED != 0 {
            for _ in 0..r.u32()? {
                r.bytes()?;
                r.bytes()?;
            }
        }
        Some(a)
    }

    /// Sets them, the times last because the others change them.
    pub(super) fn apply(&self, target: Target<'_>) -> io::Result<()> {
        use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};
        if let Some(size) = self.size {
            match target {
                Target::Path(p) => std::fs::OpenOptions::new()
                    .write(true)
                    .open(p)?
                    .set_len(size)?,
                Target::File(f) => f.set_len(size)?,
                Target::Link(_) => return Err(io::ErrorKind::InvalidInput.into()),
            }
        }
        if let Some((uid, gid)) = self.owner {
            match target {
                Target::Path(p) => std::os::unix::fs::chown(p, Some(uid), Some(gid))?,
                Target::Link(p) => std::os::unix::fs::lchown(p, Some(uid), Some(gid))?,
                Target::File(f) => std::os::unix::fs::fchown(f, Some(uid), Some(gid))?,
            }
        }
        if let Some(mode) = self.mode {
            let mode = std::fs::Permissions::from_mode(mode & 0o7777);
            match target {
                Target::Path(p) => std::fs::set_permissions(p, mode)?,
                Target::File(f) => f.set_permissions(mode)?,
                Target::Link(p) if p.is_symlink() => {} // Linux has no modes on links
                Target::Link(p) => std::fs::set_permissions(p, mode)?,
            }
        }
        if let Some((access, modification)) = self.times {
            let at = |s: u32| Timespec {
                tv_sec: s.into(),
                tv_nsec: 0,
            };
            let times = Timestamps {
                last_access: at(access),
                last_modification: at(modification),
            };
            match target {
                Target::Path(p) => rustix::fs::utimensat(CWD, p, &times, AtFlags::empty())?,
                Target::Link(p) => {
                    rustix::fs::utimensat(CWD, p, &times, AtFlags::SYMLINK_NOFOLLOW)?;
                }
                Target::File(f) => rustix::fs::futimens(f, &times)?,
            }
        }
        Ok(())
    }
}

/// SFTP counts seconds in 32 bits without a sign.
fn seconds(s: i64) -> u32 {
    u32::try_from(s.max(0)).unwrap_or(u32::MAX)
}

pub(super) fn write(w: &mut Writer, m: &Metadata) {
    w.u32(SIZE | OWNER | MODE | TIMES)
        .u64(m.size())
        .u32(m.uid())
        .u32(m.gid())
        .u32(m.mode())
        .u32(seconds(m.atime()))
        .u32(seconds(m.mtime()));
}

pub(super) fn write_none(w: &mut Writer) {
    w.u32(0);
}

/// A line like that of `ls -l`; people read it in `sftp`.
pub(super) fn long_name(name: &[u8], m: &Metadata) -> Vec<u8> {
    let time = jiff::Timestamp::from_second(m.mtime())
        .map(|t| t.strftime("%b %e %Y %H:%M").to_string())
        .unwrap_or_default();
    let mut line = format!(
        "{} {:4} {:<8} {:<8} {:>10} {time} ",
        mode_text(m.mode()),
        m.nlink(),
        m.uid(),
        m.gid(),
        m.size()
    )
    .into_bytes();
    line.extend_from_slice(name);
    line
}

fn mode_text(mode: u32) -> String {
    let kind = match mode & 0o170_000 {
        0o040_000 => 'd',
        0o120_000 => 'l',
        0o020_000 => 'c',
        0o060_000 => 'b',
        0o010_000 => 'p',
        0o140_000 => 's',
        _ => '-',
    };
    let mut text = String::from(kind);
    for (shift, special, set, unset) in [
        (6, 0o4000, 's', 'S'),
        (3, 0o2000, 's', 'S'),
        (0, 0o1000, 't', 'T'),
    ] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (true, true) => set,
            (true, false) => unset,
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn modes_read_like_ls() {
        assert_eq!(mode_text(0o040_755), "drwxr-xr-x");
        assert_eq!(mode_text(0o104_744), "-rwsr--r--");
        assert_eq!(mode_text(0o041_776), "drwxrwxrwT");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_fall(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut r = Reader(&bytes);
            let _ = Attributes::read(&mut r);
            prop_assert!(r.0.len() <= bytes.len());
        }
    }
}
