//! How a command runs on a VM, and how its working directory outlives it.
//!
//! Each command is a new shell, which starts in the home directory. So that `cd` lasts as it does for a person, a
//! fixed script runs around the model's:
//!
//! 1. It reads the *state file* (`~/.cache/pi-vers/{session}.cwd`: the directory and one `\n`; private to the session
//!    and to the user) and goes to that directory. If it is gone, it says so and stays at home.
//! 2. It sets an EXIT trap that writes the shell's directory to the state file, and runs the model's script with `eval`.
//! 3. It writes the directory once more when the script has run to its end: the script may have set an EXIT trap of its own.
//!
//! A directory that is still the one it started in is not written: most commands go nowhere, a file system waits when a file is
//! overwritten, and a command that ends late must not undo the `cd` of another that ran beside it.
//!
//! The script and the state file's name are *arguments*, never part of the fixed script's text. The script sees no positional
//! parameters, an empty input, and `$0`, `$?`, `$-`, traps, jobs, line numbers and exit codes as with `bash -c SCRIPT`. What
//! differs: three variables `__pi_vers_*` (not exported), one more `+` before `set -x` lines, and `eval:` in syntax errors. The
//! directory is *not* recorded when the script ends by `exec`, by SIGKILL, or by `exit` under an EXIT trap of its own: it then
//! stays what it was.
//!
//! A script longer than [`crate::limits::MAX_ARGUMENT`] does not fit an argument vector safely (128 KiB on Linux): it is staged
//! in a file, which the wrapper reads and removes.

/// Arguments: the state file and the staged script (or empty), both below the home directory; the script.
///
/// One line, because `eval` counts lines from its own: `bash: line 2: …` must mean the script's second line.
pub const WRAPPER: &str = concat!(
    r#"__pi_vers_cwd=~/$1; __pi_vers_script=$3; "#,
    r#"if [[ $2 ]]; then IFS= read -r -d '' __pi_vers_script <~/"$2"; command rm -f -- ~/"$2"; fi; "#,
    r#"[[ -d ${__pi_vers_cwd%/*} ]] || (umask 077; command mkdir -p -- "${__pi_vers_cwd%/*}") 2>/dev/null; "#,
    r#"{ IFS= read -r -d '' REPLY <"$__pi_vers_cwd"; } 2>/dev/null; "#,
    r#"__pi_vers_was=; if [[ $REPLY == /*$'\n' ]]; then "#,
    r#"if builtin cd -- "${REPLY%$'\n'}" 2>/dev/null; then __pi_vers_was=$PWD; else "#,
    r#"builtin printf '[The working directory %s is gone; using %s.]\n' "${REPLY%$'\n'}" "$PWD" >&2; fi; fi; "#,
    r#"unset -v REPLY; set --; "#,
    r#"trap '{ builtin set +x; [[ ${PWD-} == "$__pi_vers_was" && . -ef $__pi_vers_was ]] || builtin pwd >|"$__pi_vers_cwd" || :; } 2>/dev/null' EXIT; "#,
    r#"eval "$__pi_vers_script"; "#,
    r#"{ __pi_vers_script=$?; builtin set +x; [[ ${PWD-} == "$__pi_vers_was" && . -ef $__pi_vers_was ]] || builtin pwd >|"$__pi_vers_cwd" || :; } 2>/dev/null; "#,
    r#"exit "$__pi_vers_script""#,
);

/// Where a session's files are, below the home directory of a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    key: String,
}

impl Names {
    /// `key`: letters and digits that stand for the session.
    #[must_use]
    pub fn new(key: String) -> Self {
        Self { key }
    }

    /// The state file.
    #[must_use]
    pub fn state(&self) -> String {
        format!(".cache/pi-vers/{}.cwd", self.key)
    }

    /// The file a long script is staged in. `call`: letters and digits that stand for the call.
    #[must_use]
    pub fn staged(&self, call: &str) -> String {
        format!(".cache/pi-vers/{}-{call}.sh", self.key)
    }

    /// The file with the whole of a long output; absolute.
    #[must_use]
    pub fn log(call: &str) -> String {
        format!("/tmp/pi-vers-bash-{call}.log")
    }
}

/// The argument vector that runs a script.
#[must_use]
pub fn argv(names: &Names, script: Script<'_>) -> Vec<String> {
    let (staged, script) = match script {
        Script::Here(script) => ("", script),
        Script::Staged(file) => (file, ""),
    };
    [
        "bash",
        "-c",
        WRAPPER,
        "bash",
        &names.state(),
        staged,
        script,
    ]
    .map(str::to_owned)
    .to_vec()
}

/// Where the script is.
#[derive(Debug, Clone, Copy)]
pub enum Script<'a> {
    /// In the argument vector.
    Here(&'a str),
    /// In a file below the home directory.
    Staged(&'a str),
}

/// The directory in a state file; none if the file is not whole or holds no absolute path.
#[must_use]
pub fn parse_state(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?;
    text.starts_with('/').then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_state_file_counts_only_when_whole() {
        assert_eq!(parse_state(b"/srv/a b\n"), Some("/srv/a b".into()));
        assert_eq!(parse_state(b"/srv/a\nb\n"), Some("/srv/a\nb".into()));
        for broken in [&b""[..], b"/srv", b"srv\n", b"\n", b"/\xff\n"] {
            assert_eq!(parse_state(broken), None);
        }
    }

    #[test]
    fn names_stay_below_the_home_directory() {
        let names = Names::new("0a1b".into());
        assert_eq!(names.state(), ".cache/pi-vers/0a1b.cwd");
        assert_eq!(names.staged("77"), ".cache/pi-vers/0a1b-77.sh");
    }

    proptest! {
        #[test]
        fn data_is_only_ever_an_argument(script in any::<String>()) {
            let argv = argv(&Names::new("k".into()), Script::Here(&script));
            prop_assert_eq!(argv.get(2).map(String::as_str), Some(WRAPPER));
            prop_assert_eq!(argv.last(), Some(&script));
        }
    }
}
