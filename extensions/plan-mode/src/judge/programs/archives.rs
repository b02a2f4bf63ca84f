//! Archives: their lists, and compressed text.

use super::Operands::Any;
use super::{Group, options};
use crate::judge::Refusal;
use crate::judge::options::Order;
use crate::judge::word::Word;

pub(super) const GROUP: Group = Group {
    harmless: &["zipinfo"],
    by_options: &[
        (
            &["zcat", "gzcat", "bzcat", "xzcat", "zstdcat", "lz4cat"],
            "-fqv",
            Any,
        ),
        (
            &["zgrep", "zegrep", "zfgrep"],
            "-EFGiclnhHLovwxqs -e: -A: -B: -C: -m:",
            Any,
        ),
        (
            &["nm"],
            "-aACDglnprSuv --demangle? --dynamic --defined-only --undefined-only --extern-only --size-sort --numeric-sort",
            Any,
        ),
        (
            &["objdump"],
            "-afhpxrRtTdDsgCwS -j: -M: --disassemble? --demangle? --no-show-raw-insn --section= --start-address= --stop-address=",
            Any,
        ),
        (
            &["readelf"],
            "-aehlSstgnrudVAIWcD -x: -p: -w? --all --headers --symbols --dynamic --wide --sections --segments --relocs --notes --version-info",
            Any,
        ),
        (&["size"], "-ABdox -t", Any),
    ],
    by_form: &[
        ("tar", tar),
        ("bsdtar", tar),
        ("gtar", tar),
        ("unzip", unzip),
        ("gzip", gzip),
        ("gunzip", gzip),
        ("xz", gzip),
        ("bzip2", gzip),
        ("zstd", gzip),
    ],
    refused: &[("zip", "writes files"), ("ar", "can write archives")],
};

/// Only `t`: lists. `-f HOST:FILE` would start a remote shell.
fn tar(program: &str, arguments: &[Word], _: usize) -> Result<(), Refusal> {
    let mut arguments = arguments.to_vec();
    // The old style has no dash: `tar tvf x`.
    if let Some(first) = arguments.first_mut()
        && let Some(letters) = first
            .exact()
            .filter(|text| !text.starts_with('-') && !text.is_empty())
    {
        if letters.matches('f').count() > 1 || letters.contains('f') && !letters.ends_with('f') {
            return Err(options::form(
                program,
                "is only judged with `f` as the last letter of its first argument",
            ));
        }
        *first = Word::text(&format!("-{letters}"));
    }
    let parsed = options::parse(
        program,
        "-tvzjJaO -f: -C: --list --verbose --gzip --bzip2 --xz --zstd --file= --wildcards --no-wildcards --full-time --directory= \
         --exclude= --force-local --numeric-owner --strip-components= --version",
        Order::Mixed,
        &arguments,
    )?;
    if !parsed.has(&["-t", "--list", "--version"]) {
        return Err(options::form(program, "may only list here: use `tar -tf`"));
    }
    for file in parsed.values(&["-f", "--file"]) {
        if file.exact().is_none_or(|name| name.contains(':')) {
            return Err(options::form(
                program,
                "may open a remote archive: write the file's name out, without `:`",
            ));
        }
    }
    Ok(())
}

fn unzip(program: &str, arguments: &[Word], _: usize) -> Result<(), Refusal> {
    let parsed = options::parse(program, "-lvtpcZ1q", Order::Mixed, arguments)?;
    if parsed.has(&["-l", "-v", "-t", "-p", "-c", "-Z"]) {
        return Ok(());
    }
    Err(options::form(
        program,
        "may only list or print here: use `unzip -l` or `unzip -p`",
    ))
}

/// Only to the output, or lists and tests.
fn gzip(program: &str, arguments: &[Word], _: usize) -> Result<(), Refusal> {
    let parsed = options::parse(
        program,
        "-cdkltvqf -# --stdout --decompress --keep --list --test --verbose --quiet --to-stdout --version",
        Order::Mixed,
        arguments,
    )?;
    // BSD's `zstd -l -d` and the like still only list; without one of these a file is replaced.
    if parsed.has(&[
        "-c",
        "-l",
        "-t",
        "--stdout",
        "--to-stdout",
        "--list",
        "--test",
        "--version",
    ]) {
        return Ok(());
    }
    Err(options::form(program, "replaces files without -c"))
}
