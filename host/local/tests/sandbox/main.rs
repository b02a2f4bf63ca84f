//! Real sandboxes: what a VM shows, keeps, and leaves behind. The tests take the best tier that the machine has; as root
//! they run a second time as an ordinary user ([`everything_again_as_an_ordinary_user`]).
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod client;
mod lifecycle;
mod root;
mod ssh;
mod vm;

use vers_local::internal::Tier;

#[tokio::test]
async fn everything_again_as_an_ordinary_user() {
    use std::os::unix::process::CommandExt as _;
    const USER: u32 = 54_321;
    if !rustix::process::geteuid().is_root() {
        // The tests beside this one do it.
        let platform = vm::Platform::new().await;
        assert_eq!(platform.sandboxes.capabilities().tier, Tier::UserSandbox);
        platform.end().await;
        return;
    }
    // Not beside the build: that may lie below a home directory that other users cannot enter.
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let (tests, helper) = (dir.path().join("tests"), dir.path().join("helper"));
    std::fs::copy(std::env::current_exe().unwrap(), &tests).unwrap();
    std::fs::copy(vm::helper(), &helper).unwrap();
    std::os::unix::fs::chown(dir.path(), Some(USER), Some(USER)).unwrap();
    let output = std::process::Command::new(&tests)
        .args(["--test-threads", "2"])
        .uid(USER)
        .gid(USER)
        .env("VERS_TEST_DIR", dir.path())
        .env("VERS_TEST_HELPER", &helper)
        .env("HOME", dir.path())
        .env("TMPDIR", dir.path())
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
