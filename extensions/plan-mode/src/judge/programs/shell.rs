//! The shell's own commands, and those that start others.

use super::Operands::Any;
use super::{Group, options, wrappers};
use crate::judge::options::Order;
use crate::judge::word::Word;
use crate::judge::{Refusal, may_assign};

pub(super) const GROUP: Group = Group {
    harmless: &[
        "echo", "true", "false", ":", "pwd", "cd", "pushd", "popd", "dirs", "exit", "return",
        "break", "continue", "shift", "times",
    ],
    by_options: &[
        (&["type"], "-afptP", Any),
        (&["which"], "-asp --all", Any),
        (&["whereis"], "-bmsu", Any),
        (&["wait"], "-n", Any),
    ],
    by_form: &[
        ("test", test),
        ("[", test),
        ("printf", printf),
        ("read", read),
        ("set", set),
        ("command", wrappers::command_),
        ("builtin", wrappers::builtin),
        ("env", wrappers::env),
        ("xargs", wrappers::xargs),
        ("gxargs", wrappers::xargs),
        ("timeout", wrappers::timeout),
        ("gtimeout", wrappers::timeout),
        ("nice", wrappers::nice),
        ("ionice", wrappers::ionice),
        ("stdbuf", wrappers::stdbuf),
        ("time", wrappers::time),
    ],
    refused: &[
        ("eval", "runs a text as a command"),
        ("source", "runs a file"),
        (".", "runs a file"),
        ("exec", "replaces the shell"),
        ("export", "changes how programs behave"),
        ("declare", "changes variables"),
        ("typeset", "changes variables"),
        ("local", "changes variables"),
        ("readonly", "changes variables"),
        ("unset", "changes variables"),
        ("alias", "changes what commands mean"),
        ("trap", "runs a command later"),
        ("hash", "changes what commands mean"),
        ("enable", "changes what commands mean"),
        ("shopt", "changes how the shell reads commands"),
        ("let", "is arithmetic, which can run commands"),
        ("nohup", "runs a command that goes on"),
        ("setsid", "runs a command that goes on"),
        ("sh", "runs a script that is not judged"),
        ("dash", "runs a script that is not judged"),
        ("busybox", "is many programs"),
        ("parallel", "runs commands"),
    ],
};

const UNARY: &[&str] = &[
    "-a", "-b", "-c", "-d", "-e", "-f", "-g", "-h", "-k", "-p", "-r", "-s", "-t", "-u", "-w", "-x",
    "-G", "-L", "-N", "-O", "-S", "-z", "-n",
];
const BINARY: &[&str] = &[
    "=", "==", "!=", "-eq", "-ne", "-lt", "-le", "-gt", "-ge", "-nt", "-ot", "-ef",
];

/// The forms with one, two or three operands. `-v` and `-R` look at a variable whose name can be an expression that runs a command.
fn test(name: &str, arguments: &[Word], _: usize) -> Result<(), Refusal> {
    let refuse = |why: &str| Err(options::form(name, why));
    let mut words = arguments;
    if name == "[" {
        match words.split_last() {
            Some((last, rest)) if last.exact().as_deref() == Some("]") => words = rest,
            _ => return refuse("lacks its `]`"),
        }
    }
    while let Some((first, rest)) = words.split_first()
        && first.exact().as_deref() == Some("!")
    {
        words = rest;
    }
    if words.iter().any(Word::is_many) {
        return refuse("is only judged with its variables in quotes");
    }
    let is = |word: &Word, known: &[&str]| word.exact().is_some_and(|text| known.contains(&&*text));
    match words {
        [] | [_] => Ok(()),
        [operator, _] if is(operator, UNARY) => Ok(()),
        [_, operator, _] if is(operator, BINARY) => Ok(()),
        _ => {
            refuse("is only judged as `OPERATOR x` or `x OPERATOR y`: join several with && and ||")
        }
    }
}

/// `-v` and `%n` assign, and what it assigns to can be an expression that runs a command.
fn printf(name: &str, arguments: &[Word], _: usize) -> Result<(), Refusal> {
    let parsed = options::parse(name, "", Order::First, arguments)?;
    let Some(format) = parsed.operands.first() else {
        return Ok(());
    };
    if format.exact().is_some_and(|text| !counts(&text)) {
        return Ok(());
    }
    Err(options::form(
        name,
        "may assign a variable: write its format out, without `%n`",
    ))
}

/// Whether a format has a `%n`, which puts a number into a variable.
fn counts(format: &str) -> bool {
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c == '%' {
            let kind = chars.find(|c| !"-+ #'.*0123456789hlqLjzt".contains(*c));
            if kind == Some('n') {
                return true;
            }
        }
    }
    false
}

/// Variables whose names are written out.
fn read(name: &str, arguments: &[Word], _: usize) -> Result<(), Refusal> {
    let parsed = options::parse(
        name,
        "-rse -d: -n: -N: -t: -p: -u:",
        Order::First,
        arguments,
    )?;
    if parsed.operands.is_empty() {
        return Err(options::form(
            name,
            "is only judged with the name of a variable",
        ));
    }
    options::exact(name, &parsed.operands)?
        .iter()
        .try_for_each(|variable| may_assign(variable))
}

/// Options of the shell that only make it stricter or talk more.
fn set(name: &str, arguments: &[Word], _: usize) -> Result<(), Refusal> {
    let words = options::exact(name, arguments)?;
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        let letters = word.strip_prefix(['-', '+']).unwrap_or_default();
        let named = letters.ends_with('o');
        let fine = !letters.is_empty()
            && letters
                .trim_end_matches('o')
                .bytes()
                .all(|b| b"euxfv".contains(&b));
        let fine = fine
            && (!named
                || rest.next().is_some_and(|o| {
                    ["pipefail", "errexit", "nounset", "noglob"].contains(&o.as_str())
                }));
        if !fine {
            return Err(options::form(
                name,
                "is only judged as `set -eu -o pipefail`",
            ));
        }
    }
    Ok(())
}
