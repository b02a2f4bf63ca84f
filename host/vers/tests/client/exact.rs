//! What goes to a VM's commands arrives as it was, is seen by nobody on the way, and starts nothing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::lab::{Lab, eventually, marked};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::io::AsyncWriteExt as _;
use vers_client::{Command, Exit, Kind, Secret};

/// Whatever text, and text made of what shells care about.
fn text() -> impl Strategy<Value = String> {
    let hot = prop::sample::select(vec![
        "'",
        "\"",
        "\\",
        "`",
        "$",
        "$(",
        ")",
        "${",
        "}",
        ";",
        "&",
        "|",
        "<",
        ">",
        "\n",
        "\r",
        "\t",
        " ",
        "*",
        "?",
        "[",
        "]",
        "~",
        "!",
        "#",
        "-",
        "--",
        "=",
        "%",
        "%s",
        "\u{1}",
        "\u{7f}",
        "\u{81}",
        "\u{88}",
        "\u{1e}",
        "\u{1b}[2J",
        "é",
        "💩",
        "\u{202e}",
        "$(touch RAN)",
        "`touch RAN`",
        ";touch RAN;",
        "\ntouch RAN\n",
        "|touch RAN",
        "&& touch RAN",
        "$IFS",
        "$__n",
        "'$__n'",
        "EOF",
        "x",
    ]);
    prop_oneof![
        "[^\0]{0,40}",
        prop::collection::vec(hot, 0..16).prop_map(|parts| parts.concat()),
    ]
}

/// A directory's name.
fn name() -> impl Strategy<Value = String> {
    text()
        .prop_map(|text| text.replace('/', "_"))
        .prop_filter("a name", |name| {
            !matches!(name.as_str(), "" | "." | "..") && name.len() < 200
        })
}

#[tokio::test]
async fn any_argument_variable_directory_and_input_arrives_unchanged_and_starts_nothing() {
    arrives_unchanged(Lab::start().await).await;
}

/// Then all of it goes over the input.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_with_a_server_that_takes_no_variables() {
    arrives_unchanged(Lab::start_with("").await).await;
}

async fn arrives_unchanged(lab: Lab) {
    let ssh = lab.ssh();
    let home = lab.dir.path().join("home");
    let at = lab.dir.path().join("dirs");
    std::fs::create_dir(&at).unwrap();
    let before: BTreeSet<_> = listing(&home);
    let mut runner = TestRunner::new(Config {
        cases: 64,
        failure_persistence: None,
        ..Config::default()
    });
    // Runs the case where the reactor is; proptest itself knows nothing of tasks.
    let runtime = tokio::runtime::Handle::current();
    let (vm, api) = (lab.vm, ssh.clone());
    tokio::task::spawn_blocking(move || {
        runner.run(
            &(
                prop::collection::vec(text(), 1..4),
                text(),
                name(),
                text(),
                any::<bool>(),
            ),
            |(arguments, value, name, input, merged)| {
                let directory = at.join(&name);
                std::fs::create_dir_all(&directory).unwrap();
                let mark = format!("LAB_MARK={}", uuid::Uuid::new_v4());
                let (mark_name, mark_value) = mark.split_once('=').unwrap();
                // Every argument ended by NUL, then the rest: nothing of it is interpreted on the way back.
                let script = "import os,sys\no=sys.stdout.buffer\n\
                    for p in [*map(os.fsencode,sys.argv[1:]),os.environb[b'VALUE'],os.getcwdb(),sys.stdin.buffer.read()]: o.write(p+b'\\0')";
                let argv = ["python3", "-c", script].into_iter().map(str::to_owned);
                let mut command = Command::argv(argv.chain(arguments.iter().cloned()))
                    .env("VALUE", value.as_str())
                    .env(mark_name, mark_value)
                    .cwd(directory.to_str().unwrap())
                    .with_stdin();
                command.merge_output = merged;
                let (exit, out, err) = runtime.block_on(async {
                    let mut child = api.spawn(vm, command).await.unwrap();
                    let mut stdin = child.take_stdin().unwrap();
                    let (out, err) = (child.take_stdout().unwrap(), child.take_stderr().unwrap());
                    stdin.write_all(input.as_bytes()).await.unwrap();
                    stdin.shutdown().await.unwrap();
                    let (out, err) = tokio::join!(out.collect(1 << 20), err.collect(1 << 20));
                    (child.wait().await.unwrap(), out.0, err.0)
                });
                let mut expected = Vec::new();
                for part in arguments.iter().chain([&value]) {
                    expected.extend_from_slice(part.as_bytes());
                    expected.push(0);
                }
                expected.extend_from_slice(directory.to_str().unwrap().as_bytes());
                expected.push(0);
                expected.extend_from_slice(input.as_bytes());
                expected.push(0);
                prop_assert_eq!(exit, Exit::Code(0), "{}", String::from_utf8_lossy(&err));
                prop_assert_eq!(out, expected);
                prop_assert!(marked(&mark).is_empty(), "something was started and lives on");
                prop_assert!(listing(&directory).is_empty(), "something ran in the directory");
                prop_assert_eq!(&listing(&home), &before, "something ran in the home directory");
                std::fs::remove_dir(&directory).unwrap();
                Ok(())
            },
        )
        .unwrap();
    })
    .await
    .unwrap();
}

