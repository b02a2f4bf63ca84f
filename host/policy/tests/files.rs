//! The file: what is read, what is refused and how it is said; digests; layers; what is written again.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use std::path::Path;

use common::{ID, OTHER, denial, granted, grants, labels, strings, vm};
use pi_vers_policy::*;

/// Every key with every form of its value.
const FULL: &str = r#"
vms = { verbs = ["list", "get", "labels", "delete"], scope = ["own", "label:team=web"] }
shell = { vms = "label:team=web", commands = ["git status", "ls *"], env = ["LANG"], files = "ro", ports = [8080, 80] }
fleet = ["members", "register"]
process = [{ program = "/usr/bin/git", args = ["status", "log --oneline *"], env = ["HOME"], directories = [".", "~/src"] }, { program = "/bin/sh", args = "any", env = "any" }]
files = [{ path = ".", mode = "ro" }, { path = "out", mode = "rw" }, { path = "~/notes", mode = "rw" }, { path = "/srv/data", mode = "ro" }]
http = ["GET,HEAD https://api.example.com/v1/*", { url = "https://*.intern.example/*", addresses = ["10.0.0.0/8", "fd00::/8"] }]
secrets = ["A -> child env", "A -> child env /usr/bin/git", "B -> vm env", "C -> http https://api.example.com"]
environment = ["PI_PATH", "_X1"]
ui = ["select", "input"]
client = ["form", "roots"]
session = ["send-message", "entries"]
bus = ["vers:*", "exact"]
events = ["tool-call"]
replace = ["bash"]
store = false
ask = ["process", "vms.create"]
limits = { memory = "1 GiB", call = "90 min", calls = 7, log = "1500 B" }
"#;

#[test]
fn a_full_file_reads_back_as_it_was_written() {
    let policy = common::policy(FULL);
    let again = policy.to_toml();
    let read =
        Policy::parse(&again, "policy.toml").unwrap_or_else(|error| panic!("{error}\n{again}"));
    assert_eq!(read, policy, "{again}");
    assert_eq!(read.to_toml(), again);
    assert_eq!(
        common::policy("").to_toml(),
        common::text("").replace("\n\n", "\n")
    );
    let limits = *grants(FULL).limits();
    assert_eq!(
        (limits.memory, limits.call, limits.calls, limits.log),
        (1 << 30, 90 * 60_000, 7, 1_500)
    );
    assert_eq!(limits.cpu_slice, Limits::default().cpu_slice);
}

