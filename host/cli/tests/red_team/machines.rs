//! What a guest writes reaches a program on a VM as it is: no shell on the way takes it for anything else. With a real VM of the local platform.

use serde_json::{Value, json};

use crate::raider::{Raid, text};

/// A platform with one VM, and a raider that may do anything there.
struct Machine {
    raid: Raid,
    state: String,
    vm: String,
}

impl Machine {
    fn up() -> Self {
        let rules = "shell = { vms = \"any\", commands = \"any\", env = [\"V\"] }";
        let raid = Raid::new(rules);
        let state = raid.home.path("platform").to_str().unwrap().to_owned();
        let mut this = Self {
            raid,
            state,
            vm: String::new(),
        };
        assert_eq!(this.local("up").code, 0);
        let made = this.script(&[("vers_vm_create", json!({ "wait_boot": true }))]);
        let said = text(&made[0]);
        let mut words = said.split(|c: char| !c.is_ascii_hexdigit() && c != '-');
        let id = words.rfind(|word| word.len() == 36);
        this.vm = id.unwrap_or_else(|| panic!("{said}")).to_owned();
        this
    }

    fn local(&self, what: &str) -> crate::common::Ran {
        let words = ["local", what, "--json", "--state", &self.state];
        self.raid.home.run(words)
    }

    fn script(&self, calls: &[(&str, Value)]) -> Vec<Value> {
        let options = ["--local", "--state", &self.state];
        self.raid.script(&options, calls)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let ran = self.local("reset");
        if !std::thread::panicking() {
            assert_eq!(ran.code, 0, "{ran:?}");
        }
    }
}

/// What shells, and the readers of options, names and numbers, take for something else than text.
#[rustfmt::skip]
const WORDS: &[&str] = &[
    "", " ", "  two  blanks  ", "\t", "\n", "a\nb\n", "\r\n", "-", "--", "-n", "-e", "-rf", "--help", "'", "\"", "''", "\"\"", "\\", "\\\\", "\\n", "\\'", "'\\''", "it's", "a'b\"c`d", "'; touch /RAN; '", "\"; touch /RAN; \"",
    "; touch /RAN", "&& touch /RAN", "|| touch /RAN", "| touch /RAN", "& touch /RAN &", "\ntouch /RAN\n", "$(touch /RAN)", "`touch /RAN`", "${IFS}", "$HOME", "$0", "$@", "$$", "$(id)", "$((1+1))", "$'\\x41'", "$\"x\"", "<(id)", ">(id)",
    "> /RAN", ">> /RAN", "< /etc/passwd", "2>&1", "<<EOF\n$(touch /RAN)\nEOF\n", "<<<x", "{a,b}", "{1..3}", "*", "/*", "?", "[a-z]", "~", "~root", "!", "!!", "^a^b", "#", "# comment", "a #b", "%s%n%d", "%", "=", "A=B", "@", "@file", "(", ")", "()",
    "() { :; }; touch /RAN", "[[", "]]", "{", "}", "if", "done", "exec", "\u{1b}[2J", "\u{7}", "\u{8}\u{8}", "\u{7f}", "\u{1}\u{2}\u{3}\u{4}", "\u{80}", "\u{a0}", "gr\u{fc}\u{df}", "e\u{301}", "\u{202e}txt.exe", "\u{200b}", "\u{feff}", "\u{fffd}", "\u{1f980}", "\u{10ffff}",
    "^C", "\u{3}", "\u{4}", "~.", "\n~.\n", "EOF", "0", "-1", "0x41", "1e9", "/dev/stdin", "../..", "/etc/passwd\u{a}x",
];

/// What a shell runs otherwise than as a program of that name: all of them would make `/RAN`.
const PROGRAMS: &[&[&str]] = &[
    &["-a", "x", "touch", "/RAN"],
    &["-c", "touch", "/RAN"],
    &["-l", "touch", "/RAN"],
    &["--", "touch", "/RAN"],
    &["V=x", "touch", "/RAN"],
    &["exec", "touch", "/RAN"],
    &["command", "touch", "/RAN"],
    &["eval", "touch /RAN"],
    &["builtin", "eval", "touch /RAN"],
    &["!", "touch", "/RAN"],
    &["", "touch", "/RAN"],
];

/// What each of them is in hexadecimal, one a line: nothing on the way back can change that.
fn hex(words: &[&str]) -> Vec<String> {
    let hex = |word: &&str| word.bytes().map(|byte| format!("{byte:02x}")).collect();
    words.iter().map(hex).collect()
}

/// Prints its arguments, and the variable `V`, in hexadecimal.
const PRINT: &str =
    "for a in \"$@\" \"$V\"; do printf %s \"$a\" | od -An -v -tx1 | tr -d ' \\n'; echo; done";

#[test]
fn no_word_of_a_guest_is_more_than_an_argument_on_a_vm() {
    let machine = Machine::up();
    let vm = &machine.vm;
    let print = |words: &[&str], variable: &str| {
        let argv: Vec<&str> = ["sh", "-c", PRINT, "sh"]
            .into_iter()
            .chain(words.iter().copied())
            .collect();
        json!({ "what": "vm-exec", "vm": vm, "argv": argv, "env": [["V", variable]] })
    };
    let mut calls = vec![print(WORDS, "all of them")];
    // Alone, as a variable, and twice, as what is last is easily cut.
    calls.extend(WORDS.iter().map(|word| print(&[word, word], word)));
    // As the program: there is none of that name, and nothing else runs.
    let programs = WORDS
        .iter()
        .filter(|word| word.contains("RAN") || word.contains(' '));
    calls.extend(programs.map(|word| json!({ "what": "vm-exec", "vm": vm, "argv": [word] })));
    calls.extend(
        PROGRAMS
            .iter()
            .map(|argv| json!({ "what": "vm-exec", "vm": vm, "argv": argv })),
    );
    // As the directory: there is none of that name either.
    let directories = WORDS.iter().filter(|word| word.contains("RAN"));
    calls.extend(directories.map(
        |word| json!({ "what": "vm-exec", "vm": vm, "argv": ["true"], "cwd": format!("/x{word}") }),
    ));
    let zero = json!({ "what": "vm-exec", "vm": vm, "argv": ["echo", "a\u{0}b"] });
    calls.push(zero);
    calls.push(json!({ "what": "vm-exec", "vm": vm, "argv": ["test", "!", "-e", "/RAN"] }));
    let calls: Vec<(&str, Value)> = calls.into_iter().map(|call| ("raid", call)).collect();

    let mut told = machine.script(&calls).into_iter().map(|one| text(&one));
    let printed = |told: &str| -> Vec<String> {
        let (exit, lines) = told.split_once('\n').unwrap_or((told, ""));
        assert_eq!(exit, "Exit::Code(0)", "{told}");
        lines.lines().map(str::to_owned).collect()
    };
    let all: Vec<&str> = WORDS.iter().copied().chain(["all of them"]).collect();
    assert_eq!(printed(&told.next().unwrap()), hex(&all));
    for word in WORDS {
        let expected = hex(&[word, word, word]);
        assert_eq!(printed(&told.next().unwrap()), expected, "{word:?}");
    }
    let rest: Vec<String> = told.collect();
    let (last, refused) = rest.split_last().unwrap();
    assert!(refused.len() > 20);
    for told in refused {
        assert!(!told.starts_with("Exit::Code(0)"), "{told}");
    }
    assert!(last.starts_with("Exit::Code(0)"), "something ran: {last}");
}
