//! A source on a VM: a list by GNU find, small files in archives by GNU tar, big ones as a stream.
//!
//! A VM that lacks one of the two is read by shell scripts that need no more than what busybox has (`plain_list.sh`,
//! `plain_pack.sh`): slower, a process or two for each file, and holes travel as zeros. Else nothing is different; in
//! particular, what comes is checked against the list in the same way. Why not by SFTP: its client here cannot
//! hold names that are no UTF-8.

use bytes::{Bytes, BytesMut};
use pi_vers_system::files::tree::{Stretch, Time};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;

use super::super::entry::{Content, Entry, Head, Item, Kind, Listing, Piece, parts, path_shown};
use super::super::exclude::Exclude;
use super::super::local::split;
use super::super::tar::{Bad, Found, Reader};
use super::super::{MOST_ENTRIES, MOST_PATH, SMALL, changed, too_deep, too_many};
use super::{Streams, Vm, argument, for_file, octal};
use crate::error::{self, Error, Result, shown};
use crate::ssh::Purpose;

/// One field of the list.
const MOST_FIELD: usize = 8192;
/// What the plain ways share, before each of them.
macro_rules! plain {
    ($script:literal) => {
        concat!(include_str!("each.sh"), include_str!($script))
    };
}
/// Names are sent in pieces of this size.
const NAMES: usize = 64 << 10;

pub(in super::super) struct VmSource {
    vm: Vm,
    /// It lacks GNU's find or tar.
    plain: bool,
    /// As given.
    shown: String,
    /// The directory that paths start in.
    directory: String,
    /// Of a source that is a file: its name there.
    file: Option<Vec<u8>>,
}

impl VmSource {
    /// Lists the source.
    pub(in super::super) async fn open(
        vm: Vm,
        path: &str,
        exclude: &Exclude,
    ) -> Result<(Self, Listing)> {
        let at = argument(path)?;
        let what = format!("list {:?}", shown(path));
        let run = |script| {
            let work = |streams| list(streams, exclude);
            vm.run(Purpose::Commands, script, vec![at.clone()], false, work)
        };
        let (mut listing, mut ended) = run(include_str!("list.sh")).await?;
        let plain = ended.lacks_a_program();
        if plain {
            (listing, ended) = run(plain!("plain_list.sh")).await?;
        }
        if let Err(error) = vm.check(&what, &ended)
            && (listing.entries.is_empty() || complaint(&ended.complaints).is_some())
        {
            if ended.lacks_a_program() {
                return Err(Error::other(format!(
                    "copy: {what} on VM {}: it has neither GNU find and GNU tar nor a stat that knows -c; install findutils and tar there",
                    vm.id
                )));
            }
            return Err(error);
        }
        if listing.entries.is_empty() {
            let line = format!(
                "copy: {:?} on VM {} is a device, a pipe or a socket",
                shown(path),
                vm.id
            );
            return Err(Error::invalid(line));
        }
        let (directory, file) = if listing.is_directory() {
            (at, None)
        } else {
            let (above, name) = at.rsplit_once('/').unwrap_or((".", &at));
            let above = if above.is_empty() { "/" } else { above };
            (above.to_owned(), Some(name.as_bytes().to_vec()))
        };
        let source = Self {
            vm,
            plain,
            shown: shown(path),
            directory,
            file,
        };
        Ok((source, listing))
    }

    fn name(&self, entry: &Entry) -> Vec<u8> {
        let mut name = b"./".to_vec();
        name.extend_from_slice(self.file.as_deref().unwrap_or(&entry.path));
        name
    }

