//! The test kit does what it says: each test would fail without one of its behaviours.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::cell::Cell;

use pi_vers_sdk::declare::{Declaration, JsonSchema, Nothing, schemars, tool};
use pi_vers_sdk::harness::{client, log, session, timers, ui};
use pi_vers_sdk::platform::{fleet, shell, vms};
use pi_vers_sdk::system::files::{self, Location, WriteOptions};
use pi_vers_sdk::system::process::{self, Command, EnvValue, EnvVar, OutputMode, Program, Signal};
use pi_vers_sdk::system::{http, store};
use pi_vers_sdk::testing::{Answered, Asks, Kit, Reply, Script, read, said};
use pi_vers_sdk::{
    Answer, Error, Event, FlagValue, Reason, ToolCall, ToolError, ToolResult, background, call,
    outcome, show, stream,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

const VM: &str = "0a000000-0000-4000-8000-000000000001";

/// An extension with one tool that does this.
fn one<R: Into<ToolResult> + 'static>(
    run: impl AsyncFn(&ToolCall, Nothing) -> Result<R, ToolError> + 'static,
) -> Kit {
    Kit::new(Declaration::new("one", "1", "One").tool(tool("it", "It", "Does it."), run))
}

fn command(argv: &[&str]) -> Command {
    Command {
        program: Program::Argv(argv.iter().map(|&one| one.to_owned()).collect()),
        env: vec![EnvVar {
            name: "KEY".into(),
            value: EnvValue::Secret("LLM_PROXY_KEY".into()),
        }],
        working_directory: None,
        timeout: Some(60_000),
        output: OutputMode::Separate,
    }
}

#[test]
fn hours_take_no_time_and_are_the_same_every_time() {
    let kit = one(async |_, _| {
        let before = (timers::now(), timers::ticks());
        timers::sleep(3_600_000).await?;
        assert_eq!(timers::now() - before.0, timers::ticks() - before.1);
        Ok(format!("{} ms", timers::ticks() - before.1))
    });
    assert_eq!(read(&kit.call("it", json!({}))), "3600000 ms");
}

#[test]
fn the_clock_stands_until_a_test_lets_it_go_on() {
    let kit = one(async |_, _| {
        timers::sleep(1_000).await?;
        Ok("woke up")
    });
    let running = kit.begin("it", json!({}));
    kit.pass(999);
    assert!(!running.is_done());
    kit.pass(1);
    assert!(running.is_done());
    assert_eq!(read(&running.finish()), "woke up");
}

#[test]
fn a_call_that_is_given_up_waits_no_longer_and_its_processes_are_stopped() {
    let kit = one(async |call, _| {
        call::show(call, "it runs");
        let child = process::spawn(command(&["sleep", "100"]), None).await?;
        child.wait().await?;
        Ok("never")
    });
    let running = kit.begin("it", json!({}));
    assert_eq!(running.updates(), ["it runs"]);
    assert!(kit.process().is_running());
    assert!(matches!(running.cancel(), Some(Err(ToolError::Cancelled))));
    assert!(!kit.process().is_running());
}

#[test]
fn what_the_background_does_goes_on_when_the_call_is_given_up() {
    let kit = one(async |_, _| {
        background::spawn(async {
            if timers::sleep(10).await.is_ok() {
                show::warning("done later");
            }
        });
        timers::sleep(1_000).await?;
        Ok("never")
    });
    let running = kit.begin("it", json!({}));
    assert!(running.cancel().is_some());
    kit.pass(10);
    assert_eq!(kit.log(), ["done later"]);
    // And ends with the session.
    kit.stop();
}

#[test]
fn what_is_denied_fails_and_what_fails_fails_once() {
    let kit = one(async |_, _| {
        let vm = vms::get(VM.into()).await?;
        Ok(vm.id)
    });
    kit.add_vm(VM);
    kit.deny("vms.get");
    let denied = kit.call("it", json!({}));
    assert!(
        matches!(denied, Err(ToolError::Capability(Error::Denied(why))) if why.contains("vms.get"))
    );
    kit.grant("vms.get");
    kit.fail("vms.get", Error::Unavailable("no route".into()));
    assert_eq!(read(&kit.call("it", json!({}))), "no route");
    assert_eq!(read(&kit.call("it", json!({}))), VM);
    kit.deny("vms");
    assert!(kit.call("it", json!({})).is_err());
    assert_eq!(kit.asked("vms").len(), 4);
    assert_eq!(kit.asked("vms.get")[0].with, json!({ "id": VM }));
    assert!(kit.asked("vms.list").is_empty());
}

#[test]
fn a_request_that_is_held_waits_and_can_be_given_up() {
    let kit = one(async |_, _| Ok(vms::list().await?.len().to_string()));
    kit.hold("vms");
    let running = kit.begin("it", json!({}));
    assert!(!running.is_done());
    assert!(matches!(running.cancel(), Some(Err(ToolError::Cancelled))));
    let running = kit.begin("it", json!({}));
    kit.release("vms");
    assert_eq!(read(&running.finish()), "0");
}

