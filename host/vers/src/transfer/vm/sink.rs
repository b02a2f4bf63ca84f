//! A target on a VM: small files in archives that are unpacked beside their place and then moved there, big ones
//! as a stream into a temporary file.
//!
//! An archive counts when the VM has said that all of it is in its place. If the connection breaks before, the VM
//! throws away what it has of it, and it is sent again, in smaller parts.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use pi_vers_system::files::tree::Time;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::{OnceCell, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::conflict_at_top;
use super::super::entry::{Content, Entry, Head, Item, Kind as What, Piece};
use super::super::local::{Is, split};
use super::super::meter::{Meter, Share};
use super::super::tar::{self, Header};
use super::{Streams, Vm, argument, for_file, join, octal};
use crate::error::{Error, Kind, Result, shown};
use crate::ssh::{Purpose, Stdin, temporary_name};

/// What is handed to the connection at once.
const CHUNK: usize = 256 << 10;
/// In such steps a file is written portably.
const STEP: u64 = 64 << 10;
/// Between attempts to clean up.
const PAUSE: Duration = Duration::from_millis(200);

pub(in super::super) struct VmSink {
    vm: Vm,
    shown: String,
    /// Links at its end followed.
    path: Vec<u8>,
    gnu: bool,
    /// Its dd writes at any offset.
    seeks: OnceCell<bool>,
    state: Mutex<State>,
}

struct State {
    is: Is,
    /// Temporary names that may be there.
    litter: Vec<Vec<u8>>,
}

