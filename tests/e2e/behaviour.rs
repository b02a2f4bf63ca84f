//! What a user and a model may rely on when tools act on a VM.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use pi_vers_host::CallError;
use pi_vers_tests::{Bench, DEADLINE, Scratch, eventually, ids, mark, settings, text, traces};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// A session with one active VM on a platform of its own.
struct Lab {
    scratch: Scratch,
    bench: Arc<Bench>,
    vm: String,
}

impl Lab {
    async fn new() -> Self {
        let scratch = Scratch::new();
        let endpoint = scratch.up().await;
        let bench = Arc::new(Bench::open(settings(&endpoint), &scratch.work()).await);
        let vm = create(&bench).await;
        bench.text("vers_vm_use", json!({ "vmId": vm })).await;
        Self { scratch, bench, vm }
    }

    async fn bash(&self, command: &str) -> String {
        self.bench.text("bash", json!({ "command": command })).await
    }

    async fn end(self) {
        Arc::into_inner(self.bench)
            .expect("nobody uses it any more")
            .session
            .end()
            .await;
        self.scratch.end().await;
    }
}

async fn create(bench: &Bench) -> String {
    ids(&bench
        .text("vers_vm_create", json!({ "wait_boot": true }))
        .await)[0]
        .clone()
}

/// A shell, its child in the background, and a child of that: all with the mark in their arguments, none heeding TERM.
fn family(mark: &str) -> String {
    let grandchild = format!("sh -c 'trap \"\" TERM; : {mark}; while :; do sleep 5; done'");
    format!(
        "trap '' TERM; (trap '' TERM; {grandchild} & {grandchild}) & echo begun; : {mark}; while :; do sleep 5; done"
    )
}

