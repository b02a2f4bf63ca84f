//! Properties: no text makes the parser panic, narrowing only takes away, what is written reads back.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use std::path::Path;

use pi_vers_policy::*;
use proptest::prelude::*;

/// Lines of a section: each a list of choices, so that two random sections overlap often.
const LINES: &[&[&str]] = &[
    &[
        "",
        "vms = [\"list\"]",
        "vms = [\"list\", \"get\", \"create\"]",
        "vms = { verbs = [\"get\", \"delete\"], scope = \"own\" }",
        "vms = { verbs = [\"get\", \"labels\"], scope = [\"label:a=b\"] }",
    ],
    &[
        "",
        "shell = { vms = \"any\", commands = \"any\" }",
        "shell = { vms = \"own\", commands = [\"ls *\"], files = \"ro\", env = [\"A\"] }",
        "shell = { vms = \"label:a=b\", commands = [\"ls ...\", \"ls\"], ports = \"any\" }",
        "shell = { vms = [\"own\", \"label:a=b\"], commands = \"any\", files = \"none\", env = [\"B\"], ports = [80] }",
    ],
    &[
        "",
        "process = [{ program = \"/bin/a\", args = \"any\" }]",
        "process = [{ program = \"/bin/a\", args = [\"x *\", \"--y=* **\"], env = [\"A\"] }]",
        "process = [{ program = \"/bin/a\", args = [\"...\"], env = \"any\", directories = [\"/\"] }]",
    ],
    &[
        "",
        "files = [{ path = \".\", mode = \"ro\" }]",
        "files = [{ path = \"out\", mode = \"rw\" }, { path = \"~\", mode = \"ro\" }]",
        "files = [{ path = \"/\", mode = \"rw\" }]",
    ],
    &[
        "",
        "http = [\"https://a.example/*\"]",
        "http = [\"GET https://a.example/v1/*\"]",
        "http = [{ url = \"https://*.b.example/*\", addresses = [\"10.0.0.0/8\"] }]",
    ],
    &[
        "",
        "secrets = [\"K -> vm env\"]",
        "secrets = [\"K -> child env\", \"K -> http https://a.example\"]",
        "secrets = [\"K -> child env /bin/a\"]",
    ],
    &["", "environment = [\"A\"]", "environment = [\"A\", \"B\"]"],
    &["", "ui = []", "ui = [\"input\", \"select\"]"],
    &[
        "",
        "session = []",
        "session = [\"send-message\", \"entries\"]",
    ],
    &[
        "",
        "bus = [\"a\"]",
        "bus = [\"*\"]\nevents = [\"context\"]\nreplace = [\"b*\"]",
    ],
    &["", "store = false", "fleet = [\"members\"]"],
    &[
        "",
        "ask = [\"vms\", \"process\"]",
        "ask = [\"shell.files\", \"files\", \"http\", \"secrets\", \"ui\"]",
    ],
    &[
        "",
        "limits = { memory = \"1 GiB\", calls = 3 }",
        "limits = { memory = \"1 MiB\", log = \"3 B\" }",
    ],
];

fn body() -> impl Strategy<Value = String> {
    let lines: Vec<_> = LINES
        .iter()
        .map(|choices| prop::sample::select(choices.to_vec()))
        .collect();
    lines.prop_map(|lines| lines.join("\n"))
}

/// How many requests are put to each set of grants.
const REQUESTS_PUT: usize = 700;

