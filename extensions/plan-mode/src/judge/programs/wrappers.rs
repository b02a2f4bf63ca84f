//! Commands that start the command they are given, which is judged in turn.

use super::options::{self, Order};
use crate::judge::word::{Kind, Piece, Word};
use crate::judge::{Refusal, command};

/// Runs what follows these options and this many operands.
fn inner(
    name: &str,
    spec: &str,
    operands: usize,
    arguments: &[Word],
    depth: usize,
) -> Result<(), Refusal> {
    let parsed = options::parse(name, spec, Order::First, arguments)?;
    if parsed.operands.iter().take(operands).any(Word::is_many) {
        return Err(options::form(
            name,
            "is only judged when it is clear where its command begins",
        ));
    }
    command(
        parsed.operands.get(operands..).unwrap_or_default(),
        depth + 1,
    )
}

pub(super) fn command_(name: &str, arguments: &[Word], depth: usize) -> Result<(), Refusal> {
    let parsed = options::parse(name, "-vV", Order::First, arguments)?;
    if parsed.options.is_empty() {
        return command(&parsed.operands, depth + 1);
    }
    Ok(())
}

pub(super) fn builtin(name: &str, arguments: &[Word], depth: usize) -> Result<(), Refusal> {
    inner(name, "", 0, arguments, depth)
}

pub(super) fn timeout(name: &str, arguments: &[Word], depth: usize) -> Result<(), Refusal> {
    inner(
        name,
        "-v -s: -k: --preserve-status --foreground --verbose --signal= --kill-after=",
        1,
        arguments,
        depth,
    )
}

pub(super) fn nice(name: &str, arguments: &[Word], depth: usize) -> Result<(), Refusal> {
    inner(name, "-n: -# --adjustment=", 0, arguments, depth)
}

pub(super) fn ionice(name: &str, arguments: &[Word], depth: usize) -> Result<(), Refusal> {
    inner(
        name,
        "-t -c: -n: --ignore --class= --classdata=",
        0,
        arguments,
        depth,
    )
}

pub(super) fn stdbuf(name: &str, arguments: &[Word], depth: usize) -> Result<(), Refusal> {
    inner(
        name,
        "-i: -o: -e: --input= --output= --error=",
        0,
        arguments,
        depth,
    )
}

/// The program, where it is not the shell's word. `-o` writes a file.
pub(super) fn time(name: &str, arguments: &[Word], depth: usize) -> Result<(), Refusal> {
    inner(name, "-pvl --portability --verbose", 0, arguments, depth)
}

/// Variables, then a command; not `-S`, which splits a text into a command, nor `-i` and `-u`: without
/// `PATH`, some systems look for programs in the working directory.
pub(super) fn env(name: &str, arguments: &[Word], depth: usize) -> Result<(), Refusal> {
    let parsed = options::parse(name, "-0 --null", Order::First, arguments)?;
    let mut rest = parsed.operands.as_slice();
    while let Some((first, after)) = rest.split_first() {
        let prefix = first.prefix();
        let Some((variable, _)) = prefix.split_once('=') else {
            break;
        };
        if first.is_many() {
            return Err(options::form(
                name,
                "is only judged when it is clear where its command begins",
            ));
        }
        super::environment(variable, &first.skip(variable.chars().count() + 1))?;
        rest = after;
    }
    command(rest, depth + 1)
}

/// What it adds to the command is not known: it may begin with `-`, and there may be many.
pub(super) fn xargs(name: &str, arguments: &[Word], depth: usize) -> Result<(), Refusal> {
    let parsed = options::parse(
        name,
        "-0rtx -n: -I: -L: -P: -d: -s: -E: -a: --null --no-run-if-empty --verbose --exit --max-args= --max-lines= --max-procs= --max-chars= \
         --delimiter= --arg-file=",
        Order::First,
        arguments,
    )?;
    if parsed.operands.is_empty() {
        // It prints.
        return Ok(());
    }
    let mut words = parsed.operands.clone();
    // Of -I and -n the last one counts: then it is as without -I.
    if parsed.has(&["-n", "-L", "--max-args", "--max-lines"]) {
        words.push(Word::unknown(Kind::Split(None)));
        return command(&words, depth + 1);
    }
    match parsed.values(&["-I"]).last().map(|mark| mark.exact()) {
        None => words.push(Word::unknown(Kind::Split(None))),
        Some(Some(mark)) if !mark.is_empty() => {
            for word in &mut words {
                let Some(text) = word.exact() else { continue };
                if let Some((before, _)) = text.split_once(&mark) {
                    *word = Word::text(before);
                    word.pieces.push(Piece::Unknown(Kind::Whole(None)));
                }
            }
            if words
                .iter()
                .any(|word| word.exact().is_none() && word.is_many())
            {
                return Err(options::form(
                    name,
                    "is only judged with a command that is written out",
                ));
            }
        }
        Some(_) => {
            return Err(options::form(
                name,
                "is only judged with a mark that is written out",
            ));
        }
    }
    command(&words, depth + 1)
}