#[test]
fn mistakes_are_named_with_their_place_and_what_was_expected() {
    for (body, message) in [
        (
            "vmss = []",
            r#"p:3:1: unknown key "vmss": did you mean "vms"?"#,
        ),
        (
            "shell = { vm = \"any\" }",
            r#"p:3:11: unknown key "vm": did you mean "vms"?"#,
        ),
        (
            "vms = [\"list\",\n \"remove\"]",
            "p:4:2: unknown verb \"remove\"",
        ),
        (
            "vms = [\"comit\"]",
            r#"unknown verb "comit": did you mean "commit"?"#,
        ),
        ("vms = \"list\"", "p:3:7: expected a list of get, delete"),
        (
            "vms = { verbs = [\"list\"] }",
            "p:3:7: `scope` is missing here",
        ),
        (
            "environment = [\"PI_*\"]",
            "p:3:16: expected a list of variable names such as [\"PI_PATH\"]",
        ),
        (
            "environment = [\"A\"]\nsecrets = [\"A -> vm env\"]",
            "p:3:15: A is in secrets, and a secret is never read",
        ),
        (
            "vms = { verbs = [\"list\"], scope = \"label:team\" }",
            "p:3:35: expected \"any\", \"own\", \"label:KEY=VALUE\"",
        ),
        (
            "shell = { vms = \"0a0b\", commands = \"any\" }",
            "found \"0a0b\"",
        ),
        (
            "shell = { vms = \"any\", commands = [\"* x\"] }",
            "begins with the program's name",
        ),
        (
            "ui = [\"notify\"]",
            "\"notify\" is always allowed: leave it out",
        ),
        (
            "process = [{ program = \"git\" }]",
            "p:3:24: expected a program's absolute path",
        ),
        (
            "process = [{ program = \"/usr/../bin/git\" }]",
            "expected a program's absolute path",
        ),
        (
            "process = [{ program = \"/b\", args = [\"log **  x\"] }]",
            "make them the last word",
        ),
        (
            "files = [{ path = \"../x\", mode = \"ro\" }]",
            "may not contain `..`",
        ),
        (
            "files = [{ path = \"x\", mode = \"w\" }]",
            "p:3:31: expected \"ro\" or \"rw\", found \"w\"",
        ),
        (
            "files = [{ path = \".\", mode = \"rw\" }, { path = \".git\", mode = \"ro\" }]",
            "p:3:39: has no effect: \".git\" is inside \".\"",
        ),
        (
            "http = [\"https://Example.com/*\"]",
            "write it in its normal form: https://example.com/",
        ),
        (
            "http = [{ url = \"https://a.b/*\", addresses = [\"10.0.0.0/33\"] }]",
            "expected an address or a block",
        ),
        (
            "limits = { memory = 64 }",
            "p:3:21: expected a size such as \"64 MiB\"",
        ),
        ("limits = { memory = \"0 MiB\" }", "not zero"),
        (
            "limits = { call = \"10 MiB\" }",
            "expected a duration such as \"10 min\"",
        ),
        (
            "limits = { memory = \"99999999999 GiB\" }",
            "expected a size",
        ),
        ("limits = { memry = \"1 B\" }", "did you mean \"memory\"?"),
        ("ask = [\"vms.remove\"]", "unknown capability"),
        ("store = \"yes\"", "expected true or false"),
        ("bus = [\"a*b\"]", "expected a list of names"),
        ("vms = []\nvms = []", "p:4:1: "),
        ("é = [", "p:3:6: "),
        ("bus = [\"é\", 1]", "p:3:13: "),
    ] {
        let error = Policy::parse(&common::text(body), "p")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(message) && error.starts_with("p:") && !error.contains('\n'),
            "{body}\n{error}"
        );
    }
    for (text, message) in [
        (
            "[extension.x]\nvms = []",
            "p:1:12: [extension.x] has no digest",
        ),
        (
            "[extension.x]\ndigest = \"sha256:12\"",
            "p:2:10: expected \"sha256:\" and 64",
        ),
        ("[extention.x]", "did you mean \"extension\"?"),
        (
            "extension = 1",
            "expected [extension.NAME] sections, found 1",
        ),
        ("[extension.\"a b\"]", "1 to 128 characters"),
        ("[extension.\"a\\u200bb\"]", "1 to 128 characters"),
    ] {
        let error = Policy::parse(text, "p").unwrap_err().to_string();
        assert!(error.contains(message), "{text}\n{error}");
    }
}

#[test]
fn deep_nesting_is_an_error_and_no_stack_overflow() {
    for open in ["[", "{ a = ", "[{ a = ["] {
        let text = common::text(&format!("vms = {}", open.repeat(100_000)));
        assert!(Policy::parse(&text, "p").is_err());
    }
    assert!(Policy::parse(&"a.".repeat(100_000), "p").is_err());
}

#[test]
fn changed_bytes_lose_their_grants_and_the_difference_is_shown() {
    let policy = common::policy("vms = [\"list\"]");
    let Lookup::Changed { granted_to, grants } = policy.grants("x", &Digest::of(b"Component"))
    else {
        panic!()
    };
    assert_eq!(granted_to, common::digest());
    assert_eq!(policy.grants("y", &common::digest()), Lookup::Unknown);
    assert_eq!(
        Policy::empty().grants("x", &common::digest()),
        Lookup::Unknown
    );
    let wanted = common::grants("vms = [\"get\"]\nlimits = { calls = 1 }");
    assert_eq!(
        diff(&grants, &wanted),
        [
            "- vms: list, of any",
            "- limit calls: 64",
            "+ vms: get, of any",
            "+ limit calls: 1"
        ]
    );
    assert!(diff(&grants, &grants).is_empty());
    assert!(
        grants
            .explain()
            .iter()
            .any(|line| line.trim() == "vms: list, of any")
    );
}

