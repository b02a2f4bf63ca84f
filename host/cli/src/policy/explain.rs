//! `pi-vers policy explain`: would this be allowed, and by what.

use pi_vers_host::policy::{Decision, Denial, Grants, Lookup};
use pi_vers_host::visible;
use serde_json::{Value, json};

use super::{Explain, asked, held};
use crate::failure::{Code, Failure};
use crate::terminal::{Style, Terminal};
use crate::{inspect, registry, setup, shipped};

pub(super) async fn explain(terminal: &Terminal, options: Explain) -> Result<Code, Failure> {
    let policy = setup::policy(options.policy.as_deref())?;
    let directory = std::env::current_dir()
        .map_err(|why| Failure::usage(format!("there is no working directory: {why}")))?;
    let name = options.extension.as_str();
    let is_shipped = shipped::SHIPPED.iter().any(|shipped| shipped.name == name);
    // A name that has a section stands for the bytes that the section is bound to.
    let named = (!is_shipped && !registry::is_added(name) && !std::path::Path::new(name).exists())
        .then(|| held(&policy, name))
        .flatten();
    let (grants, note) = match named {
        Some((_, grants)) => (grants, None),
        None => {
            let host = setup::host(policy, setup::settings()?).await?;
            let extension = inspect::extension(&host, name).await?;
            match host.lookup(&extension) {
                Lookup::Granted(grants) => (grants, None),
                Lookup::Unknown => (Grants::nothing(extension.name()), None),
                Lookup::Changed { granted_to, .. } => {
                    let note = format!(
                        "its bytes changed: {granted_to} has grants, these are {}, so none hold",
                        extension.digest()
                    );
                    (Grants::nothing(extension.name()), Some(note))
                }
            }
        }
    };
    let grants = grants.at(&directory, std::env::home_dir().as_deref());
    let said = asked::judge(&grants, &options.capability, &options.about, &directory)?;
    if options.json {
        terminal.line(json_of(&grants, &said, note.as_deref()).to_string());
    } else {
        print(terminal, &said, note.as_deref());
    }
    Ok(match said.decision {
        Decision::Allow => Code::Ok,
        Decision::Deny(_) | Decision::Ask(_) => Code::Denied,
    })
}

fn print(terminal: &Terminal, said: &asked::Said, note: Option<&str>) {
    let refused = match &said.decision {
        Decision::Allow => {
            terminal.line(terminal.styled(Style::Good, "allowed"));
            for ground in &said.grounds {
                terminal.line(format!("  by {}", visible(&ground.to_string())));
            }
            None
        }
        Decision::Deny(denial) => {
            terminal.line(terminal.styled(Style::Bad, "denied"));
            Some(denial)
        }
        Decision::Ask(question) => {
            terminal.line(terminal.styled(Style::Bold, "somebody is asked each time"));
            Some(&question.refused)
        }
    };
    if let Some(denial) = refused {
        terminal.line(format!("  {denial}"));
        if let Some(fix) = &denial.fix {
            terminal.line(format!(
                "  the line in {}: {}",
                visible(&fix.origin),
                fix.rule
            ));
        }
    }
    if let Some(note) = note {
        terminal.line(format!("  {note}"));
    }
}

fn json_of(grants: &Grants, said: &asked::Said, note: Option<&str>) -> Value {
    let denial = |denial: &Denial| {
        let add = denial.fix.as_ref();
        json!({
            "message": denial.to_string(),
            "add": add.map(|fix| json!({ "file": fix.origin, "line": fix.rule })),
        })
    };
    let (decision, denied) = match &said.decision {
        Decision::Allow => ("allow", Value::Null),
        Decision::Deny(refused) => ("deny", denial(refused)),
        Decision::Ask(question) => ("ask", denial(&question.refused)),
    };
    let rules = said
        .grounds
        .iter()
        .map(|ground| json!({ "file": ground.origin, "rule": ground.rule }));
    json!({
        "extension": grants.name(),
        "capability": said.capability,
        "decision": decision,
        "rules": rules.collect::<Vec<_>>(),
        "denied": denied,
        "note": note,
    })
}