async fn family_lives(mark: &str) {
    // The shell that runs it, the one in the background, and its two children.
    eventually("the command's processes run", || {
        traces::marked(mark).len() >= 4
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_command_is_gone_with_all_its_descendants() {
    let lab = Lab::new().await;
    let mark = mark();
    let mut call = lab
        .bench
        .session
        .call("bash", json!({ "command": family(&mark), "timeout": 0 }));
    family_lives(&mark).await;
    call.canceller().cancel();
    let outcome = call.outcome().await;
    assert!(
        matches!(outcome, Err(CallError::Cancelled { .. })),
        "{outcome:?}"
    );
    assert_eq!(
        traces::marked(&mark),
        Vec::<u32>::new(),
        "said to be stopped, and runs"
    );
    // A handle that is dropped is a cancelled call, too.
    let call = lab
        .bench
        .session
        .call("bash", json!({ "command": family(&mark), "timeout": 0 }));
    family_lives(&mark).await;
    drop(call);
    eventually("the processes of a dropped call are gone", || {
        traces::marked(&mark).is_empty()
    })
    .await;
    assert_eq!(lab.bash("echo on").await, "on\n");
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_stopped_at_its_time_limit_is_gone_and_its_output_is_told() {
    let lab = Lab::new().await;
    let mark = mark();
    let said = lab
        .bench
        .failure("bash", json!({ "command": family(&mark), "timeout": 1 }))
        .await;
    assert_eq!(
        said,
        "SSH command timed out after 1s.\n\nPartial output:\nbegun\n"
    );
    assert_eq!(traces::marked(&mark), Vec::<u32>::new());

    // The same from outside: --timeout, and Ctrl-C. The process ends only when the command has.
    lab.scratch
        .text("vers_vm_use", json!({ "vmId": lab.vm }))
        .await;
    let arguments = json!({ "command": family(&mark), "timeout": 0 }).to_string();
    let run = [
        "run",
        "--local",
        "--json",
        "--session",
        "s",
        "--timeout",
        "2s",
        "bash",
        &arguments,
    ];
    let done = lab.scratch.run(&run).await;
    assert_eq!(
        (done.code, &done.lines()[0]["error"]["kind"]),
        (Some(5), &json!("timed-out")),
        "{done:?}"
    );
    assert_eq!(traces::marked(&mark), Vec::<u32>::new());

    let running = lab.scratch.start(&[
        "run",
        "--local",
        "--json",
        "--session",
        "s",
        "bash",
        &arguments,
    ]);
    // The arguments of `pi-vers` itself hold the mark as well.
    eventually("the command's processes run", || {
        traces::marked(&mark).len() >= 5
    })
    .await;
    kill_process(Pid::from_raw(running.pid()).unwrap(), Signal::INT).unwrap();
    let done = running.done().await;
    assert_eq!(
        (done.code, &done.lines()[0]["error"]["kind"]),
        (Some(6), &json!("cancelled")),
        "{done:?}"
    );
    assert_eq!(traces::marked(&mark), Vec::<u32>::new());
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_and_signals_are_the_commands_own() {
    let lab = Lab::new().await;
    for code in [1, 2, 124, 126, 127, 128, 130, 137, 143, 254, 255] {
        let said = lab
            .bench
            .failure("bash", json!({ "command": format!("exit {code}") }))
            .await;
        assert_eq!(
            said,
            format!("(no output)\n\nCommand exited with code {code}")
        );
    }
    for signal in ["KILL", "TERM", "SEGV"] {
        let said = lab
            .bench
            .failure(
                "bash",
                json!({ "command": format!("echo out; kill -{signal} $$") }),
            )
            .await;
        assert!(
            said.starts_with("out\n")
                && said.ends_with(&format!("\n\nCommand was ended by signal {signal}")),
            "{signal}: {said}"
        );
    }
    // No input: what reads it ends at once.
    assert_eq!(lab.bash("cat; read x || echo end").await, "end\n");
    // What is left in the background does not hold the call up.
    let mark = mark();
    assert_eq!(
        lab.bash(&format!("sh -c ': {mark}; sleep 600; :' & echo $?"))
            .await,
        "0\n"
    );
    assert_eq!(
        traces::marked(&mark).len(),
        1,
        "a command that ended by itself takes nothing with it"
    );
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_vm_has_its_working_directory_and_relative_paths_follow_it() {
    let lab = Lab::new().await;
    let other = create(&lab.bench).await;
    assert_eq!(lab.bash("pwd").await, "/root\n");
    lab.bash("mkdir -p '/srv/a b' && cd '/srv/a b'").await;
    assert_eq!(lab.bash("pwd").await, "/srv/a b\n");
    lab.bench
        .text("write", json!({ "path": "x", "content": "1" }))
        .await;
    lab.bench
        .text("write", json!({ "path": "./sub/../y", "content": "2" }))
        .await;
    lab.bench
        .text("write", json!({ "path": "~/z", "content": "3" }))
        .await;
    assert_eq!(
        lab.bash("cat '/srv/a b/x' '/srv/a b/y' /root/z").await,
        "123"
    );
    assert_eq!(lab.bench.text("read", json!({ "path": "x" })).await, "1");
    assert_eq!(lab.bench.text("find", json!({ "pattern": "x" })).await, "x");

    lab.bench
        .text("vers_vm_use", json!({ "vmId": other }))
        .await;
    assert_eq!(lab.bash("pwd; ls /srv").await, "/root\n");
    lab.bash("cd /etc").await;
    lab.bench
        .text("vers_vm_use", json!({ "vmId": lab.vm }))
        .await;
    assert_eq!(lab.bash("pwd").await, "/srv/a b\n");
    // A directory that is gone is told, and is no dead end.
    lab.bash("rm -r '/srv/a b'").await;
    assert_eq!(
        lab.bash("pwd").await,
        "[The working directory /srv/a b is gone; using /root.]\n/root\n"
    );
    // A failing command keeps where it went.
    lab.bench
        .failure("bash", json!({ "command": "cd /usr; false" }))
        .await;
    assert_eq!(lab.bash("pwd").await, "/usr\n");
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_output_keeps_its_end_and_the_whole_is_in_a_file() {
    let lab = Lab::new().await;
    let shown = lab.bash("seq 1 100000").await;
    let (text, notice) = shown.rsplit_once("\n\n").unwrap();
    assert!(
        text.trim_end().ends_with("\n100000")
            && text.len() <= 50 * 1024
            && text.lines().count() <= 2000,
        "{} bytes",
        text.len()
    );
    let file = notice
        .split_once("Full output: ")
        .unwrap()
        .1
        .trim_end_matches([']', '.']);
    assert_eq!(
        lab.bash(&format!("cmp {file} <(seq 1 100000) && echo same"))
            .await,
        "same\n"
    );
    // A line without an end, longer than what is shown, with characters of several bytes.
    let shown = lab
        .bash("for i in $(seq 20000); do printf 'żółw'; done; printf END")
        .await;
    assert!(
        shown.contains("żółwEND") && !shown.contains('\u{fffd}'),
        "a character was cut in two"
    );
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_changes_its_text_and_no_other_byte() {
    let lab = Lab::new().await;
    let replaced = "Successfully replaced text in /srv/f.";
    // printf's form of a file, an edit of it, and od's view of what has to be there.
    for (before, old, new, after) in [
        // A mark, DOS line ends, no line end at the end.
        (
            r"\357\273\277a\r\nb\r\nc",
            "a\nb",
            "A\nB\nB",
            r"357 273 277 A \r \n B \r \n B \r \n c",
        ),
        // Bytes that are no UTF-8.
        (r"\377\376x\200\n\303", "x", "y", r"377 376 y 200 \n 303"),
        // NULs.
        (r"\0a\0b\0", "b", "", r"\0 a \0 \0"),
        // One kind of line end stays what it is beside the other.
        (r"a\r\nb\nc\n", "b\n", "B\nX\n", r"a \r \n B \n X \n c \n"),
    ] {
        lab.bash(&format!("printf '{before}' > /srv/f")).await;
        assert_eq!(
            lab.bench
                .text(
                    "edit",
                    json!({ "path": "/srv/f", "oldText": old, "newText": new })
                )
                .await,
            replaced
        );
        let bytes = lab.bash("od -An -v -c /srv/f").await;
        assert_eq!(
            bytes.split_whitespace().collect::<Vec<_>>().join(" "),
            after,
            "{before}"
        );
    }
    // Modes, owners and links outlive a write and an edit.
    lab.bash("cd /srv; printf 'a\\n' > real; chmod 4750 real; chown 7:8 real; ln -s real link")
        .await;
    lab.bench
        .text(
            "edit",
            json!({ "path": "/srv/link", "oldText": "a", "newText": "b" }),
        )
        .await;
    assert_eq!(lab.bash("cd /srv; cat real; readlink link; stat -c '%u:%g' real; stat -c %a real | grep -o '750$'").await, "b\nreal\n7:8\n750\n");
    lab.bench
        .text("write", json!({ "path": "/srv/link", "content": "c" }))
        .await;
    assert_eq!(lab.bash("cd /srv; cat real; echo; readlink link; stat -c '%u:%g' real; stat -c %a real | grep -o '750$'").await, "c\nreal\n7:8\n750\n");
    // Several at once, of the file as it was.
    lab.bench
        .text(
            "write",
            json!({ "path": "/srv/f", "content": "one two three\n" }),
        )
        .await;
    let edits =
        json!([{ "oldText": "three", "newText": "one" }, { "oldText": "one", "newText": "three" }]);
    let said = lab
        .bench
        .text("edit", json!({ "path": "/srv/f", "edits": edits }))
        .await;
    assert_eq!(
        (said.as_str(), lab.bash("cat /srv/f").await.as_str()),
        (
            "Successfully replaced 2 texts in /srv/f.",
            "three two one\n"
        )
    );
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_of_a_file_that_changes_meanwhile_is_refused_and_loses_nothing() {
    let lab = Lab::new().await;
    // Large enough that reading it takes longer than the next change.
    lab.bash("head -c 8000000 /dev/zero | tr '\\0' a > /srv/f; printf 'HERE\\n' >> /srv/f")
        .await;
    let mark = mark();
    let writer = json!({ "command": format!(": {mark}; i=0; while [ ! -e /srv/stop ]; do i=$((i+1)); echo line $i >> /srv/f; done; echo $i") });
    let mut writing = lab.bench.session.call("bash", writer);
    eventually("the other writer runs", || {
        !traces::marked(&mark).is_empty()
    })
    .await;
    for _ in 0..3 {
        let said = lab
            .bench
            .failure(
                "edit",
                json!({ "path": "/srv/f", "oldText": "HERE", "newText": "THERE" }),
            )
            .await;
        assert_eq!(said, "/srv/f changed while it was edited; read it again.");
    }
    lab.bash("touch /srv/stop").await;
    let lines = writing.outcome().await.unwrap().text();
    let lines = lines.trim();
    assert_eq!(
        lab.bash(
            "tail -n +2 /srv/f | wc -l; grep -c HERE$ /srv/f; ls -A /srv | grep -c tmp || true"
        )
        .await,
        format!("{lines}\n1\n0\n")
    );
    lab.bench
        .text(
            "edit",
            json!({ "path": "/srv/f", "oldText": "HERE", "newText": "THERE" }),
        )
        .await;
    lab.end().await;
}

/// Agents call tools side by side: edits of one file are then made one after another, or refused, and never lost.
#[tokio::test(flavor = "multi_thread")]
async fn edits_of_one_file_side_by_side_are_never_lost() {
    let lab = Lab::new().await;
    for round in 0..3 {
        let lines: String = (0..16).map(|i| format!("slot {i:02} empty\n")).collect();
        lab.bench
            .text("write", json!({ "path": "/srv/slots", "content": lines }))
            .await;
        let edit = |i: i32| {
            let (old, new) = (format!("slot {i:02} empty"), format!("slot {i:02} taken"));
            let mut call = lab.bench.session.call(
                "edit",
                json!({ "path": "/srv/slots", "oldText": old, "newText": new }),
            );
            async move { (i, call.outcome().await) }
        };
        let mut expected: Vec<String> = Vec::new();
        for (i, outcome) in join_all((0..16).map(edit)).await {
            match outcome {
                Ok(_) => expected.push(format!("slot {i:02} taken")),
                Err(CallError::Failed(output))
                    if output.text()
                        == "/srv/slots changed while it was edited; read it again." =>
                {
                    expected.push(format!("slot {i:02} empty"));
                }
                other => panic!("{other:?}"),
            }
        }
        let found = lab.bash("cat /srv/slots").await;
        assert_eq!(
            found.lines().collect::<Vec<_>>(),
            expected,
            "round {round}: an edit that was said to be made is not there"
        );
        assert!(found.contains("taken"), "nobody came through");
    }
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_vm_is_resumed_and_the_call_says_so() {
    let lab = Lab::new().await;
    lab.bash("echo before > /srv/f").await;
    let pause = json!({ "vmId": lab.vm, "state": "Paused" });
    let notice = format!("[VM {} was paused and has been resumed.]\n", lab.vm);
    for (tool, arguments, expected) in [
        ("bash", json!({ "command": "cat /srv/f" }), "before\n"),
        ("read", json!({ "path": "/srv/f" }), "before\n"),
        (
            "write",
            json!({ "path": "/srv/g", "content": "" }),
            "Successfully wrote 0 bytes to /srv/g",
        ),
        (
            "edit",
            json!({ "path": "/srv/f", "oldText": "before", "newText": "after" }),
            "Successfully replaced text in /srv/f.",
        ),
        ("ls", json!({ "path": "/srv" }), "f\ng"),
    ] {
        lab.bench.text("vers_vm_state", pause.clone()).await;
        assert_eq!(
            lab.bench.text(tool, arguments).await,
            format!("{notice}{expected}"),
            "{tool}"
        );
    }
    // Chosen anew, too.
    lab.bench.text("vers_vm_state", pause.clone()).await;
    let used = lab
        .bench
        .text("vers_vm_use", json!({ "vmId": lab.vm }))
        .await;
    assert!(
        used.starts_with(&format!(
            "VM {} was paused and has been resumed. Active VM set to",
            lab.vm
        )),
        "{used}"
    );
    assert_eq!(lab.bash("cat /srv/f").await, "after\n");
    lab.end().await;
}

/// Then the session's connection is silent, and nobody has told it why. What was sent to the frozen VM must not run
/// besides its repetition.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_for_a_vm_that_was_paused_elsewhere_runs_once() {
    let lab = Lab::new().await;
    lab.bash("true").await;
    lab.scratch
        .text(
            "vers_vm_state",
            json!({ "vmId": lab.vm, "state": "Paused" }),
        )
        .await;
    // A VM that was heard just now counts as awake.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let said = lab.bash("echo ran >> /srv/ran; echo done").await;
    assert_eq!(
        said,
        format!("[VM {} was paused and has been resumed.]\ndone\n", lab.vm)
    );
    // Time for a second one to come.
    assert_eq!(lab.bash("sleep 2; cat /srv/ran").await, "ran\n");
    lab.end().await;
}

/// While it is being removed it is dead, and then it is not there any more.
fn is_gone(vm: &str, said: &str) -> bool {
    ["is dead.", "no longer exists."]
        .iter()
        .any(|gone| said.contains(&format!("VM {vm} {gone}")))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_that_is_deleted_elsewhere_is_told_and_never_replaced_by_this_machine() {
    let lab = Lab::new().await;
    let mut running = lab
        .bench
        .session
        .call("bash", json!({ "command": "echo begun; sleep 600; :" }));
    let mut shown = running.updates();
    let begun = shown.wait_for(|update| {
        update
            .content
            .iter()
            .any(|block| block.as_text().is_some_and(|text| text.contains("begun")))
    });
    tokio::time::timeout(DEADLINE, begun)
        .await
        .expect("the command runs")
        .expect("it has not ended");
    lab.bench
        .host
        .api()
        .delete_vm(lab.vm.parse().unwrap())
        .await
        .unwrap();
    match running.outcome().await {
        Err(CallError::Failed(output)) => {
            let said = output.text();
            assert!(
                said.contains("was lost while the command ran") && is_gone(&lab.vm, &said),
                "{said}"
            );
            assert!(said.ends_with("Partial output:\nbegun\n"), "{said}");
        }
        other => panic!("{other:?}"),
    }
    for (tool, arguments) in [
        ("bash", json!({ "command": "true" })),
        ("read", json!({ "path": "/etc/hostname" })),
        ("write", json!({ "path": "/tmp/x", "content": "" })),
        (
            "edit",
            json!({ "path": "/etc/hostname", "oldText": "a", "newText": "b" }),
        ),
        ("ls", json!({})),
    ] {
        let said = match lab.bench.call(tool, arguments).await {
            Err(why) => why.to_string(),
            Ok(output) => panic!("{tool}: {}", output.text()),
        };
        assert!(
            is_gone(&lab.vm, &said) && said.contains("Choose another with vers_vm_use"),
            "{tool}: {said}"
        );
    }
    // Another one works at once.
    let other = create(&lab.bench).await;
    lab.bench
        .text("vers_vm_use", json!({ "vmId": other }))
        .await;
    assert_eq!(lab.bash("echo here").await, "here\n");
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_is_named_by_the_beginning_of_its_id() {
    let lab = Lab::new().await;
    let beginning = &lab.vm[..13];
    let used = lab
        .bench
        .text("vers_vm_use", json!({ "vmId": beginning }))
        .await;
    assert!(
        used.starts_with(&format!("Active VM set to {}.", lab.vm)),
        "{used}"
    );
    // Of seventeen VMs two begin alike, if not before.
    let mut all = vec![lab.vm.clone()];
    let alike = |all: &[String]| {
        all.iter()
            .find(|id| {
                all.iter()
                    .any(|other| other != *id && other[..1] == id[..1])
            })
            .cloned()
    };
    while alike(&all).is_none() {
        let made = lab
            .bench
            .text("vers_vm_branch", json!({ "vmId": lab.vm }))
            .await;
        all.push(ids(&made)[1].clone());
    }
    let alike = alike(&all).unwrap();
    let said = lab
        .bench
        .failure("vers_vm_delete", json!({ "vmId": &alike[..1] }))
        .await;
    let listed = all.iter().filter(|id| id[..1] == alike[..1]);
    assert!(
        said.contains("is the beginning of several VM ids")
            && listed.clone().all(|id| said.contains(id.as_str())),
        "{said}"
    );
    let none = lab
        .bench
        .failure("vers_vm_use", json!({ "vmId": "no-such" }))
        .await;
    assert!(none.contains("no-such"), "{none}");
    let free = (0..16)
        .map(|digit| format!("{digit:x}"))
        .find(|digit| !all.iter().any(|id| id.starts_with(digit.as_str())));
    if let Some(free) = free {
        let none = lab
            .bench
            .failure("vers_vm_use", json!({ "vmId": free }))
            .await;
        assert_eq!(none, format!("There is no VM {free}. vers_vms lists them."));
    }
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_active_vm_belongs_to_the_session_and_outlives_the_process() {
    let scratch = Scratch::new();
    let endpoint = scratch.up().await;
    let bench = Bench::open(settings(&endpoint), &scratch.work()).await;
    let (a, b) = (create(&bench).await, create(&bench).await);
    let bash = |session: &'static str, command: &str| {
        let arguments = json!({ "command": command });
        let scratch = &scratch;
        async move { text(&scratch.call_in(session, "bash", arguments).await) }
    };
    for (session, vm) in [("a", &a), ("b", &b)] {
        assert_eq!(
            scratch
                .call_in(session, "vers_vm_use", json!({ "vmId": vm }))
                .await["ok"],
            true
        );
        assert_eq!(
            bash(
                session,
                &format!("echo {session} > /srv/mine; mkdir /srv/{session}; cd /srv/{session}")
            )
            .await,
            "(no output)"
        );
    }
    assert_eq!(bash("a", "pwd; cat /srv/mine").await, "/srv/a\na\n");
    assert_eq!(bash("b", "pwd; cat /srv/mine").await, "/srv/b\nb\n");
    // Two sessions on one VM have a directory each.
    assert_eq!(
        scratch
            .call_in("c", "vers_vm_use", json!({ "vmId": a }))
            .await["ok"],
        true
    );
    assert_eq!(bash("c", "pwd; cat /srv/mine").await, "/root\na\n");
    // A VM that is gone when the session is taken up again: said, and the choice is dropped before any tool acts.
    bench
        .host
        .api()
        .delete_vm(a.parse().unwrap())
        .await
        .unwrap();
    let done = scratch
        .run(&[
            "run",
            "--local",
            "--json",
            "--session",
            "a",
            "bash",
            "{\"command\":\"touch here\"}",
        ])
        .await;
    let told = format!(
        "VM {a}, which was active in this session, no longer exists. Tools act on the local machine again."
    );
    assert!(
        done.stderr.contains(&told) && done.code == Some(1),
        "{done:?}"
    );
    assert!(!Path::new(&scratch.work().join("here")).exists());
    assert_eq!(bash("b", "cat /srv/mine").await, "b\n");
    bench.session.end().await;
    scratch.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_commands_at_once_on_one_vm_are_all_run_and_kept_apart() {
    let lab = Lab::new().await;
    let calls = (0..32).map(|i| {
        let command = format!("for n in 1 2 3 4 5 6 7 8; do echo {i}; done; exit {i}");
        let mut call = lab
            .bench
            .session
            .call("bash", json!({ "command": command }));
        async move { (i, call.outcome().await) }
    });
    for (i, outcome) in join_all(calls).await {
        let lines = format!("{i}\n").repeat(8);
        match outcome {
            Ok(output) => assert_eq!((i, output.text()), (0, lines)),
            Err(CallError::Failed(output)) => assert_eq!(
                output.text(),
                format!("{lines}\n\nCommand exited with code {i}")
            ),
            other => panic!("{other:?}"),
        }
    }
    lab.end().await;
}

/// What a result line of the binary and the Rust API say of one call is the same.
#[tokio::test(flavor = "multi_thread")]
async fn the_binary_adds_nothing_and_leaves_nothing_out() {
    let lab = Lab::new().await;
    lab.scratch
        .text("vers_vm_use", json!({ "vmId": lab.vm }))
        .await;
    lab.bash("printf '\\211PNG\\r\\n\\032\\n1234' > /srv/p.png; printf 'a\\033[1mb\\n' > /srv/esc")
        .await;
    for (tool, arguments) in [
        ("read", json!({ "path": "/srv/p.png" })),
        ("read", json!({ "path": "/srv/esc" })),
        (
            "edit",
            json!({ "path": "/srv/none", "oldText": "a", "newText": "b" }),
        ),
        (
            "bash",
            json!({ "command": "printf 'a\\033[1mb\\rc\\n'; exit 3" }),
        ),
    ] {
        let line = lab.scratch.call(tool, arguments.clone()).await;
        let (ok, output) = match lab.bench.call(tool, arguments).await {
            Ok(output) => (true, output),
            Err(CallError::Failed(output)) => (false, output),
            other => panic!("{other:?}"),
        };
        assert_eq!(
            (&line["ok"], text(&line)),
            (&json!(ok), output.text()),
            "{tool}"
        );
        assert_eq!(
            line["details"],
            output.details.unwrap_or(Value::Null),
            "{tool}"
        );
        assert_eq!(
            line["content"].as_array().unwrap().len(),
            output.content.len(),
            "{tool}"
        );
    }
    lab.end().await;
}
