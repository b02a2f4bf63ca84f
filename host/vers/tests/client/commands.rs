//! Commands on a VM, against a real OpenSSH server with its default limits.

use std::time::{Duration, Instant};

use crate::lab::{Lab, eventually, group_lives, group_of, marked};
use tokio::io::AsyncWriteExt as _;
use tokio_util::sync::CancellationToken;
use vers_client::ssh::StopReport;
use vers_client::{Command, Exit, Kind, Secret, Signal, Ssh, VmId};

/// Runs a command to its end.
async fn run(ssh: &Ssh, vm: VmId, command: Command) -> (Exit, Vec<u8>, Vec<u8>) {
    let mut child = ssh.spawn(vm, command).await.unwrap();
    let (out, err) = (child.take_stdout().unwrap(), child.take_stderr().unwrap());
    let (out, err) = tokio::join!(out.collect(1 << 30), err.collect(1 << 30));
    assert!(!out.1 && !err.1);
    (child.wait().await.unwrap(), out.0, err.0)
}

async fn shell(ssh: &Ssh, vm: VmId, script: &str) -> (Exit, String, String) {
    let (exit, out, err) = run(ssh, vm, Command::shell(script)).await;
    (
        exit,
        String::from_utf8(out).unwrap(),
        String::from_utf8(err).unwrap(),
    )
}

fn new_mark() -> String {
    format!("LAB_MARK={}", uuid::Uuid::new_v4())
}

fn with_mark(command: Command, mark: &str) -> Command {
    let (name, value) = mark.split_once('=').unwrap();
    command.env(name, value)
}

#[tokio::test]
async fn outputs_and_exit_codes_arrive_as_they_were() {
    let lab = Lab::start().await;
    let ssh = lab.ssh();
    let ok = Exit::Code(0);
    assert_eq!(
        shell(&ssh, lab.vm, "echo out; echo err >&2").await,
        (ok.clone(), "out\n".into(), "err\n".into())
    );
    for code in [0, 7, 126, 137, 255] {
        assert_eq!(
            shell(&ssh, lab.vm, &format!("exit {code}")).await.0,
            Exit::Code(code)
        );
    }
    let (exit, out, err) = run(
        &ssh,
        lab.vm,
        Command::argv([
            "printf",
            "%s|",
            "a b",
            "",
            "$HOME `x` \"y\" 'z' \\",
            "-n\n\n",
        ]),
    )
    .await;
    assert_eq!(
        (exit, out.as_slice(), err.as_slice()),
        (
            ok.clone(),
            &b"a b||$HOME `x` \"y\" 'z' \\|-n\n\n|"[..],
            &b""[..]
        )
    );
    let (exit, _, err) = run(&ssh, lab.vm, Command::argv(["no-such-program-here"])).await;
    assert_eq!(exit, Exit::Code(127));
    assert!(
        String::from_utf8_lossy(&err).contains("not found"),
        "{err:?}"
    );
    // Neither the profile's aliases nor a login shell's name.
    assert_eq!(
        shell(&ssh, lab.vm, "true && echo $0:$#").await,
        (ok.clone(), "bash:0\n".into(), String::new())
    );
    // Without input, reading ends at once.
    assert_eq!(shell(&ssh, lab.vm, "cat; echo done").await.1, "done\n");
}

#[tokio::test]
async fn merged_output_keeps_its_order() {
    let lab = Lab::start().await;
    let ssh = lab.ssh();
    let script = "for i in 1 2 3 4 5; do echo o$i; echo e$i >&2; done";
    let (_, out, err) = run(&ssh, lab.vm, Command::shell(script).merged()).await;
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "o1\ne1\no2\ne2\no3\ne3\no4\ne4\no5\ne5\n"
    );
    assert_eq!(err, b"");
}

#[tokio::test]
async fn a_death_by_signal_is_no_exit_code_137() {
    let lab = Lab::start().await;
    let ssh = lab.ssh();
    assert_eq!(
        shell(&ssh, lab.vm, "kill -KILL $$").await.0,
        Exit::Signal("KILL".into())
    );
    assert_eq!(
        shell(&ssh, lab.vm, "bash -c 'kill -KILL $$'; exit $?")
            .await
            .0,
        Exit::Code(137)
    );
    let (exit, ..) = run(&ssh, lab.vm, Command::argv(["bash", "-c", "kill -TERM $$"])).await;
    assert_eq!(exit, Exit::Signal("TERM".into()));
}