#[derive(Deserialize, JsonSchema)]
struct Count {
    #[schemars(range(min = 1))]
    count: u32,
}

#[derive(Serialize, JsonSchema)]
struct Sum {
    sum: u32,
}

#[test]
fn arguments_are_checked_as_the_host_does() {
    let kit = Kit::new(Declaration::new("x", "1", "X").tool(
        tool("it", "It", "Does it.").output::<Sum>(),
        async |_: &ToolCall, args: Count| {
            Ok::<_, ToolError>(outcome::structured(&Sum {
                sum: args.count + 1,
            }))
        },
    ));
    for bad in [
        json!({}),
        json!({ "count": 0 }),
        json!({ "count": 1, "more": 1 }),
    ] {
        let refused = kit.call("it", bad);
        assert!(matches!(
            refused,
            Err(ToolError::Capability(Error::Invalid(_)))
        ));
    }
    let good = kit.call("it", json!({ "count": 2.0 })).unwrap();
    assert_eq!(good.structured.as_deref(), Some(r#"{"sum":3}"#));
}

#[test]
#[should_panic(expected = "does not fit the output schema")]
fn a_structured_result_that_breaks_its_promise_is_found() {
    let kit = Kit::new(Declaration::new("x", "1", "X").tool(
        tool("it", "It", "Does it.").output::<Sum>(),
        async |_: &ToolCall, _: Nothing| {
            Ok::<_, ToolError>(outcome::structured(&json!({ "sum": "3" })))
        },
    ));
    let _ = kit.call("it", json!({}));
}

#[test]
#[should_panic(expected = "waits for what will not come")]
fn a_call_that_waits_for_ever_fails_its_test_and_says_for_what() {
    let kit = one(async |_, _| {
        ui::confirm(show::dialog("Sure?"), "Really?".into()).await?;
        Ok("never")
    });
    let _ = kit.call("it", json!({}));
}

#[test]
fn dialogs_are_answered_before_or_while_they_are_open() {
    let kit = one(async |_, _| {
        let options = vec!["tea".to_owned(), "coffee".to_owned()];
        let drink = ui::select(show::dialog("What?"), options).await?;
        let name = ui::input(show::dialog("Who?"), "a name".into()).await?;
        let sure = ui::confirm(show::dialog("Sure?"), "Really?".into()).await?;
        let timed = ui::Dialog {
            title: "Late?".into(),
            timeout: Some(100),
        };
        let late = ui::edit(timed, "draft".into()).await?;
        Ok(format!("{drink:?} {name:?} {sure:?} {late:?}"))
    });
    kit.reply(Reply::Choose("coffee".into()));
    let running = kit.begin("it", json!({}));
    assert_eq!(kit.dialogs()[0].asks, Asks::Input("a name".into()));
    kit.reply(Reply::Text("Ann".into()));
    kit.reply(Reply::Dismiss);
    assert_eq!(kit.dialogs()[0].title, "Late?");
    assert_eq!(read(&running.finish()), r#"Some(1) Some("Ann") None None"#);
    assert!(kit.dialogs().is_empty());
    kit.no_screen();
    assert_eq!(read(&kit.call("it", json!({}))), "None None None None");
}

#[test]
fn programs_do_what_the_test_says() {
    let kit = one(async |_, _| {
        let (writer, reader) = stream::pipe();
        let child = process::spawn(command(&["sort", "-u"]), Some(reader)).await?;
        let mut writer = writer;
        writer.write_all(b"b\na\n".to_vec()).await;
        drop(writer);
        let out = stream::read_to_end(child.stdout()?, 100).await?;
        let err = stream::read_to_end(child.stderr()?, 100).await?;
        let exit = child.wait().await?;
        let (out, err) = (String::from_utf8_lossy(&out), String::from_utf8_lossy(&err));
        Ok(format!("{out}{err}{exit:?}"))
    });
    let script = Script::new()
        .read()
        .print("a\nb\n")
        .complain("hm\n")
        .wait(5)
        .exit(3);
    kit.program(&["sort"], script);
    assert_eq!(read(&kit.call("it", json!({}))), "a\nb\nhm\nExit::Code(3)");
    let process = kit.process();
    assert_eq!(process.input(), b"b\na\n");
    assert_eq!(
        process.started().env,
        [("KEY".to_owned(), "secret:LLM_PROXY_KEY".to_owned())]
    );
}

#[test]
fn a_process_is_driven_by_the_test_and_ends_at_its_time_limit() {
    let kit = one(async |call, _| {
        let child = shell::spawn(VM.into(), command(&["watch"]), None).await?;
        let mut lines = child.stdout()?;
        let mut buffer = Vec::new();
        while let Some(bytes) = stream::next(&mut lines, buffer).await {
            call::show(call, String::from_utf8_lossy(&bytes));
            buffer = bytes;
        }
        Ok(format!("{:?}", child.wait().await))
    });
    kit.add_vm(VM);
    let running = kit.begin("it", json!({}));
    kit.process().print("one");
    kit.process().print("two");
    assert_eq!(running.updates(), ["one", "two"]);
    kit.process().exit(0);
    assert_eq!(read(&running.finish()), "Ok(Exit::Code(0))");
    let running = kit.begin("it", json!({}));
    kit.pass(60_000);
    assert!(read(&running.finish()).contains("TimedOut"));
    let running = kit.begin("it", json!({}));
    kit.lose_vm(VM);
    assert!(read(&running.finish()).contains("Unavailable"));
    assert!(read(&kit.call("it", json!({}))).contains("there is no VM"));
}

#[test]
fn a_stubborn_process_is_killed_and_a_dropped_one_is_gone() {
    let kit = one(async |_, _| {
        let child = process::spawn(command(&["server"]), None).await?;
        timers::sleep(1).await?;
        child.signal(Signal::Terminate).await?;
        let stopped = child.stop(Some(100)).await?;
        let _dropped = process::spawn(command(&["other"]), None).await?;
        Ok(format!("{} left", stopped.left))
    });
    let running = kit.begin("it", json!({}));
    kit.process().ignore_signals();
    assert_eq!(read(&running.finish()), "0 left");
    let all = kit.processes();
    assert_eq!(all[0].signals(), ["TERM", "KILL"]);
    assert!(all.iter().all(|process| !process.is_running()));
}

#[test]
fn files_are_written_whole_or_not_at_all() {
    let kit = one(async |_, _| {
        let at = Location::Vm((VM.into(), "notes.txt".into()));
        let (bytes, done) = files::read(&at, None);
        let old = stream::read_to_end(bytes, 1_000).await?;
        done.await?;
        timers::sleep(10).await?;
        let options = WriteOptions {
            parents: false,
            mode: None,
            expect: Some(pi_vers_sdk::digest::sha256(&old)),
        };
        let written = stream::feed(b"new".to_vec(), |data| files::write(at, data, options)).await?;
        Ok(format!("{written} bytes"))
    });
    kit.add_vm(VM);
    kit.put_on(VM, "/root/notes.txt", "old");
    assert_eq!(read(&kit.call("it", json!({}))), "3 bytes");
    assert_eq!(kit.file_on(VM, "notes.txt").unwrap(), b"new");
    let running = kit.begin("it", json!({}));
    kit.put_on(VM, "notes.txt", "meanwhile");
    assert!(matches!(
        running.finish(),
        Err(ToolError::Capability(Error::Conflict(_)))
    ));
    assert_eq!(kit.file_on(VM, "notes.txt").unwrap(), b"meanwhile");
}

#[test]
fn a_tree_is_copied_and_a_growing_file_is_followed() {
    let kit = one(async |call, _| {
        let source = Location::Local("src".into());
        let target = Location::Vm((VM.into(), "dst".into()));
        let options = files::CopyOptions {
            recursive: None,
            exclude: Vec::new(),
        };
        let (_progress, done) = files::copy(&source, &target, &options);
        let done = done.await?;
        let (mut lines, ended) = shell::follow(VM, "log", shell::Position::Offset(0));
        while let Some(news) = lines.next().await {
            if let shell::Followed::Line(line) = news {
                call::show(call, format!("{} at {}", line.text, line.offset));
            }
        }
        Ok(format!("{} files; {:?}", done.files, ended.await.is_err()))
    });
    kit.add_vm(VM);
    kit.put("src/a", "1");
    kit.put("/work/src/b/c", "2");
    let running = kit.begin("it", json!({}));
    kit.append_on(VM, "log", "one\ntw");
    kit.append_on(VM, "log", "o\r\n");
    assert_eq!(running.updates(), ["one at 0", "two at 4"]);
    kit.lose_vm(VM);
    kit.put("wakes", "it");
    assert_eq!(read(&running.finish()), "2 files; true");
    assert_eq!(kit.file_on(VM, "/root/dst/b/c").unwrap(), b"2");
}

#[test]
fn everything_else_is_there_too() {
    let kit = one(async |_, _| {
        log::write(log::Level::Info, "begins");
        let request = http::Request {
            method: "POST".into(),
            url: "https://api.example.com/v1".into(),
            headers: Vec::new(),
            timeout: None,
        };
        let answered =
            stream::feed(b"ping".to_vec(), |body| http::send(request, Some(body))).await?;
        let body = stream::read_to_end(answered.body, 100).await?;
        answered.done.await?;
        let golden = fleet::golden_commit(None, false).await?;
        let roots = client::ask(vec![pi_vers_sdk::client::roots("r")]).await?;
        session::send_message(
            show::message("note", "done"),
            session::Delivery::FollowUp,
            true,
        )
        .await?;
        let flag = session::flag("loud");
        ui::set_status(
            "s",
            Some(&[show::span(
                "busy",
                pi_vers_sdk::harness::types::Role::Accent,
            )]),
        );
        Ok(format!(
            "{} {} {} {} {flag:?} {:?}",
            answered.status,
            String::from_utf8_lossy(&body),
            golden.commit,
            roots[0].1,
            session::variable("HOME")?,
        ))
    });
    kit.http(|request, body| {
        Ok(Answered::new(
            201,
            [request.method.as_bytes(), b" ", body].concat(),
        ))
    });
    kit.golden("c0ffee");
    kit.client(&[client::QuestionKind::Roots], |_| json!({ "roots": [] }));
    kit.flag("loud", FlagValue::Boolean(true));
    kit.variable("HOME", "/home/ann");
    assert_eq!(
        read(&kit.call("it", json!({}))),
        r#"201 POST ping c0ffee {"roots":[]} Some(FlagValue::Boolean(true)) Some("/home/ann")"#
    );
    assert_eq!(kit.log(), ["begins"]);
    assert_eq!(kit.messages(), ["done"]);
    assert_eq!(
        kit.asked("session.send-message")[0].with["delivery"],
        "follow-up"
    );
    assert_eq!(kit.status("s").unwrap(), "busy");
}

#[test]
fn a_tool_that_stands_in_for_a_built_in_can_run_it() {
    let kit = one(async |call, _| {
        let done = session::run_built_in(call).await?;
        Ok(said(&done).to_uppercase())
    });
    assert!(kit.call("it", json!({})).is_err());
    kit.built_in("it", |_| Ok("built in".into()));
    assert_eq!(read(&kit.call("it", json!({}))), "BUILT IN");
}

#[test]
fn events_commands_and_the_bus_reach_who_asked_for_them() {
    thread_local! {
        static HEARD: Cell<u32> = const { Cell::new(0) };
    }
    let kit = Kit::new(
        Declaration::new("x", "1", "X")
            .command("count", "Counts", None, async |text: String| {
                ui::notify(&format!("{} {text}", HEARD.get()), ui::Severity::Info);
                pi_vers_sdk::harness::bus::emit("counted", "1");
                Ok(())
            })
            .events(&["input"], &["news"], async |event| {
                HEARD.set(HEARD.get() + 1);
                match event {
                    Event::Input(text) => Answer::RewriteInput(text.to_uppercase()),
                    _ => Answer::Proceed,
                }
            }),
    );
    assert!(
        matches!(kit.event(Event::Input("hi".into())), Answer::RewriteInput(text) if text == "HI")
    );
    // It did not subscribe to this.
    let _ = kit.event(Event::AgentStart);
    kit.tell("other", &json!(1));
    kit.tell("news", &json!(1));
    kit.command("count", "times").unwrap();
    assert_eq!(kit.notices(), ["2 times"]);
    assert_eq!(kit.told(), [("counted".to_owned(), json!(1))]);
    assert!(kit.command("other", "").is_err());
}

#[test]
fn what_outlives_a_session_is_there_in_the_next() {
    fn counter() -> Declaration {
        Declaration::new("x", "1", "X").tool(
            tool("it", "It", "Does it."),
            async |_: &ToolCall, _: Nothing| {
                let old = store::get("n".into()).await?;
                let new = old.as_deref().and_then(|old| old.parse().ok()).unwrap_or(0) + 1;
                let swapped = store::swap("n".into(), old, Some(new.to_string())).await?;
                assert!(swapped && !store::swap("n".into(), Some("x".into()), None).await?);
                Ok::<_, Error>(new.to_string())
            },
        )
    }
    let kept = std::thread::spawn(|| {
        let kit = Kit::new(counter());
        assert_eq!(said(&kit.call("it", json!({})).unwrap()), "1");
        kit.keep()
    });
    let kit = Kit::resumed(counter(), kept.join().unwrap());
    kit.start(Reason::Resume).unwrap();
    assert_eq!(said(&kit.call("it", json!({})).unwrap()), "2");
    assert_eq!(kit.stored("n"), Some(json!(2)));
}

#[test]
fn patience_runs_out_by_the_clock() {
    let kit = one(async |call, _| {
        let done = call::patiently(call, async {
            timers::sleep(100_000).await?;
            Ok("done")
        });
        Ok(done.await?.unwrap_or("goes on"))
    });
    assert_eq!(read(&kit.call("it", json!({}))), "done");
    kit.patience(Some(50_000));
    assert_eq!(read(&kit.call("it", json!({}))), "goes on");
}
