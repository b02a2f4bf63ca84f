//! Argument patterns against argument injection.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use std::path::Path;

use pi_vers_policy::{Decision, Grants, Request};

fn grants(pattern: &str) -> Grants {
    common::grants(&format!(
        "process = [{{ program = \"/bin/p\", args = ['''{pattern}'''] }}]"
    ))
}

fn allowed(grants: &Grants, args: &[&str]) -> bool {
    let args = common::strings(args);
    let request = Request::Process {
        program: Path::new("/bin/p"),
        args: &args,
        working_directory: Path::new("/work"),
        env: &[],
    };
    grants.decide(&request).is_allowed()
}

/// A pattern as people write it, and what must not pass it. GTFOBins and the threads of real allow-list bypasses.
#[rustfmt::skip]
const REFUSED: &[(&str, &[&[&str]])] = &[
    // git
    ("status", &[&["status", "--porcelain"], &["-c", "core.fsmonitor=x", "status"], &["--config-env=core.pager=X", "status"], &["STATUS"], &["status", ""], &["status", "x"], &[]]),
    ("log --oneline *", &[
        &["log", "--oneline", "--output=/etc/x"], &["log", "--oneline", "-O/etc/x"], &["log", "--oneline", "--ext-diff"],
        &["log", "--oneline", "main", "--output=x"], &["log", "--oneline"], &["log", "main", "--oneline"], &["log", "--oneline", "--"],
        &["log", "--oneline --output=x", "main"], &["log", "--onelin", "main"], &["--exec-path=/tmp", "log", "--oneline", "main"],
    ]),
    ("grep *", &[&["grep", "-O"], &["grep", "-Ovim"], &["grep", "--open-files-in-pager=sh"], &["grep", "-f/etc/passwd"]]),
    ("fetch *", &[&["fetch", "--upload-pack=touch x"], &["fetch", "-u"], &["fetch", "--upload-pack", "x"]]),
    ("clone * *", &[&["clone", "-u", "x"], &["clone", "--config", "x"], &["clone", "url", "--template=/tmp"], &["clone", "url", "-cx=y"]]),
    ("diff **", &[&["diff", "--output=x"], &["diff", "a", "b", "--ext-diff"], &["diff", "--no-index", "/etc/shadow", "x"], &["diff", "a", "-O"], &["diff", "--", "-x"]]),
    ("archive *", &[&["archive", "--remote=x"], &["archive", "--exec=sh"], &["archive", "-oX"]]),
    ("show *", &[&["show", "--textconv"], &["show", "\u{2014}output=x"], &["show", "\u{2013}x"]]),
    ("checkout -- *", &[&["checkout", "--", "-f"], &["checkout", "x", "y"], &["checkout", "-f", "--", "x"], &["checkout", "--", "--", "x"], &["checkout", "--", "a", "b"]]),
    ("bisect *", &[&["bisect", "run", "sh"], &["bisect", "-x"]]),
    // find, xargs, env: go on reading options after `--` and after operands
    ("* -name *", &[&["/", "-exec", "sh"], &["/", "-name", "-delete"], &["/", "-name", "x", "-fls", "y"], &["-delete", "-name", "x"], &["/", "-name", "x", "-exec", "sh", ";"], &["/", "-fprintf", "x"], &["-files0-from", "-name", "x"]]),
    ("-- **", &[&["--", "-exec"], &["--", "/", "-delete"], &["--", "-i"], &["-0", "--", "x"], &["--", "--"]]),
    // tar
    ("-tf *", &[&["-tf", "--checkpoint-action=exec=sh"], &["-tf", "x", "--checkpoint=1"], &["xfC", "x"], &["-xf", "x"], &["-tf", "--to-command=sh"], &["-tf", "-Ish"], &["-tfx"], &["-t", "-f", "x"]]),
    ("-xf * -C out", &[&["-xf", "a", "-C", "/"], &["-xf", "a", "-C", "out", "--absolute-names"], &["-xf", "-P", "-C", "out"], &["-xf", "a", "-Cout"], &["-xf", "a", "-C", "out/"]]),
    // sort, rg, man, less, vim, sed, awk
    ("**", &[&["--compress-program=sh"], &["-o", "x"], &["-ox"], &["x", "--output=y"], &["--files0-from=/etc/shadow"], &["-T/tmp"], &["+1"], &["@x"]]),
    ("--json *", &[&["--json", "--pre=sh"], &["--json", "--pre", "sh"], &["--pre=sh", "x"], &["--json", "x", "--hostname-bin=sh"], &["--json=x", "y"]]),
    ("*", &[&["-P", "sh"], &["-Psh"], &["--pager=sh"], &["-Hsh"], &["+!sh"], &["+:!sh"], &["-c:!sh"], &["-e"], &["x", "y"], &[""], &["-"], &["--"]]),
    ("-n p *", &[&["-n", "1e sh", "x"], &["-n", "p", "-i"], &["-n", "p", "--in-place"], &["-np", "x"], &["-n", "p", "-f/tmp/x"]]),
    ("'{print $1}' *", &[&["{print $1}", "-fx"], &["BEGIN{system(\"sh\")}", "x"], &["'{print $1}'", "x"], &["{print", "$1}", "x"]]),
    // curl, wget, ssh, rsync, scp
    ("-sS https://example.com/*x", &[]),
    ("-fsSL *", &[&["-fsSL", "-ox"], &["-fsSL", "--config=x"], &["-fsSL", "-K/tmp/x"], &["-fsSL", "url", "-T", "/etc/passwd"], &["-fsSL", "@x"], &["-fsS", "-L", "x"]]),
    ("-q *", &[&["-q", "--post-file=/etc/passwd"], &["-q", "--use-askpass=sh"], &["-q", "-i/etc/passwd"], &["-q", "-e", "x"]]),
    ("* uptime", &[&["-oProxyCommand=sh", "uptime"], &["-F/tmp/x", "uptime"], &["host", "uptime; sh"], &["host", "uptime", "x"], &["-W", "uptime"]]),
    ("-a * *", &[&["-a", "-e", "sh"], &["-a", "--rsh=sh", "x"], &["-a", "a", "--rsync-path=sh"], &["-a", "a", "b", "-e", "sh"]]),
    // interpreters and builders
    ("build", &[&["build", "--config", "x"], &["build", "--", "x"], &["build "], &[" build"], &["build\n"], &["build\0--x"]]),
    ("run *", &[&["run", "--script-shell=sh"], &["run", "-c"], &["run", "x", "--", "y"]]),
    ("-jar app.jar *", &[&["-jar", "app.jar", "@x"], &["-jar", "app.jar", "-x"], &["-agentpath:x", "-jar", "app.jar", "y"], &["-jar", "evil.jar", "x"]]),
    ("--max-count=*", &[&["--max-count"], &["--max-coun=1"], &["--max-count=1", "--exec=x"], &["--max-count", "1"], &["-max-count=1"]]),
    ("\"a b\" c", &[&["a", "b", "c"], &["a b c"], &["a b", "c", "d"], &["\"a b\"", "c"]]),
];

