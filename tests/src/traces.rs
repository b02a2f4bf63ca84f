//! What is left on this machine: processes, cgroups, mounts. Looked for from outside, not asked of who should know.

use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Whether this test runs as root.
#[must_use]
pub fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// All processes of this machine, those inside local VMs too, but this one.
fn processes() -> impl Iterator<Item = (u32, PathBuf)> {
    let entries = std::fs::read_dir("/proc")
        .expect("/proc is there")
        .flatten();
    entries.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        (pid != std::process::id()).then(|| (pid, entry.path()))
    })
}

fn holds(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}

/// The processes that have this word in an argument; none that has ended and was not waited for yet.
#[must_use]
pub fn marked(mark: &str) -> Vec<u32> {
    let found = processes().filter(|(_, proc)| {
        std::fs::read(proc.join("cmdline")).is_ok_and(|line| holds(&line, mark.as_bytes()))
    });
    found.map(|(pid, _)| pid).collect()
}

/// A process and its command line, for messages.
fn described(pid: u32, proc: &Path) -> String {
    let line = std::fs::read(proc.join("cmdline")).unwrap_or_default();
    let line = String::from_utf8_lossy(&line).replace('\0', " ");
    format!(
        "process {pid}: {}",
        line.chars().take(120).collect::<String>()
    )
}

/// The processes that work in or for a directory: named in an argument or the environment, or mounted from.
#[must_use]
pub fn of(directory: &Path) -> Vec<String> {
    let name = directory.as_os_str().as_bytes();
    let uses = |proc: &Path| {
        ["cmdline", "environ", "mountinfo"]
            .iter()
            .any(|file| std::fs::read(proc.join(file)).is_ok_and(|text| holds(&text, name)))
    };
    processes()
        .filter(|(_, proc)| uses(proc))
        .map(|(pid, proc)| described(pid, &proc))
        .collect()
}

/// The mounts below a directory, as this process sees them.
#[must_use]
pub fn mounts(directory: &Path) -> Vec<String> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").expect("/proc is there");
    let below = table.lines().filter(|line| {
        line.contains(
            directory
                .to_str()
                .expect("test directories have plain names"),
        )
    });
    below.map(str::to_owned).collect()
}
