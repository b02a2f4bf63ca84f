//! Any text under any name reaches a VM byte for byte, is read back whole, and is changed where an edit says and nowhere
//! else: on the local platform's VMs, and on a machine with OpenSSH's own server.
//!
//! What arrived is looked at by other means than the tools: `sha256sum` in the VM, and on OpenSSH's "VM", which is this
//! machine, its files.

use std::fmt::Write as _;
use std::path::Path;

use pi_vers_tests::{Bench, OpenSsh, Scratch, ids, settings};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use vers_client::VmId;

/// Where the bytes of a file are looked at.
#[derive(Clone, Copy)]
enum Look {
    /// In the VM.
    Vm(VmId),
    /// In this machine's file system.
    Here,
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

async fn sha256(bench: &Bench, look: Look, path: &str) -> String {
    let Look::Vm(vm) = look else {
        return hex(&std::fs::read(path).unwrap_or_else(|why| panic!("{path:?}: {why}")));
    };
    let command = vers_client::Command::argv(["sha256sum", "-z", "--", path]);
    let mut child = bench.host.ssh().spawn(vm, command).await.unwrap();
    let (text, _) = child.take_stdout().unwrap().collect(1 << 20).await;
    let ended = child.wait().await.unwrap();
    assert!(ended.is_success(), "{path:?}: {ended:?}");
    String::from_utf8_lossy(&text)
        .split(' ')
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// One file's life.
#[derive(Debug, Clone)]
struct Case {
    name: String,
    /// Named from the working directory, not from the root.
    relative: bool,
    content: String,
    /// What an edit replaces: from one place in the content to another.
    cut: (prop::sample::Index, prop::sample::Index),
    new: String,
}

fn names() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "-rf",
        "--",
        "-n",
        " ",
        "a b",
        " lead",
        "trail ",
        "it's",
        "\"quoted\"",
        "'; touch x; '",
        "line\nbreak",
        "\n",
        "tab\there",
        "\r",
        "$(x)`y`",
        "${HOME}",
        "~",
        "~root",
        "*",
        "?",
        "[a-z]",
        "{a,b}",
        "!!",
        "#hash",
        "a\\b",
        "\\n",
        "%s%n",
        "zażółć",
        "💩",
        "e\u{301}",
        "\u{202e}gnp.exe",
        "...",
        ".hidden",
        "\u{1b}[2J",
        "\u{7f}",
        "vm:x:y",
        "&",
        "|",
        "<>",
        "=",
        "@file",
        "NUL",
        "con.txt",
    ]);
    let any = "[^/\0]{1,40}".prop_filter("no name of a file", |name: &String| {
        name != "." && name != ".." && name.len() <= 200
    });
    prop_oneof![1 => known.prop_map(str::to_owned), 2 => any]
}

fn contents() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "\n",
        "\r\n",
        "\r",
        "\0",
        "\u{feff}",
        "é",
        "💩",
        "\u{1b}[31m",
        "VERS_EOF_1",
        "EOF\n",
        "'",
        "\"",
        "$(x)",
        "`",
        "\\",
        "\\n",
        "%",
        " ",
        "\t",
        "a",
        "word ",
        "\u{85}",
        "\u{2028}",
    ]);
    let block = prop_oneof![
        "[a-z \n]{1,80}",
        "\\PC{1,60}\n",
        Just("żółw 💩\r\n".to_owned())
    ];
    prop_oneof![
        1 => Just(String::new()),
        1 => prop::sample::select(vec!["\n", "\r\n", "no line end", "a\0b", "\u{feff}", "x\n\n\n"]).prop_map(str::to_owned),
        4 => any::<String>(),
        6 => prop::collection::vec(pieces, 0..200).prop_map(|pieces| pieces.concat()),
        // Longer than one page, one SFTP packet, one argument.
        3 => (block, 1usize..100_000).prop_map(|(block, size)| block.repeat(size / block.len() + 1)),
        1 => (1usize..120_000).prop_map(|size| "x".repeat(size)),
    ]
}

fn cases() -> impl Strategy<Value = Case> {
    let cut = any::<(prop::sample::Index, prop::sample::Index)>();
    let parts = (
        names(),
        any::<bool>(),
        contents(),
        cut,
        prop_oneof![contents(), "[a-z\n]{0,20}"],
    );
    // The home directory and those below it have names of their own, which are no names of files.
    let parts = parts.prop_filter("a way to say home", |(name, relative, ..)| {
        !(*relative && name == "~")
    });
    parts.prop_map(|(name, relative, content, cut, new)| Case {
        name,
        relative,
        content,
        cut,
        new,
    })
}

impl Case {
    /// What the edit names: never in the middle of a character, and not too long for a model to write.
    fn old(&self) -> &str {
        let at = |index: prop::sample::Index| {
            (0..=index.index(self.content.len() + 1))
                .rev()
                .find(|at| self.content.is_char_boundary(*at))
                .unwrap_or(0)
        };
        let (a, b) = (at(self.cut.0), at(self.cut.1));
        let (from, to) = (a.min(b), a.max(b));
        let short = (from..=to.min(from + 400))
            .rev()
            .find(|at| self.content.is_char_boundary(*at))
            .unwrap_or(from);
        &self.content[from..short]
    }

