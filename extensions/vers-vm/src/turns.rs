//! One change of a file at a time.
//!
//! Harnesses run tool calls side by side. An edit reads a file and writes it back; of two at once on one file both would
//! succeed and one would be lost, because the VM tells a file's change only by its size and second. So changes of one
//! file by one session wait for each other. Changes from elsewhere are found by what the file held (`expect`).
//!
//! Two names of one file that differ by more than `.` and `//` are not known to be one.

use pi_vers_sdk::turns::{Turn, Turns};

thread_local! {
    /// By VM and path.
    static TURNS: Turns = Turns::new();
}

/// Waits until no other call of the session changes the file at this path. It is the caller's turn as long as it holds the
/// guard.
pub(crate) async fn take(vm: &str, path: &str) -> Turn {
    let name = format!("{vm}:{}", plain(path));
    TURNS.with(|turns| turns.take(&name)).await
}

fn plain(path: &str) -> String {
    let root = if path.starts_with('/') { "/" } else { "" };
    let parts = path.split('/').filter(|part| !matches!(*part, "" | "."));
    format!("{root}{}", parts.collect::<Vec<_>>().join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    #[test]
    fn one_file_one_turn_and_others_do_not_wait() {
        let first = take("vm", "/a/./b").now_or_never();
        assert!(first.is_some());
        assert!(take("vm", "/a//b").now_or_never().is_none());
        assert!(take("vm", "a/b").now_or_never().is_some());
        assert!(take("other", "/a/b").now_or_never().is_some());
        drop(first);
        assert!(take("vm", "/a/b").now_or_never().is_some());
    }
}