#[test]
fn shipped_grants_give_way_to_the_user_and_follow_the_binary() {
    let shipped = |digest: Digest| {
        Policy::parse(&format!("[extension.x]\ndigest = \"{digest}\"\nvms = [\"list\"]\n[extension.y]\ndigest = \"{digest}\""), "shipped").unwrap()
    };
    let user = || {
        Policy::parse(
            "[extension.x]\ndigest = \"shipped\"\nvms = [\"get\"]",
            "user",
        )
        .unwrap()
    };
    assert_eq!(
        user().grants("x", &common::digest()),
        Lookup::Unknown,
        "shipped by nobody"
    );
    for bytes in [b"1", b"2"] {
        let digest = Digest::of(bytes);
        let policy = user().over(shipped(digest));
        let Lookup::Granted(grants) = policy.grants("x", &digest) else {
            panic!()
        };
        assert!(
            grants
                .decide(&Request::Vm {
                    verb: VmVerb::Get,
                    vm: vm(ID, &[], false)
                })
                .is_allowed()
        );
        assert!(
            !grants
                .decide(&Request::Vms { verb: VmVerb::List })
                .is_allowed()
        );
        assert!(matches!(
            policy.grants("x", &Digest::of(b"3")),
            Lookup::Changed { .. }
        ));
        assert!(matches!(policy.grants("y", &digest), Lookup::Granted(_)));
    }
}

#[test]
fn a_project_narrows_and_says_so() {
    let project = |body: &str| Policy::parse_project(body, "project.toml").unwrap();
    let user = || {
        common::policy(
            "vms = [\"list\", \"create\"]\nlimits = { memory = \"1 GiB\", calls = 5 }\nask = [\"vms.delete\"]\nfiles = [{ path = \".\", mode = \"rw\" }]",
        )
    };
    let narrowed = granted(&user().narrowed_by(project(
        "[extension.x]\nvms = [\"list\", \"get\", \"delete\"]\nlimits = { calls = 9, log = \"1 KiB\" }\nfiles = [{ path = \"out\", mode = \"rw\" }]\nask = [\"vms\"]",
    )));
    let decide = |verb| match verb {
        VmVerb::List | VmVerb::Create => narrowed.decide(&Request::Vms { verb }),
        _ => narrowed.decide(&Request::Vm {
            verb,
            vm: vm(ID, &[], false),
        }),
    };
    assert!(decide(VmVerb::List).is_allowed());
    assert!(
        denial(decide(VmVerb::Get))
            .to_string()
            .ends_with("in policy.toml")
    );
    assert!(
        matches!(decide(VmVerb::Create), Decision::Ask(_)),
        "the project asks for what the user allows"
    );
    assert!(
        matches!(decide(VmVerb::Delete), Decision::Ask(_)),
        "the user asks for what the project allows"
    );
    assert!(
        matches!(decide(VmVerb::Commit), Decision::Deny(_)),
        "a project cannot ask for what the user denies"
    );
    let limits = narrowed.limits();
    assert_eq!(
        (limits.memory, limits.calls, limits.log),
        (1 << 30, 5, 1 << 10)
    );
    assert_eq!(
        narrowed.file_root(Path::new("/work/out/a"), Access::Write),
        Some(Path::new("/work/out"))
    );
    assert_eq!(narrowed.file_root(Path::new("/work/a"), Access::Read), None);
    // A name it does not mention, and other bytes than it knows, have nothing there.
    for text in [
        "",
        "[extension.y]\n",
        &format!(
            "[extension.x]\ndigest = \"{}\"\nvms = [\"list\"]",
            Digest::of(b"other")
        ),
    ] {
        let decision = granted(&user().narrowed_by(project(text)))
            .decide(&Request::Vms { verb: VmVerb::List });
        assert!(
            denial(decision).to_string().ends_with("in project.toml"),
            "{text}"
        );
    }
}