    /// The content after the edit; none if the edit has to be refused.
    ///
    /// A model writes `\n` for any line end, and an edit does not turn one kind into the other. What that means in a file with
    /// both kinds is a matter of taste, and is left to the unit tests: `Err`.
    fn edited(&self) -> Result<Option<String>, ()> {
        let (old, new) = (self.old(), self.new.as_str());
        if [self.content.as_str(), old, new]
            .iter()
            .any(|text| text.starts_with('\u{feff}'))
        {
            return Err(());
        }
        let lf = |text: &str| text.replace("\r\n", "\n");
        let crlf = self.content.contains("\r\n");
        if (crlf && lf(&self.content).replace('\n', "\r\n") != self.content)
            || lf(&self.content).contains('\r')
            || new.contains('\r')
        {
            return Err(());
        }
        let (content, old) = (lf(&self.content), lf(old));
        // Of places that overlap, too.
        let places = (0..content.len())
            .filter(|at| content.as_bytes()[*at..].starts_with(old.as_bytes()))
            .take(2)
            .count();
        if old.is_empty() || places != 1 || old == new {
            return Ok(None);
        }
        let edited = content.replacen(&old, new, 1);
        Ok(Some(if crlf {
            edited.replace('\n', "\r\n")
        } else {
            edited
        }))
    }
}

/// All that `read` shows of a file, page by page; none where a line is too long for any page.
async fn read_whole(bench: &Bench, path: &str) -> Option<String> {
    let mut whole = String::new();
    let mut offset = 1;
    loop {
        let page = bench
            .text("read", json!({ "path": path, "offset": offset }))
            .await;
        if page.starts_with(&format!("[Line {offset} is "))
            && page.contains(" exceeds 50.0KB limit.")
        {
            return None;
        }
        let more = page
            .rsplit_once("\n\n[Showing lines ")
            .and_then(|(text, notice)| {
                let next = notice
                    .rsplit_once(" Use offset=")?
                    .1
                    .strip_suffix(" to continue.]")?;
                Some((text, next.parse().ok()?))
            });
        let Some((text, next)) = more else {
            return Some(whole + &page);
        };
        assert!(next > offset, "{path:?}: after line {offset} comes {next}");
        whole = whole + text + "\n";
        offset = next;
    }
}

async fn live(bench: &Bench, look: Look, directory: &str, case: Case) {
    let full = format!("{directory}/{}", case.name);
    let path = if case.relative { &case.name } else { &full };
    let written = bench
        .text("write", json!({ "path": path, "content": case.content }))
        .await;
    assert_eq!(
        written,
        format!("Successfully wrote {} bytes to {path}", case.content.len())
    );
    assert_eq!(
        sha256(bench, look, &full).await,
        hex(case.content.as_bytes()),
        "what was written is not what is there"
    );

    if case.content.is_empty() {
        assert_eq!(
            bench.text("read", json!({ "path": path })).await,
            "(empty file)"
        );
    } else if case
        .content
        .as_bytes()
        .iter()
        .take(8192)
        .any(|byte| *byte == 0)
    {
        let shown = bench.text("read", json!({ "path": path })).await;
        assert!(
            shown.starts_with(&format!("[{path} is a binary file of ")),
            "{shown}"
        );
    } else if let Some(read) = read_whole(bench, path).await {
        assert!(
            read == case.content,
            "what is read is not what was written: {read:?}"
        );
    } else {
        assert!(case.content.lines().any(|line| line.len() > 50 * 1024));
    }

    let edit = json!({ "path": path, "oldText": case.old(), "newText": case.new });
    match case.edited() {
        Ok(Some(expected)) => {
            bench.text("edit", edit).await;
            assert_eq!(
                sha256(bench, look, &full).await,
                hex(expected.as_bytes()),
                "an edit has changed something else"
            );
        }
        Ok(None) => {
            bench.failure("edit", edit).await;
            assert_eq!(
                sha256(bench, look, &full).await,
                hex(case.content.as_bytes()),
                "an edit that was refused has changed something"
            );
        }
        Err(()) => {}
    }
}

async fn any_text_under_any_name(bench: Bench, look: Look, directory: String, count: u32) {
    bench
        .text(
            "bash",
            json!({ "command": format!("mkdir -p {directory} && cd {directory}") }),
        )
        .await;
    let handle = tokio::runtime::Handle::current();
    let bench = tokio::task::spawn_blocking(move || {
        let mut runner = TestRunner::new(Config {
            cases: count,
            failure_persistence: None,
            max_shrink_iters: 120,
            ..Config::default()
        });
        let ran = runner.run(&cases(), |case| {
            handle.block_on(live(&bench, look, &directory, case));
            Ok(())
        });
        ran.unwrap_or_else(|why| panic!("{why}"));
        bench
    })
    .await
    .unwrap();
    // No half-written file lies beside them.
    let names = bench
        .text("bash", json!({ "command": "find . -name '.vers-*.tmp'" }))
        .await;
    assert_eq!(names, "(no output)");
    bench.session.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_text_reaches_a_local_vm_and_comes_back() {
    let scratch = Scratch::new();
    let endpoint = scratch.up().await;
    let bench = Bench::open(settings(&endpoint), &scratch.work()).await;
    let created = bench
        .text("vers_vm_create", json!({ "wait_boot": true }))
        .await;
    let vm = ids(&created)[0].clone();
    bench.text("vers_vm_use", json!({ "vmId": vm })).await;
    any_text_under_any_name(bench, Look::Vm(vm.parse().unwrap()), "/srv/any".into(), 160).await;
    scratch.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_text_reaches_openssh_and_comes_back() {
    let machine = OpenSsh::start().await;
    let state = tempfile::tempdir().unwrap();
    let bench = Bench::open(machine.settings(), state.path()).await;
    bench
        .text("vers_vm_use", json!({ "vmId": machine.vm }))
        .await;
    let directory: &Path = &machine.home().join("any");
    any_text_under_any_name(bench, Look::Here, directory.display().to_string(), 160).await;
}
