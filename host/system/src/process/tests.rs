#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use proptest::prelude::*;
use tokio::io::AsyncWriteExt as _;

use super::*;

/// Generous: only a hang reaches it.
const LONG: Duration = Duration::from_secs(60);

fn shell(script: &str) -> Command {
    Command {
        program: Program::Shell(script.to_owned()),
        env: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
        cwd: PathBuf::from("/"),
        timeout: None,
        merge_output: false,
        stdin: false,
    }
}

fn argv(argv: &[&str]) -> Command {
    Command {
        program: Program::Argv(argv.iter().map(|arg| (*arg).to_owned()).collect()),
        ..shell("")
    }
}

async fn collect(mut stream: ByteStream) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(chunk) = stream.next().await {
        all.extend_from_slice(&chunk.unwrap());
    }
    all
}

async fn run(command: Command) -> (Vec<u8>, Vec<u8>, Result<Exit, Error>) {
    let child = spawn(command).unwrap();
    let (out, err) = (child.take_stdout().unwrap(), child.take_stderr());
    let err = async {
        if let Some(err) = err {
            collect(err).await
        } else {
            Vec::new()
        }
    };
    let all = async { tokio::join!(collect(out), err, child.wait()) };
    tokio::time::timeout(LONG, all)
        .await
        .expect("a process that should end hangs")
}

/// The living processes of a group, found without the code under test.
fn members(group: u32) -> Vec<i32> {
    let list = std::process::Command::new("ps")
        .args(["-e", "-o", "pid=,pgid=,stat="])
        .output()
        .unwrap();
    let list = String::from_utf8(list.stdout).unwrap();
    let rows = list
        .lines()
        .map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row[1] == group.to_string() && !row[2].starts_with('Z'))
        .map(|row| row[0].parse().unwrap())
        .collect()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < LONG, "{what}: never");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A tree of three levels; the deepest ignores TERM if asked. Writes `ready` to stdout when all are there.
const STUBBORN: &str = "trap '' TERM; sh -c 'sh -c \"echo ready; while :; do sleep 1; done\" & wait' & while :; do sleep 1; done";

async fn ready(child: &Child) -> ByteStream {
    let mut out = child.take_stdout().unwrap();
    assert_eq!(out.next().await.unwrap().unwrap(), "ready\n");
    assert!(members(child.id()).len() >= 3);
    out
}

#[tokio::test]
async fn exit_codes_and_signals_are_true() {
    for code in [0, 1, 2, 127, 128, 137, 255] {
        assert_eq!(
            run(shell(&format!("exit {code}"))).await.2,
            Ok(Exit::Code(code))
        );
    }
    for name in ["KILL", "TERM", "SEGV", "USR1", "PIPE"] {
        assert_eq!(
            run(shell(&format!("kill -{name} $$"))).await.2,
            Ok(Exit::Signal(name.to_owned()))
        );
    }
}

#[tokio::test]
async fn bytes_are_exact_both_ways() {
    let sent: Vec<u8> = (0..1_000_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let child = spawn(Command {
        stdin: true,
        ..argv(&["/bin/cat"])
    })
    .unwrap();
    let mut stdin = child.take_stdin().unwrap();
    let write = async {
        stdin.write_all(&sent).await.unwrap();
        drop(stdin);
    };
    let ((), got, exit) = tokio::join!(write, collect(child.take_stdout().unwrap()), child.wait());
    assert!(got == sent);
    assert_eq!(exit, Ok(Exit::Code(0)));
    assert!(
        child.take_stdin().is_none() && child.take_stdout().is_none(),
        "each once"
    );
}

#[tokio::test]
async fn without_a_pipe_the_input_is_empty() {
    assert_eq!(
        run(argv(&["/bin/cat"])).await,
        (vec![], vec![], Ok(Exit::Code(0)))
    );
}

#[tokio::test]
async fn outputs_are_separate_or_merged_in_order() {
    let script = "for n in 1 2 3 4 5; do echo out$n; echo err$n >&2; done";
    let (out, err, _) = run(shell(script)).await;
    assert_eq!(out, b"out1\nout2\nout3\nout4\nout5\n");
    assert_eq!(err, b"err1\nerr2\nerr3\nerr4\nerr5\n");
    let (both, none, _) = run(Command {
        merge_output: true,
        ..shell(script)
    })
    .await;
    assert_eq!(
        both,
        b"out1\nerr1\nout2\nerr2\nout3\nerr3\nout4\nerr4\nout5\nerr5\n"
    );
    assert_eq!(none, b"");
}

#[tokio::test]
async fn the_environment_is_what_was_given_and_nothing_else() {
    let mut command = argv(&["/usr/bin/env"]);
    assert_eq!(run(command.clone()).await.0, b"PATH=/usr/bin:/bin\n");
    command.env = vec![("A".to_owned(), "x\n$(id)='\"".to_owned())];
    assert_eq!(run(command.clone()).await.0, b"A=x\n$(id)='\"\n");
    command.env = vec![];
    assert_eq!(run(command).await.0, b"");
}

#[tokio::test]
async fn no_descriptor_of_the_host_is_inherited() {
    let file = tempfile::tempfile().unwrap();
    // As if the host had inherited it, or a C library had opened it.
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).unwrap();
    let open = rustix::io::fcntl_getfd(file.as_fd()).unwrap();
    assert!(open.is_empty());
    let (out, _, _) = run(shell("for fd in /proc/$$/fd/*; do echo ${fd##*/}; done")).await;
    // A shell may hold a descriptor of its own while it reads a directory, but none of ours points outside.
    let (links, _, _) = run(argv(&["/bin/ls", "-l", "/proc/self/fd"])).await;
    let links = String::from_utf8(links).unwrap();
    assert!(
        !links.contains("/tmp/") && !links.contains("deleted"),
        "{links}"
    );
    assert!(String::from_utf8(out).unwrap().lines().count() <= 4);
}

