//! The wrapper, run by the real bash: a wrapped script must behave as with `bash -c SCRIPT`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![cfg(not(target_family = "wasm"))]

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use vers_vm::wrapper::{Names, Script, argv, parse_state};

struct Vm {
    home: tempfile::TempDir,
}

#[derive(Debug, PartialEq, Eq)]
struct Ran {
    output: String,
    code: Option<i32>,
    signal: Option<i32>,
}

impl Vm {
    fn new() -> Self {
        Self {
            home: tempfile::tempdir().unwrap(),
        }
    }

    fn home(&self) -> PathBuf {
        self.home.path().canonicalize().unwrap()
    }

    fn names() -> Names {
        Names::new("abc123".into())
    }

    fn start(&self, argv: &[String]) -> Ran {
        let file = tempfile::NamedTempFile::new().unwrap();
        let out = file.reopen().unwrap();
        let status = Command::new(&argv[0])
            .args(&argv[1..])
            .env_clear()
            .env("HOME", self.home())
            .env("PATH", "/usr/bin:/bin")
            .env("LC_ALL", "C")
            .current_dir(self.home())
            .stdin(Stdio::null())
            .stderr(out.try_clone().unwrap())
            .stdout(out)
            .process_group(0)
            .status()
            .unwrap();
        let output = std::fs::read_to_string(file.path()).unwrap();
        Ran {
            output,
            code: status.code(),
            signal: status.signal(),
        }
    }

    fn run(&self, script: &str) -> Ran {
        self.start(&argv(&Self::names(), Script::Here(script)))
    }

    fn plain(&self, script: &str) -> Ran {
        self.start(&["bash".into(), "-c".into(), script.into()])
    }

    fn cwd(&self) -> Option<String> {
        parse_state(&std::fs::read(self.home().join(Self::names().state())).ok()?)
    }

