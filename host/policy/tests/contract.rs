//! Every import function of the contract has a decision, and without grants the answer is no.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use std::collections::BTreeSet;
use std::path::Path;

use pi_vers_policy::*;
use wit_parser::{Resolve, WorldItem};

fn imports() -> BTreeSet<String> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve
        .push_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../wit"))
        .unwrap();
    let mut functions = BTreeSet::new();
    for world in resolve.packages[package].worlds.values() {
        for item in resolve.worlds[*world].imports.values() {
            match item {
                WorldItem::Interface { id, .. } => {
                    let interface = &resolve.interfaces[*id];
                    let name = &resolve.packages[interface.package.unwrap()].name;
                    for function in interface.functions.keys() {
                        functions.insert(format!(
                            "{}:{}/{}#{function}",
                            name.namespace,
                            name.name,
                            interface.name.as_ref().unwrap()
                        ));
                    }
                }
                WorldItem::Type { .. } => {}
                WorldItem::Function(function) => {
                    panic!("a bare import has no row: {}", function.name)
                }
            }
        }
    }
    functions
}

#[test]
fn every_import_function_has_a_row() {
    let rows: BTreeSet<String> = REQUESTS
        .iter()
        .map(|(function, _)| (*function).to_owned())
        .collect();
    assert_eq!(rows.len(), REQUESTS.len(), "a function has two rows");
    let imports = imports();
    assert!(imports.len() > 60, "the contract was not read: {imports:?}");
    assert_eq!(
        imports.difference(&rows).collect::<Vec<_>>(),
        Vec::<&String>::new(),
        "no decision for these"
    );
    assert_eq!(
        rows.difference(&imports).collect::<Vec<_>>(),
        Vec::<&String>::new(),
        "the contract has no such functions"
    );
    assert!(REQUESTS.iter().all(|(_, kinds)| !kinds.is_empty()));
}