#[test]
fn argument_injection_is_refused() {
    let mut vectors = 0;
    for (pattern, refused) in REFUSED.iter().filter(|(_, refused)| !refused.is_empty()) {
        // `git bisect run sh` is for `...` to allow: two operands do not match one `*`.
        let grants = grants(pattern);
        for args in *refused {
            assert!(!allowed(&grants, args), "`{pattern}` let {args:?} pass");
            vectors += 1;
        }
    }
    assert!(vectors >= 100, "{vectors}");
}

#[test]
fn what_a_pattern_says_is_allowed() {
    for (pattern, args) in [
        ("status", &["status"][..]),
        ("  status  ", &["status"]),
        ("log --oneline *", &["log", "--oneline", "main..dev"]),
        ("diff **", &["diff"]),
        ("diff **", &["diff", "a", "b c", "*"]),
        ("checkout -- *", &["checkout", "--", "./-f"]),
        ("--max-count=*", &["--max-count=--exec=x"]),
        ("run ...", &["run", "-x", "--", "@y"]),
        ("run ...", &["run"]),
        ("'*' \"**\" '...'", &["*", "**", "..."]),
        (
            "\"a \\\" \\\\\" 'it is' x'y z'",
            &["a \" \\", "it is", "xy z"],
        ),
        ("''", &[""]),
        ("", &[]),
    ] {
        assert!(
            allowed(&grants(pattern), args),
            "`{pattern}` refuses {args:?}"
        );
    }
}