    fn forget(&self) {
        std::fs::remove_dir_all(self.home().join(".cache")).ok();
    }
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

#[test]
fn scripts_behave_as_with_plain_bash() {
    let vm = Vm::new();
    for script in [
        "echo hello; echo err >&2",
        "exit 3",
        "false",
        "",
        "# only a comment",
        "set -e; cd /usr; false; echo not reached",
        "set -e; ! true; echo reached",
        "set -euo pipefail; false | true; echo not reached",
        "set -u; echo $unset_variable",
        "trap 'echo bye' EXIT; echo body",
        "trap 'echo bye' EXIT; exit 4",
        "trap 'echo got TERM; exit 9' TERM; kill -TERM $$; echo after",
        "trap 'echo err $?' ERR; false; true",
        "trap - EXIT; exit 5",
        "exec true",
        "exec bash -c 'exit 6'",
        "exec nonexistent-program",
        "exec >&2; echo on stderr",
        "exec 2>&-; cd /usr; echo closed",
        "exec 1>&- 2>&-; exit 8",
        "kill -KILL $$",
        "kill -TERM $$; echo survived",
        "f() { return 7; }; f",
        "f() { exit 7; }; f; echo no",
        "return 3; echo still here",
        "cat <<X\nhome $HOME\nX\ncat <<'Y'\n$HOME `x` $(y)\nY",
        "cat; echo input was empty; read -r line; echo $?",
        "echo $# \"$0\" $? $- [$*] ${1-none} ${REPLY-none}",
        "echo $LINENO\necho $LINENO\nnonexistent-program\n\n  echo $LINENO",
        "echo a\nif",
        "echo 'unclosed",
        "f() { echo $LINENO; }\nf",
        "sleep 0.05 & wait; jobs; echo $?",
        "(cd /; exit 2); echo $? ${PWD##*/}",
        "IFS=:; set -f; shopt -s nullglob; set -o noclobber; echo $IFS *",
        "set -o posix; set -a; X=1; env | sort | grep -v ^_",
        "alias ls=x; pwd() { echo mine; }; cd() { echo no; }; cd /usr; builtin true",
        "printf 'no line end'",
        "printf '%s' \"$BASH_SUBSHELL $SHLVL\"",
        "readonly __pi_vers_cwd; true",
        "echo {1..3} $((6*7)) \"$(echo sub)\" `echo tick`",
        "\\\necho continued \\\nline",
        "declare -a a=(1 2); echo ${a[@]} ${#a[@]}; [[ x =~ (.) ]]; echo ${BASH_REMATCH[1]}",
        "echo $'\\x01'; echo \"dollar \\$ back \\\\ quote \\\"\"",
    ] {
        vm.forget();
        let (plain, mut wrapped) = (vm.plain(script), vm.run(script));
        // The one admitted difference in texts.
        wrapped.output = wrapped.output.replace("bash: eval: line", "bash: -c: line");
        assert_eq!(plain, wrapped, "{script}");
    }
}

#[test]
fn the_working_directory_persists() {
    let vm = Vm::new();
    assert_eq!(vm.run("pwd").output, format!("{}\n", text(&vm.home())));
    for (script, stays) in [
        ("cd /usr", "/usr"),
        ("cd lib; exit 3", "/usr/lib"),
        ("set -e; cd ..; false", "/usr"),
        ("(cd /tmp)", "/usr"),
        ("trap 'echo mine' EXIT; cd /usr/share", "/usr/share"),
        ("cd /; trap - EXIT", "/"),
        ("cd /usr; f() { cd lib; exit 1; }; f", "/usr/lib"),
        ("pwd() { echo mine; }; cd /usr", "/usr"),
        ("exec 2>&-; cd /", "/"),
        ("cd /usr; kill -TERM $$", "/usr"),
        (
            "set -o noclobber; set -C; set -u; IFS=/; cd /usr/lib",
            "/usr/lib",
        ),
        ("cd /usr; exit 300", "/usr"),
    ] {
        vm.run(script);
        assert_eq!(vm.cwd().as_deref(), Some(stays), "{script}");
        let plain = vm.run("pwd").output;
        assert_eq!(plain, format!("{stays}\n"), "after {script}");
    }
}

#[test]
fn a_command_that_stays_does_not_undo_the_cd_of_another() {
    let vm = Vm::new();
    vm.run("cd /usr");
    let state = vm.home().join(Vm::names().state());
    // What another command beside it would have done.
    vm.run(&format!("printf '/tmp\\n' >'{}'; true", text(&state)));
    assert_eq!(vm.cwd().as_deref(), Some("/tmp"));
}

#[test]
fn a_directory_is_known_by_more_than_its_variable() {
    let vm = Vm::new();
    vm.run("cd /usr");
    // Neither a script that writes PWD nor one that has none hides where it went, or changes its exit code.
    assert_eq!(vm.run("cd lib; PWD=/usr; exit 3").code, Some(3));
    assert_eq!(vm.cwd().as_deref(), Some("/usr/lib"));
    vm.run("cd /usr");
    assert_eq!(
        vm.run("set -u; cd /usr/share; unset PWD; exit 4").code,
        Some(4)
    );
    assert_eq!(vm.cwd().as_deref(), Some("/usr/share"));
}

#[test]
fn odd_directory_names_persist() {
    let vm = Vm::new();
    for name in [
        "with space",
        "it's",
        "-dash",
        "new\nline",
        "$(touch pwned)",
        "ü",
        "trailing\n",
        "*",
    ] {
        let dir = vm.home().join(name);
        std::fs::create_dir(&dir).unwrap();
        vm.run(&format!("cd -- {}", vers_vm::paths::quoted(&text(&dir))));
        assert_eq!(vm.cwd(), Some(text(&dir)));
        assert_eq!(vm.run("pwd").output, format!("{}\n", text(&dir)));
    }
    assert!(!vm.home().join("pwned").exists());
}

#[test]
fn a_directory_that_is_gone_is_reported_and_left() {
    let vm = Vm::new();
    vm.run("mkdir gone; cd gone");
    std::fs::remove_dir(vm.home().join("gone")).unwrap();
    let home = text(&vm.home());
    let ran = vm.run("pwd");
    assert_eq!(
        ran.output,
        format!("[The working directory {home}/gone is gone; using {home}.]\n{home}\n")
    );
    assert_eq!(vm.run("pwd").output, format!("{home}\n"));
}

#[test]
fn a_broken_state_file_is_ignored() {
    let vm = Vm::new();
    let state = vm.home().join(Vm::names().state());
    std::fs::create_dir_all(state.parent().unwrap()).unwrap();
    for broken in ["/usr", "usr\n", "", "\n", "-P\n"] {
        std::fs::write(&state, broken).unwrap();
        assert_eq!(
            vm.run("pwd").output,
            format!("{}\n", text(&vm.home())),
            "{broken:?}"
        );
    }
}

#[test]
fn an_unwritable_state_changes_neither_output_nor_code() {
    let vm = Vm::new();
    // A file where the directory should be: holds for root, too.
    std::fs::write(vm.home().join(".cache"), "").unwrap();
    for script in ["set -e; echo a", "set -x; true", "exit 3"] {
        let ran = vm.run(script);
        assert_eq!(ran.code, vm.plain(script).code);
        assert!(!ran.output.contains(".cache"), "{}", ran.output);
    }
}

#[test]
fn the_state_directory_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let vm = Vm::new();
    vm.run("true");
    let mode = std::fs::metadata(vm.home().join(".cache/pi-vers"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn tracing_shows_the_script_alone() {
    let vm = Vm::new();
    let ran = vm.run("set -x; cd /usr; true");
    assert_eq!(ran.output, "++ cd /usr\n++ true\n");
    assert_eq!(vm.cwd().as_deref(), Some("/usr"));
}

#[test]
fn a_background_job_does_not_delay_the_end() {
    let vm = Vm::new();
    let started = std::time::Instant::now();
    let ran = vm.run("sleep 30 & echo $!");
    assert_eq!(ran.code, Some(0));
    assert!(started.elapsed().as_secs() < 20);
    let pid = ran.output.trim().to_owned();
    assert!(
        Command::new("kill").arg(&pid).status().unwrap().success(),
        "the job was still there"
    );
}

#[test]
fn a_long_script_is_staged_and_removed() {
    let vm = Vm::new();
    let staged = Vm::names().staged("77");
    let path = vm.home().join(&staged);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let script = format!(
        "cat <<'X' | wc -c\n{}\nX\ncd /usr; exit 5",
        "y".repeat(300_000)
    );
    std::fs::write(&path, script).unwrap();
    let ran = vm.start(&argv(&Vm::names(), Script::Staged(&staged)));
    assert_eq!((ran.output.trim(), ran.code), ("300001", Some(5)));
    assert!(!path.exists());
    assert_eq!(vm.cwd().as_deref(), Some("/usr"));
}
