//! Programs that look at the machine.

use super::Operands::{Any, Most};
use super::{Group, options};
use crate::judge::Refusal;
use crate::judge::options::Order;
use crate::judge::word::Word;

pub(super) const GROUP: Group = Group {
    harmless: &[
        "uptime", "whoami", "id", "groups", "uname", "nproc", "free", "vmstat", "iostat", "mpstat",
        "lscpu", "lsblk", "lsusb", "lspci", "lsmod", "lsmem", "lsns", "lsipc", "findmnt", "ps",
        "pstree", "pidof", "printenv", "locale", "getconf", "tty", "who", "w", "users", "logname",
        "sleep", "yes", "cal", "sw_vers", "modinfo",
    ],
    by_options: &[
        // On a Mac it runs a program.
        (&["arch"], "", Most(0)),
        (
            &["hostname"],
            "-adfiIsyA --alias --domain --fqdn --long --ip-address --all-ip-addresses --short --all-fqdns",
            Most(0),
        ),
        (
            &["pgrep"],
            "-flaxonvciw -u: -U: -P: -d: -g: -G: -s: -t: --full --list-name --list-full --exact --oldest --newest --count --parent= --euid=",
            Any,
        ),
        (&["last", "lastlog"], "-adFiwxR -n: -t: -# -u:", Any),
        (&["top"], "-bcHi -n: -d: -o: -p: -u: -U: -w?", Most(0)),
        (
            &["dmesg"],
            "-HTkuxtPL -l: -f: -S --human --ctime --kernel --userspace --decode --notime --nopager --level= --facility= --since= --until= --json",
            Most(0),
        ),
        (&["mount"], "-lv -t:", Most(0)),
        (
            &["journalctl"],
            "-kraxefqm -u: -n? -S: -U: -p: -o: -t: -g: -b? --unit: --user-unit: --lines? --since: --until: --priority: --output: --identifier: \
             --grep: --no-pager --boot? --list-boots --dmesg --reverse --catalog --all --follow --no-tail --quiet --utc --no-hostname \
             --disk-usage --system --user --fields --field= --no-full --full --output-fields=",
            Any,
        ),
    ],
    by_form: &[
        ("date", date),
        ("systemctl", systemctl),
        ("crontab", crontab),
    ],
    refused: &[
        ("sudo", "acts as another user"),
        ("su", "acts as another user"),
        ("doas", "acts as another user"),
        ("kill", "ends processes"),
        ("killall", "ends processes"),
        ("pkill", "ends processes"),
        ("reboot", "restarts the machine"),
        ("shutdown", "stops the machine"),
        ("watch", "runs a command through a shell"),
        ("strace", "runs a command"),
        (
            "ldd",
            "may run the program it is given: use objdump -p or readelf -d",
        ),
        ("tmux", "runs commands elsewhere"),
        ("screen", "runs commands elsewhere"),
        ("at", "runs commands later"),
    ],
};

/// Shows a time; `-s` and a bare operand set the clock.
fn date(program: &str, arguments: &[Word], _: usize) -> Result<(), Refusal> {
    let parsed = options::parse(
        program,
        "-uRj -d: -r: -I? -v: --utc --universal --date= --reference= --iso-8601? --rfc-3339= --rfc-email --rfc-2822 --version",
        Order::Mixed,
        arguments,
    )?;
    if parsed.has(&["-j"]) {
        return Ok(());
    }
    if parsed
        .operands
        .iter()
        .all(|word| word.prefix().starts_with('+') && !word.is_many())
    {
        return Ok(());
    }
    Err(options::form(
        program,
        "may set the clock: a format begins with `+`",
    ))
}

fn systemctl(program: &str, arguments: &[Word], _: usize) -> Result<(), Refusal> {
    let parsed = options::parse(
        program,
        "-alqr -n: -p: -t: -o: --all --full --no-pager --quiet --user --system --type: --state: --property: --value --lines: --output: --failed \
         --no-legend --plain --recursive --reverse",
        Order::Mixed,
        arguments,
    )?;
    let verb = parsed
        .operands
        .first()
        .map(|word| word.exact().unwrap_or_else(|| "$".into()));
    match verb.as_deref() {
        None
        | Some(
            "status" | "show" | "is-active" | "is-enabled" | "is-failed" | "list-units"
            | "list-unit-files" | "list-timers" | "list-sockets" | "list-dependencies"
            | "list-jobs" | "get-default" | "is-system-running" | "cat",
        ) => Ok(()),
        Some(_) => Err(options::form(
            program,
            "is not known to only read in this form",
        )),
    }
}

/// `-l` shows the table; without it, a new one is read from the input.
fn crontab(program: &str, arguments: &[Word], _: usize) -> Result<(), Refusal> {
    match options::exact(program, arguments)?.as_slice() {
        [only] if only == "-l" => Ok(()),
        _ => Err(options::form(program, "is only judged as `crontab -l`")),
    }
}