#[tokio::test]
async fn environment_and_directory_arrive_byte_for_byte_and_in_no_argument_vector() {
    let lab = Lab::start().await;
    let ssh = lab.ssh();
    let nasty = "line one\nline 'two'\r\n\t\"three\" $(date) `x` \\ \u{1} zażółć 💩\n\n";
    let directory = lab.dir.path().join("a 'dir'\nwith \"all\" -- $HOME");
    std::fs::create_dir(&directory).unwrap();
    let directory = directory.to_str().unwrap();
    let command = Command::argv(["bash", "-c", "printf %s \"$NASTY|$EMPTY|$HIDDEN|$PWD\"; cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' >&2"])
        .env("NASTY", nasty)
        .env("EMPTY", "")
        .env("HIDDEN", Secret::new("hunter2-in-no-argv"))
        .cwd(directory);
    assert!(!format!("{command:?}").contains("hunter2"));
    let (exit, out, cmdlines) = run(&ssh, lab.vm, command).await;
    assert_eq!(exit, Exit::Code(0));
    assert_eq!(
        String::from_utf8(out).unwrap(),
        format!("{nasty}||hunter2-in-no-argv|{directory}")
    );
    assert!(!String::from_utf8_lossy(&cmdlines).contains("hunter2-in-no-argv"));
    // Not even a script is.
    let (_, out, _) = shell(
        &ssh,
        lab.vm,
        "# in-no-argv-either\ntr '\\0' ' ' </proc/$$/cmdline",
    )
    .await;
    assert!(!out.contains("in-no-argv-either"), "{out}");

    let error = ssh
        .spawn(lab.vm, Command::shell("true").cwd("/no/such/directory"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(error.to_string().contains("/no/such/directory"), "{error}");
    let error = ssh
        .spawn(lab.vm, Command::argv(["x", "nul\0"]))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
}

#[tokio::test]
async fn scripts_of_a_megabyte_run_and_keep_their_line_numbers() {
    let lab = Lab::start().await;
    let ssh = lab.ssh();
    let filler = "# the quick brown 'fox' \"jumps\" over $the `lazy` dog\n".repeat(20_000);
    assert!(filler.len() > 1 << 20);
    let (exit, out, err) = shell(
        &ssh,
        lab.vm,
        &format!("echo $LINENO\n{filler}echo $LINENO; exit 7"),
    )
    .await;
    assert_eq!(
        (exit, out.as_str(), err.as_str()),
        (Exit::Code(7), "1\n20002\n", "")
    );
    // The same with input behind it.
    let mut child = ssh
        .spawn(lab.vm, Command::shell(format!("{filler}cat")).with_stdin())
        .await
        .unwrap();
    let mut stdin = child.take_stdin().unwrap();
    let out = child.take_stdout().unwrap();
    stdin.write_all(b"the input, whole").await.unwrap();
    drop(stdin);
    assert_eq!(out.collect(1000).await.0, b"the input, whole");
    // Arguments beyond the system's limit are the program's error, not ours.
    let (exit, ..) = run(
        &ssh,
        lab.vm,
        Command::argv(["true".to_owned(), "x".repeat(3 << 20)]),
    )
    .await;
    assert_eq!(exit, Exit::Code(126));
}

#[tokio::test]
async fn input_is_streamed_both_ways_byte_exact() {
    let lab = Lab::start().await;
    let ssh = lab.ssh();
    let mut child = ssh
        .spawn(lab.vm, Command::argv(["cat"]).with_stdin())
        .await
        .unwrap();
    let mut stdin = child.take_stdin().unwrap();
    let mut out = child.take_stdout().unwrap();
    // A conversation: each line is answered before the next is written.
    for line in ["one\n", "two\n"] {
        stdin.write_all(line.as_bytes()).await.unwrap();
        assert_eq!(out.next().await.unwrap(), line);
    }
    let data: Vec<u8> = (0..20 << 20)
        .map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let expected = data.clone();
    let (written, read) = tokio::join!(
        async move {
            stdin.write_all(&data).await.unwrap();
            stdin.shutdown().await.unwrap();
        },
        out.collect(1 << 30)
    );
    let () = written;
    assert!(
        read.0 == expected,
        "{} bytes of {}",
        read.0.len(),
        expected.len()
    );
    assert_eq!(child.wait().await.unwrap(), Exit::Code(0));
    assert_eq!(child.wait().await.unwrap(), Exit::Code(0));
}

#[tokio::test]
async fn an_input_that_nobody_reads_neither_hangs_nor_fails_the_command() {
    let lab = Lab::start().await;
    let ssh = lab.ssh();
    let mut child = ssh
        .spawn(lab.vm, Command::shell("exit 3").with_stdin())
        .await
        .unwrap();
    let mut stdin = child.take_stdin().unwrap();
    assert_eq!(child.wait().await.unwrap(), Exit::Code(3));
    let write = async { while stdin.write_all(&[0; 65536]).await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(10), write)
        .await
        .expect("writing goes on for ever");
}

#[tokio::test]
async fn dropping_a_child_leaves_no_process() {
    let lab = Lab::start().await;
    let ssh = lab.ssh();
    for with_stdin in [false, true] {
        let mark = new_mark();
        let mut command = with_mark(
            Command::shell(
                "sleep 1000 & (sleep 1001; true) & setsid sleep 1002 & sleep 1003; true",
            ),
            &mark,
        );
        command.stdin = with_stdin;
        let mut child = ssh.spawn(lab.vm, command).await.unwrap();
        let stdin = child.take_stdin();
        let group = child.id().unwrap();
        eventually("the command runs", || marked(&mark).len() >= 4).await;
        drop(child);
        eventually("the command is gone", || {
            marked(&mark).is_empty() && !group_lives(group)
        })
        .await;
        drop(stdin);
    }
}

#[tokio::test]
async fn giving_up_a_start_leaves_no_process() {
    let lab = Lab::start().await;
    let ssh = lab.ssh();
    ssh.connect(lab.vm, Duration::from_secs(10)).await.unwrap();
    let mark = new_mark();
    for micros in [0, 50, 200, 500, 1000, 2000, 3000, 5000, 8000] {
        let command = with_mark(Command::argv(["sleep", "1000"]), &mark);
        let _ = tokio::time::timeout(Duration::from_micros(micros), ssh.spawn(lab.vm, command))
            .await
            .map(|child| child.unwrap());
    }
    // The connection still serves.
    assert_eq!(shell(&ssh, lab.vm, "echo ok").await.1, "ok\n");
    eventually("all are gone", || marked(&mark).is_empty()).await;
}

#[tokio::test]
async fn stop_reports_what_it_took() {
    let lab = Lab::start().await;
    let ssh = lab.ssh();
    let grace = Duration::from_millis(300);

    let child = ssh
        .spawn(lab.vm, Command::argv(["sleep", "1000"]))
        .await
        .unwrap();
    let report = child.stop(grace).await.unwrap();
    assert_eq!(
        report,
        StopReport {
            signal: Some(Signal::Terminate),
            escaped: 0,
            left: 0
        }
    );
    assert_eq!(child.wait().await.unwrap(), Exit::Signal("TERM".into()));
    assert_eq!(child.stop(grace).await.unwrap(), StopReport::default());

    // A whole group that ignores TERM, with grandchildren.
    let mark = new_mark();
    let stubborn = with_mark(
        Command::shell("trap '' TERM; (trap '' TERM; sleep 1000; true) & sleep 1000; true"),
        &mark,
    );
    let child = ssh.spawn(lab.vm, stubborn).await.unwrap();
    let group = child.id().unwrap();
    eventually("it runs", || marked(&mark).len() >= 2).await;
    let report = child.stop(grace).await.unwrap();
    assert_eq!((report.signal, report.left), (Some(Signal::Kill), 0));
    assert!(marked(&mark).is_empty() && !group_lives(group));

    // What left the group.
    let mark = new_mark();
    let child = ssh
        .spawn(
            lab.vm,
            with_mark(
                Command::shell("setsid sleep 1000 & setsid sleep 1000 & wait"),
                &mark,
            ),
        )
        .await
        .unwrap();
    let own = child.id().unwrap();
    eventually("both have left the group", || {
        let left = |pid: &u32| group_of(*pid).is_some_and(|group| group != own);
        marked(&mark).iter().filter(|pid| left(pid)).count() == 2
    })
    .await;
    let report = child.stop(grace).await.unwrap();
    assert_eq!(
        report,
        StopReport {
            signal: Some(Signal::Terminate),
            escaped: 2,
            left: 0
        }
    );
    assert!(marked(&mark).is_empty());
}

#[tokio::test]
async fn signals_reach_the_group() {
    let lab = Lab::start().await;
    let ssh = lab.ssh();
    let script = "trap 'echo usr1' USR1; trap 'echo int; exit 4' INT; echo ready; while :; do sleep 0.01; done";
    let mut child = ssh.spawn(lab.vm, Command::shell(script)).await.unwrap();
    let mut out = child.take_stdout().unwrap();
    assert_eq!(out.next().await.unwrap(), "ready\n");
    child.signal(Signal::User1).await.unwrap();
    assert_eq!(out.next().await.unwrap(), "usr1\n");
    child.signal(Signal::Interrupt).await.unwrap();
    assert_eq!(out.next().await.unwrap(), "int\n");
    assert_eq!(child.wait().await.unwrap(), Exit::Code(4));
    assert_eq!(
        child.signal(Signal::Kill).await.unwrap_err().kind(),
        Kind::NotFound
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_is_given_up_at_any_point_is_gone_when_that_is_told() {
    let lab = Lab::start().await;
    let ssh = lab.ssh();
    shell(&ssh, lab.vm, "true").await;
    let mut given_up = 0;
    for pause in (0..40).map(|step| Duration::from_micros(200 * step)) {
        let (mark, token) = (new_mark(), CancellationToken::new());
        let command = with_mark(Command::argv(["sleep", "1000"]), &mark);
        let start = ssh.spawn_until(lab.vm, command, &token);
        let cancel = async {
            tokio::time::sleep(pause).await;
            token.cancel();
        };
        match tokio::join!(start, cancel).0 {
            Ok(child) => drop(child.stop(Duration::from_millis(300)).await.unwrap()),
            Err(error) => {
                assert_eq!(error.kind(), Kind::Cancelled, "{error}");
                given_up += 1;
            }
        }
        let left = marked(&mark);
        assert!(left.is_empty(), "after {pause:?}: {left:?}");
    }
    assert!(given_up > 0, "every start was quicker than its end");
}

#[tokio::test]
async fn a_time_limit_stops_the_group_and_says_so() {
    let lab = Lab::start().await;
    let ssh = lab.ssh();
    let mark = new_mark();
    let command = with_mark(Command::shell("echo before; sleep 1000; true"), &mark)
        .timeout(Duration::from_millis(300));
    let mut child = ssh.spawn(lab.vm, command).await.unwrap();
    let out = child.take_stdout().unwrap();
    let error = child.wait().await.unwrap_err();
    assert_eq!(error.kind(), Kind::TimedOut, "{error}");
    assert_eq!(out.collect(100).await.0, b"before\n");
    eventually("it is gone", || marked(&mark).is_empty()).await;
}

#[tokio::test]
async fn thirty_two_commands_at_once_are_all_served() {
    let lab = Lab::start().await;
    let ssh = lab.ssh();
    let runs = (0..32).map(|i| {
        let (ssh, vm) = (ssh.clone(), lab.vm);
        async move { shell(&ssh, vm, &format!("sleep 0.05; echo {i}")).await.1 }
    });
    let outs = futures::future::join_all(runs).await;
    for (i, out) in outs.iter().enumerate() {
        assert_eq!(*out, format!("{i}\n"));
    }
    // Again, now that the connections are there; and more than there are places.
    let runs = (0..96).map(|_| shell(&ssh, lab.vm, "echo x"));
    assert!(
        futures::future::join_all(runs)
            .await
            .iter()
            .all(|run| run.1 == "x\n")
    );
}

#[tokio::test]
async fn an_output_that_is_not_read_delays_nobody_and_loses_nothing() {
    // One that takes no variables: the control shell's answers about signals must not be taken for that about those.
    let lab = Lab::start_with("").await;
    let ssh = lab.ssh();
    const SIZE: usize = 100 << 20;
    let script = format!("head -c {SIZE} /dev/zero | tr '\\0' x; echo end");
    let mut flood = ssh.spawn(lab.vm, Command::shell(script)).await.unwrap();
    // Many others, so that some share its connection.
    let began = Instant::now();
    for _ in 0..20 {
        assert_eq!(shell(&ssh, lab.vm, "echo quick").await.1, "quick\n");
    }
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "others are held up"
    );
    assert!(
        tokio::time::timeout(Duration::from_millis(200), flood.wait())
            .await
            .is_err(),
        "it cannot have ended"
    );
    let (out, _) = flood.take_stdout().unwrap().collect(SIZE + 100).await;
    assert_eq!(out.len(), SIZE + 4);
    assert!(out[..SIZE].iter().all(|b| *b == b'x') && out.ends_with(b"end\n"));
    assert_eq!(flood.wait().await.unwrap(), Exit::Code(0));
}

#[tokio::test]
async fn a_background_process_does_not_delay_the_end() {
    let lab = Lab::start().await;
    let ssh = lab.ssh();
    let mark = new_mark();
    let began = Instant::now();
    let (exit, out, _) = run(
        &ssh,
        lab.vm,
        with_mark(Command::shell("sleep 20 & echo started"), &mark),
    )
    .await;
    assert_eq!((exit, out.as_slice()), (Exit::Code(0), &b"started\n"[..]));
    assert!(began.elapsed() < Duration::from_secs(10));
    // It was left on purpose, and is still there when the connection is not.
    ssh.disconnect(lab.vm).await;
    assert_eq!(marked(&mark).len(), 1);
    for pid in marked(&mark) {
        let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
}

#[tokio::test]
async fn many_background_processes_do_not_use_the_vm_up() {
    let lab = Lab::start().await;
    let ssh = lab.ssh();
    let mark = new_mark();
    for i in 0..60 {
        let (exit, out, _) = run(
            &ssh,
            lab.vm,
            with_mark(Command::shell(format!("sleep 1000 & echo {i}")), &mark),
        )
        .await;
        assert_eq!((exit, out), (Exit::Code(0), format!("{i}\n").into_bytes()));
    }
    for pid in marked(&mark) {
        let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

#[tokio::test]
async fn a_detached_command_outlives_its_handle_and_the_connection() {
    let lab = Lab::start().await;
    let ssh = lab.ssh();
    let mark = new_mark();
    let file = lab.dir.path().join("done");
    let script = format!("trap '' PIPE; sleep 0.7; echo lives >{}", file.display());
    let child = ssh
        .spawn(lab.vm, with_mark(Command::shell(script), &mark))
        .await
        .unwrap();
    child.detach();
    assert_eq!(shell(&ssh, lab.vm, "echo ok").await.1, "ok\n");
    ssh.disconnect(lab.vm).await;
    eventually("it ended by itself", || {
        std::fs::read(&file).is_ok_and(|text| text == b"lives\n")
    })
    .await;
}

#[tokio::test]
async fn a_cut_connection_is_no_exit_code_and_leaves_no_process() {
    let lab = Lab::start().await;
    let ssh = lab.ssh();
    let mark = new_mark();
    let mut commands = Vec::new();
    for with_stdin in [false, true] {
        let mut command = with_mark(
            Command::shell("trap '' TERM HUP; sleep 1000 & setsid sleep 1000 & sleep 1000; true"),
            &mark,
        );
        command.stdin = with_stdin;
        commands.push(ssh.spawn(lab.vm, command).await.unwrap());
    }
    eventually("they run", || marked(&mark).len() >= 6).await;
    assert!(ssh.is_connected(lab.vm));
    lab.cut();
    for child in &commands {
        let error = child.wait().await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    }
    let groups: Vec<u32> = commands.iter().map(|child| child.id().unwrap()).collect();
    eventually("the VM stopped them by itself", || {
        marked(&mark).is_empty() && !groups.iter().any(|g| group_lives(*g))
    })
    .await;
    // And the next command connects anew.
    assert_eq!(shell(&ssh, lab.vm, "echo back").await.1, "back\n");
}

#[tokio::test]
async fn disconnecting_stops_what_runs() {
    let lab = Lab::start().await;
    let ssh = lab.ssh();
    let mark = new_mark();
    let child = ssh
        .spawn(lab.vm, with_mark(Command::argv(["sleep", "1000"]), &mark))
        .await
        .unwrap();
    eventually("it runs", || !marked(&mark).is_empty()).await;
    ssh.disconnect(lab.vm).await;
    assert!(
        marked(&mark).is_empty(),
        "disconnect returned before it was gone"
    );
    assert!(!ssh.is_connected(lab.vm));
    let _ = child.wait().await;
}

/// It did: the profile of a slow VM printed into a connection that was gone, and the signal for that ended the one
/// shell that knew of the command.
#[tokio::test]
async fn no_command_runs_before_the_shell_that_could_stop_it() {
    let lab = Lab::start().await;
    let profile = "case $BASH_EXECUTION_STRING in trap*) sleep 1;; esac; echo NOISE\n";
    std::fs::write(lab.dir.path().join("home/.bashrc"), profile).unwrap();
    let ssh = lab.ssh();
    let mark = new_mark();
    let command = with_mark(Command::argv(["sleep", "1000"]), &mark);
    let child = ssh.spawn(lab.vm, command).await.unwrap();
    lab.cut();
    assert!(child.wait().await.is_err());
    eventually("it is gone", || marked(&mark).is_empty()).await;
}

#[tokio::test]
async fn the_end_of_the_client_stops_what_runs() {
    let lab = Lab::start().await;
    let mark = new_mark();
    {
        let ssh = lab.ssh();
        let child = ssh
            .spawn(lab.vm, with_mark(Command::argv(["sleep", "1000"]), &mark))
            .await
            .unwrap();
        eventually("it runs", || !marked(&mark).is_empty()).await;
        // Not even a drop: as if the process had been killed.
        std::mem::forget(child);
        lab.cut();
        std::mem::forget(ssh);
    }
    eventually("it is gone", || marked(&mark).is_empty()).await;
}
