//! A whole extension: a tool that runs a command on a VM, shows its lines as they come and can be given up; a command for the user; an event;
//! work that goes on in the background; a store. Its tests need no host: `cargo test --example deploy`.

use pi_vers_sdk::declare::{Declaration, JsonSchema, schemars, tool};
use pi_vers_sdk::harness::session::{self, Delivery};
use pi_vers_sdk::harness::timers;
use pi_vers_sdk::run::Run;
use pi_vers_sdk::system::process::Exit;
use pi_vers_sdk::{Answer, Error, Event, ToolCall, ToolError, background, call, show, stored, vm};
use serde::Deserialize;

/// Where what is deployed is kept.
const DEPLOYED: &str = "deployed";
/// From a deployment to the look whether it is well, in milliseconds.
const SETTLING: u64 = 60_000;

#[derive(Deserialize, JsonSchema)]
struct Deploy {
    /// Id of the VM, or its beginning
    vm: String,
    /// What to deploy, for example a tag
    version: String,
}

async fn deploy(call: &ToolCall, args: Deploy) -> Result<String, ToolError> {
    let vm = vm::resolve(&args.vm).await?;
    let command = Run::new(["./deploy.sh", &args.version])
        .on(&vm)
        .secret("DEPLOY_KEY");
    match command.lines(|line| call::show(call, line)).await? {
        Exit::Code(0) => {}
        exit => return Err(format!("{} was not deployed: {exit:?}", args.version).into()),
    }
    let version = args.version.clone();
    stored::update(DEPLOYED, |all: &mut Vec<String>| all.push(version.clone())).await?;
    background::spawn(look_after(vm, args.version.clone()));
    Ok(format!("{} is deployed.", args.version))
}

/// Says so if it is not well after a while. The call that deployed it has been over for long by then.
async fn look_after(vm: String, version: String) {
    let looked = async {
        timers::sleep(SETTLING).await?;
        let health = Run::new(["./health.sh"])
            .on(vm)
            .timeout(10_000)
            .output(10_000)
            .await?;
        if !health.is_success() {
            let text = format!("{version} is not well: {}", health.text());
            let message = show::message("deploy", text);
            session::send_message(message, Delivery::FollowUp, true).await?;
        }
        Ok(())
    };
    show::unwatched("Nobody knows whether the deployment is well", looked.await);
}

async fn versions() -> Result<Vec<String>, Error> {
    Ok(stored::get(DEPLOYED).await?.unwrap_or_default())
}

async fn list(_text: String) -> Result<(), Error> {
    show::notice(format!("Deployed: {}", versions().await?.join(", ")));
    Ok(())
}

/// Before the agent begins, it is told what runs.
async fn handle(event: Event) -> Answer {
    match (event, versions().await) {
        (Event::BeforeAgentStart(_), Ok(all)) if !all.is_empty() => Answer::Inject(show::message(
            "deploy",
            format!("Deployed so far: {}", all.join(", ")),
        )),
        _ => Answer::Proceed,
    }
}

fn extension() -> Declaration {
    let deploy_tool = tool("deploy", "Deploy", "Deploys a version to a VM.")
        .open_world()
        .long_running();
    Declaration::new("deploy", "0.1.0", "Deploys to VMs")
        .tool(deploy_tool, deploy)
        .command("deployed", "Show what was deployed", None, list)
        .events(&["before-agent-start"], &[], handle)
}

pi_vers_sdk::extension!(extension);

#[cfg(test)]
mod tests {
    use super::*;
    use pi_vers_sdk::testing::{Kit, Script, read};
    use serde_json::json;

    fn kit() -> Kit {
        let kit = Kit::new(extension());
        kit.add_vm("0a000000-0000-4000-8000-000000000001");
        kit.program(
            &["./deploy.sh"],
            Script::new().print("building\ncopying\n").exit(0),
        );
        kit
    }

    #[test]
    fn it_shows_its_steps_and_remembers() {
        let kit = kit();
        let running = kit.begin("deploy", json!({ "vm": "0a", "version": "v2" }));
        assert_eq!(running.updates(), ["building", "copying"]);
        assert_eq!(read(&running.finish()), "v2 is deployed.");
        assert!(matches!(kit.command("deployed", ""), Ok(())));
        assert_eq!(kit.notices(), ["Deployed: v2"]);
        assert!(matches!(
            kit.event(Event::BeforeAgentStart("hi".into())),
            Answer::Inject(_)
        ));
    }

    #[test]
    fn what_is_not_well_later_is_told_to_the_agent() {
        let kit = kit();
        kit.program(&["./health.sh"], Script::new().print("no answer").exit(1));
        assert!(
            kit.call("deploy", json!({ "vm": "0a", "version": "v2" }))
                .is_ok()
        );
        kit.pass(SETTLING - 1);
        assert!(kit.messages().is_empty());
        kit.pass(1);
        assert_eq!(kit.messages(), ["v2 is not well: no answer"]);
    }

    #[test]
    fn a_deployment_that_is_given_up_is_stopped_and_not_remembered() {
        let kit = kit();
        kit.program(&["./deploy.sh"], Script::new());
        let running = kit.begin("deploy", json!({ "vm": "0a", "version": "v2" }));
        assert!(running.cancel().is_some());
        assert!(!kit.process().is_running() && kit.stored(DEPLOYED).is_none());
    }
}
