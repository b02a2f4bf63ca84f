//! Scripts as extensions, through the binary: what `docs/extensions/scripts.md` promises, and what is wrong with a script told in words.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::Stdio;

use common::{Home, Ran, finish, interrupt};
use serde_json::{Value, json};

/// The scripts of the page, in their order.
fn documented() -> Vec<String> {
    let page = include_str!("../../../docs/extensions/scripts.md");
    let blocks = page.split("```js\n").skip(1);
    blocks
        .map(|rest| rest.split("```").next().unwrap().to_owned())
        .collect()
}

/// A script of one tool `t` with this body.
fn tool(body: &str) -> String {
    format!(
        "export default {{ name: \"s\", tools: [{{ name: \"t\", parameters: {{ type: \"object\" }}, async execute(args, ctx) {{ {body} }} }}] }};"
    )
}

fn run(home: &Home, script: &Path, arguments: &str) -> Ran {
    home.run([
        "run",
        "--extension",
        script.to_str().unwrap(),
        "t",
        arguments,
    ])
}

/// Runs its tool under this policy.
fn granted(home: &Home, script: &Path, policy: &str) -> Ran {
    let script = script.to_str().unwrap();
    home.run(["run", "--extension", script, "--policy", policy, "t"])
}

/// Runs the tool of a script of this body.
fn body(body: &str) -> Ran {
    let home = Home::new();
    let script = home.write("work/s.js", tool(body));
    run(&home, &script, "{}")
}

/// A policy that grants these lines to the script as it is now.
fn grant(home: &Home, script: &Path, lines: &str) -> String {
    let told = home.run(["inspect", "--json", script.to_str().unwrap()]);
    let told = &told.json()[0];
    let text = format!(
        "[extension.{}]\ndigest = {}\n{lines}\n",
        told["name"].as_str().unwrap(),
        told["digest"]
    );
    let file = home.write("work/granted.toml", text);
    file.to_str().unwrap().to_owned()
}

