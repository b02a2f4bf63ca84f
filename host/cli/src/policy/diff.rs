//! `pi-vers policy diff`: what one file grants more and less than another.

use std::collections::BTreeSet;
use std::path::Path;

use pi_vers_host::policy::{Grants, Policy, diff};
use pi_vers_host::visible;
use serde_json::json;

use super::{Diff, held};
use crate::failure::{Code, Failure};
use crate::shipped;
use crate::terminal::{Style, Terminal};

pub(super) fn compare(terminal: &Terminal, options: &Diff) -> Result<Code, Failure> {
    let (old, new) = (Policy::load(&options.old)?, Policy::load(&options.new)?);
    let changes = changes(&old, &new)?;
    if options.json {
        let all = changes.iter().map(|(name, lines)| {
            let starting = |sign: &str| -> Vec<&str> {
                lines.iter().filter_map(|line| line.strip_prefix(sign)).collect()
            };
            json!({ "extension": name, "more": starting("+ "), "less": starting("- "), "notes": starting("! ") })
        });
        let json = json!({ "old": shown(&options.old), "new": shown(&options.new), "changes": all.collect::<Vec<_>>() });
        terminal.line(json.to_string());
        return Ok(Code::Ok);
    }
    if changes.is_empty() {
        terminal.line("both grant the same");
    }
    for (name, lines) in changes {
        terminal.line(terminal.styled(Style::Bold, &visible(&name)));
        for line in lines {
            terminal.line(format!("  {line}"));
        }
    }
    Ok(Code::Ok)
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// By extension: `+ ` what it may do besides, `- ` what it may do no longer, `! ` what else is to know.
fn changes(old: &Policy, new: &Policy) -> Result<Vec<(String, Vec<String>)>, Failure> {
    let names: BTreeSet<String> = old.names().chain(new.names()).map(str::to_owned).collect();
    // So that `digest = \"shipped\"`, and having no section for a shipped extension, mean what they mean.
    let (old, new) = (
        old.clone().over(shipped::policy()?),
        new.clone().over(shipped::policy()?),
    );
    let mut all = Vec::new();
    for name in names {
        let (before, after) = (held(&old, &name), held(&new, &name));
        let mut lines = Vec::new();
        if let (Some((before, _)), Some((after, _))) = (&before, &after)
            && before != after
        {
            lines.push(format!("! for other bytes: {after}, not {before}"));
        }
        let nothing = || Grants::nothing(&name);
        let of = |held: Option<(_, Grants)>| held.map_or_else(nothing, |(_, grants)| grants);
        lines.extend(diff(&of(before), &of(after)));
        if !lines.is_empty() {
            all.push((name, lines));
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    fn policy(body: &str, byte: u8) -> Policy {
        let digest = pi_vers_host::policy::Digest::of(&[byte]);
        let text = format!("[extension.x]\ndigest = \"{digest}\"\n{body}");
        Policy::parse(&text, "policy.toml").unwrap()
    }

    #[test]
    fn more_less_and_other_bytes_are_told_apart() {
        let old = policy("vms = [\"list\", \"get\"]", 1);
        assert!(changes(&old, &old).unwrap().is_empty());
        let found = changes(&old, &policy("vms = [\"list\", \"delete\"]", 2)).unwrap();
        assert_eq!(found.len(), 1);
        let lines = &found[0].1;
        assert!(lines[0].starts_with("! for other bytes"), "{lines:?}");
        assert_eq!(lines[1..], ["- vms: get, of any", "+ vms: delete, of any"]);
    }

    #[test]
    fn a_section_for_a_shipped_extension_is_compared_with_what_is_shipped() {
        let all = "[extension.vers-vm]\ndigest = \"shipped\"\n";
        let mine = Policy::parse(all, "policy.toml").unwrap();
        let found = changes(&Policy::empty(), &mine).unwrap();
        let lines = &found[0].1;
        assert!(
            lines.iter().any(|line| line == "- vms: delete, of any"),
            "{lines:?}"
        );
        // A limit that is lower shows as the old one gone and another one come.
        let more = |line: &&String| line.starts_with('+') && !line.starts_with("+ limit ");
        assert_eq!(lines.iter().find(more), None, "{lines:?}");
    }
}