#[test]
fn patterns_that_would_surprise_are_refused() {
    for pattern in [
        "src/*", "*.rs", "x*", "a=*", "--*", "--a*b", "--x=*y*", "** x", "... x", "'open",
        "\"open", "\"\\n\"", "-x=a=*", "***",
    ] {
        let text = common::text(&format!(
            "process = [{{ program = \"/bin/p\", args = ['''{pattern} ''']}}]"
        ));
        assert!(
            pi_vers_policy::Policy::parse(&text, "p").is_err(),
            "{pattern}"
        );
    }
}

#[test]
fn one_rule_has_to_hold_as_a_whole() {
    let grants = common::grants(
        r#"process = [
            { program = "/bin/p", args = ["a"], env = ["A"] },
            { program = "/bin/p", args = ["b"], env = ["B"], directories = ["/srv", "~/x"] },
            { program = "/bin/sh", args = "any", env = "any" },
        ]"#,
    );
    let ask = |program: &str, arg: &str, directory: &str, env: &[&str]| {
        let args = common::strings(&[arg]);
        grants.decide(&Request::Process {
            program: Path::new(program),
            args: &args,
            working_directory: Path::new(directory),
            env,
        })
    };
    assert!(ask("/bin/p", "a", "/work/sub", &["A"]).is_allowed());
    assert!(ask("/bin/p", "b", "/srv", &["B"]).is_allowed());
    assert!(ask("/bin/p", "b", "/home/me/x/y", &[]).is_allowed());
    assert!(
        ask("/bin/sh", "-c", "/work", &["LD_PRELOAD"]).is_allowed(),
        "the user said any"
    );
    for (program, arg, directory, env) in [
        ("/bin/p", "a", "/work", &["B"][..]),
        ("/bin/p", "b", "/work", &["B"]),
        ("/bin/p", "a", "/srv", &[]),
        ("/bin/p", "a", "/workx", &[]),
        ("/bin/p", "a", "/work/../etc", &[]),
        ("p", "a", "/work", &[]),
        ("./p", "a", "/work", &[]),
        ("/tmp/../bin/p", "a", "/work", &[]),
        ("/usr/bin/p", "a", "/work", &[]),
        ("/bin/sh", "-c", "/etc", &[]),
        ("/bin/sh", "-c", "/work", &["A=B"]),
        ("/bin/sh", "-c", "/work", &[""]),
        ("/bin/sh", "nul\0", "/work", &[]),
    ] {
        assert!(
            !ask(program, arg, directory, env).is_allowed(),
            "{program} {arg} in {directory} with {env:?}"
        );
    }
    for name in [
        "LD_PRELOAD",
        "LD_AUDIT",
        "PATH",
        "GIT_SSH_COMMAND",
        "BASH_ENV",
        "ENV",
        "NODE_OPTIONS",
        "PYTHONPATH",
        "RUSTC_WRAPPER",
        "HOME",
        "IFS",
    ] {
        let denial = common::denial(ask("/bin/p", "a", "/work", &[name]));
        assert!(denial.to_string().contains(name), "{denial}");
    }
}

#[test]
fn a_question_shows_the_exact_vector_and_hides_nothing() {
    let grants = common::grants("ask = [\"process\"]");
    let args = common::strings(&["a b", "\u{1b}[2K\u{202e}x\n", "*"]);
    let ask = |args: &[String]| {
        grants.decide(&Request::Process {
            program: Path::new("/bin/p"),
            args,
            working_directory: Path::new("/work"),
            env: &["A", "B"],
        })
    };
    let Decision::Ask(question) = ask(&args) else {
        panic!()
    };
    let shown = question.to_string();
    assert!(
        shown.contains(r#"arguments: "a b" "\U0000001B[2K\U0000202Ex\U0000000A" "*""#),
        "{shown}"
    );
    assert!(
        shown.contains("environment: A B") && shown.contains("directory: /work"),
        "{shown}"
    );
    assert!(!shown.contains(['\u{1b}', '\u{202e}']), "{shown}");
    assert!(
        !common::denial(ask(&[format!("{}; evil", "x".repeat(5_000))]))
            .to_string()
            .is_empty(),
        "too long to be read"
    );
    // The rule that "always" would add allows exactly this vector.
    let always = common::grants(&question.refused.fix.unwrap().rule);
    let decide = |args: &[String]| {
        always
            .decide(&Request::Process {
                program: Path::new("/bin/p"),
                args,
                working_directory: Path::new("/work"),
                env: &[],
            })
            .is_allowed()
    };
    assert!(decide(&args) && !decide(&common::strings(&["a b", "x", "*"])));
}
