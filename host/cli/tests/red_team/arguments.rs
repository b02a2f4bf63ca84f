//! Argument vectors and variables that make a granted program do something else: on this machine, and on a VM.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use crate::raider::{Raid, is_denied};

/// A program, the patterns that a careful owner might write for it, and what must not pass them.
type Vectors = (
    &'static str,
    &'static [&'static str],
    &'static [&'static [&'static str]],
);

#[rustfmt::skip]
const VECTORS: &[Vectors] = &[
    ("git", &["status", "log --oneline *", "diff **", "show *", "fetch *", "clone * *", "grep *", "checkout -- *"], &[
        &["-c", "core.fsmonitor=touch x", "status"], &["-ccore.fsmonitor=touch x", "status"], &["--config-env=core.pager=X", "status"], &["--exec-path=/tmp", "status"], &["-C", "/", "status"],
        &["--git-dir=/tmp/evil", "status"], &["-p", "status"], &["--paginate", "status"], &["status", "--porcelain"], &["status", ""], &["status;id"], &["status\nid"], &["status", "--", "x"],
        &["log", "--oneline", "--output=/tmp/x"], &["log", "--oneline", "-O/tmp/x"], &["log", "--oneline", "--ext-diff"], &["log", "--oneline", "main", "--output=x"], &["log", "--oneline=--output=x"],
        &["log", "main", "--oneline"], &["log", "--onelin", "main"], &["diff", "--output=x"], &["diff", "--no-index", "/etc/shadow", "x"], &["diff", "a", "--ext-diff"], &["diff", "--", "-x"],
        &["show", "--textconv"], &["show", "\u{2014}output=x"], &["show", "\u{2010}x"], &["fetch", "--upload-pack=touch x"], &["fetch", "-u"], &["fetch", "--upload-pack", "x"],
        &["clone", "-u", "touch x"], &["clone", "url", "--template=/tmp"], &["clone", "--config=core.sshCommand=x", "url"], &["grep", "-Ovi"], &["grep", "--open-files-in-pager=sh"], &["grep", "-f/etc/passwd"],
        &["checkout", "-f"], &["checkout", "--", "-f"], &["checkout", "a", "b"], &["bisect", "run", "sh"], &["archive", "--exec=sh"], &["ext::sh -c id"], &["submodule", "foreach", "id"], &["STATUS"], &[],
    ]),
    ("find", &[". -name *", "* -type f"], &[
        &[".", "-name", "x", "-exec", "sh"], &[".", "-name", "-delete"], &[".", "-name", "x", "-fls", "y"], &[".", "-name", "x", "-fprintf", "y", "%p"], &["-delete", "-name", "x"], &["/", "-name", "x"],
        &[".", "-name", "x", "-ok", "sh"], &["-files0-from", "-type", "f"], &["-O3", "-type", "f"], &[".", "-type", "f", "-delete"], &["+x", "-type", "f"], &["@x", "-type", "f"],
    ]),
    ("tar", &["-tf *", "-xf * -C out"], &[
        &["-tf", "--checkpoint-action=exec=sh"], &["-tf", "x", "--checkpoint=1"], &["-xf", "x"], &["xfC", "x", "/"], &["-tf", "--to-command=sh"], &["-tf", "-Ish"], &["-tfx"], &["-t", "-f", "x"],
        &["-xf", "a", "-C", "/"], &["-xf", "a", "-C", "out", "--absolute-names"], &["-xf", "-P", "-C", "out"], &["-xf", "a", "-Cout/../.."], &["-tf", "x", "--use-compress-program=sh"], &["-tf", "x", "-F", "sh"],
    ]),
    ("sort", &["**"], &[
        &["--compress-program=sh"], &["-o", "x"], &["-ox"], &["x", "--output=y"], &["--files0-from=/etc/shadow"], &["-T/tmp"], &["+1"], &["@x"], &["-"], &["--", "-o"], &[""],
    ]),
    ("rg", &["--json *", "--max-count=* *"], &[
        &["--json", "--pre=sh"], &["--json", "--pre", "sh"], &["--pre=sh", "x"], &["--json", "x", "--hostname-bin=sh"], &["--max-count", "1", "x"], &["--max-coun=1", "x"], &["--max-count=1", "--pre=sh"],
        &["--max-count=1", "x", "-z"], &["--json=x", "y"],
    ]),
    ("curl", &["-fsSL https://example.com/x", "-sS *"], &[
        &["-fsSL", "https://example.com/x", "-o", "/tmp/x"], &["-fsSL", "https://example.com/y"], &["-fsSL", "--config=x"], &["-sS", "-K/tmp/x"], &["-sS", "url", "-T", "/etc/passwd"], &["-sS", "@x"],
        &["-sSo", "x", "url"], &["-s", "-S", "url"], &["-sS", "--output=x"], &["-sS", "-xhttp://evil"],
    ]),
    ("ssh", &["* uptime"], &[
        &["-oProxyCommand=sh", "uptime"], &["-F/tmp/x", "uptime"], &["host", "uptime;id"], &["host", "uptime", "x"], &["-W", "uptime"], &["host", "-tt", "uptime"], &["host\nid", "uptime", "x"],
    ]),
    ("man", &["*"], &[&["-P", "sh"], &["-Psh"], &["--pager=sh"], &["-Hsh"], &["ls", "-Psh"], &["+x"]]),
    ("vim", &["*"], &[&["+!sh"], &["+:!sh"], &["-c:!sh"], &["-s", "x"], &["--cmd", "x"], &["-"]]),
    ("awk", &["'{print $1}' *"], &[&["BEGIN{system(\"sh\")}", "x"], &["{print $1}", "-fx"], &["{print", "$1}", "x"], &["-f", "x"], &["{print $1}", "x", "y"]]),
    ("javac", &["*"], &[&["-processorpath"], &["@args"], &["-J-agentpath:x"], &["a", "-d", "x"]]),
    ("env", &["-- **"], &[&["--", "-i"], &["--", "x", "-S", "y"], &["-S", "sh -c id"], &["--", "--"], &["sh"]]),
];