#[test]
fn scopes_hold_for_the_vms_they_name() {
    let web = labels(&[("a", "b"), ("team", "web")]);
    let get = |scope: &str, vm: Vm<'_>| {
        let grants = grants(&format!("vms = {{ verbs = [\"get\"], scope = {scope} }}"));
        assert_eq!(
            grants.sees(&vm),
            grants
                .decide(&Request::Vm {
                    verb: VmVerb::Get,
                    vm
                })
                .is_allowed()
        );
        grants.sees(&vm)
    };
    let upper = ID.to_uppercase();
    for (scope, allowed, refused) in [
        ("\"any\"".to_owned(), vm(ID, &[], false), None),
        (
            "\"own\"".to_owned(),
            vm(ID, &[], true),
            Some(vm(ID, &web, false)),
        ),
        (
            "\"label:team=web\"".to_owned(),
            vm(ID, &web, false),
            Some(vm(ID, &[], true)),
        ),
        (
            format!("\"{ID}\""),
            vm(&upper, &[], false),
            Some(vm(OTHER, &web, true)),
        ),
        (
            format!("[\"{OTHER}\", \"own\"]"),
            vm(ID, &[], true),
            Some(vm(ID, &web, false)),
        ),
    ] {
        assert!(get(&scope, allowed), "{scope}");
        assert!(!refused.is_some_and(|vm| get(&scope, vm)), "{scope}");
    }
    for near in [
        ("team", "web2"),
        ("team", "we"),
        ("Team", "web"),
        ("team ", "web"),
        ("web", "team"),
        ("x", "team=web"),
    ] {
        assert!(
            !get("\"label:team=web\"", vm(ID, &labels(&[near]), false)),
            "{near:?}"
        );
    }
    assert!(!get("[]", vm(ID, &web, true)));
}

#[test]
fn setting_labels_cannot_bring_a_vm_into_scope() {
    let grants =
        grants("vms = [\"labels\"]\nshell = { vms = \"label:team=web\", commands = \"any\" }");
    let set = |before: &[(String, String)], after: &[(&str, &str)]| {
        grants
            .decide(&Request::VmLabels {
                vm: vm(ID, before, false),
                labels: &labels(after),
            })
            .is_allowed()
    };
    assert!(set(&[], &[("team", "db")]));
    assert!(!set(&[], &[("x", "y"), ("team", "web")]));
    assert!(
        set(&labels(&[("team", "web")]), &[("team", "web")]),
        "it was there already"
    );
    let Decision::Deny(denial) = grants.decide(&Request::Vm {
        verb: VmVerb::Labels,
        vm: vm(ID, &[], false),
    }) else {
        panic!()
    };
    assert!(denial.fix.is_none());
}

#[test]
fn a_restricted_shell_is_restricted_in_every_way() {
    let team = labels(&[("team", "web")]);
    let web = vm(ID, &team, false);
    let limited = grants(FULL);
    let spawn = |grants: &Grants, argv: &[&str], env: &[&str]| {
        let argv = strings(argv);
        grants.decide(&Request::ShellSpawn {
            vm: web,
            command: Command::Argv(&argv),
            working_directory: None,
            env,
        })
    };
    assert!(spawn(&limited, &["git", "status"], &["LANG"]).is_allowed());
    for (argv, env) in [
        (&["git", "push"][..], &[][..]),
        (&["git"], &[]),
        (&["ls", "-R"], &[]),
        (&["ls", "a", "b"], &[]),
        (&["/tmp/git", "status"], &[]),
        (&[], &[]),
        (&["ls", "\0"], &[]),
        (&["git status"], &[]),
        (&["git", "status"], &["LD_PRELOAD"]),
        (&["git", "status"], &["LANG=x"]),
        (&["sh", "-c", "git status"], &[]),
    ] {
        assert!(!spawn(&limited, argv, env).is_allowed(), "{argv:?} {env:?}");
    }
    let script = Request::ShellSpawn {
        vm: web,
        command: Command::Shell("git status"),
        working_directory: None,
        env: &[],
    };
    assert!(
        denial(limited.decide(&script))
            .to_string()
            .contains("the text of a script cannot be matched")
    );
    let file = |grants: &Grants, access| {
        grants
            .decide(&Request::VmFile {
                vm: web,
                path: "x",
                access,
            })
            .is_allowed()
    };
    assert!(file(&limited, Access::Read) && !file(&limited, Access::Write));
    assert!(
        limited
            .decide(&Request::ShellFollow { vm: web, path: "x" })
            .is_allowed()
    );
    let port = |grants: &Grants, remote, local| {
        grants
            .decide(&Request::ForwardPort {
                vm: web,
                remote,
                local,
            })
            .is_allowed()
    };
    assert!(
        port(&limited, 80, None)
            && port(&limited, 8080, Some(1024))
            && !port(&limited, 22, None)
            && !port(&limited, 80, Some(80))
    );
    let bare = grants("shell = { vms = \"any\", commands = [\"true\"] }");
    assert!(
        !file(&bare, Access::Read)
            && !port(&bare, 80, None)
            && !spawn(&bare, &["true"], &["LANG"]).is_allowed()
    );
    let free = grants("shell = { vms = \"any\", commands = \"any\" }");
    assert!(
        file(&free, Access::Write)
            && spawn(&free, &["x", "-y"], &["LD_PRELOAD"]).is_allowed()
            && free.decide(&script).is_allowed()
    );
    assert!(
        !port(&free, 80, None),
        "a port opens this machine, not the VM"
    );
    assert!(
        !limited
            .decide(&Request::ShellConnect {
                vm: vm(ID, &[], true)
            })
            .is_allowed()
    );
}