#[tokio::test]
async fn malformed_commands_start_nothing() {
    let kind = |command| spawn(command).unwrap_err().kind();
    assert_eq!(kind(argv(&[])), Kind::Invalid);
    assert_eq!(kind(argv(&["true"])), Kind::Invalid);
    assert_eq!(kind(argv(&["./true"])), Kind::Invalid);
    assert_eq!(kind(argv(&["/bin/echo", "a\0b"])), Kind::Invalid);
    assert_eq!(kind(argv(&["/nowhere/true"])), Kind::NotFound);
    assert_eq!(
        kind(Command {
            cwd: PathBuf::from("/nowhere"),
            ..argv(&["/bin/true"])
        }),
        Kind::NotFound
    );
    assert_eq!(
        kind(Command {
            cwd: PathBuf::from("."),
            ..argv(&["/bin/true"])
        }),
        Kind::NotFound
    );
    for name in ["", "A=B", "A\0"] {
        assert_eq!(
            kind(Command {
                env: vec![(name.to_owned(), String::new())],
                ..argv(&["/bin/true"])
            }),
            Kind::Invalid
        );
    }
}

#[test]
fn without_a_runtime_spawn_is_an_error_and_no_panic() {
    assert_eq!(spawn(argv(&["/bin/true"])).unwrap_err().kind(), Kind::Other);
}

#[test]
fn debug_shows_no_value_of_the_environment() {
    let command = Command {
        env: vec![("TOKEN".to_owned(), "hunter22".to_owned())],
        ..shell("true")
    };
    let shown = format!("{command:?}");
    assert!(shown.contains("TOKEN") && !shown.contains("hunter22"));
}

#[tokio::test]
async fn stop_ends_grandchildren_that_ignore_term() {
    let child = spawn(shell(STUBBORN)).unwrap();
    let _out = ready(&child).await;
    tokio::time::timeout(LONG, child.stop(Duration::from_millis(100)))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(members(child.id()), [] as [i32; 0]);
    assert_eq!(child.wait().await, Ok(Exit::Signal("KILL".to_owned())));
    assert_eq!(
        child.wait().await,
        Ok(Exit::Signal("KILL".to_owned())),
        "every caller is told"
    );
    child.stop(Duration::ZERO).await.unwrap();
}

#[tokio::test]
async fn stop_is_gentle_first() {
    let child = spawn(shell(
        "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.01; done",
    ))
    .unwrap();
    let mut out = child.take_stdout().unwrap();
    assert_eq!(out.next().await.unwrap().unwrap(), "ready\n");
    child.stop(LONG).await.unwrap();
    assert_eq!(collect(out).await, b"bye\n");
    assert_eq!(child.wait().await, Ok(Exit::Code(7)));
}

#[tokio::test]
async fn a_stopped_group_can_be_ended_too() {
    let child = spawn(shell("kill -STOP $$")).unwrap();
    let stat = format!("/proc/{}/stat", child.id());
    until("the child stops", || {
        std::fs::read_to_string(&stat).unwrap().contains(") T ")
    })
    .await;
    child.stop(LONG).await.unwrap();
    assert_eq!(child.wait().await, Ok(Exit::Signal("TERM".to_owned())));
}

#[tokio::test]
async fn dropping_the_handle_ends_the_group() {
    let child = spawn(shell(STUBBORN)).unwrap();
    let out = ready(&child).await;
    let group = child.id();
    drop(child);
    until("the group goes", || members(group).is_empty()).await;
    drop(out);
}