/// Every kind of request in many forms.
fn for_each_request(mut test: impl FnMut(&Request<'_>)) {
    let label = common::labels(&[("a", "b")]);
    let none = common::labels(&[]);
    let vms = [(&none, true), (&none, false), (&label, false)]
        .map(|(labels, own)| common::vm(common::ID, labels, own));
    let vectors = [
        &["ls"][..],
        &["ls", "x"],
        &["ls", "-x"],
        &["x", "y"],
        &["--y=z", "q", "r"],
        &["-c", "x"],
    ]
    .map(common::strings);
    let urls = [
        "https://a.example/",
        "https://a.example/v1/x?y",
        "https://x.b.example/v1/%2e",
        "https://evil.example/",
    ]
    .map(|url| url::Url::parse(url).unwrap());
    let envs: [&[&str]; 4] = [&[], &["A"], &["B"], &["A", "LD_PRELOAD"]];
    let program = Path::new("/bin/a");
    for vm in vms {
        for &verb in VmVerb::ALL {
            test(&if verb.needs_vm() {
                Request::Vm { verb, vm }
            } else {
                Request::Vms { verb }
            });
        }
        for labels in [&none, &label] {
            test(&Request::VmLabels { vm, labels });
        }
        test(&Request::ShellConnect { vm });
        test(&Request::ShellFollow { vm, path: "x" });
        for access in [Access::Read, Access::Write] {
            test(&Request::VmFile {
                vm,
                path: "x",
                access,
            });
        }
        for (remote, local) in [(80, None), (22, Some(2222)), (80, Some(22))] {
            test(&Request::ForwardPort { vm, remote, local });
        }
        for env in envs {
            for command in vectors
                .iter()
                .map(|argv| Command::Argv(argv))
                .chain([Command::Shell("ls")])
            {
                test(&Request::ShellSpawn {
                    vm,
                    command,
                    working_directory: None,
                    env,
                });
            }
        }
    }
    for args in &vectors {
        for env in envs {
            for directory in ["/work", "/work/x", "/etc"] {
                test(&Request::Process {
                    program,
                    args,
                    working_directory: Path::new(directory),
                    env,
                });
            }
        }
    }
    for path in [
        "/work/x",
        "/work/out/x",
        "/home/me/x",
        "/etc/passwd",
        "/work/../x",
    ] {
        for access in [Access::Read, Access::Write] {
            test(&Request::LocalFile {
                path: Path::new(path),
                access,
            });
        }
    }
    for url in &urls {
        for method in ["GET", "POST"] {
            test(&Request::Http { method, url });
            for address in ["8.8.8.8", "10.1.1.1", "127.0.0.1"] {
                test(&Request::HttpAddress {
                    method,
                    url,
                    address: address.parse().unwrap(),
                });
            }
        }
        test(&Request::Secret {
            name: "K",
            to: SecretUse::HttpHeader { url },
        });
    }
    for name in ["A", "B", "AB", ""] {
        test(&Request::Variable { name });
    }
    for name in ["K", "L"] {
        test(&Request::Secret {
            name,
            to: SecretUse::VmEnv,
        });
        test(&Request::Secret {
            name,
            to: SecretUse::ChildEnv { program },
        });
        test(&Request::Secret {
            name,
            to: SecretUse::ChildEnv {
                program: Path::new("/bin/b"),
            },
        });
    }
    UiVerb::ALL
        .iter()
        .for_each(|&verb| test(&Request::Ui { verb }));
    ClientVerb::ALL
        .iter()
        .for_each(|&verb| test(&Request::Client { verb }));
    SessionVerb::ALL
        .iter()
        .for_each(|&verb| test(&Request::Session { verb }));
    FleetVerb::ALL
        .iter()
        .for_each(|&verb| test(&Request::Fleet { verb }));
    for name in ["a", "b", "bash", "context", "agent-start"] {
        test(&Request::Bus { topic: name });
        test(&Request::Event { name });
        test(&Request::ReplaceTool { name });
    }
    [
        Request::Log,
        Request::Timers,
        Request::OwnHandle,
        Request::Store,
    ]
    .iter()
    .for_each(test);
}

/// Less is smaller.
fn rank(decision: &Decision) -> u8 {
    match decision {
        Decision::Deny(_) => 0,
        Decision::Ask(_) => 1,
        Decision::Allow => 2,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn narrowing_only_takes_away(user in body(), project in body()) {
        let base = common::granted(&common::policy(&user));
        let project = Policy::parse_project(&format!("[extension.x]\n{project}"), "project").unwrap();
        let alone = common::granted(&common::policy(&user).narrowed_by(project.clone()));
        let twice = common::granted(&common::policy(&user).narrowed_by(project.clone().narrowed_by(project.clone())));
        let within = common::granted(&Policy::parse(&common::text(project.to_toml().trim_start_matches("[extension.x]\n")), "project").unwrap());
        let mut put = 0;
        for_each_request(|request| {
            let (base, narrow, within) = (rank(&base.decide(request)), rank(&alone.decide(request)), rank(&within.decide(request)));
            // Exactly the intersection: no more than either, and no less than both.
            assert_eq!(narrow, base.min(within), "{request:?}");
            assert_eq!(rank(&twice.decide(request)), narrow, "{request:?}");
            put += 1;
        });
        prop_assert!(put > 200 && put < REQUESTS_PUT, "{put}");
        for limit in LIMITS {
            prop_assert!(alone.limits().get(limit.name) <= base.limits().get(limit.name));
        }
    }

    #[test]
    fn what_is_written_reads_back(body in body()) {
        let policy = common::policy(&body);
        prop_assert_eq!(Policy::parse(&policy.to_toml(), "policy.toml").unwrap(), policy);
    }

    #[test]
    fn a_denial_names_a_rule_that_reads_and_only_adds(body in body()) {
        let grants = common::granted(&common::policy(&body));
        for_each_request(|request| {
            let fix = match grants.decide(request) {
                Decision::Allow => return,
                Decision::Ask(Question { refused, .. }) => refused.fix,
                Decision::Deny(denial) => denial.fix,
            };
            if let Some(fix) = fix {
                assert!(!fix.rule.contains('\n'));
                common::policy(&fix.rule);
            }
        });
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in any::<String>()) {
        let _ = Policy::parse(&text, "p");
        let _ = Policy::parse(&common::text(&text), "p");
        for key in ["vms", "shell", "process", "files", "http", "secrets", "ui", "bus", "ask", "limits", "digest"] {
            let _ = Policy::parse(&common::text(&format!("{key} = {text}")), "p");
        }
    }

    #[test]
    fn no_pattern_makes_the_parser_panic(text in "[ -~\u{e9}\u{202e}]{0,24}|([*.'\"\\\\ =-]|https?://|[a-z]){0,16}") {
        let quoted = format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
        for line in [
            format!("process = [{{ program = \"/b\", args = [{quoted}] }}]"), format!("process = [{{ program = {quoted} }}]"), format!("http = [{quoted}]"),
            format!("http = [{{ url = \"https://a.b/*\", addresses = [{quoted}] }}]"), format!("secrets = [{quoted}]"), format!("files = [{{ path = {quoted}, mode = \"ro\" }}]"),
            format!("vms = {{ verbs = [], scope = {quoted} }}"), format!("limits = {{ memory = {quoted} }}"), format!("{quoted} = 1"), format!("bus = [{quoted}]"),
        ] {
            match Policy::parse(&common::text(&line), "p") {
                Ok(policy) => assert_eq!(Policy::parse(&policy.to_toml(), "p").unwrap(), policy, "{line}"),
                Err(error) => assert!(!error.to_string().contains('\n'), "{error}"),
            }
        }
    }

    #[test]
    fn an_exact_pattern_allows_its_vector_and_no_other(args in prop::collection::vec("[ -~\u{e9}\n\t]{0,8}|[*.'\"\\\\-]{1,3}", 0..4), other in prop::collection::vec("[ -~]{0,3}", 0..4)) {
        let ask = |grants: &Grants, args: &[String]| {
            grants.decide(&Request::Process { program: Path::new("/bin/p"), args, working_directory: Path::new("/work"), env: &[] })
        };
        let rule = common::denial(ask(&common::grants(""), &args)).fix.unwrap().rule;
        let grants = common::grants(&rule);
        prop_assert!(ask(&grants, &args).is_allowed(), "{rule}");
        prop_assert_eq!(ask(&grants, &other).is_allowed(), args == other);
    }

    #[test]
    fn limits_read_back(value in 1u64..) {
        for unit in [Unit::Bytes, Unit::Time, Unit::Count] {
            prop_assert_eq!(unit.parse(&unit.format(value)), Some(value));
        }
    }

    #[test]
    fn digests_read_back(bytes in any::<[u8; 32]>(), text in any::<String>()) {
        let digest = Digest::from_bytes(bytes);
        prop_assert_eq!(digest.to_string().parse::<Digest>(), Ok(digest));
        prop_assert_eq!(digest.to_string().replace("sha256:", "").to_uppercase().parse::<Digest>(), Err(DigestError));
        let _ = text.parse::<Digest>();
    }
}