#[test]
fn local_files_are_matched_by_whole_names() {
    let grants = grants(FULL);
    let ask = |path: &str, access| {
        grants
            .decide(&Request::LocalFile {
                path: Path::new(path),
                access,
            })
            .is_allowed()
    };
    for (path, access) in [
        ("/work", Access::Read),
        ("/work/a/b", Access::Read),
        ("/work/out", Access::Write),
        ("/work/out/x", Access::Write),
        ("/home/me/notes/x", Access::Write),
        ("/srv/data", Access::Read),
    ] {
        assert!(ask(path, access), "{path}");
        assert!(grants.file_root(Path::new(path), access).is_some());
    }
    for (path, access) in [
        ("/work/a", Access::Write),
        ("/workx", Access::Read),
        ("/work/outx", Access::Write),
        ("/work/out/../a", Access::Write),
        ("/work/../etc/passwd", Access::Read),
        ("out/x", Access::Write),
        ("", Access::Read),
        ("/", Access::Read),
        ("/home/me", Access::Read),
        ("/home/me/notesx", Access::Write),
        ("/srv/data/x", Access::Write),
        ("/srv", Access::Read),
        ("/work/x\0", Access::Read),
        ("/work/out/..", Access::Write),
        ("/WORK/x", Access::Read),
    ] {
        assert!(!ask(path, access), "{path}");
    }
    // Before the session's directories are known, only absolute places match.
    let Lookup::Granted(unplaced) = common::policy(FULL).grants("x", &common::digest()) else {
        panic!()
    };
    let read = |path: &str| {
        unplaced
            .decide(&Request::LocalFile {
                path: Path::new(path),
                access: Access::Read,
            })
            .is_allowed()
    };
    assert!(read("/srv/data/x") && !read("/work/x") && !read("/x") && !read("x"));
    let here = Path::new("/work");
    for (path, normal) in [
        ("a//b/./c", "/work/a/b/c"),
        ("/etc/x/", "/etc/x"),
        (".", "/work"),
        ("~/x", "/work/~/x"),
        ("a/...", "/work/a/..."),
    ] {
        assert_eq!(normalise(here, path).unwrap(), Path::new(normal));
    }
    for (path, error) in [
        ("", PathError::Empty),
        ("..", PathError::Parent),
        ("a/../b", PathError::Parent),
        ("/..", PathError::Parent),
        ("a\0", PathError::Nul),
    ] {
        assert_eq!(normalise(here, path), Err(error));
    }
    assert_eq!(
        normalise(Path::new("relative"), "x"),
        Err(PathError::NotAbsolute)
    );
}