fn listing(directory: &std::path::Path) -> BTreeSet<std::ffi::OsString> {
    std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect()
}

/// Looks through the argument vectors of all processes, without a pause, until it is told to end. Both sides of the
/// connection are on this machine, so one look sees them both.
fn spy(canary: String, end: Arc<AtomicBool>) -> std::thread::JoinHandle<(usize, Vec<String>)> {
    std::thread::spawn(move || {
        let (mut looks, mut found) = (0, Vec::new());
        while !end.load(Ordering::Relaxed) {
            for entry in std::fs::read_dir("/proc").unwrap().flatten() {
                let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
                let line = String::from_utf8_lossy(&line);
                if line.contains(&canary) {
                    found.push(line.into_owned());
                }
            }
            looks += 1;
        }
        (looks, found)
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_in_an_argument_vector_on_either_side_at_any_time() {
    let lab = Lab::start().await;
    let ssh = lab.ssh();
    let canary = format!("canary{}", uuid::Uuid::new_v4().simple());
    let end = Arc::new(AtomicBool::new(false));
    let spy = spy(canary.clone(), end.clone());
    let directory = lab.dir.path().join(&canary);
    std::fs::create_dir(&directory).unwrap();
    let padding = format!("# {}\n", "x".repeat(8000));
    for round in 0..30 {
        // Short and long ones take different ways.
        let padding = if round % 2 == 0 { "" } else { padding.as_str() };
        let script = format!("{padding}read -r line; sleep 0.02; echo \"$line $SECRET {canary}\"");
        let command = Command::shell(script)
            .env("SECRET", Secret::new(canary.as_str()))
            .env("PLAIN", canary.as_str())
            .cwd(directory.to_str().unwrap())
            .with_stdin();
        let mut child = ssh.spawn(lab.vm, command).await.unwrap();
        let mut stdin = child.take_stdin().unwrap();
        stdin
            .write_all(format!("{canary}\n").as_bytes())
            .await
            .unwrap();
        // As a person would look, once in a while.
        if round % 10 == 0 {
            let ps = tokio::process::Command::new("ps")
                .args(["axww", "-o", "args"])
                .output()
                .await
                .expect("this test needs ps: apt-get install procps");
            let listed = String::from_utf8_lossy(&ps.stdout).into_owned();
            assert!(listed.contains("sshd"), "{listed}");
            assert!(!listed.contains(&canary), "{listed}");
        }
        let out = child.take_stdout().unwrap().collect(1000).await.0;
        assert_eq!(
            String::from_utf8(out).unwrap(),
            format!("{canary} {canary} {canary}\n")
        );
        assert_eq!(child.wait().await.unwrap(), Exit::Code(0));
    }
    // The spy is no blind one: an argument is seen by everybody.
    let child = ssh
        .spawn(lab.vm, Command::argv(["sleep", "1000", "--", "x"]))
        .await;
    drop(child);
    let control = Command::argv(["bash", "-c", "sleep 0.3; true", canary.as_str()]);
    let began = Instant::now();
    ssh.spawn(lab.vm, control)
        .await
        .unwrap()
        .wait()
        .await
        .unwrap();
    assert!(began.elapsed() >= Duration::from_millis(250));
    end.store(true, Ordering::Relaxed);
    let (looks, found) = spy.join().unwrap();
    assert!(looks > 30, "{looks} looks");
    assert!(!found.is_empty(), "the spy sees nothing");
    assert!(
        found
            .iter()
            .all(|line| line.starts_with("bash\0-c\0sleep 0.3; true\0")),
        "{found:?}"
    );
    let log = std::fs::read_to_string(lab.dir.path().join("sshd.log")).unwrap();
    assert!(!log.contains(&canary), "{log}");
}

/// What a process has written, and whether it is stopped.
fn written_and_state(pid: u32) -> (u64, char) {
    let io = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
    let written = io.lines().find_map(|line| line.strip_prefix("wchar: "));
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let state = stat.rsplit_once(") ").unwrap().1.chars().next().unwrap();
    (written.unwrap().parse().unwrap(), state)
}

#[tokio::test]
async fn a_reader_that_stops_stops_the_writer_and_nobody_else() {
    let lab = Lab::start().await;
    let ssh = lab.ssh();
    let mut flood = ssh.spawn(lab.vm, Command::argv(["yes"])).await.unwrap();
    let pid = flood.id().unwrap();
    eventually("the writer is stopped", || written_and_state(pid).1 == 'T').await;
    let (written, _) = written_and_state(pid);
    // All that lies between the writer and the reader: what is kept here, the window, the sockets and pipes between.
    assert!(written < 64 << 20, "{written} bytes are under way");
    eprintln!("measured: a writer is stopped after {} KiB", written >> 10);
    // The others of its connection: five share one.
    let began = Instant::now();
    for _ in 0..4 {
        let commands = (0..4).map(|_| async {
            let mut child = ssh
                .spawn(lab.vm, Command::argv(["echo", "x"]))
                .await
                .unwrap();
            child.take_stdout().unwrap().collect(10).await.0
        });
        let all = futures::future::join_all(commands).await;
        assert!(all.iter().all(|out| out == b"x\n"));
    }
    assert!(began.elapsed() < Duration::from_secs(10));
    assert_eq!(written_and_state(pid), (written, 'T'), "it wrote on");
    // It goes on when it is read, and stops again.
    let mut out = flood.take_stdout().unwrap();
    let mut read = 0;
    while read < 3 * written {
        let data = out.next().await.unwrap();
        assert!(data.iter().all(|byte| matches!(byte, b'y' | b'\n')));
        read += data.len() as u64;
    }
    eventually("the writer is stopped again", || {
        written_and_state(pid).1 == 'T'
    })
    .await;
    assert!(written_and_state(pid).0 < read + (64 << 20));
    // Being stopped is no way to escape.
    let report = flood.stop(Duration::from_secs(5)).await.unwrap();
    assert_eq!(report.left, 0);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}

#[tokio::test]
async fn a_time_limit_says_what_stopping_took() {
    let lab = Lab::start().await;
    let ssh = lab.ssh();
    let run = async |script: &str| {
        let command = Command::shell(script).timeout(Duration::from_millis(400));
        let child = ssh.spawn(lab.vm, command).await.unwrap();
        let error = child.wait().await.unwrap_err();
        assert_eq!(error.kind(), Kind::TimedOut, "{error}");
        error.to_string()
    };
    let mild = run("sleep 1000; true").await;
    assert!(
        mild.contains("400ms") && mild.contains("TERM") && mild.contains("nothing is left"),
        "{mild}"
    );
    let wild = run("trap '' TERM; setsid sleep 1000 & (sleep 1000; true) & sleep 1000; true").await;
    assert!(
        wild.contains("KILL") && wild.contains("1 process that had left it"),
        "{wild}"
    );
}
