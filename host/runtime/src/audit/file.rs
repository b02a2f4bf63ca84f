//! An audit log in a file: one JSON object a line, only ever appended to.
//!
//! A guest never waits for the disk: records go into a bounded queue, and a thread writes them. What the queue has no room for, what the
//! disk refuses and what comes when the file is full is counted by extension, and a line of the log says how much of whose is missing
//! (`{"time":…,"lost":{"my-tool":12},"why":…}`).
//!
//! The file does not grow beyond its limit, and it is not rotated either. Rotating would have to delete what is old or fill the disk in
//! the end; and an extension that can make the log forget by making noise can hide what it did before the noise. A file that is full
//! keeps its beginning, says that it is full and who went on after that, and the host warns: move it away and start anew. Several
//! processes may append to one file: each line is one write.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::json;

use super::{Audit, AuditRecord, now};

/// Records that wait for the disk.
const QUEUE: usize = 4_096;

/// Kept free of the limit for lines that say what is missing.
const RESERVE: u64 = 64 << 10;

/// How long the end of the process waits for the disk.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why an audit log cannot be kept. One line: which file, what is wrong, what to do.
#[derive(Debug, thiserror::Error)]
pub enum AuditFileError {
    /// The file can't be opened for appending.
    #[error("the audit log {} cannot be opened: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Something that is no regular file, or somebody else's.
    #[error("the audit log {} {what}: name another file", path.display())]
    Unfit {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// See the module.
#[derive(Debug)]
pub struct AuditFile {
    queue: SyncSender<Job>,
    lost: Arc<Lost>,
}

enum Job {
    Line(Arc<str>, Vec<u8>),
    /// Answers when all before it is written.
    Flush(SyncSender<()>),
}

/// Records that are not in the file, by extension.
#[derive(Debug, Default)]
struct Lost(Mutex<BTreeMap<Arc<str>, u64>>);

impl Lost {
    fn add(&self, extension: Arc<str>) {
        let mut lost = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = lost.entry(extension).or_default();
        *count = count.saturating_add(1);
    }

    fn take(&self) -> BTreeMap<Arc<str>, u64> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn put_back(&self, counts: BTreeMap<Arc<str>, u64>) {
        let mut lost = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (extension, more) in counts {
            let count = lost.entry(extension).or_default();
            *count = count.saturating_add(more);
        }
    }
}

impl AuditFile {
    /// How large the file may become unless another limit is given, in bytes.
    pub const LIMIT: u64 = 256 << 20;

    /// Opens a file for appending, with mode 0600 if it is new, and starts the thread that writes to it. `limit` in bytes.
    ///
    /// # Errors
    /// When it can't be opened, is a link or no regular file, belongs to somebody else, or can be read or written by others.
    pub fn open(path: &Path, limit: u64) -> Result<Self, AuditFileError> {
        let failed = |source| AuditFileError::Open {
            path: path.to_owned(),
            source,
        };
        // Not blocking: a pipe without a reader is refused below and not waited for.
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        let mut options = std::fs::OpenOptions::new();
        options.append(true).create(true).mode(0o600);
        options.custom_flags(i32::try_from(flags.bits()).unwrap_or_default());
        let file = options.open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        let unfit = if !metadata.is_file() {
            Some("is no regular file")
        } else if metadata.uid() != rustix::process::geteuid().as_raw() {
            Some("belongs to somebody else")
        } else if metadata.permissions().mode() & 0o077 != 0 {
            Some("can be used by others (run chmod 600 on it)")
        } else {
            None
        };
        if let Some(what) = unfit {
            return Err(AuditFileError::Unfit {
                path: path.to_owned(),
                what,
            });
        }
        let (queue, jobs) = sync_channel(QUEUE);
        let lost = Arc::new(Lost::default());
        let writer = Writer {
            file,
            path: path.to_owned(),
            limit,
            lost: lost.clone(),
            torn: false,
            full: false,
        };
        std::thread::Builder::new()
            .name("audit".into())
            .spawn(move || writer.run(&jobs))
            .map_err(failed)?;
        Ok(Self { queue, lost })
    }

    /// Waits until everything recorded so far is written, but not longer than two seconds. `false`: it took longer.
    pub fn flush(&self) -> bool {
        let (done, written) = sync_channel(1);
        let queue = self.queue.clone();
        // The queue may be full, and empties as fast as the disk takes it, or not at all: somebody else waits for that.
        let asked = std::thread::Builder::new().spawn(move || queue.send(Job::Flush(done)));
        asked.is_ok() && written.recv_timeout(PATIENCE).is_ok()
    }
}

impl Audit for AuditFile {
    fn record(&self, record: &AuditRecord<'_>) {
        let extension: Arc<str> = record.extension.into();
        let Ok(mut line) = serde_json::to_vec(record) else {
            return self.lost.add(extension);
        };
        line.push(b'\n');
        if let Err(TrySendError::Full(Job::Line(extension, _))) =
            self.queue.try_send(Job::Line(extension, line))
        {
            self.lost.add(extension);
        }
    }
}

struct Writer {
    file: File,
    path: PathBuf,
    limit: u64,
    lost: Arc<Lost>,
    /// The last write was cut short: the next line begins on a line of its own.
    torn: bool,
    full: bool,
}

impl Writer {
    /// Writes until the last sender is gone.
    fn run(mut self, jobs: &Receiver<Job>) {
        while let Ok(job) = jobs.recv() {
            match job {
                Job::Line(extension, line) => self.line(extension, &line),
                Job::Flush(done) => {
                    self.account("not written");
                    let _ = done.try_send(());
                }
            }
        }
        self.account("not written");
    }

    fn line(&mut self, extension: Arc<str>, line: &[u8]) {
        if !self.has_room(line.len(), RESERVE) {
            self.lost.add(extension);
            if !self.full {
                self.full = true;
                self.account("the log is full");
                tracing::warn!(
                    "the audit log {} is full ({} MiB): nothing more is recorded, move it away and start anew",
                    self.path.display(),
                    self.limit >> 20
                );
            }
            return;
        }
        if self.full || !self.write(line) {
            // Room again after somebody emptied the file by hand counts from the next start.
            self.lost.add(extension);
            return;
        }
        self.account("there was no room in the queue");
    }

    fn has_room(&self, bytes: usize, reserve: u64) -> bool {
        let size = self.file.metadata().map_or(u64::MAX, |data| data.len());
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        size.saturating_add(bytes).saturating_add(reserve) <= self.limit
    }

    /// Writes down what is missing.
    fn account(&mut self, why: &str) {
        let lost = self.lost.take();
        if lost.is_empty() {
            return;
        }
        let counts: BTreeMap<&str, u64> =
            lost.iter().map(|(name, count)| (&**name, *count)).collect();
        let why = if self.full { "the log is full" } else { why };
        let line = format!("{}\n", json!({ "time": now(), "lost": counts, "why": why }));
        if !self.has_room(line.len(), 0) || !self.write(line.as_bytes()) {
            self.lost.put_back(lost);
        }
    }

    fn write(&mut self, line: &[u8]) -> bool {
        let whole: Vec<u8>;
        let bytes = if self.torn {
            whole = [b"\n", line].concat();
            &whole
        } else {
            line
        };
        match self.file.write(bytes) {
            Ok(count) => {
                self.torn = count > 0 && count < bytes.len() || (self.torn && count == 0);
                count == bytes.len()
            }
            Err(why) => {
                tracing::warn!(
                    "the audit log {} cannot be written: {why}",
                    self.path.display()
                );
                false
            }
        }
    }
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Job")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;
    use serde_json::Value;

    fn record(extension: &str) -> AuditRecord<'_> {
        AuditRecord {
            time: now(),
            session: "s",
            extension,
            digest: "sha256:0".into(),
            capability: "vms",
            verb: Some("list"),
            what: BTreeMap::from([("operation", "list".into())]),
            decision: Some("allow"),
            rule: Some("vms = [\"list\"] in policy.toml".into()),
            call: None,
            bytes: None,
        }
    }

    fn lines(path: &Path) -> Vec<Value> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    #[test]
    fn records_are_appended_to_a_private_file_and_never_take_what_is_there_away() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("audit.jsonl");
        for run in 1..=2 {
            let log = AuditFile::open(&path, AuditFile::LIMIT).unwrap();
            log.record(&record("x"));
            assert!(log.flush());
            assert_eq!(lines(&path).len(), run);
        }
        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        let line = &lines(&path)[0];
        assert_eq!(line["verb"], "list");
        assert!(line.get("call").is_none(), "{line}");
        let time = line["time"].as_str().unwrap();
        assert!(
            time.ends_with('Z') && time.parse::<jiff::Timestamp>().is_ok(),
            "{time}"
        );
    }