impl VmSink {
    /// Looks at the target, and makes nothing yet.
    pub(in super::super) async fn open(vm: Vm, path: &str) -> Result<(Self, Is)> {
        let at = argument(path)?;
        let what = format!("look at {:?}", shown(path));
        let work = |streams: Streams| async move { Ok(streams.stdout.collect(16 << 10).await.0) };
        let (answer, ended) = vm
            .run(
                Purpose::Commands,
                include_str!("look.sh"),
                vec![at],
                false,
                work,
            )
            .await?;
        vm.check(&what, &ended)?;
        let fields: Vec<&[u8]> = answer.split(|byte| *byte == 0).collect();
        let [kind, tar, path_there, ..] = fields.as_slice() else {
            return Err(Error::other(format!(
                "copy: {what} on VM {}: its answer makes no sense",
                vm.id
            )));
        };
        let is = match *kind {
            b"missing" => Is::Missing,
            b"directory" => Is::Directory,
            b"file" => Is::File,
            _ => Is::Other,
        };
        if *tar == b"none" {
            return Err(Error::other(format!(
                "copy: {what} on VM {}: it has no tar, which copies to it need; install it there",
                vm.id
            )));
        }
        let sink = Self {
            shown: shown(path),
            path: path_there.to_vec(),
            gnu: *tar == b"gnu",
            seeks: OnceCell::new(),
            state: Mutex::new(State {
                is,
                litter: Vec::new(),
            }),
            vm,
        };
        Ok((sink, is))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A temporary name that is on the same file system as the target.
    fn temporary(&self) -> Vec<u8> {
        let mut state = self.state();
        let directory = match state.is {
            Is::Directory => self.path.as_slice(),
            _ => above(&self.path),
        };
        let path = join(directory, temporary_name().as_bytes());
        state.litter.push(path.clone());
        path
    }

    fn is_gone(&self, path: &[u8]) {
        self.state().litter.retain(|litter| litter != path);
    }

    /// Whether all there is to do is one batch for a target that is not there yet: then nothing is left to finish.
    pub(in super::super) fn is_new(&self) -> bool {
        // Other tars give directories their times before their files.
        self.gnu && self.state().is == Is::Missing
    }

    /// Sends a batch. `true`: it is in its place.
    pub(in super::super) async fn batch(
        &self,
        entries: &[Entry],
        indices: &[usize],
        whole: bool,
        from: &mut mpsc::Receiver<Item>,
        done: &mut Vec<usize>,
        meter: &Arc<Meter>,
    ) -> Result<bool> {
        let stage = self.temporary();
        let arguments = vec![
            octal(&self.path),
            octal(&stage),
            if whole { "whole" } else { "part" }.to_owned(),
            if self.gnu {
                "--delay-directory-restore"
            } else {
                ""
            }
            .to_owned(),
        ];
        let what = format!("write {:?}", self.shown);
        let mut files = Vec::new();
        let share = meter.share();
        let (sent, share_ref) = (&mut files, &share);
        let work = |streams: Streams| async move {
            let Some(mut stdin) = streams.stdin else {
                return Ok(false);
            };
            let mut out = BytesMut::with_capacity(2 * CHUNK);
            for index in indices {
                if let Some(entry) = entries.get(*index) {
                    self.put(&mut out, entry);
                }
            }
            while let Some(item) = from.recv().await {
                let Item::File(content) = item else {
                    let end = Header {
                        path: b"end",
                        kind: tar::FILE,
                        link: b"",
                        mode: 0o600,
                        modified: Time::default(),
                        size: 0,
                        stretches: None,
                    };
                    tar::put_header(&mut out, &end, false);
                    tar::put_end(&mut out);
                    // If it breaks, the script's end says why.
                    let _ = send(&mut stdin, &mut out, 0).await;
                    return Ok(true);
                };
                let Some(entry) = entries.get(content.index) else {
                    continue;
                };
                self.put_file(&mut out, entry, &content);
                sent.push((content.index, content.size));
                share_ref.moved(content.size, &entry.path);
                if !send(&mut stdin, &mut out, CHUNK).await {
                    return Ok(true);
                }
            }
            // The source has failed. Without its end the script throws the archive away.
            Ok(false)
        };
        let outcome = self
            .vm
            .run(
                Purpose::Commands,
                include_str!("unpack.sh"),
                arguments,
                true,
                work,
            )
            .await;
        drop(share);
        let outcome = match outcome {
            Ok((true, ended)) => self.vm.check(&what, &ended),
            Ok((false, _)) => {
                self.is_gone(&stage);
                return Ok(false);
            }
            Err(error) => Err(error),
        };
        outcome?;
        self.is_gone(&stage);
        self.state().is = Is::Directory;
        for index in indices {
            match entries.get(*index).map(|entry| &entry.kind) {
                Some(What::Directory) => meter.finished(0, 1, 0, 0),
                Some(What::Link(_)) => meter.finished(0, 0, 1, 0),
                _ => continue,
            }
            done.push(*index);
        }
        for (index, size) in files {
            meter.finished(1, 0, 0, size);
            done.push(index);
        }
        Ok(true)
    }

    /// A directory or a link.
    fn put(&self, out: &mut BytesMut, entry: &Entry) {
        let mut path = b"t/".to_vec();
        path.extend_from_slice(&entry.path);
        let (kind, link) = match &entry.kind {
            What::Directory => {
                if !entry.path.is_empty() {
                    path.push(b'/');
                }
                (tar::DIRECTORY, &[][..])
            }
            What::Link(target) => (tar::LINK, target.as_slice()),
            What::File { .. } => return,
        };
        let header = Header {
            path: &path,
            kind,
            link,
            mode: entry.mode,
            modified: entry.modified,
            size: 0,
            stretches: None,
        };
        tar::put_header(out, &header, self.gnu);
    }

    fn put_file(&self, out: &mut BytesMut, entry: &Entry, content: &Content) {
        let mut path = b"t/".to_vec();
        path.extend_from_slice(&entry.path);
        let holes = content.data.len() as u64 != content.size;
        let mut stretches = content.stretches.clone();
        // tar takes the file's size from its last stretch.
        stretches.push((content.size, 0));
        let header = Header {
            path: &path,
            kind: tar::FILE,
            link: b"",
            mode: content.mode,
            modified: content.modified,
            size: content.size,
            stretches: (holes && self.gnu).then_some(&stretches),
        };
        tar::put_header(out, &header, self.gnu);
        if holes && !self.gnu {
            // This tar knows no holes.
            let mut at = 0u64;
            let mut data = content.data.clone();
            for (offset, length) in &content.stretches {
                out.put_bytes(0, usize::try_from(offset - at).unwrap_or(0));
                out.put_slice(
                    &data.split_to(usize::try_from(*length).unwrap_or(0).min(data.len())),
                );
                at = offset + length;
            }
            out.put_bytes(0, usize::try_from(content.size - at).unwrap_or(0));
            tar::put_padding(out, content.size);
        } else {
            out.put_slice(&content.data);
            tar::put_padding(out, content.data.len() as u64);
        }
    }

    /// A big file that this copy writes over several attempts.
    pub(in super::super) fn begin(&self, entry: &Entry) -> Result<VmBig> {
        let (target, temporary) = if entry.path.is_empty() {
            if self.state().is == Is::Directory {
                return Err(conflict_at_top());
            }
            (self.path.clone(), self.temporary())
        } else {
            let target = join(&self.path, &entry.path);
            let temporary = join(above(&target), temporary_name().as_bytes());
            self.state().litter.push(temporary.clone());
            (target, temporary)
        };
        Ok(VmBig {
            temporary,
            target,
            begun: false,
        })
    }

    /// Where a big file stands; `None`: it is in its place.
    pub(in super::super) async fn position(&self, big: &VmBig, head: &Head) -> Result<Option<u64>> {
        if !big.begun {
            return Ok(Some(0));
        }
        let what = format!("look at {:?}", self.shown);
        let work = |streams: Streams| async move { Ok(streams.stdout.collect(4096).await.0) };
        let arguments = vec![octal(&big.temporary), octal(&big.target)];
        let (answer, ended) = self
            .vm
            .run(
                Purpose::Commands,
                include_str!("stand.sh"),
                arguments,
                false,
                work,
            )
            .await?;
        self.vm.check(&what, &ended)?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let mut words = answer.split_ascii_whitespace();
        let (state, length, time) = (
            words.next(),
            words.next().and_then(|n| n.parse::<u64>().ok()),
            words.next(),
        );
        let in_stretches = self.in_stretches(head).await?;
        Ok(match (state, length) {
            (Some("at"), Some(length)) if in_stretches => Some(head.position(length)),
            (Some("at"), Some(length)) if head.data() == head.size => {
                Some(length.min(head.size) / STEP * STEP)
            }
            (Some("done"), Some(length))
                if length == head.size && time == Some(&*head.modified.seconds.to_string()) =>
            {
                None
            }
            _ => Some(0),
        })
    }

    /// Whether the holes of a file stay holes on the way: that takes a dd which writes at any offset.
    async fn in_stretches(&self, head: &Head) -> Result<bool> {
        if head.data() == head.size {
            return Ok(false);
        }
        let ask = async || {
            let work = |_: Streams| async { Ok(()) };
            let ((), ended) = self
                .vm
                .run(
                    Purpose::Commands,
                    include_str!("seeks.sh"),
                    Vec::new(),
                    false,
                    work,
                )
                .await?;
            Ok(ended.exit.is_success())
        };
        self.seeks.get_or_try_init(ask).await.copied()
    }

    /// Sends a big file's data from this position on; it takes its name when all is there. `false`: the source ended
    /// too early.
    pub(in super::super) async fn write(
        &self,
        big: &mut VmBig,
        entry: &Entry,
        head: &Head,
        position: u64,
        from: &mut mpsc::Receiver<Piece>,
        share: &Share,
    ) -> Result<bool> {
        let holes = self.in_stretches(head).await?;
        let end = if holes {
            head.stretches
                .last()
                .map_or(0, |(offset, length)| offset + length)
        } else {
            head.size
        };
        let arguments = vec![
            octal(&big.temporary),
            octal(&big.target),
            if position == 0 && !big.begun {
                "new".to_owned()
            } else {
                position.to_string()
            },
            u8::from(holes).to_string(),
            end.to_string(),
            head.size.to_string(),
            format!("{:o}", head.mode & 0o7777),
            format!("@{}", tar::decimal(head.modified)),
        ];
        big.begun = true;
        let what = format!(
            "write {:?}",
            if entry.path.is_empty() {
                self.shown.clone()
            } else {
                entry.shown()
            }
        );
        let work = |streams: Streams| async move {
            let Some(mut stdin) = streams.stdin else {
                return Ok(false);
            };
            let mut pieces = Pieces {
                from,
                current: Bytes::new(),
                share,
                entry,
            };
            let mut at = if holes { 0 } else { position };
            for (offset, length) in head.rest(position) {
                let mut out = BytesMut::new();
                if holes {
                    out.put_slice(format!("{offset} {length}\n").as_bytes());
                    if !send(&mut stdin, &mut out, 0).await {
                        return Ok(true);
                    }
                } else if !zeros(&mut stdin, offset - at).await {
                    return Ok(true);
                }
                let mut left = length;
                while left > 0 {
                    let Some(data) = pieces.next(left).await else {
                        return Ok(false);
                    };
                    left -= data.len() as u64;
                    if stdin.send(data).await.is_err() {
                        return Ok(true);
                    }
                }
                at = offset + length;
            }
            if !matches!(pieces.from.recv().await, Some(Piece::End)) {
                return Ok(false);
            }
            if holes {
                let _ = stdin.write_all(b"0 0\n").await;
            } else {
                zeros(&mut stdin, head.size - at).await;
            }
            let _ = stdin.shutdown().await;
            Ok(true)
        };
        let (sent, ended) = self
            .vm
            .run(
                for_file(head.size),
                include_str!("write.sh"),
                arguments,
                true,
                work,
            )
            .await?;
        if !sent {
            return Ok(false);
        }
        self.vm.check(&what, &ended)?;
        self.is_gone(&big.temporary);
        Ok(true)
    }

    /// A big file is in its place already.
    pub(in super::super) fn placed(&self, big: &VmBig) {
        self.is_gone(&big.temporary);
    }

    /// Gives directories their mode and time.
    pub(in super::super) async fn finish(&self, entries: &[Entry]) -> Result<()> {
        let what = format!("set times in {:?}", self.shown);
        let work = |streams: Streams| async move {
            let Some(mut stdin) = streams.stdin else {
                return Ok(());
            };
            let mut out = BytesMut::new();
            for entry in entries.iter().filter(|entry| entry.kind == What::Directory) {
                let mut path = b"./".to_vec();
                path.extend_from_slice(&entry.path);
                if !entry.path.is_empty() {
                    path.push(b'/');
                }
                let header = Header {
                    path: &path,
                    kind: tar::DIRECTORY,
                    link: b"",
                    mode: entry.mode,
                    modified: entry.modified,
                    size: 0,
                    stretches: None,
                };
                tar::put_header(&mut out, &header, self.gnu);
                if !send(&mut stdin, &mut out, CHUNK).await {
                    return Ok(());
                }
            }
            tar::put_end(&mut out);
            send(&mut stdin, &mut out, 0).await;
            let _ = stdin.shutdown().await;
            Ok(())
        };
        let ((), ended) = self
            .vm
            .run(
                Purpose::Commands,
                include_str!("attributes.sh"),
                vec![octal(&self.path)],
                true,
                work,
            )
            .await?;
        self.vm.check(&what, &ended)
    }

    /// Removes what failed attempts may have left, connecting again if need be.
    pub(in super::super) async fn clean(&self, within: Duration) -> Result<()> {
        let litter = self.state().litter.clone();
        let deadline = Instant::now() + within;
        let vm = Vm {
            cancel: CancellationToken::new(),
            ..self.vm.clone()
        };
        for some in litter.chunks(500) {
            let arguments: Vec<String> = some.iter().map(|path| octal(path)).collect();
            let cleaning = async {
                loop {
                    let work = |_: Streams| async { Ok(()) };
                    match vm
                        .run(
                            Purpose::Commands,
                            include_str!("clean.sh"),
                            arguments.clone(),
                            false,
                            work,
                        )
                        .await
                    {
                        Ok(((), ended)) => return vm.check("clean up", &ended),
                        Err(error) if error.kind() == Kind::Unavailable => {
                            tokio::time::sleep(PAUSE).await
                        }
                        Err(error) => return Err(error),
                    }
                }
            };
            tokio::time::timeout_at(deadline, cleaning)
                .await
                .map_err(|_| {
                    Error::unavailable(format!(
                        "copy: clean up on VM {}: it could not be reached in time",
                        vm.id
                    ))
                })??;
        }
        self.state().litter.retain(|path| !litter.contains(path));
        Ok(())
    }
}

/// A big file on its way to its place.
pub(in super::super) struct VmBig {
    temporary: Vec<u8>,
    target: Vec<u8>,
    begun: bool,
}

struct Pieces<'a> {
    from: &'a mut mpsc::Receiver<Piece>,
    current: Bytes,
    share: &'a Share,
    entry: &'a Entry,
}