    /// Reads small files, in order. Ends early if nobody takes them.
    pub(in super::super) async fn batch(
        &self,
        entries: &[Entry],
        indices: &[usize],
        to: mpsc::Sender<Item>,
    ) -> Result<()> {
        let files: Vec<(usize, &Entry)> = indices
            .iter()
            .filter_map(|index| Some((*index, entries.get(*index)?)))
            .filter(|(_, entry)| matches!(entry.kind, Kind::File { .. }))
            .collect();
        if files.is_empty() {
            let _ = to.send(Item::End).await;
            return Ok(());
        }
        let what = format!("read {:?}", self.shown);
        let (files, to_sink) = (&files, &to);
        let work = |streams: Streams| async move {
            let Streams { stdin, stdout } = streams;
            let names = async {
                let Some(mut stdin) = stdin else { return };
                let mut buffer = BytesMut::new();
                for (_, entry) in files {
                    let name = self.name(entry);
                    if self.plain {
                        buffer.extend_from_slice(octal(&name).as_bytes());
                        buffer.extend_from_slice(b"\n");
                    } else {
                        buffer.extend_from_slice(&name);
                        buffer.extend_from_slice(b"\0");
                    }
                    if buffer.len() >= NAMES && stdin.write_all(&buffer.split()).await.is_err() {
                        return;
                    }
                }
                // If tar has ended, it says why.
                let _ = stdin.write_all(&buffer).await;
                let _ = stdin.shutdown().await;
            };
            let unpacked = async {
                if self.plain {
                    self.unframe(stdout, files, to_sink).await
                } else {
                    self.unpack(stdout, files, to_sink).await
                }
            };
            tokio::join!(unpacked, names).0
        };
        let script = if self.plain {
            plain!("plain_pack.sh")
        } else {
            include_str!("pack.sh")
        };
        let (read, ended) = self
            .vm
            .run(
                Purpose::Commands,
                script,
                vec![self.directory.clone()],
                true,
                work,
            )
            .await?;
        let complaint = complaint(&ended.complaints);
        match read {
            Ok(()) => {}
            // What tar says is nearer to the cause.
            Err(Bad::Short) => self.vm.check(&what, &ended)?,
            Err(Bad::Wrong(why)) => return Err(self.not_asked_for(&why)),
        }
        if let Some(why) = complaint {
            return Err(Error::other(format!(
                "copy: {what} on VM {}: {}",
                self.vm.id,
                shown(why)
            )));
        }
        if read.is_err() {
            return Err(Error::unavailable(format!(
                "copy: {what} on VM {}: it broke off",
                self.vm.id
            )));
        }
        let _ = to.send(Item::End).await;
        Ok(())
    }

    fn not_asked_for(&self, why: &str) -> Error {
        Error::other(format!(
            "copy: read {:?} on VM {}: it sent what was not asked for: {why}",
            self.shown, self.vm.id
        ))
    }

    /// Passes on the files that `plain_pack.sh` sends.
    async fn unframe(
        &self,
        stdout: crate::ssh::Output,
        files: &[(usize, &Entry)],
        to: &mpsc::Sender<Item>,
    ) -> Result<Result<(), Bad>> {
        let mut reader = Reader::new(stdout);
        let mut expected = (1usize..).zip(files);
        loop {
            let Some(number) = field(&mut reader).await? else {
                return Ok(Err(Bad::Short));
            };
            if *number == *b"0" {
                break;
            }
            // Whatever is skipped has gone since it was listed.
            let Some((_, (index, entry))) =
                expected.find(|(place, _)| place.to_string().as_bytes() == number)
            else {
                let number = String::from_utf8_lossy(&number);
                return Err(self.not_asked_for(&format!("file {:?}", shown(&number))));
            };
            let Some(found) = meta(&mut reader).await? else {
                return Ok(Err(Bad::Short));
            };
            let length = match usize::try_from(found.size) {
                Ok(length) if found.size <= 4 * SMALL => length,
                _ => return Err(changed(entry)),
            };
            let (Ok(data), Ok(end)) = (
                reader.exactly(length).await,
                reader.exactly(number.len() + 1).await,
            ) else {
                return Ok(Err(Bad::Short));
            };
            // If it has become shorter meanwhile, what follows it stands where its end should be.
            if end.strip_suffix(b"\0") != Some(&*number) {
                return Err(changed(entry));
            }
            let content = Content {
                index: *index,
                size: found.size,
                mode: found.mode & 0o7777,
                modified: found.modified,
                stretches: whole(found.size),
                data,
            };
            if to.send(Item::File(content)).await.is_err() {
                return Ok(Ok(()));
            }
        }
        match reader.some(1).await {
            None => Ok(Ok(())),
            Some(_) => Err(self.not_asked_for("something behind the end")),
        }
    }