/// Requests of every kind, each verb of it, that no default allows.
fn with_samples(test: impl Fn(&Request<'_>, bool)) {
    let labels = common::labels(&[]);
    let vm = common::vm(common::ID, &labels, true);
    let argv = common::strings(&["true"]);
    let url = url::Url::parse("https://example.com/").unwrap();
    let path = Path::new("/usr/bin/true");
    let address = "127.0.0.1".parse().unwrap();
    let command = Command::Argv(&argv);
    test(&Request::Log, true);
    test(&Request::Timers, true);
    test(&Request::OwnHandle, true);
    test(&Request::Store, true);
    for &verb in VmVerb::ALL {
        test(
            &if verb.needs_vm() {
                Request::Vm { verb, vm }
            } else {
                Request::Vms { verb }
            },
            false,
        );
    }
    for &verb in UiVerb::ALL {
        test(
            &Request::Ui { verb },
            !matches!(verb, UiVerb::Input | UiVerb::Edit),
        );
    }
    for &verb in ClientVerb::ALL {
        test(
            &Request::Client { verb },
            matches!(verb, ClientVerb::Offers | ClientVerb::ListChanged),
        );
    }
    for &verb in SessionVerb::ALL {
        use SessionVerb::*;
        test(
            &Request::Session { verb },
            !matches!(
                verb,
                SendMessage | SendUserMessage | SetActiveTools | RunBuiltIn
            ),
        );
    }
    for &verb in FleetVerb::ALL {
        test(&Request::Fleet { verb }, verb == FleetVerb::Available);
    }
    for request in [
        Request::VmLabels {
            vm,
            labels: &labels,
        },
        Request::ShellConnect { vm },
        Request::ShellSpawn {
            vm,
            command,
            working_directory: None,
            env: &[],
        },
        Request::ShellFollow { vm, path: "log" },
        Request::ForwardPort {
            vm,
            remote: 80,
            local: None,
        },
        Request::VmFile {
            vm,
            path: "x",
            access: Access::Read,
        },
        Request::Process {
            program: path,
            args: &[],
            working_directory: Path::new("/work"),
            env: &[],
        },
        Request::LocalFile {
            path: Path::new("/work/x"),
            access: Access::Read,
        },
        Request::Http {
            method: "GET",
            url: &url,
        },
        Request::HttpAddress {
            method: "GET",
            url: &url,
            address,
        },
        Request::Variable { name: "PI_PATH" },
        Request::Secret {
            name: "KEY",
            to: SecretUse::VmEnv,
        },
        Request::Secret {
            name: "KEY",
            to: SecretUse::ChildEnv { program: path },
        },
        Request::Secret {
            name: "KEY",
            to: SecretUse::HttpHeader { url: &url },
        },
        Request::Bus { topic: "t" },
        Request::Event { name: "context" },
        Request::ReplaceTool { name: "bash" },
    ] {
        test(&request, false);
    }
}

#[test]
fn samples_cover_every_kind_of_the_table() {
    let seen = std::cell::RefCell::new(BTreeSet::new());
    with_samples(|request, _| {
        seen.borrow_mut().insert(request.kind());
    });
    let seen = seen.into_inner();
    assert!(
        REQUESTS
            .iter()
            .flat_map(|(_, kinds)| *kinds)
            .all(|kind| seen.contains(kind))
    );
}

#[test]
fn without_grants_only_the_documented_defaults_are_allowed() {
    for grants in [Grants::nothing("x"), common::grants("")] {
        with_samples(|request, by_default| {
            let decision = grants.decide(request);
            assert_eq!(
                decision.is_allowed(),
                by_default,
                "{request:?}: {decision:?}"
            );
            if let Decision::Deny(denial) = decision {
                let line = denial.to_string();
                assert!(
                    line.starts_with("x may not ") && !line.contains('\n'),
                    "{line}"
                );
            }
        });
    }
}

#[test]
fn describing_allows_the_log_alone() {
    let grants = Grants::describing("x");
    with_samples(|request, _| {
        assert_eq!(
            grants.decide(request).is_allowed(),
            request.kind() == Kind::Log,
            "{request:?}"
        )
    });
    assert!(!grants.sees(&common::vm(common::ID, &[], true)));
}

/// The line of the policy that a denial tells people to write, read from its words alone: from `… in policy.toml` without grants.
fn line_in(message: &str) -> Option<String> {
    let (_, fix) = message.split_once(": add ")?;
    let fix = fix.strip_suffix(" of [extension.x] in policy.toml")?;
    match fix.rsplit_once(" to ") {
        Some((item, key)) if !key.contains(' ') => Some(format!("{key} = [{item}]")),
        _ => Some(fix.to_owned()),
    }
}

#[test]
fn adding_the_rule_that_a_denial_names_allows_the_request() {
    with_samples(|request, by_default| {
        // That one the host would have to ask as `VmLabels`: no rule can allow it.
        let nobody_asks = matches!(
            request,
            Request::Vm {
                verb: VmVerb::Labels,
                ..
            }
        );
        if by_default || nobody_asks {
            return;
        }
        let denial = common::denial(common::grants("").decide(request));
        let message = denial.to_string();
        let said = line_in(&message).unwrap_or_else(|| panic!("no line in {message}"));
        let rule = denial.fix.expect("a rule").rule;
        for line in [said, rule] {
            let decision = common::grants(&line).decide(request);
            assert!(decision.is_allowed(), "{line}: {decision:?}");
        }
    });
}

#[test]
fn a_denial_and_its_request_name_the_same_capability() {
    with_samples(|request, _| {
        if let Decision::Deny(denial) = common::grants("").decide(request) {
            assert_eq!(denial.capability, request.capability());
        }
    });
}

#[test]
fn what_is_always_allowed_cannot_be_taken_away_and_all_else_can() {
    let least = "ui = []\nclient = []\nsession = []\nevents = []\nstore = false";
    with_samples(|request, _| {
        assert_eq!(
            common::grants(least).decide(request).is_allowed(),
            request.is_always_allowed(),
            "{request:?}"
        );
    });
}

#[test]
fn the_ground_of_what_is_allowed_is_the_rule_alone_and_allows_it() {
    let all: Vec<&str> = VmVerb::ALL.iter().map(|verb| verb.name()).collect();
    let much = format!(
        r#"
vms = {{ verbs = {all:?}, scope = ["label:a=b", "own"] }}
shell = {{ vms = ["label:a=b", "own"], commands = ["ls", "true"], files = "ro", ports = [80] }}
process = [{{ program = "/usr/bin/git", args = "any" }}, {{ program = "/usr/bin/true", args = ["--help", ""] }}]
files = [{{ path = "/etc", mode = "ro" }}, {{ path = ".", mode = "ro" }}]
http = ["https://a.example/", {{ url = "https://example.com/*", addresses = ["127.0.0.1"] }}]
secrets = ["KEY -> vm env", "KEY -> child env", "KEY -> http https://example.com"]
environment = ["A", "PI_PATH"]
ui = ["select", "confirm", "input", "edit"]
client = ["form", "sampling", "roots"]
session = ["send-message", "send-user-message", "set-active-tools", "run-built-in", "append-entry", "entries"]
fleet = ["golden", "build-golden", "register", "deregister", "members"]
bus = ["s", "t"]
events = ["agent-start", "context"]
replace = ["bash", "read"]
"#
    );
    let grants = common::grants(&much);
    with_samples(|request, by_default| {
        let denied = !grants.decide(request).is_allowed();
        let grounds = grants.grounds(request);
        if denied {
            assert!(grounds.is_empty(), "{request:?}");
            return;
        }
        let [ground] = grounds.as_slice() else {
            panic!("{grounds:?}");
        };
        assert_eq!(ground.rule == "default", by_default, "{ground}");
        assert_eq!(ground.origin, "policy.toml");
        if by_default {
            return;
        }
        for other in [
            "label:a=b",
            "\"ls\"",
            "git",
            "--help",
            "/etc",
            "a.example",
            "\"A\"",
            "\"s\"",
            "agent-start",
            "\"read\"",
        ] {
            let whole_scope = request.kind() == Kind::Vms && other.starts_with("label");
            assert!(whole_scope || !ground.rule.contains(other), "{ground}");
        }
        let alone = common::grants(&ground.rule);
        assert!(alone.decide(request).is_allowed(), "{ground}");
    });
    // A project's file that narrows is named, too.
    let project = Policy::parse_project(
        "[extension.x]\nvms = [\"list\", \"create\"]",
        "pi-vers.toml",
    )
    .unwrap();
    let narrowed = common::granted(&common::policy(&much).narrowed_by(project));
    let grounds = narrowed.grounds(&Request::Vms { verb: VmVerb::List });
    let said: Vec<String> = grounds.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "vms = { verbs = [\"list\"], scope = [\"label:a=b\", \"own\"] } in policy.toml",
            "vms = [\"list\"] in pi-vers.toml"
        ]
    );
}