impl Pieces<'_> {
    async fn next(&mut self, most: u64) -> Option<Bytes> {
        while self.current.is_empty() {
            match self.from.recv().await? {
                Piece::Data(data) => {
                    self.share.moved(data.len() as u64, &self.entry.path);
                    self.current = data;
                }
                Piece::Head(_) => {}
                Piece::End => return None,
            }
        }
        let count = self
            .current
            .len()
            .min(usize::try_from(most).unwrap_or(usize::MAX));
        Some(self.current.split_to(count))
    }
}

/// The directory of a path.
fn above(path: &[u8]) -> &[u8] {
    match split(path) {
        (b"", _) if path.starts_with(b"/") => b"/",
        (b"", _) => b".",
        (above, _) => above,
    }
}

/// Sends the buffer if it holds more than this; `false`: nobody reads it any more.
async fn send(stdin: &mut Stdin, out: &mut BytesMut, least: usize) -> bool {
    if out.len() <= least {
        return true;
    }
    stdin.send(out.split().freeze()).await.is_ok()
}

async fn zeros(stdin: &mut Stdin, count: u64) -> bool {
    static ZEROS: [u8; 32 << 10] = [0; 32 << 10];
    let block = ZEROS.as_slice();
    let mut left = count;
    while left > 0 {
        let part = block
            .get(..usize::try_from(left).unwrap_or(block.len()))
            .unwrap_or(block);
        if stdin.write_all(part).await.is_err() {
            return false;
        }
        left -= part.len() as u64;
    }
    true
}
