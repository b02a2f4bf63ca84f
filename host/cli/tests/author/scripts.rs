//! `pi-vers test`: what passes, and how what does not is told.

use serde_json::{Value, json};

use crate::common::{Home, Ran};
use crate::{built, home};

fn test(home: &Home, script: &[&str], more: &[&str]) -> Ran {
    let file = home.write("work/s.jsonl", script.join("\n"));
    let project = built().project();
    let args = [
        "test",
        project.to_str().unwrap(),
        "--no-build",
        file.to_str().unwrap(),
    ];
    home.run(args.iter().chain(more))
}

fn json_of(home: &Home, script: &[&str]) -> (i32, Value) {
    let ran = test(home, script, &["--json"]);
    let lines = ran.json();
    (ran.code, lines[0].clone())
}

const GREET: &str = r#"{"call":"hello_greet","args":{"name":"Ada"},"expect":{"text":"Hello, Ada! You are number 1."}}"#;

#[test]
fn what_differs_is_shown_with_its_place() {
    let home = home();
    let wrong =
        r#"{"call":"hello_greet","args":{"name":"Bob"},"expect":{"text":"Hello, Ada!","ok":true}}"#;
    let ran = test(&home, &["# first", GREET, wrong, GREET], &[]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.out.contains("s.jsonl:3"), "{ran:?}");
    assert!(
        ran.out
            .contains(r#"/text: expected "Hello, Ada!", came "Hello, Bob! You are number 2.""#),
        "{ran:?}"
    );
    assert!(ran.out.ends_with("1 of 1 scripts failed\n"), "{ran:?}");
    let (code, report) = json_of(&home, &[wrong]);
    assert_eq!(code, 1);
    let failure = &report["failures"][0];
    assert_eq!(failure["line"], 1);
    assert_eq!(
        failure["problems"][0],
        json!({ "path": "/text", "expected": "Hello, Ada!", "actual": "Hello, Bob! You are number 1." })
    );
}

#[test]
fn a_call_that_fails_where_nobody_expects_it_fails_the_test() {
    let (code, report) = json_of(&home(), &[r#"{"call":"hello_greet","args":{}}"#]);
    assert_eq!(
        (code, &report["failures"][0]["problems"][0]["path"]),
        (1, &json!("/ok"))
    );
}

#[test]
fn what_the_script_has_no_answer_for_fails_with_the_line_to_add() {
    let (code, report) = json_of(
        &home(),
        &[
            r#"{"vm":"web"}"#,
            r#"{"call":"hello_run","args":{"vm":"${web}","command":["uname","-a"]},"expect":{"error":{"kind":"unavailable"}}}"#,
        ],
    );
    assert_eq!(code, 1, "{report}");
    let what = report["failures"][0]["what"].as_str().unwrap();
    assert!(
        what.contains(r#"{"exec":["uname","-a"],"vm":"00000000-0000-4000-8000-000000000001""#),
        "{what}"
    );
}

#[test]
fn a_line_that_nothing_needed_fails_unless_it_is_optional() {
    let home = home();
    let unused = r#"{"exec":["never"],"code":1}"#;
    let (code, report) = json_of(&home, &[unused, GREET]);
    assert_eq!((code, &report["failures"][0]["line"]), (1, &json!(1)));
    let optional = r#"{"exec":["never"],"optional":true}"#;
    let (code, report) = json_of(&home, &[optional, GREET]);
    assert_eq!(code, 0, "{report}");
}

#[test]
fn the_policy_of_the_project_holds_and_another_can_be_tried() {
    let home = home();
    let script = [
        r#"{"vm":"web"}"#,
        r#"{"call":"hello_run","args":{"vm":"${web}","command":["make"]},"expect":{"error":{"kind":"denied","message":{"contains":"\"make\""}}}}"#,
    ];
    let (code, report) = json_of(&home, &script);
    assert_eq!(code, 0, "{report}");
    let other = home.write("other.toml", "[extension.hello]\nvms = [\"get\", \"resolve\"]\nshell = { vms = \"any\", commands = \"any\" }\n");
    let script = [
        r#"{"vm":"web"}"#,
        r#"{"exec":["make"],"vm":"${web}","stdout":["a","b"],"stderr":"c","signal":"KILL"}"#,
        r#"{"call":"hello_run","args":{"vm":"${web}","command":["make"]},"expect":{"error":{"kind":"failed"},"text":{"matches":"^abc\n.*SIGKILL"}}}"#,
        r#"{"check":"commands","expect":[{"argv":["make"],"vm":"${web}","stopped":false}]}"#,
        r#"{"check":"vms","expect":[{"name":"web","state":"running"}]}"#,
    ];
    let ran = test(&home, &script, &["--policy", other.to_str().unwrap()]);
    assert_eq!(ran.code, 0, "{ran:?}");
}

#[test]
fn a_cancelled_call_stops_its_command() {
    let (code, report) = json_of(
        &home(),
        &[
            r#"{"vm":"web"}"#,
            r#"{"exec":["sleep","..."],"vm":"${web}","hang":true}"#,
            r#"{"call":"hello_run","args":{"vm":"${web}","command":["sleep","9"]},"cancel":{"started":1},"expect":{"error":{"kind":"cancelled"},"stopped":{"length":1}}}"#,
            r#"{"check":"commands","expect":[{"stopped":true}]}"#,
        ],
    );
    assert_eq!(code, 0, "{report}");
    // One that hangs is given up in the end.
    let (code, report) = json_of(
        &home(),
        &[
            r#"{"vm":"web"}"#,
            r#"{"exec":["sleep","..."],"vm":"${web}","hang":true}"#,
            r#"{"call":"hello_run","args":{"vm":"${web}","command":["sleep","9"]},"within_ms":300}"#,
        ],
    );
    assert_eq!(code, 1, "{report}");
    assert!(
        report["failures"][0]["what"]
            .as_str()
            .unwrap()
            .contains("300 ms"),
        "{report}"
    );
}

#[test]
fn a_vm_that_is_not_there_or_paused_runs_nothing() {
    let (code, report) = json_of(
        &home(),
        &[
            r#"{"vm":"web","state":"paused"}"#,
            r#"{"call":"hello_run","args":{"vm":"${web}","command":["uname","-a"]},"expect":{"error":{"message":{"contains":"paused"}}}}"#,
            r#"{"call":"hello_run","args":{"vm":"abc","command":["uname","-a"]},"expect":{"error":{"kind":"failed","message":{"contains":"no VM"}}}}"#,
        ],
    );
    assert_eq!(code, 0, "{report}");
}

#[test]
fn the_store_is_what_the_script_says_and_can_be_looked_at() {
    let (code, report) = json_of(
        &home(),
        &[
            r#"{"store":{"greetings":41}}"#,
            r#"{"call":"hello_greet","args":{"name":"Ada"},"expect":{"text":{"contains":"number 42"}},"save":{"said":"/text"}}"#,
            r#"{"check":"store","expect":{"greetings":42}}"#,
            r#"{"restart":"resume"}"#,
            r#"{"call":"hello_greet","args":{"name":"${said}"},"expect":{"text":"Hello, Hello, Ada! You are number 42.! You are number 43."}}"#,
        ],
    );
    assert_eq!(code, 0, "{report}");
}

#[test]
fn a_script_that_is_none_is_told_by_its_line() {
    let home = home();
    for (line, says) in [
        (r#"{"call":"x","expext":{}}"#, ":1: unknown field `expext`"),
        ("{", ":1: this is no JSON"),
        ("# nothing", "tests nothing"),
    ] {
        let ran = test(&home, &[line], &[]);
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(ran.out.contains(says), "{line}: {ran:?}");
    }
}

#[test]
fn the_same_scripts_run_against_a_real_platform() {
    let home = home();
    let script = [
        r#"{"vm":"web","labels":{"team":"a"}}"#,
        r#"{"exec":["uname","-s"],"vm":"${web}","stdout":"a fake of it\n"}"#,
        r#"{"call":"hello_run","args":{"vm":"${web}","command":["uname","-s"]},"expect":{"text":"Linux\n"}}"#,
        r#"{"check":"vms","expect":[{"name":"web","labels":{"team":"a"}}]}"#,
    ];
    let ran = test(&home, &script, &["--local", "--json"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(ran.json()[0]["left_out"], 1, "{ran:?}");
}