#[tokio::test]
async fn dropping_the_handle_ends_what_was_left_in_the_background() {
    let child = spawn(shell("sleep 1000 & echo ready")).unwrap();
    assert_eq!(child.wait().await, Ok(Exit::Code(0)));
    assert_eq!(members(child.id()).len(), 1);
    let group = child.id();
    drop(child);
    until("the background goes", || members(group).is_empty()).await;
}

#[test]
fn a_runtime_that_ends_takes_its_groups_along() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let child = runtime.block_on(async {
        let child = spawn(shell(STUBBORN)).unwrap();
        let _out = ready(&child).await;
        child
    });
    let group = child.id();
    runtime.shutdown_background();
    drop(child);
    let start = Instant::now();
    while !members(group).is_empty() {
        assert!(start.elapsed() < LONG);
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn a_detached_process_lives_on_and_leaves_no_zombie() {
    let dir = tempfile::tempdir().unwrap();
    let flag = dir.path().join("go");
    let child = spawn(shell(&format!(
        "until [ -e {} ]; do sleep 0.01; done",
        flag.display()
    )))
    .unwrap();
    let group = child.id();
    child.detach();
    drop(child);
    tokio::time::sleep(GRACE_SEEN).await;
    assert!(!members(group).is_empty(), "it was stopped");
    std::fs::write(&flag, "").unwrap();
    until("it is reaped", || {
        !Path::new(&format!("/proc/{group}")).exists()
    })
    .await;
}
/// Long enough for a wrong TERM to have been seen.
const GRACE_SEEN: Duration = Duration::from_millis(200);

#[tokio::test]
async fn a_timeout_stops_the_whole_group_and_says_so() {
    let child = spawn(Command {
        timeout: Some(Duration::from_millis(300)),
        ..shell(STUBBORN)
    })
    .unwrap();
    let error = tokio::time::timeout(LONG, child.wait())
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(error.kind(), Kind::TimedOut);
    assert!(error.message().contains("300ms"), "{error}");
    assert_eq!(members(child.id()), [] as [i32; 0]);
}

#[tokio::test]
async fn a_timeout_that_is_not_reached_changes_nothing() {
    let (out, _, exit) = run(Command {
        timeout: Some(Duration::MAX),
        ..shell("echo hi")
    })
    .await;
    assert_eq!(
        (out.as_slice(), exit),
        (b"hi\n".as_slice(), Ok(Exit::Code(0)))
    );
}

#[tokio::test]
async fn signals_reach_the_group() {
    let child = spawn(shell(
        "sh -c 'trap \"echo got; exit 3\" USR1; echo ready; while :; do sleep 0.01; done'; exit $?",
    ))
    .unwrap();
    let mut out = child.take_stdout().unwrap();
    assert_eq!(out.next().await.unwrap().unwrap(), "ready\n");
    child.signal(Signal::User1).unwrap();
    // The outer shell has no trap for it.
    assert_eq!(child.wait().await, Ok(Exit::Signal("USR1".to_owned())));
    assert_eq!(collect(out).await, b"got\n");
}

#[tokio::test]
async fn unread_output_stays_with_the_writer_and_stalls_nobody_else() {
    let child = spawn(shell("head -c 100000000 /dev/zero; echo done >&2")).unwrap();
    let mut out = child.take_stdout().unwrap();
    let first = out.next().await.unwrap().unwrap().len();
    // Others run at full speed meanwhile.
    for _ in 0..20 {
        assert_eq!(run(shell("echo x")).await.0, b"x\n");
    }
    let written = written_by_group(child.id());
    assert!(
        written <= (first + 128 * 1024) as u64,
        "{written} bytes were taken without being read"
    );
    assert_eq!(first + collect(out).await.len(), 100_000_000);
    assert_eq!(collect(child.take_stderr().unwrap()).await, b"done\n");
    assert_eq!(child.wait().await, Ok(Exit::Code(0)));
}

fn written_by_group(group: u32) -> u64 {
    let io = members(group)
        .into_iter()
        .map(|pid| std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default());
    io.filter_map(|io| {
        io.lines()
            .find_map(|line| line.strip_prefix("wchar: ")?.parse::<u64>().ok())
    })
    .sum()
}

#[tokio::test]
async fn a_background_process_that_holds_the_pipe_delays_nothing() {
    for script in [
        "sleep 1000 & echo hi",
        "(while :; do echo noise >&2; done) & echo hi",
    ] {
        let child = spawn(shell(script)).unwrap();
        let (out, err) = (child.take_stdout().unwrap(), child.take_stderr().unwrap());
        let all = async { tokio::join!(collect(out), collect(err), child.wait()) };
        let (out, _, exit) = tokio::time::timeout(LONG, all).await.expect(script);
        assert_eq!(
            (out.as_slice(), exit),
            (b"hi\n".as_slice(), Ok(Exit::Code(0)))
        );
        child.stop(Duration::ZERO).await.unwrap();
    }
}

#[tokio::test]
async fn what_the_process_wrote_last_is_never_lost_to_the_grace() {
    // The pipe is full when the process ends, its reader is slow, and a background process holds the pipe.
    let child = spawn(shell("sleep 1000 & head -c 60000 /dev/zero")).unwrap();
    tokio::time::timeout(LONG, child.wait())
        .await
        .unwrap()
        .unwrap();
    tokio::time::sleep(DRAIN_GRACE * 2).await;
    assert_eq!(
        tokio::time::timeout(LONG, collect(child.take_stdout().unwrap()))
            .await
            .unwrap()
            .len(),
        60_000
    );
}

#[tokio::test]
async fn waiting_before_reading_does_not_hang() {
    let child = spawn(shell("echo hi")).unwrap();
    let out = child.take_stdout().unwrap();
    assert_eq!(
        tokio::time::timeout(LONG, child.wait()).await.unwrap(),
        Ok(Exit::Code(0))
    );
    assert_eq!(collect(out).await, b"hi\n");
}

#[tokio::test]
async fn a_closed_input_is_an_error_and_no_signal_for_the_host() {
    let child = spawn(Command {
        stdin: true,
        ..argv(&["/bin/true"])
    })
    .unwrap();
    child.wait().await.unwrap();
    let mut stdin = child.take_stdin().unwrap();
    assert_eq!(
        stdin.write_all(b"x").await.unwrap_err().kind(),
        std::io::ErrorKind::BrokenPipe
    );
}

#[tokio::test]
async fn many_children_leave_nothing_behind() {
    // The limit is far from what a leak of one descriptor a child would need.
    let fds = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = fds();
    let ids = futures::future::join_all((0..200).map(async |_| {
        let child = spawn(shell("echo $$")).unwrap();
        let id = child.id();
        let out = collect(child.take_stdout().unwrap()).await;
        assert_eq!(out, format!("{id}\n").into_bytes());
        child.wait().await.unwrap();
        id
    }))
    .await;
    until("all are reaped", || {
        ids.iter()
            .all(|id| !Path::new(&format!("/proc/{id}")).exists())
    })
    .await;
    until("descriptors are closed", || fds() < before + 100).await;
}

#[test]
fn a_program_is_never_found_in_the_working_directory() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let plant = |name: &str, mode| {
        let path = dir.path().join(name);
        std::fs::write(&path, "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    plant("tool", 0o755);
    plant("data", 0o644);
    std::fs::create_dir(dir.path().join("folder")).unwrap();
    let kind = |name: &str, dirs: &[&str]| {
        let dirs: Vec<_> = dirs.iter().map(PathBuf::from).collect();
        resolve_program(name, &dirs).map_err(|error| error.kind())
    };
    let here = dir.path().to_str().unwrap();
    assert_eq!(
        kind("tool", &["/nowhere", here]),
        Ok(dir.path().join("tool"))
    );
    // The same directory, but by a way that begins in the working directory.
    let relative = format!("{}{here}", "../".repeat(40));
    assert!(Path::new(&relative).join("tool").exists());
    assert_eq!(kind("tool", &["", ".", &relative]), Err(Kind::NotFound));
    assert_eq!(kind("data", &[here]), Err(Kind::NotFound));
    assert_eq!(kind("folder", &[here]), Err(Kind::NotFound));
    assert_eq!(
        kind(&format!("{here}/tool"), &[]),
        Ok(dir.path().join("tool"))
    );
    for name in ["", ".", "..", "./tool", "bin/tool", "../tool", "a\0b"] {
        assert_eq!(kind(name, &[here]), Err(Kind::Invalid), "{name:?}");
    }
    assert_eq!(
        kind(&format!("{here}/folder/../tool"), &[here]),
        Err(Kind::Invalid)
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn arguments_and_values_arrive_as_they_are(args in prop::collection::vec("[^\\x00]{0,40}", 0..5), value in "[^\\x00]{0,40}") {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut command = argv(&["/usr/bin/printf", "%s\\0"]);
        let Program::Argv(all) = &mut command.program else { unreachable!() };
        all.extend(args.iter().cloned());
        let (out, _, _) = runtime.block_on(run(command));
        let expected = if args.is_empty() { "\0".to_owned() } else { args.iter().map(|arg| format!("{arg}\0")).collect() };
        prop_assert_eq!(String::from_utf8(out).unwrap(), expected);
        let (out, _, _) = runtime.block_on(run(Command { env: vec![("V".to_owned(), value.clone())], ..shell("printf %s \"$V\"") }));
        prop_assert_eq!(String::from_utf8(out).unwrap(), value);
    }
}