#[test]
fn denials_are_one_line_with_the_next_step() {
    let grants = common::grants(
        "vms = [\"list\"]\nshell = { vms = \"own\", commands = [\"ls\"] }\nprocess = [{ program = \"/usr/bin/git\", args = [\"status\"] }]\nsession = [\"entries\"]",
    );
    let args = strings(&["push", "--force", "a b", "\u{1b}[31m\n"]);
    let lines: Vec<String> = [
        Request::Vm {
            verb: VmVerb::Delete,
            vm: vm(ID, &[], false),
        },
        Request::ShellConnect {
            vm: vm(ID, &[], false),
        },
        Request::Process {
            program: Path::new("/usr/bin/git"),
            args: &args,
            working_directory: Path::new("/work"),
            env: &[],
        },
        Request::Session {
            verb: SessionVerb::SendMessage,
        },
        Request::LocalFile {
            path: Path::new("/etc/passwd"),
            access: Access::Read,
        },
    ]
    .iter()
    .map(|request| denial(grants.decide(request)).to_string())
    .collect();
    assert_eq!(
        lines[0],
        "x may not delete VMs: add \"delete\" to vms of [extension.x] in policy.toml"
    );
    assert_eq!(
        lines[1],
        format!(
            "x may not connect to VM {ID} (granted are own, not {ID}): add \"{ID}\" to the vms of shell of [extension.x] in policy.toml"
        )
    );
    assert!(
        lines[2].contains("no pattern of its arguments matches")
            && !lines[2].contains(['\u{1b}', '\n']),
        "{}",
        lines[2]
    );
    assert_eq!(
        lines[3],
        "x may not put messages into the conversation: add \"send-message\" to session of [extension.x] in policy.toml"
    );
    assert_eq!(
        lines[4],
        "x may not read /etc/passwd: add { path = \"/etc/passwd\", mode = \"ro\" } to files of [extension.x] in policy.toml"
    );
}

#[cfg(unix)]
#[test]
fn a_file_that_everybody_can_write_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = std::env::temp_dir().join(format!("pi-vers-policy-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("policy.toml");
    assert!(
        matches!(Policy::load(&path), Err(Error::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound)
    );
    std::fs::write(&path, common::text("")).unwrap();
    let with_mode = |mode| {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        Policy::load(&path)
    };
    assert!(with_mode(0o664).is_ok());
    assert!(matches!(with_mode(0o666), Err(Error::Exposed(_))));
    with_mode(0o600).unwrap();
    std::fs::write(&path, " ".repeat((1 << 20) + 1)).unwrap();
    assert!(matches!(Policy::load(&path), Err(Error::TooLarge(_))));
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn a_secret_may_be_used_where_every_file_lets_it_go_somewhere() {
    let user = "secrets = [\"A -> child env\", \"B -> vm env\", \"C -> http https://a.example\"]";
    let alone = grants(user);
    assert!(
        ["A", "B", "C"]
            .iter()
            .all(|name| alone.may_use_secret(name))
    );
    assert!(!alone.may_use_secret("D") && !grants("").may_use_secret("A"));
    let under = |project: &str| {
        let project = Policy::parse_project(&format!("[extension.x]\n{project}"), "project");
        granted(&common::policy(user).narrowed_by(project.unwrap()))
    };
    let narrow = under("secrets = [\"A -> child env /bin/a\", \"B -> child env\"]");
    assert!(narrow.may_use_secret("A"));
    assert!(!narrow.may_use_secret("B") && !narrow.may_use_secret("C"));
    // What a human would have to allow first is not there.
    assert!(!grants("ask = [\"secrets\"]").may_use_secret("A"));
    assert!(!Grants::describing("x").may_use_secret("A"));
}

#[test]
fn a_limit_that_is_none_is_said_to_be_and_can_be_set_and_narrowed() {
    let lifetime = |grants: &Grants| {
        let mut lines = grants.explain().into_iter();
        let line = lines.find(|line| line.contains("vm-lifetime"));
        line.unwrap().trim().to_owned()
    };
    assert_eq!(lifetime(&grants("")), "limit vm-lifetime: none");
    assert_eq!(grants("").limits().depth, 3);
    let eight = "limits = { vm-lifetime = \"8 h\", depth = 5 }";
    assert_eq!(lifetime(&grants(eight)), "limit vm-lifetime: 8 h");
    for (user, project, both) in [
        (eight, "", "8 h"),
        ("", eight, "8 h"),
        (eight, "limits = { vm-lifetime = \"9 h\" }", "8 h"),
    ] {
        let project = Policy::parse_project(&format!("[extension.x]\n{project}"), "project");
        let narrow = granted(&common::policy(user).narrowed_by(project.unwrap()));
        assert_eq!(lifetime(&narrow), format!("limit vm-lifetime: {both}"));
    }
}