    /// Passes on the files of an archive.
    async fn unpack(
        &self,
        stdout: crate::ssh::Output,
        files: &[(usize, &Entry)],
        to: &mpsc::Sender<Item>,
    ) -> Result<Result<(), Bad>> {
        let mut reader = Reader::new(stdout);
        let mut expected = files.iter();
        loop {
            let found = match reader.next().await {
                Ok(Some(found)) => found,
                Ok(None) => break,
                Err(bad) => return Ok(Err(bad)),
            };
            // Whatever is skipped has gone since it was listed.
            let Some((index, entry)) = expected.find(|(_, entry)| self.name(entry) == found.path)
            else {
                return Ok(Err(Bad::Wrong(format!("{:?}", path_shown(&found.path)))));
            };
            if !found.file {
                continue;
            }
            if found.stored() > 4 * SMALL {
                return Err(changed(entry));
            }
            let data = match reader.data(found.stored()).await {
                Ok(data) => data,
                Err(bad) => return Ok(Err(bad)),
            };
            let content = Content {
                index: *index,
                size: found.size,
                mode: found.mode,
                modified: exact_time(entry, &found),
                stretches: found.stretches,
                data,
            };
            if to.send(Item::File(content)).await.is_err() {
                return Ok(Ok(()));
            }
        }
        // The rest of the last record.
        while reader.some(u64::MAX).await.is_some() {}
        Ok(Ok(()))
    }

    /// Reads a big file from this position in its data on.
    ///
    /// # Errors
    /// [`Kind::Conflict`](crate::Kind) if it is not what it was.
    pub(in super::super) async fn big(
        &self,
        entry: &Entry,
        from: u64,
        known: Option<&Head>,
        to: &mpsc::Sender<Piece>,
    ) -> Result<()> {
        let sparse = known.map_or(
            matches!(entry.kind, Kind::File { sparse: true, .. }),
            |head| head.prefix > 0,
        );
        let skip = from
            + if from > 0 {
                known.map_or(0, |head| head.prefix)
            } else {
                0
            };
        let what = format!(
            "read {:?}",
            if self.file.is_some() {
                self.shown.clone()
            } else {
                entry.shown()
            }
        );
        let arguments = vec![
            self.directory.clone(),
            octal(&self.name(entry)),
            skip.to_string(),
            u8::from(sparse).to_string(),
        ];
        let work = |streams: Streams| async move {
            let mut reader = Reader::new(streams.stdout);
            let Some(found) = meta(&mut reader).await? else {
                return Ok(false);
            };
            let head = if sparse && skip == 0 {
                let before = reader.taken;
                let Ok(Some(header)) = reader.next().await else {
                    return Ok(false);
                };
                Head {
                    size: header.size,
                    mode: found.mode,
                    modified: found.modified,
                    stretches: header.stretches,
                    prefix: reader.taken - before,
                }
            } else {
                match known {
                    Some(head) => Head {
                        size: found.size,
                        mode: found.mode,
                        modified: found.modified,
                        ..head.clone()
                    },
                    None => Head {
                        size: found.size,
                        mode: found.mode,
                        modified: found.modified,
                        stretches: whole(found.size),
                        prefix: 0,
                    },
                }
            };
            if head.size != found.size || known.is_some_and(|known| *known != head) {
                return Err(changed(entry));
            }
            let mut left = head.data().saturating_sub(from);
            if to.send(Piece::Head(head)).await.is_err() {
                return Ok(true);
            }
            while left > 0 {
                let Some(data) = reader.some(left).await else {
                    return Ok(false);
                };
                left -= data.len() as u64;
                if to.send(Piece::Data(data)).await.is_err() {
                    return Ok(true);
                }
            }
            Ok(true)
        };
        let (complete, ended) = self
            .vm
            .run(
                for_file(entry.size()),
                plain!("read.sh"),
                arguments,
                false,
                work,
            )
            .await?;
        if !complete {
            self.vm.check(&what, &ended)?;
            // It ended well, and too early: it is shorter than it said.
            return Err(changed(entry));
        }
        let _ = to.send(Piece::End).await;
        Ok(())
    }
}