#[test]
fn the_documented_script_runs_and_remembers() {
    let home = Home::new();
    let script = home.write("work/hello.js", &documented()[0]);
    let script = script.to_str().unwrap();
    for count in 1..3 {
        let ran = home.run(["run", "--extension", script, "hello", r#"{"name":"World"}"#]);
        assert_eq!(ran.code, 0, "{ran:?}");
        assert_eq!(
            ran.out.trim_end(),
            format!("Hello, World! That makes {count}.")
        );
    }
    let ran = home.run(["tools", "--extension", script, "hello"]);
    assert!(ran.out.contains("Who is greeted"), "{ran:?}");
    let ran = home.run(["run", "--extension", script, "hello", "{}"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.err.contains("name"), "{ran:?}");
    let ran = home.run(["inspect", script]);
    assert!(
        ran.out.contains("script runner sha256:") && ran.out.contains("hello 1.0.0"),
        "{ran:?}"
    );
}

#[test]
fn the_documented_background_task_and_event_handler_work() {
    let home = Home::new();
    let script = home.write("work/watcher.js", &documented()[1]);
    let policy = grant(&home, &script, "events = [\"tool-call\"]");
    let mut bridge = Bridge::open(
        &home,
        &["--extension", script.to_str().unwrap(), "--policy", &policy],
    );
    // More than one, so it goes on when its start has returned.
    for _ in 0..2 {
        bridge.until(|frame| {
            let text = frame["params"]["line"][0]["text"].as_str();
            text.is_some_and(|text| text.ends_with(" looks"))
        });
    }
    let answer = bridge.value(
        "call",
        json!({ "tool": "looks", "callId": "c", "arguments": {} }),
    );
    assert_eq!(answer["content"][0]["text"], "some looks");
    for (command, answer) in [
        ("rm -rf /", json!({ "block": "not on my watch" })),
        ("ls", json!({})),
    ] {
        let data = json!({ "callId": "d", "tool": "bash", "arguments": { "command": command } });
        let reaction = bridge.value("event", json!({ "name": "tool-call", "data": data }));
        assert_eq!(reaction["block"], answer["block"], "{command}: {reaction}");
    }
    bridge.end();
}

#[test]
fn a_changed_script_has_none_of_its_grants() {
    let home = Home::new();
    let source = tool("return (await ctx.process.exec([\"/bin/echo\", \"ran\"])).stdout");
    let script = home.write("work/s.js", &source);
    let policy = grant(
        &home,
        &script,
        "process = [{ program = \"/bin/echo\", args = [\"...\"] }, { program = \"/usr/bin/echo\", args = [\"...\"] }]",
    );
    let call = || {
        let script = script.to_str().unwrap();
        home.run(["run", "--extension", script, "--policy", &policy, "t"])
    };
    let ran = call();
    assert_eq!((ran.code, ran.out.trim_end()), (0, "ran"), "{ran:?}");
    // One character, in a place that means nothing.
    home.write("work/s.js", format!("{source}\n"));
    let ran = call();
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(ran.err.contains("to process of [extension.s]"), "{ran:?}");
    home.write("work/s.js", &source);
    assert_eq!(call().code, 0);
}

#[test]
fn what_is_wrong_with_a_script_is_told_with_its_place() {
    let home = Home::new();
    for (source, says) in [
        ("export default {\n  name: \"s\",,\n};", "2"),
        ("throw new Error(\"not today\");", "not today"),
        ("null.x;", "TypeError"),
        ("const x = 1;", "no default export"),
        ("export default 5;", "no object"),
        ("export default {};", "has no name"),
        ("export default { name: \"a b\" };", "use 1 to 64 letters"),
        (
            "export default { name: \"s\", tools: [{ name: \"t\" }] };",
            "execute of the tool t is no function",
        ),
        (
            "export default { name: \"s\", tools: 1 };",
            "tools is no list",
        ),
        (
            "export default { name: \"s\", on: { start: 1 } };",
            "is no function",
        ),
        (
            "import x from \"fs\"; export default { name: \"s\" };",
            "imports nothing, this one imports fs",
        ),
        (
            "await new Promise(() => {}); export default { name: \"s\" };",
            "on.start",
        ),
        ("for (;;) {}", "without giving way"),
        (
            "const f = () => f() + 1; f();",
            "maximum number of recursive calls",
        ),
        (
            "const all = []; for (;;) all.push(\"x\".repeat(1 << 20));",
            // Whichever limit comes first.
            "memory|without giving way",
        ),
        ("", "no default export"),
        ("\u{0}", "null character"),
    ] {
        let script = home.write("work/s.js", source);
        let ran = home.run(["tools", "--extension", script.to_str().unwrap()]);
        assert_eq!(ran.code, 7, "{source}: {ran:?}");
        assert!(
            ran.err.contains("s.js can't be run: ")
                && says.split('|').any(|words| ran.err.contains(words)),
            "{source}: {says}: {ran:?}"
        );
        assert_eq!(ran.err.lines().count(), 1, "{ran:?}");
    }
    let script = home.write("work/s.js", b"\xff\xfe");
    let ran = home.run(["tools", "--extension", script.to_str().unwrap()]);
    assert!(ran.err.contains("no UTF-8"), "{ran:?}");
}

#[test]
fn the_runner_alone_is_no_extension() {
    // Were it one, whoever loads it would have to say which script it runs.
    let home = Home::new();
    let ran = home.run(["inspect", "script-runner"]);
    assert_eq!(ran.code, 2, "{ran:?}");
}

#[test]
fn what_a_tool_throws_is_its_failure() {
    for (code, thrown, says) in [
        (1, "throw new Error(\"plain\")", "plain"),
        (1, "undefined.x", "TypeError"),
        (1, "throw 5", "5"),
        (1, "throw { a: 1 }", "{\"a\":1}"),
        (1, "ctx.fail(\"more\", { n: 1 })", "more"),
        (1, "throw \"\\ud800\"", "\u{fffd}"),
        (
            1,
            "const f = () => f() + 1; f()",
            "maximum number of recursive calls",
        ),
        (3, "await ctx.vms.list()", "vms of [extension.s]"),
        (2, "await ctx.sleep(\"soon\")", "timers.sleep"),
        (1, "return await ctx.vms.nothing()", "TypeError"),
    ] {
        let ran = body(thrown);
        assert_eq!(ran.code, code, "{thrown}: {ran:?}");
        let all = format!("{}{}", ran.out, ran.err);
        assert!(all.contains(says), "{thrown}: {ran:?}");
    }
}

#[test]
fn what_a_tool_returns_is_its_result() {
    for (returned, said) in [
        ("return \"text\"", "text"),
        ("", ""),
        ("return 5", "5"),
        ("return [\"a\", { type: \"text\", text: \"b\" }]", "a\nb"),
        ("return { content: \"c\", details: { n: 1 } }", "c"),
        ("return { x: [1] }", "{\n  \"x\": [\n    1\n  ]\n}"),
        ("return \"\\ud800x\"", "\u{fffd}x"),
        (
            "return new TextDecoder().decode(new TextEncoder().encode(\"gr\u{fc}\u{df} 🦀 %41\"))",
            "gr\u{fc}\u{df} 🦀 %41",
        ),
        (
            "return String(ctx.signal.aborted) + ctx.tool + typeof ctx.id",
            "falsetstring",
        ),
        (
            "return typeof fetch + typeof require + typeof WebAssembly",
            "undefinedundefinedundefined",
        ),
    ] {
        let ran = body(returned);
        assert_eq!(ran.code, 0, "{returned}: {ran:?}");
        assert_eq!(ran.out.trim_end(), said, "{returned}");
    }
    let home = Home::new();
    let script = home.write(
        "work/s.js",
        tool("return { content: { type: \"image\", mimeType: \"image/png\", data: new Uint8Array([0, 255]) }, details: { n: 1 } }"),
    );
    let ran = home.run([
        "run",
        "--json",
        "--extension",
        script.to_str().unwrap(),
        "t",
    ]);
    let line = &ran.json()[0];
    assert_eq!(line["content"][0]["data"], "AP8=", "{line}");
    assert_eq!(line["details"]["n"], 1);
}

#[test]
fn waits_run_side_by_side_and_the_store_loses_nothing() {
    let ran = body(
        "const order = [];
         const step = async (ms) => { await ctx.sleep(ms); order.push(ms); };
         await Promise.all([step(300), step(100), step(200)]);
         await new Promise((done) => setTimeout(done, 1));
         await Promise.all(Array.from({ length: 20 }, () => ctx.store.update(\"n\", (n) => (n ?? 0) + 1)));
         return `${order} ${await ctx.store.get(\"n\")} ${await ctx.store.keys()} ${await ctx.store.swap(\"n\", 1, 2)}`;",
    );
    assert_eq!(ran.out.trim_end(), "100,200,300 20 n false", "{ran:?}");
}

#[test]
fn programs_of_this_machine_run_with_their_streams() {
    let home = Home::new();
    let script = home.write(
        "work/s.js",
        tool(
            "const all = await ctx.process.exec([\"/bin/sh\", \"-c\", \"cat; echo err >&2; exit 3\"], { stdin: \"gr\u{fc}\u{df}\", env: { A: \"b\" } });
             const child = await ctx.process.spawn([\"/bin/sh\", \"-c\", \"printf 'a\\\\303'; sleep 0.2; printf '\\\\274b'\"]);
             let text = \"\";
             for await (const piece of child.stdout) text += piece;
             const end = await child.wait();
             const long = await ctx.process.exec([\"/bin/sh\", \"-c\", \"head -c 300000 /dev/zero | tr '\\\\0' x; echo end\"], { maxLength: 100 });
             return `${all.code} ${all.stdout} ${all.stderr.trim()} ${all.bytes} ${text} ${end.code} ${long.stdout.length} ${long.truncated} ${long.bytes} ${long.stdout.endsWith(\"xend\\n\")}`;",
        ),
    );
    let policy = grant(
        &home,
        &script,
        "process = [{ program = \"/bin/sh\", args = [\"-c ...\"], env = \"any\" }, { program = \"/usr/bin/sh\", args = [\"-c ...\"], env = \"any\" }, { program = \"/usr/bin/dash\", args = [\"-c ...\"], env = \"any\" }]",
    );
    let ran = granted(&home, &script, &policy);
    assert_eq!(
        ran.out.trim_end(),
        "3 gr\u{fc}\u{df} err 10 a\u{fc}b 0 100 true 300004 true",
        "{ran:?}"
    );
}

#[test]
fn files_are_read_and_written_where_they_are_granted() {
    let home = Home::new();
    let script = home.write(
        "work/s.js",
        tool(
            "await ctx.files.write(\"out/a.txt\", \"gr\u{fc}\u{df}\", { parents: true });
             await ctx.files.copy(\"out/a.txt\", \"out/b.txt\");
             const bytes = await ctx.files.readBytes(\"out/b.txt\");
             const names = (await ctx.files.list(\"out\")).map((one) => one.name);
             let why = \"\";
             try { await ctx.files.readText(\"/etc/passwd\"); } catch (error) { why = `${error.name} ${error.kind}`; }
             return `${await ctx.files.readText(\"out/a.txt\", { offset: 2, length: 2 })} ${bytes.length} ${names} ${why}`;",
        ),
    );
    let policy = grant(&home, &script, "files = [{ path = \".\", mode = \"rw\" }]");
    let ran = granted(&home, &script, &policy);
    assert_eq!(
        ran.out.trim_end(),
        "\u{fc} 6 a.txt,b.txt VersError denied",
        "{ran:?}"
    );
}

#[test]
fn a_cancelled_call_ends_in_the_script_too() {
    let home = Home::new();
    let script = home.write(
        "work/s.js",
        tool(
            "ctx.signal.addEventListener(\"abort\", () => ctx.log.warn(\"it heard of it\"));
             ctx.signal.onabort = () => ctx.log.warn(\"and so did another\");
             ctx.log.warn(\"begun\");
             try { await ctx.sleep(600000); } finally { ctx.log.warn(\"and was ended\"); }",
        ),
    );
    let mut child = home
        .command(["run", "--extension", script.to_str().unwrap(), "t"])
        .env("PI_VERS_LOG", "warn")
        .spawn()
        .unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("begun") {
        line.clear();
        assert_ne!(stderr.read_line(&mut line).unwrap(), 0, "it ended");
    }
    interrupt(&child);
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(6), "{rest}");
    // Whoever listens is told before what the call waits for fails.
    let said = ["and so did another", "it heard of it", "and was ended"]
        .map(|said| rest.matches(said).count());
    assert_eq!(said, [1; 3], "{rest}");
    assert!(
        rest.find("it heard of it") < rest.find("and was ended"),
        "{rest}"
    );
}

#[test]
fn a_loop_ends_its_script_alone_and_the_next_call_works() {
    let home = Home::new();
    let bad = home.write(
        "work/bad.js",
        tool("if (args.spin) for (;;) {} return \"fine\"").replace("\"s\"", "\"bad\""),
    );
    let good = home.write(
        "work/good.js",
        tool("return \"good\"")
            .replace("\"t\"", "\"u\"")
            .replace("\"s\"", "\"good\""),
    );
    let calls =
        "{\"tool\":\"t\",\"arguments\":{\"spin\":true}}\n{\"tool\":\"u\"}\n{\"tool\":\"t\"}\n";
    let script = home.write("work/calls.jsonl", calls);
    let ran = home.run([
        "run",
        "--json",
        "--keep-going",
        "--extension",
        bad.to_str().unwrap(),
        "--extension",
        good.to_str().unwrap(),
        "--script",
        script.to_str().unwrap(),
    ]);
    let lines = ran.json();
    assert_eq!(lines[0]["ok"], false, "{ran:?}");
    assert!(
        lines[0]["error"]["message"]
            .as_str()
            .unwrap()
            .contains("without giving way"),
        "{ran:?}"
    );
    assert_eq!(lines[1]["content"][0]["text"], "good");
    assert_eq!(lines[2]["content"][0]["text"], "fine");
}

#[test]
fn scripts_share_nothing_but_the_bus() {
    let home = Home::new();
    let script = |name: &str, rest: &str| {
        let text = format!(
            "globalThis.mine = (globalThis.mine ?? \"\") + \"{name}\"; Object.prototype.leak ??= \"{name}\";
             let heard = [];
             export default {{ name: \"{name}\", {rest}
               tools: [{{ name: \"{name}_t\", async execute(_, ctx) {{ ctx.bus.emit(\"news\", {{ from: \"{name}\" }}); await ctx.sleep(50); return `${{mine}} ${{({{}}).leak}} ${{JSON.stringify(heard)}}`; }} }}] }};"
        );
        home.write(&format!("work/{name}.js"), text)
    };
    let a = script("a", "");
    let b = script("b", "topics: { news(data) { heard.push(data); } },");
    let mut policy = String::new();
    for path in [&a, &b] {
        let file = grant(&home, path, "bus = [\"news\"]");
        policy += &std::fs::read_to_string(file).unwrap();
    }
    let policy = home.write("work/both.toml", policy);
    let calls = home.write(
        "work/calls.jsonl",
        "{\"tool\":\"b_t\"}\n{\"tool\":\"a_t\"}\n{\"tool\":\"b_t\"}\n",
    );
    let ran = home.run([
        "run",
        "--json",
        "--extension",
        a.to_str().unwrap(),
        "--extension",
        b.to_str().unwrap(),
        "--policy",
        policy.to_str().unwrap(),
        "--script",
        calls.to_str().unwrap(),
    ]);
    let lines = ran.json();
    let text = |line: usize| {
        lines[line]["content"][0]["text"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(text(1), "a a []", "{ran:?}");
    assert_eq!(text(2), "b b [{\"from\":\"a\"}]", "{ran:?}");
}

/// A call's `ctx` is of no use when the call is over, and what it began is given up.
#[test]
fn what_a_call_leaves_behind_ends_with_it() {
    let home = Home::new();
    let script = home.write(
        "work/s.js",
        "let old; let late = \"pending\";
         export default { name: \"s\", tools: [
           { name: \"t\", async execute(_, ctx) { old = ctx; ctx.sleep(100).then(() => { late = \"came\"; }); return \"left\"; } },
           { name: \"u\", async execute(_, ctx) { await ctx.sleep(300); try { await old.sleep(1); } catch (why) { return `${late} ${why.kind}: ${why.message}`; } } },
         ] };",
    );
    let calls = home.write("work/calls.jsonl", "{\"tool\":\"t\"}\n{\"tool\":\"u\"}\n");
    let ran = home.run([
        "run",
        "--extension",
        script.to_str().unwrap(),
        "--script",
        calls.to_str().unwrap(),
    ]);
    assert!(
        ran.out
            .contains("pending conflict: timers.sleep: the call that this ctx belongs to is over"),
        "{ran:?}"
    );
}

#[test]
fn errors_that_nobody_handles_are_in_the_log() {
    let home = Home::new();
    let script = home.write(
        "work/s.js",
        tool("(async () => { await ctx.sleep(1); throw new Error(\"lost\"); })(); await ctx.sleep(50); return \"ok\""),
    );
    let child = home
        .command(["run", "--extension", script.to_str().unwrap(), "t"])
        .env("PI_VERS_LOG", "warn")
        .spawn()
        .unwrap();
    let ran = finish(child);
    assert!(
        ran.err.contains("nobody handled this error") && ran.err.contains("lost"),
        "{ran:?}"
    );
}

#[test]
fn an_mcp_client_is_offered_a_scripts_tools() {
    let home = Home::new();
    let script = home.write("work/hello.js", &documented()[0]);
    let requests = [
        json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": { "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "t", "version": "0" } } }),
        json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }),
        json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": { "name": "hello", "arguments": { "name": "you" } } }),
    ];
    let mut child = home
        .command(["mcp", "--extension", script.to_str().unwrap()])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for request in &requests {
        stdin.write_all(format!("{request}\n").as_bytes()).unwrap();
    }
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let answer = lines
        .by_ref()
        .map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap())
        .find(|frame| frame["id"] == 2)
        .unwrap();
    assert_eq!(
        answer["result"]["content"][0]["text"], "Hello, you! That makes 1.",
        "{answer}"
    );
    drop(stdin);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// A harness of a few lines.
struct Bridge {
    child: std::process::Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
    next: u64,
}

impl Bridge {
    fn open(home: &Home, arguments: &[&str]) -> Self {
        let mut child = home
            .command(["bridge"].iter().chain(arguments))
            .stdin(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut bridge = Self {
            child,
            lines,
            next: 0,
        };
        let work = home.path("work");
        bridge.send(json!({ "t": "hello", "v": 1, "cwd": work, "harness": { "kind": "test", "version": "0" }, "builtIns": ["bash"] }));
        bridge.until(|frame| frame["t"] == "ready");
        bridge.send(json!({
            "t": "context", "sessionId": "s", "cwd": work, "interactive": true, "idle": true, "activeTools": ["bash"], "allTools": ["bash"], "flags": {},
        }));
        bridge.value("start", json!({ "reason": "startup" }));
        bridge
    }

    fn send(&mut self, frame: Value) {
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(format!("{frame}\n").as_bytes()).unwrap();
    }

    fn until(&mut self, fits: impl Fn(&Value) -> bool) -> Value {
        loop {
            let line = self.lines.next().expect("the bridge goes on").unwrap();
            let frame: Value = serde_json::from_str(&line).unwrap();
            if fits(&frame) {
                return frame;
            }
            if frame["method"] == "session.entries" {
                self.send(json!({ "t": "result", "id": frame["id"], "value": [] }));
            }
        }
    }

    fn value(&mut self, kind: &str, mut frame: Value) -> Value {
        self.next += 1;
        frame["t"] = kind.into();
        frame["id"] = self.next.into();
        self.send(frame);
        let id = self.next;
        let answer = self
            .until(|frame| frame["id"] == id && (frame["t"] == "result" || frame["t"] == "error"));
        assert_eq!(answer["t"], "result", "{answer}");
        answer["value"].clone()
    }

    fn end(mut self) {
        drop(self.child.stdin.take());
        while self.lines.next().is_some() {}
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}
