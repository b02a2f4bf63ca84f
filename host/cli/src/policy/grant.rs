//! `pi-vers policy grant`: rules for a component, bound to its bytes, shown before they are written.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use pi_vers_host::policy::{Grants, Lookup, Policy, diff};
use pi_vers_host::visible;
use serde_json::json;

use super::{Grant, section};
use crate::clients::file::Kept;
use crate::failure::{Code, Failure};
use crate::shipped::{self, SHIPPED};
use crate::terminal::{Style, Terminal};
use crate::{inspect, setup};

pub(super) async fn grant(terminal: &Terminal, options: Grant) -> Result<Code, Failure> {
    if options.json && !options.yes && !options.print {
        return Err(Failure::usage("--json asks nobody").next("add --yes to write, or --print"));
    }
    let file = setup::policy_file(options.policy.as_deref())?;
    let kept = Kept::read(&file)?;
    let old = kept.text.clone().unwrap_or_default();
    let origin = file.display().to_string();
    // A file that is broken, or that others can write, is told before anything else.
    let before = match &kept.text {
        Some(_) => Policy::load(&file)?,
        None => Policy::empty(),
    };
    let host = setup::host(Policy::empty(), setup::settings()?).await?;
    let extension = inspect::extension(&host, &options.extension).await?;
    let (name, digest) = (extension.name(), extension.digest());
    let is_shipped = SHIPPED
        .iter()
        .any(|shipped| shipped.name == options.extension);
    let mut rules = options.rule.clone();
    if let Some(from) = &options.from {
        let text = Kept::read(from)?.text.unwrap_or_default();
        let proposed = section::rules(&text, name);
        rules.extend(proposed.map_err(|why| Failure::usage(format!("{}: {why}", from.display())))?);
    }
    let new = section::with(
        &old,
        name,
        (!is_shipped).then_some(&digest),
        &rules,
        is_shipped.then(shipped::grants),
    );
    let new = new.map_err(Failure::usage)?;
    let after = Policy::parse(&new, &origin)?;
    let holds = |policy: Policy| -> Result<Grants, Failure> {
        Ok(
            match policy.over(shipped::policy()?).grants(name, &digest) {
                Lookup::Granted(grants) => grants,
                // Those of other bytes do not hold: whatever is written now is new.
                Lookup::Changed { .. } | Lookup::Unknown => Grants::nothing(name),
            },
        )
    };
    let changes = diff(&holds(before)?, &holds(after)?);
    let writes = new != old;
    if !options.json {
        terminal.line(terminal.styled(Style::Bold, &format!("{} {digest}", visible(name))));
        for line in &changes {
            terminal.line(format!("  {line}"));
        }
        if changes.is_empty() {
            terminal.line("  nothing more and nothing less than now");
        }
    }
    let agreed = writes && !options.print && (options.yes || confirmed(&origin)?);
    if agreed {
        kept.write(Some(&new), true)?;
    }
    if options.json {
        let json = json!({
            "file": origin,
            "extension": name,
            "digest": digest.to_string(),
            "changes": changes,
            "written": agreed,
        });
        terminal.line(json.to_string());
    } else if agreed {
        terminal.line(format!("written to {}", visible(&origin)));
    } else if writes {
        terminal.line("nothing was written");
    }
    Ok(match writes && !agreed && !options.print {
        true => Code::Cancelled,
        false => Code::Ok,
    })
}

/// Asks whoever sits at the terminal; without one nobody has agreed.
fn confirmed(file: &str) -> Result<bool, Failure> {
    let input = std::io::stdin();
    if !input.is_terminal() {
        return Err(Failure::usage("there is no terminal to ask at")
            .next("add --yes to write it, or --print to see it alone"));
    }
    let failed = |why: std::io::Error| Failure::internal(format!("the terminal: {why}"));
    let mut errors = std::io::stderr();
    write!(errors, "Write this to {}? [y/N] ", visible(file)).map_err(failed)?;
    errors.flush().map_err(failed)?;
    let mut answer = String::new();
    input.lock().read_line(&mut answer).map_err(failed)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