/// What GNU tar's format says in seconds, with the nanoseconds of the list if the file is still the same.
fn exact_time(entry: &Entry, found: &Found) -> Time {
    if found.seconds == entry.modified.seconds && found.size == entry.size() {
        return entry.modified;
    }
    Time {
        seconds: found.seconds,
        nanos: 0,
    }
}

/// What find and tar say, apart from what is gone since it was listed.
fn complaint(said: &str) -> Option<&str> {
    let harmless = [
        ": No such file or directory",
        // As shells say it.
        ": No such file",
        ": no such file",
        ": File removed before we read it",
        ": file changed as we read it",
        "Exiting with failure status due to previous errors",
        ": socket ignored",
    ];
    said.lines()
        .map(str::trim)
        .find(|line| !line.is_empty() && !harmless.iter().any(|end| line.ends_with(end)))
}

/// Fields that end in NUL.
struct Fields<'a> {
    reader: &'a mut Reader<crate::ssh::Output>,
    buffer: BytesMut,
    /// Up to here the buffer has no NUL.
    seen: usize,
}

impl Fields<'_> {
    /// `None` at the end. A field that has no end is an error.
    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            if let Some(at) = self
                .buffer
                .iter()
                .skip(self.seen)
                .position(|byte| *byte == 0)
            {
                let mut field = self.buffer.split_to(self.seen + at + 1);
                field.truncate(field.len() - 1);
                self.seen = 0;
                return Ok(Some(field.freeze()));
            }
            self.seen = self.buffer.len();
            if self.seen > MOST_FIELD {
                return Err(malformed("a field is too long"));
            }
            match self.reader.some(u64::MAX).await {
                Some(chunk) => self.buffer.extend_from_slice(&chunk),
                None => return Ok(None),
            }
        }
    }
}

fn malformed(why: &str) -> Error {
    Error::new(
        error::Kind::Other,
        format!("copy: the VM's list of the source makes no sense: {why}"),
    )
}

struct Meta {
    kind: u8,
    mode: u32,
    size: u64,
    sparse: bool,
    modified: Time,
}

impl Meta {
    fn parse(fields: &[Bytes]) -> Option<Self> {
        let [kind, mode, size, blocks, time, ..] = fields else {
            return None;
        };
        let text = |field: &Bytes| String::from_utf8(field.to_vec()).ok();
        let size = text(size)?.parse().ok().filter(|size| *size < 1 << 62)?;
        let blocks: u64 = text(blocks)?.parse().ok()?;
        Some(Self {
            kind: *kind.first()?,
            mode: u32::from_str_radix(&text(mode)?, 8).ok()?,
            size,
            sparse: blocks.saturating_mul(512) < size,
            modified: time_of(&text(time)?)?,
        })
    }
}

/// Seconds with a fraction, as find prints them.
fn time_of(text: &str) -> Option<Time> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    // Before 1970 too, find's fraction counts upwards from the second before it.
    Some(Time {
        seconds: whole.parse().ok()?,
        nanos: digits.parse().ok()?,
    })
}

/// The line before a file's content; leaves what comes behind it. `None` if there is none.
async fn meta(reader: &mut Reader<crate::ssh::Output>) -> Result<Option<Meta>> {
    let mut fields = Vec::new();
    while fields.len() < 5 {
        match field(reader).await? {
            Some(field) => fields.push(field),
            None => return Ok(None),
        }
    }
    let meta = Meta::parse(&fields).ok_or_else(|| malformed("a number is none"))?;
    Ok((meta.kind == b'f').then_some(meta))
}

