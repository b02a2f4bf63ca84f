//! Programs and libraries that tests need of this machine.
//!
//! A test that lacks something is never skipped: it would look as if it had passed. Where it can, it installs the package; else
//! it fails with the command.

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// Sees to it that this Debian package is there.
///
/// # Panics
/// When it is not there and cannot be installed: with the command that installs it.
pub fn needs(package: &str) {
    static SEEN: Mutex<Option<HashSet<String>>> = Mutex::new(None);
    let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    if seen.get_or_insert_default().contains(package) {
        return;
    }
    if !is_there(package) {
        install(package);
        assert!(
            is_there(package),
            "{package} was installed, and what the tests need of it is still not there"
        );
    }
    seen.get_or_insert_default().insert(package.to_owned());
}

/// Asked for by what it brings: on other systems than Debian it has other names.
fn is_there(package: &str) -> bool {
    match package {
        "openssh-server" => sshd().is_some(),
        "openssh-client" => succeeds(Command::new("ssh").arg("-V")),
        "tmux" => succeeds(Command::new("tmux").arg("-V")),
        "pkg-config" => succeeds(Command::new("pkg-config").arg("--version")),
        "libssl-dev" => succeeds(Command::new("pkg-config").args(["--exists", "openssl"])),
        _ => panic!("nobody has said how to see whether {package} is there"),
    }
}

fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

/// OpenSSH's server.
pub(crate) fn sshd() -> Option<&'static Path> {
    ["/usr/sbin/sshd", "/usr/local/sbin/sshd"]
        .map(Path::new)
        .into_iter()
        .find(|path| path.exists())
}

fn install(package: &str) {
    let how = format!("apt-get install --yes --no-install-recommends {package}");
    assert!(
        crate::traces::is_root() && succeeds(Command::new("apt-get").arg("--version")),
        "these tests need {package}: run `sudo {how}` (or what your system calls it), then run them again"
    );
    eprintln!("installing {package}: {how}");
    let installed = || {
        let mut words = how.split(' ');
        let mut command = Command::new(words.next().unwrap_or_default());
        // No package starts a service: a test needs its program alone.
        command
            .args(words)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env("RUNLEVEL", "1")
            .output()
    };
    let first = installed();
    if first.as_ref().is_ok_and(|output| output.status.success()) {
        return;
    }
    // The lists may be missing or old.
    succeeds(Command::new("apt-get").arg("update"));
    let said = match installed() {
        Ok(output) if output.status.success() => return,
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(why) => why.to_string(),
    };
    panic!(
        "these tests need {package}, and `{how}` failed: {said}\nInstall it, then run them again."
    );
}
