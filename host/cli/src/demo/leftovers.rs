//! What a platform left behind, looked for from outside: in the kernel's own tables, not in the platform's records.

use std::path::Path;
use std::time::Duration;

use vers_local::Endpoint;

/// One sentence each. What cannot be read is somebody else's.
pub(super) fn of(state: &Path, endpoint: Option<&Endpoint>) -> Vec<String> {
    let mut left = Vec::new();
    if state.exists() {
        left.push(format!("the directory {}", state.display()));
    }
    let server = endpoint.map(|endpoint| endpoint.pid);
    let wanted = state.display().to_string();
    let own = std::process::id();
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = process
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        // A sandbox is a process whose mounts lie in the state directory.
        let mounts = std::fs::read_to_string(process.path().join("mountinfo")).unwrap_or_default();
        if mounts.contains(&wanted) {
            let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            left.push(format!(
                "process {pid} ({}) with mounts of {wanted}",
                name.trim()
            ));
        } else if pid != own && server == Some(pid) && !is_dead(&process.path()) {
            left.push(format!("the server, process {pid}"));
        }
    }
    left
}

/// Waits until the server's process is gone, two seconds at most: its lock is free a moment before. It is not our child, so no event
/// tells of its end.
pub(super) async fn server_gone(server: &Endpoint) {
    let process = Path::new("/proc").join(server.pid.to_string());
    let gone = async {
        while server.pid != std::process::id() && !is_dead(&process) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(2), gone).await;
}

/// A zombie has ended and waits for its parent, which may be an init that is slow.
fn is_dead(process: &Path) -> bool {
    let stat = std::fs::read_to_string(process.join("stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_directory_that_stays_is_found() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(of(dir.path(), None).len(), 1);
        assert!(of(&dir.path().join("gone"), None).is_empty());
    }
}