/// A field that ends in NUL; leaves what comes behind it. `None` if there is none.
async fn field(reader: &mut Reader<crate::ssh::Output>) -> Result<Option<Bytes>> {
    let mut field = BytesMut::new();
    loop {
        match reader.exactly(1).await.as_deref() {
            Ok([0]) => return Ok(Some(field.freeze())),
            Ok(byte) if field.len() < MOST_FIELD => field.extend_from_slice(byte),
            Ok(_) => return Err(malformed("a field is too long")),
            Err(_) => return Ok(None),
        }
    }
}

/// The stretches of a file without holes.
fn whole(size: u64) -> Vec<Stretch> {
    if size == 0 {
        return Vec::new();
    }
    vec![(0, size)]
}

async fn list(streams: Streams, exclude: &Exclude) -> Result<Listing> {
    let mut reader = Reader::new(streams.stdout);
    let mut fields = Fields {
        reader: &mut reader,
        buffer: BytesMut::new(),
        seen: 0,
    };
    let mut listing = Listing::default();
    let mut out: Option<Vec<u8>> = None;
    loop {
        let mut record = Vec::with_capacity(7);
        while record.len() < 7 {
            match fields.next().await? {
                Some(field) => record.push(field),
                // A connection that was lost in the middle is noticed by whoever waits for the script.
                None => return Ok(listing),
            }
        }
        let meta = Meta::parse(&record).ok_or_else(|| malformed("a number is none"))?;
        let (Some(path), Some(link)) = (record.get(5), record.get(6)) else {
            return Ok(listing);
        };
        let path = path.to_vec();
        if parts(&path).is_none() {
            return Err(Error::new(
                error::Kind::Denied,
                format!(
                    "copy: the VM lists {}, which would lead out of the target",
                    path_shown(&path)
                ),
            ));
        }
        // A directory comes right before what it holds.
        if out.as_ref().is_some_and(|out| {
            path.strip_prefix(out.as_slice())
                .is_some_and(|rest| rest.starts_with(b"/"))
        }) {
            continue;
        }
        if exclude.matches(&path, meta.kind == b'd') {
            if meta.kind == b'd' {
                out = Some(path);
            }
            continue;
        }
        if listing.entries.len() >= MOST_ENTRIES {
            return Err(too_many());
        }
        if path.len() > MOST_PATH {
            return Err(too_deep(&path));
        }
        let kind = match meta.kind {
            b'd' => Kind::Directory,
            b'f' => Kind::File {
                size: meta.size,
                sparse: meta.sparse,
            },
            b'l' => Kind::Link(link.to_vec()),
            _ => {
                listing.left_out += 1;
                continue;
            }
        };
        if path.is_empty() != listing.entries.is_empty()
            || (!listing.entries.is_empty() && !listing.is_directory())
        {
            return Err(malformed("it does not begin with the source"));
        }
        if split(&path).1.is_empty() && !path.is_empty() {
            return Err(malformed("a name is empty"));
        }
        listing.entries.push(Entry {
            path,
            kind,
            mode: meta.mode & 0o7777,
            modified: meta.modified,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_to_the_nanosecond_on_both_sides_of_1970() {
        let time = |seconds, nanos| Some(Time { seconds, nanos });
        assert_eq!(
            time_of("1700000000.1234567890"),
            time(1_700_000_000, 123_456_789)
        );
        assert_eq!(time_of("5"), time(5, 0));
        assert_eq!(time_of("-2.3000000000"), time(-2, 300_000_000));
        assert_eq!(time_of("x"), None);
        assert_eq!(time_of("1.x"), None);
    }

    #[test]
    fn what_is_gone_is_no_complaint() {
        assert_eq!(complaint("find: './a': No such file or directory\n"), None);
        assert_eq!(
            complaint(
                "tar: ./a: No such file or directory\ntar: ./b: Cannot open: Permission denied\n"
            ),
            Some("tar: ./b: Cannot open: Permission denied")
        );
    }
}
