//! What the guide shows (`docs/extensions/sdk.md`) is what is built and tested here, word for word.

use pi_vers_sdk::declare::{Declaration, JsonSchema, schemars, tool};
use pi_vers_sdk::run::Run;
use pi_vers_sdk::{ToolCall, ToolError, call};
use serde::Deserialize;

#[derive(Deserialize, JsonSchema)]
struct Check {
    /// Id of the VM
    vm: String,
    /// Most seconds it may take (default: 60)
    #[schemars(range(min = 1, max = 600))]
    seconds: Option<u64>,
}

async fn check(call: &ToolCall, args: Check) -> Result<String, ToolError> {
    let command = Run::new(["./check.sh"])
        .on(args.vm)
        .timeout(args.seconds.unwrap_or(60) * 1000);
    let exit = command.lines(|line| call::show(call, line)).await?;
    Ok(format!("The check ended: {exit:?}"))
}

fn extension() -> Declaration {
    Declaration::new("checker", "0.1.0", "Checks VMs").tool(
        tool("check", "Check", "Runs the check of a VM.")
            .read_only()
            .long_running(),
        check,
    )
}

pi_vers_sdk::extension!(extension);

#[test]
fn the_test_of_the_guide() {
    use pi_vers_sdk::testing::{Kit, Script, read};
    use pi_vers_sdk::{Error, ToolError};
    use serde_json::json;

    let kit = Kit::new(extension());
    kit.add_vm("web");

    // What a program does is said before ...
    kit.program(&["./check.sh"], Script::new().print("disk: ok\n").exit(0));
    assert_eq!(
        read(&kit.call("check", json!({ "vm": "web" }))),
        "The check ended: Exit::Code(0)"
    );

    // ... or while it runs.
    kit.program(&["./check.sh"], Script::new());
    let running = kit.begin("check", json!({ "vm": "web" }));
    kit.process().print("disk: full\n");
    assert_eq!(running.updates(), ["disk: full"]);
    assert!(matches!(running.cancel(), Some(Err(ToolError::Cancelled))));
    assert!(!kit.process().is_running());

    // Hours take no time.
    let running = kit.begin("check", json!({ "vm": "web" }));
    kit.pass(60_000);
    assert!(matches!(
        running.finish(),
        Err(ToolError::Capability(Error::TimedOut(_)))
    ));

    // What the policy may refuse.
    kit.deny("shell.spawn");
    assert!(matches!(
        kit.call("check", json!({ "vm": "web" })),
        Err(ToolError::Capability(Error::Denied(_)))
    ));
    assert_eq!(kit.asked("shell.spawn").len(), 4);
}

/// Without what formatting changes.
fn plain(code: &str) -> String {
    code.chars()
        .filter(|c| !c.is_whitespace() && *c != ',')
        .collect()
}

#[test]
fn the_guide_shows_what_is_tested() {
    let guide = include_str!("../../../docs/extensions/sdk.md");
    let tested = plain(include_str!("guide.rs"));
    let blocks: Vec<&str> = guide
        .split("```rust\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert_eq!(blocks.len(), 2);
    for block in blocks {
        assert!(
            tested.contains(&plain(block)),
            "this is not in tests/guide.rs: {block}"
        );
    }
}