/// A directory of programs that leave a mark when they run, and rules for them.
fn programs(raid_at: &crate::common::Home) -> String {
    let mut rules = Vec::new();
    for (name, patterns, _) in VECTORS {
        let script = format!("#!/bin/sh\n: > \"{}\"\n", raid_at.path("RAN").display());
        let program = raid_at.write(&format!("bin/{name}"), script);
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let patterns: Vec<String> = patterns.iter().map(|one| format!("'''{one}'''")).collect();
        rules.push(format!(
            "{{ program = \"{}\", args = [{}], env = [\"LANG\"] }}",
            program.display(),
            patterns.join(", ")
        ));
    }
    format!("process = [{}]", rules.join(", "))
}

/// A raider that may run programs of its home.
fn raid() -> Raid {
    let mut raid = Raid::new("");
    let rules = programs(&raid.home);
    raid.policy = raid.home.write(
        "policy.toml",
        crate::raider::section("raider", &std::fs::read(&raid.component).unwrap(), &rules),
    );
    raid
}

fn vectors() -> impl Iterator<Item = (&'static str, &'static [&'static str])> {
    VECTORS
        .iter()
        .flat_map(|(program, _, all)| all.iter().map(move |vector| (*program, *vector)))
}

#[test]
fn no_vector_passes_the_patterns_of_a_program() {
    assert!(vectors().count() >= 100, "{}", vectors().count());
    let raid = raid();
    let raids: Vec<Value> = vectors()
        .map(|(program, vector)| {
            let program = raid.home.path(&format!("bin/{program}"));
            let argv: Vec<&str> = std::iter::once(program.to_str().unwrap())
                .chain(vector.iter().copied())
                .collect();
            json!({ "what": "exec", "argv": argv })
        })
        .collect();
    for ((program, vector), told) in vectors().zip(raid.told(&raids)) {
        assert!(is_denied(&told), "{program} {vector:?}: {told}");
        assert!(
            told.contains(program) && told.contains("in process"),
            "it names the rule: {told}"
        );
    }
    assert!(!raid.home.path("RAN").exists());
    let git = raid.home.path("bin/git");
    let told =
        raid.told(&[json!({ "what": "exec", "argv": [git, "log", "--oneline", "main..dev"] })]);
    assert!(told[0].starts_with("Exit::Code(0)"), "{told:?}");
    assert!(raid.home.path("RAN").exists(), "what is granted does run");
}

#[test]
fn no_vector_passes_the_patterns_of_a_vm() {
    let patterns = VECTORS.iter().flat_map(|(program, patterns, _)| {
        patterns
            .iter()
            .map(move |pattern| format!("'''{program} {pattern}'''"))
    });
    let patterns: Vec<String> = patterns.collect();
    let rules = format!(
        "vms = [\"get\"]\nshell = {{ vms = \"any\", commands = [{}], env = [\"LANG\"] }}",
        patterns.join(", ")
    );
    let raid = Raid::new(&rules);
    let vm = "01234567-89ab-4def-8123-456789abcdef";
    let mut raids: Vec<Value> = vectors()
        .map(|(program, vector)| {
            let argv: Vec<&str> = std::iter::once(program)
                .chain(vector.iter().copied())
                .collect();
            json!({ "what": "vm-exec", "vm": vm, "argv": argv })
        })
        .collect();
    // Not by another name, not as a script, not with other variables.
    for argv in [
        json!(["/usr/bin/git", "status"]),
        json!(["./git", "status"]),
        json!(["git status"]),
        json!(["sh", "-c", "git status"]),
        json!(["git", "status", "\u{0}"]),
        json!([]),
    ] {
        raids.push(json!({ "what": "vm-exec", "vm": vm, "argv": argv }));
    }
    raids.push(json!({ "what": "vm-script", "vm": vm, "text": "git status" }));
    for name in VARIABLES {
        raids.push(
            json!({ "what": "vm-exec", "vm": vm, "argv": ["git", "status"], "env": [[name, "x"]] }),
        );
    }
    for (raid, told) in raids.iter().zip(raid.told(&raids)) {
        assert!(
            told.starts_with("refused: Error::Denied("),
            "{raid}: {told}"
        );
    }
    // What is granted gets as far as the platform, which is not there.
    let told = raid.told(&[json!({ "what": "vm-exec", "vm": vm, "argv": ["git", "status"] })]);
    assert!(told[0].contains("Error::Unavailable"), "{told:?}");
}

/// Variables that change what a program does.
#[rustfmt::skip]
const VARIABLES: &[&str] = &[
    "LD_PRELOAD", "LD_AUDIT", "LD_LIBRARY_PATH", "LD_DEBUG_OUTPUT", "GCONV_PATH", "LOCPATH", "NLSPATH", "PATH", "HOME", "IFS", "ENV", "BASH_ENV", "SHELLOPTS", "PS4", "PROMPT_COMMAND", "BASH_FUNC_git%%", "CDPATH",
    "GIT_SSH_COMMAND", "GIT_SSH", "GIT_PAGER", "GIT_EDITOR", "GIT_EXTERNAL_DIFF", "GIT_CONFIG_COUNT", "GIT_CONFIG_GLOBAL", "GIT_EXEC_PATH", "GIT_DIR", "GIT_TEMPLATE_DIR", "GIT_PROXY_COMMAND", "PAGER", "MANPAGER", "LESSOPEN", "EDITOR", "VISUAL",
    "NODE_OPTIONS", "PYTHONPATH", "PYTHONSTARTUP", "PERL5OPT", "PERL5LIB", "RUBYOPT", "JAVA_TOOL_OPTIONS", "RUSTC_WRAPPER", "CARGO_HOME", "TAR_OPTIONS", "CURL_HOME", "http_proxy", "HTTPS_PROXY", "SSH_AUTH_SOCK", "TMPDIR", "lang", "LANG ",
    "", "A=B", "LANG=x\u{0}", "LANG\n",
];

#[test]
fn no_variable_is_set_that_no_rule_names_and_a_child_begins_with_nothing() {
    let mut raid = raid();
    raid.home.set("LLM_PROXY_KEY", "canary-in-the-environment");
    raid.home.set("SOME_TOKEN", "canary-in-the-environment");
    let git = raid.home.path("bin/git");
    let raids: Vec<Value> = VARIABLES
        .iter()
        .map(|name| json!({ "what": "exec", "argv": [git, "status"], "env": [[name, "x"]] }))
        .collect();
    for (name, told) in VARIABLES.iter().zip(raid.told(&raids)) {
        let refused = told.starts_with("refused: Error::Denied(")
            || told.starts_with("refused: Error::Invalid(");
        assert!(refused, "{name:?}: {told}");
    }
    assert!(!raid.home.path("RAN").exists());
    // What a program of ours has of our environment.
    let script = "#!/bin/sh\nexec /usr/bin/env\n";
    std::fs::write(&git, script).unwrap();
    let told =
        raid.told(&[json!({ "what": "exec", "argv": [git, "status"], "env": [["LANG", "C"]] })]);
    let names: Vec<&str> = told[0]
        .lines()
        .filter_map(|line| Some(line.split_once('=')?.0))
        .collect();
    for name in &names {
        let known = [
            "PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "PWD", "OLDPWD", "SHLVL", "_",
        ];
        assert!(known.contains(name), "{name}: {told:?}");
    }
    assert!(
        names.contains(&"LANG") && !told[0].contains("canary"),
        "{told:?}"
    );
}

#[test]
fn a_program_is_the_one_at_its_path_and_no_other() {
    let mut raid = raid();
    // Planted where a careless look-up finds it first.
    for place in ["work/git", "work/bin/git", "planted/git"] {
        let planted = format!(
            "#!/bin/sh\n: > \"{}\"\n",
            raid.home.path("PLANTED").display()
        );
        let planted = raid.home.write(place, planted);
        std::fs::set_permissions(&planted, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = format!(
        ".:bin::{}:/usr/bin:/bin",
        raid.home.path("planted").display()
    );
    raid.home.set("PATH", &path);
    let real = raid.home.path("bin/git");
    let other = raid.home.path("bin/../planted/git");
    std::os::unix::fs::symlink(raid.home.path("planted/git"), raid.home.path("bin/link")).unwrap();
    let raids: Vec<Value> = [
        json!(["git", "status"]),
        json!(["./git", "status"]),
        json!(["bin/git", "status"]),
        json!([other, "status"]),
        json!([raid.home.path("bin/link"), "status"]),
        json!([format!("{} ", real.display()), "status"]),
        json!([format!("{}\u{0}", real.display()), "status"]),
        json!([format!("{}/", real.display()), "status"]),
        json!(["", "status"]),
        json!(["~/bin/git", "status"]),
        json!(["/proc/self/exe", "status"]),
    ]
    .into_iter()
    .map(|argv| json!({ "what": "exec", "argv": argv }))
    .chain([
        json!({ "what": "script", "text": format!("{} status", real.display()) }),
        // Where it runs is part of what is granted.
        json!({ "what": "exec", "argv": [real, "status"], "cwd": "/" }),
        json!({ "what": "exec", "argv": [real, "status"], "cwd": ".." }),
        json!({ "what": "exec", "argv": [real, "status"], "cwd": "../work/../.." }),
        json!({ "what": "exec", "argv": [real, "status"], "cwd": "\u{0}" }),
    ])
    .collect();
    for (raid, told) in raids.iter().zip(raid.told(&raids)) {
        assert!(told.starts_with("refused: Error::"), "{raid}: {told}");
    }
    assert!(!raid.home.path("PLANTED").exists() && !raid.home.path("RAN").exists());
}
