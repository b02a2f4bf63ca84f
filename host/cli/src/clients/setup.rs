//! `pi-vers mcp setup`: writes this program into a client's own configuration.

use std::path::{Path, PathBuf};

use clap::Parser as _;
use pi_vers_host::visible;

use super::entry::{self, Server};
use super::options::{Client, HookKind, Scope, Setup};
use super::places::Places;
use super::plan::Plan;
use super::title;
use crate::args::{Cli, Command, McpLine};
use crate::failure::{Code, Failure};
use crate::terminal::Terminal;
use crate::{doctor, local, setup};

/// Sets a client up, or takes it back.
pub(crate) async fn setup(terminal: &Terminal, options: &Setup) -> Result<Code, Failure> {
    let places = Places::new()?;
    let plans = plans(&places, options)?;
    let mut changed = false;
    for plan in &plans {
        let Some(text) = &plan.text else { continue };
        changed = true;
        terminal.output(&plan.diff);
        if options.print {
            continue;
        }
        let text = (!plan.empty).then_some(text.as_str());
        let written = plan.kept.write(text, plan.place.private)?;
        let file = shown(&plan.kept.path);
        let what = match (text, &plan.kept.text) {
            (None, _) => "removed",
            (Some(_), None) => "wrote",
            (Some(_), Some(_)) => "changed",
        };
        let was = written.backup.map_or_else(String::new, |backup| {
            format!("; as it was: {}", shown(&backup))
        });
        terminal.line(format!("{what} {file}{was}"));
    }
    let client = title(options.client);
    if !changed {
        terminal.line(format!("{client}: nothing to do"));
    } else if options.print {
        terminal.remark("nothing was changed");
    } else if !options.remove {
        // A client gives the first start less time than compiling takes.
        let compiled = async { doctor::engine(setup::policy(None)?).await };
        if let Err(why) = compiled.await {
            terminal.remark(format!("pi-vers: {}", why.line()));
        }
        terminal.remark(format!(
            "{client} takes it up when it is started anew; `pi-vers mcp doctor` checks that it works"
        ));
        if options.client == Client::Codex && options.hook != Some(HookKind::None) {
            terminal.remark("Codex runs the hook only once you have trusted it: /hooks shows it");
        }
    }
    Ok(Code::Ok)
}

/// All files are read, and all plans made, before anything is written.
fn plans(places: &Places, options: &Setup) -> Result<Vec<Plan>, Failure> {
    let (client, scope) = (options.client, options.scope);
    let hooks = places.hooks(client, scope);
    if options.hook.is_some() && hooks.is_none() {
        return Err(
            Failure::usage(format!("{} has no such hook", title(client))).next("leave --hook out"),
        );
    }
    let servers = places.servers(client, scope)?;
    let program = program(scope)?;
    let server = if options.remove {
        None
    } else {
        let mut arguments = vec!["mcp".to_owned()];
        arguments.extend(check(scope, &options.arguments)?);
        Some(Server {
            command: program.clone(),
            arguments,
        })
    };
    let mut plans = vec![Plan::server(
        servers,
        client,
        &options.name,
        server.as_ref(),
    )?];
    if let Some(hooks) = hooks {
        let kind = match options.hook {
            _ if options.remove => HookKind::None,
            kind => kind.unwrap_or(HookKind::Tool),
        };
        plans.push(Plan::hook(hooks, (client, kind), &options.name, &program)?);
    }
    Ok(plans)
}

/// What clients start. A file that others share names no path of this machine.
fn program(scope: Scope) -> Result<String, Failure> {
    if scope == Scope::Project {
        return Ok("pi-vers".to_owned());
    }
    let own = local::program()?;
    let path = entry::program(&own, std::env::var_os("PATH").as_deref());
    path.into_os_string().into_string().map_err(|path| {
        Failure::internal(format!(
            "clients can't start {}: its path is no text",
            shown(Path::new(&path))
        ))
        .next("move it")
    })
}

/// Arguments that the server would not take would only be told in a client's log.
fn check(scope: Scope, arguments: &[String]) -> Result<Vec<String>, Failure> {
    let words = ["pi-vers", "mcp"].into_iter().map(str::to_owned);
    let read = Cli::try_parse_from(words.chain(arguments.iter().cloned()));
    let wrong = |why: &str| {
        Failure::usage(format!("what follows -- is not for `pi-vers mcp`: {why}"))
            .next("`pi-vers mcp --help` has its options")
    };
    let line = match read {
        Ok(Cli {
            command:
                Command::Mcp(McpLine {
                    command: None,
                    serve,
                }),
            ..
        }) => serve,
        Ok(_) => return Err(wrong("it is a command of its own")),
        Err(why) => {
            let text = why.to_string();
            let first = text.lines().next().unwrap_or_default();
            return Err(wrong(first.trim_start_matches("error: ")));
        }
    };
    if line.http.is_some() {
        return Err(Failure::usage(
            "a client that starts a server speaks to it by its standard input, not by HTTP",
        )
        .next("leave --http out"));
    }
    let files = line.loading.extension.iter().chain(&line.loading.policy);
    let files = files.chain(&line.skills).chain(&line.state);
    let relative: Option<&PathBuf> = files.into_iter().find(|file| file.is_relative());
    match relative {
        Some(file) if scope != Scope::Project => Err(Failure::usage(format!(
            "{} is found in this directory only, and clients start servers in any",
            shown(file)
        ))
        .next("give the whole path")),
        _ => Ok(arguments.to_vec()),
    }
}

fn shown(path: &Path) -> String {
    visible(&path.display().to_string())
}
