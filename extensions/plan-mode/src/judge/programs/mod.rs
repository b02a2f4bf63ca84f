//! What is known about programs.
//!
//! A program is in one of three groups. *Harmless*: none of its options, in GNU's, BSD's or busybox' version, writes a file or starts a
//! program that is named to it; its arguments do not matter. *By options*: the options in the table only read. *By form*: code
//! knows which of its forms only read. A program that is in none is refused.

mod archives;
mod awk;
mod files;
mod find;
mod git;
mod network;
mod packages;
mod sed;
mod shell;
mod system;
mod text;
mod wrappers;

use super::options::{self, Order};
use super::word::{Word, brief};
use super::{Refusal, parse};

/// How many operands a program may get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operands {
    Any,
    /// At most so many.
    Most(usize),
}

/// A program whose options decide: its names, the options, and the operands.
type ByOptions = (&'static [&'static str], &'static str, Operands);

/// Code that knows the forms of a program: its name, its arguments, and how many commands are around it.
type Form = fn(&str, &[Word], usize) -> Result<(), Refusal>;

/// What one module knows.
struct Group {
    harmless: &'static [&'static str],
    by_options: &'static [ByOptions],
    by_form: &'static [(&'static str, Form)],
    /// Programs that are refused, and what to use instead or why.
    refused: &'static [(&'static str, &'static str)],
}

const GROUPS: [&Group; 8] = [
    &files::GROUP,
    &text::GROUP,
    &archives::GROUP,
    &git::GROUP,
    &network::GROUP,
    &packages::GROUP,
    &system::GROUP,
    &shell::GROUP,
];

/// Directories of the system's own programs.
const DIRECTORIES: [&str; 6] = [
    "/usr/local/bin/",
    "/usr/bin/",
    "/usr/sbin/",
    "/bin/",
    "/sbin/",
    "/opt/homebrew/bin/",
];

/// Judges a program with its arguments.
pub(super) fn judge(program: &str, arguments: &[Word], depth: usize) -> Result<(), Refusal> {
    let name = DIRECTORIES
        .iter()
        .find_map(|directory| program.strip_prefix(directory))
        .unwrap_or(program);
    // `--version` and nothing else is the one form that everything has.
    if let [only] = arguments
        && packages::VERSION_ONLY.contains(&name)
        && only.exact().is_some_and(|text| {
            text == "--version" || packages::SHORT_VERSION.contains(&(name, &*text))
        })
    {
        return Ok(());
    }
    for group in GROUPS {
        if group.harmless.contains(&name) {
            return Ok(());
        }
        if let Some((_, spec, operands)) = group
            .by_options
            .iter()
            .find(|(names, ..)| names.contains(&name))
        {
            return by_options(name, spec, *operands, arguments);
        }
        if let Some((_, form)) = group.by_form.iter().find(|(known, _)| *known == name) {
            return form(name, arguments, depth);
        }
        if let Some((_, why)) = group.refused.iter().find(|(known, _)| *known == name) {
            return Err(options::form(name, why));
        }
    }
    if packages::VERSION_ONLY.contains(&name) {
        return Err(options::form(
            name,
            "can run code: only its `--version` is allowed",
        ));
    }
    Err(Refusal::new(format!(
        "`{}` is not a program that is known to only read",
        brief(program)
    )))
}

fn by_options(
    name: &str,
    spec: &str,
    operands: Operands,
    arguments: &[Word],
) -> Result<(), Refusal> {
    let parsed = options::parse(name, spec, Order::Mixed, arguments)?;
    if let Operands::Most(most) = operands
        && (parsed.operands.len() > most || parsed.operands.iter().any(Word::is_many))
    {
        return Err(options::form(
            name,
            &match most {
                0 => "may change something when it gets an operand".to_owned(),
                most => format!("may write to what it gets after {most} operand(s)"),
            },
        ));
    }
    Ok(())
}

/// A variable that is set for one command alone.
pub(super) fn environment(name: &str, value: &Word) -> Result<(), Refusal> {
    const FREE: [&str; 14] = [
        "LANG",
        "LANGUAGE",
        "TZ",
        "COLUMNS",
        "LINES",
        "NO_COLOR",
        "CLICOLOR",
        "FORCE_COLOR",
        "TERM",
        "IFS",
        "GREP_COLORS",
        "LS_COLORS",
        "GIT_OPTIONAL_LOCKS",
        "GIT_TERMINAL_PROMPT",
    ];
    const PAGERS: [&str; 4] = ["PAGER", "GIT_PAGER", "MANPAGER", "SYSTEMD_PAGER"];
    // A locale's name may be a path to a file of translations.
    let plain = value.exact().is_some_and(|text| !text.contains('/'));
    let fine = FREE.contains(&name) && (plain || name == "TZ" && value.exact().is_some())
        || name.starts_with("LC_") && parse::is_name(name) && plain
        || PAGERS.contains(&name)
            && value
                .exact()
                .is_some_and(|text| text.is_empty() || text == "cat");
    if fine {
        return Ok(());
    }
    Err(Refusal::new(format!(
        "the variable `{}` may change what a program does",
        brief(name)
    )))
}