#[test]
fn facts_are_cleaned_before_they_are_quoted() {
    let canary = "pass\"word\\1";
    let argv = common::strings(&["curl", &format!("--oauth2-bearer={canary}")]);
    let labels = common::labels(&[("k", canary)]);
    let vm = common::vm(common::ID, &labels, true);
    let clean = |text: &str| text.replace(canary, "[redacted]");
    for request in [
        Request::ShellSpawn {
            vm,
            command: Command::Argv(&argv),
            working_directory: Some(canary),
            env: &[canary],
        },
        Request::ShellSpawn {
            vm,
            command: Command::Shell(canary),
            working_directory: None,
            env: &[],
        },
        Request::Vm {
            verb: VmVerb::Get,
            vm,
        },
        Request::VmLabels {
            vm,
            labels: &labels,
        },
        Request::Process {
            program: Path::new("/bin/sh"),
            args: &argv,
            working_directory: Path::new(canary),
            env: &[],
        },
        Request::LocalFile {
            path: Path::new(canary),
            access: Access::Read,
        },
        Request::Bus { topic: canary },
    ] {
        let facts = request.facts(&clean);
        let text = format!("{facts:?}");
        assert!(
            text.contains("[redacted]") && !text.contains("word"),
            "{text}"
        );
    }
}

#[test]
fn everything_can_be_left_to_a_human_and_is_then_no_permission() {
    let families = "ask = [\"vms\", \"shell\", \"process\", \"files\", \"http\", \"secrets\", \"fleet\", \"ui\", \"client\", \"session\", \"bus\"]";
    let grants = common::grants(families);
    with_samples(|request, by_default| match grants.decide(request) {
        Decision::Allow => assert!(by_default, "{request:?}"),
        Decision::Ask(question) => assert!(
            !by_default && question.to_string().starts_with("May x "),
            "{question}"
        ),
        Decision::Deny(denial) => assert!(
            denial.fix.is_none()
                || matches!(
                    request.kind(),
                    Kind::Event | Kind::ReplaceTool | Kind::Variable
                ),
            "{denial}"
        ),
    });
}