    #[test]
    fn a_full_file_keeps_what_it_has_and_says_whose_records_are_missing() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("audit.jsonl");
        let limit = RESERVE + 1_000;
        let log = AuditFile::open(&path, limit).unwrap();
        log.record(&record("first"));
        for _ in 0..100 {
            log.record(&record("noisy"));
        }
        assert!(log.flush());
        let all = lines(&path);
        assert_eq!(all[0]["extension"], "first");
        let kept = all
            .iter()
            .filter(|line| line["extension"] == "noisy")
            .count();
        let lost: u64 = all
            .iter()
            .filter_map(|line| line["lost"]["noisy"].as_u64())
            .sum();
        assert!(kept > 0 && lost > 0, "{all:?}");
        assert_eq!(kept as u64 + lost, 100);
        assert_eq!(all.last().unwrap()["why"], "the log is full");
        assert!(std::fs::metadata(&path).unwrap().len() <= limit);
    }

    #[test]
    fn what_the_queue_has_no_room_for_is_counted_and_nobody_waits() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("audit.jsonl");
        let log = AuditFile::open(&path, AuditFile::LIMIT).unwrap();
        let all = (QUEUE as u64) * 4;
        for _ in 0..all {
            log.record(&record("x"));
        }
        assert!(log.flush());
        let lines = lines(&path);
        let kept = lines.iter().filter(|line| line["extension"] == "x").count() as u64;
        let lost: u64 = lines
            .iter()
            .filter_map(|line| line["lost"]["x"].as_u64())
            .sum();
        assert_eq!(kept + lost, all);
    }

    #[test]
    fn links_pipes_and_files_that_others_can_read_are_refused() {
        let home = tempfile::tempdir().unwrap();
        let of = |name: &str| home.path().join(name);
        std::fs::write(of("open"), "").unwrap();
        std::fs::set_permissions(of("open"), std::fs::Permissions::from_mode(0o644)).unwrap();
        std::os::unix::fs::symlink(of("target"), of("link")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, of("pipe"), rustix::fs::Mode::RWXU).unwrap();
        for name in ["open", "link", "pipe", "no/such/directory"] {
            let why = AuditFile::open(&of(name), 1_000_000)
                .unwrap_err()
                .to_string();
            assert!(why.contains(name) && !why.contains('\n'), "{why}");
        }
        assert!(!of("target").exists());
    }
}
