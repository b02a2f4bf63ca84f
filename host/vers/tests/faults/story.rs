//! A file that grows, and what a follow of it has to tell.
//!
//! The writer and the checker draw the same lines from the same seed, so nothing has to be kept. What cannot be known
//! (a file that nobody saw, lines that were truncated away unread) does not happen: before it takes something away, the
//! writer waits until the checker has seen what was there.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::faults::Random;
use vers_client::ssh::Followed;

const MIB: usize = 1 << 20;

/// What the two tell each other.
#[derive(Default)]
pub struct Progress {
    /// Bytes that were followed, over all files.
    pub seen: AtomicU64,
    /// Files that were begun, as far as was told.
    pub files: AtomicU64,
    /// The writer shall come to an end.
    pub enough: AtomicBool,
}

/// The lines of all files, one after the other.
struct Lines(Random);

impl Lines {
    /// The next line, without its end, and its end.
    fn next(&mut self) -> (Vec<u8>, &'static [u8]) {
        let random = &mut self.0;
        let end: &[u8] = if random.below(8) == 0 { b"\r\n" } else { b"\n" };
        let text = match random.below(1000) {
            0 => {
                let unit = ["x", "\u{20ac}", "\u{1f600}"][random.below(3) as usize];
                unit.repeat(random.below((MIB + MIB / 4) as u64) as usize / unit.len())
                    .into_bytes()
            }
            1..50 => (0..random.below(60))
                .map(|_| random.below(256) as u8)
                .filter(|byte| !b"\r\n".contains(byte))
                .collect(),
            50..100 => Vec::new(),
            _ => {
                let alphabet = [
                    "a",
                    "b ",
                    "\u{e4}",
                    "\u{20ac}",
                    "\u{1f600}",
                    "\t",
                    "\u{1e}",
                    "0123456789",
                ];
                (0..random.below(120))
                    .map(|_| alphabet[random.below(alphabet.len() as u64) as usize])
                    .collect::<String>()
                    .into_bytes()
            }
        };
        (text, end)
    }
}

/// Writes in a thread of its own until it is told that it is enough. Returns how many lines there were.
pub fn write(
    path: PathBuf,
    seed: u64,
    upheaval: bool,
    progress: Arc<Progress>,
) -> std::thread::JoinHandle<u64> {
    std::thread::spawn(move || {
        let mut lines = Lines(Random(seed));
        let mut random = Random(seed ^ 1);
        let mut file = create(&path);
        let (mut written, mut size, mut count, mut files) = (0u64, 0u64, 0u64, 1u64);
        let mut here = 0;
        let mut old = Vec::new();
        while !progress.enough.load(Ordering::SeqCst) {
            let (text, end) = lines.next();
            let line = [&text, end].concat();
            // At the end of a file, now and then, a line without an end; but one that can be seen.
            let last = upheaval && here > 1 && random.below(60) == 0;
            let line = if last && random.below(2) == 0 && !text.is_empty() {
                &text
            } else {
                &line
            };
            // In pieces, cut anywhere.
            let mut rest = line.as_slice();
            while !rest.is_empty() {
                let piece = 1 + random.below((rest.len() as u64).min(64 << 10)) as usize;
                file.write_all(&rest[..piece]).unwrap();
                rest = &rest[piece..];
            }
            count += 1;
            here += 1;
            written += line.len() as u64;
            size += line.len() as u64;
            if random.below(20) == 0 {
                std::thread::sleep(Duration::from_millis(random.below(20)));
            }
            // Not too far ahead.
            wait(&progress, || {
                written < progress.seen.load(Ordering::SeqCst) + (512 << 10)
            });
            if !last {
                continue;
            }
            // A file of which nothing was seen cannot be told of.
            let before = written - size;
            wait(&progress, || progress.seen.load(Ordering::SeqCst) > before);
            let whole = line.ends_with(b"\n");
            if whole && size > 1000 && random.below(2) == 0 {
                // Truncated, and not grown again before that was noticed.
                wait(&progress, || {
                    written == progress.seen.load(Ordering::SeqCst)
                });
                if progress.enough.load(Ordering::SeqCst) {
                    break;
                }
                file.set_len(0).unwrap();
                files += 1;
                wait(&progress, || {
                    files == progress.files.load(Ordering::SeqCst) + 1
                });
            } else {
                let away = path.with_extension(count.to_string());
                match random.below(3) {
                    // Moved away; for a moment there is none.
                    0 => {
                        std::fs::rename(&path, &away).unwrap();
                        std::thread::sleep(Duration::from_millis(random.below(30)));
                        file = create(&path);
                    }
                    1 => {
                        std::fs::rename(&path, &away).unwrap();
                        file = create(&path);
                    }
                    _ => {
                        let new = path.with_extension("new");
                        file = create(&new);
                        std::fs::hard_link(&path, &away).unwrap();
                        std::fs::rename(&new, &path).unwrap();
                    }
                }
                old.push(away);
                files += 1;
                wait(&progress, || {
                    files == progress.files.load(Ordering::SeqCst) + 1
                });
                if old.len() > 3 {
                    std::fs::remove_file(old.remove(0)).unwrap();
                }
            }
            (size, here) = (0, 0);
        }
        count
    })
}

fn create(path: &PathBuf) -> File {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .unwrap()
}

fn wait(progress: &Progress, holds: impl Fn() -> bool) {
    while !holds() && !progress.enough.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Compares what a follow tells with what was written.
pub struct Checker {
    lines: Lines,
    progress: Arc<Progress>,
    pub count: u64,
    offset: u64,
    /// A line without an end came: something has to follow on it.
    unfinished: bool,
    pub replaced: u64,
    pub truncated: u64,
    pub bytes: u64,
}

impl Checker {
    pub fn new(seed: u64, progress: Arc<Progress>) -> Self {
        Self {
            lines: Lines(Random(seed)),
            progress,
            count: 0,
            offset: 0,
            unfinished: false,
            replaced: 0,
            truncated: 0,
            bytes: 0,
        }
    }

    pub fn take(&mut self, followed: Followed) {
        match followed {
            Followed::Line {
                offset,
                next,
                text,
                left_out,
            } => {
                let number = self.count;
                assert!(
                    !self.unfinished,
                    "line {number}: behind one that has no end"
                );
                let (bytes, end) = self.lines.next();
                assert_eq!(offset, self.offset, "line {number}");
                let length = next - offset;
                self.unfinished = length == bytes.len() as u64 && !bytes.is_empty();
                if !self.unfinished {
                    assert_eq!(length, (bytes.len() + end.len()) as u64, "line {number}");
                }
                let whole = String::from_utf8_lossy(&bytes);
                if left_out == 0 {
                    assert!(text == whole, "line {number}: {text:?} is not {whole:?}");
                } else {
                    assert!(whole.starts_with(&text), "line {number}");
                    assert_eq!(
                        text.len() as u64 + left_out,
                        bytes.len() as u64,
                        "line {number}"
                    );
                    assert!(text.len() > MIB - 4);
                }
                self.offset = next;
                self.count += 1;
                self.bytes += length;
                self.progress.seen.fetch_add(length, Ordering::SeqCst);
            }
            other => {
                if other == Followed::Replaced {
                    self.replaced += 1
                } else {
                    self.truncated += 1
                }
                self.unfinished = false;
                self.offset = 0;
                self.progress.files.fetch_add(1, Ordering::SeqCst);
            }
        }
    }
}
