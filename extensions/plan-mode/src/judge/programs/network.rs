//! Programs that ask servers: only what a GET is.

use super::Operands::Any;
use super::{Group, options};
use crate::judge::Refusal;
use crate::judge::options::Order;
use crate::judge::word::Word;

pub(super) const GROUP: Group = Group {
    harmless: &["host"],
    by_options: &[
        (&["dig"], "-46mruxh -b: -c: -p: -q: -t: -x:", Any),
        (
            &["ping", "ping6"],
            "-46nqvDO -c: -i: -w: -W: -t: -s: -I:",
            Any,
        ),
        // -K closes connections, -D writes a file.
        (
            &["ss"],
            "-Hnraloempis460tudwxhOQ --no-header --numeric --resolve --all --listening --options --extended --memory --processes --info \
             --summary --ipv4 --ipv6 --tcp --udp --raw --unix",
            Any,
        ),
        (
            &["netstat"],
            "-anlptuwxrisevoW46c --all --numeric --listening --programs --tcp --udp --route",
            Any,
        ),
        (&["getent"], "", Any),
    ],
    by_form: &[("curl", curl), ("ip", ip), ("ifconfig", ifconfig)],
    refused: &[
        ("wget", "writes files: use curl -s"),
        ("ssh", "runs commands elsewhere"),
        ("scp", "writes files"),
        ("rsync", "writes files"),
        ("nc", "can send anything"),
        ("ncat", "can send anything"),
        ("socat", "can send anything"),
        ("telnet", "can send anything"),
        ("ftp", "can send anything"),
    ],
};

/// No data, no file, no other method, no other protocol.
fn curl(program: &str, arguments: &[Word], _: usize) -> Result<(), Refusal> {
    let parsed = options::parse(
        program,
        "-sSLfiIvkgN46# -H: -A: -e: -m: -X: -u: -o: -w: -b: -r: -x: --silent --show-error --location --fail --fail-with-body --include --head \
         --verbose --insecure --globoff --no-buffer --ipv4 --ipv6 --compressed --header: --user-agent: --referer: --max-time: \
         --connect-timeout: --request: --user: --output: --write-out: --range: --retry: --retry-delay: --retry-max-time: --http1.1 --http2 \
         --http3 --max-redirs: --no-progress-meter --progress-bar --url: --get --oauth2-bearer: --resolve: --tlsv1.2 --tlsv1.3 \
         --max-filesize: --cacert: --version --help",
        Order::Mixed,
        arguments,
    )?;
    let refuse = |why: &str| Err(options::form(program, why));
    for method in parsed.values(&["-X", "--request"]) {
        if !method
            .exact()
            .is_some_and(|m| ["GET", "HEAD", "OPTIONS"].contains(&&*m))
        {
            return refuse("may only GET here");
        }
    }
    for file in parsed.values(&["-o", "--output"]) {
        if !file
            .exact()
            .is_some_and(|f| ["-", "/dev/null"].contains(&&*f))
        {
            return refuse("may only write to its output or to /dev/null");
        }
    }
    for format in parsed.values(&["-w", "--write-out"]) {
        if !format
            .exact()
            .is_some_and(|f| !f.contains("output{") && !f.starts_with('@'))
        {
            return refuse("may write a file with this --write-out");
        }
    }
    for header in parsed.values(&["-H", "--header"]) {
        let start = header.prefix().to_ascii_lowercase();
        if start.contains("method") || start.starts_with('@') || start.is_empty() {
            return refuse("may be something else than a GET with this header");
        }
    }
    let urls = parsed.operands.iter().chain(parsed.values(&["--url"]));
    for url in urls {
        let start = url.prefix();
        let plain = ["http://", "https://", "localhost", "127.0.0.1"]
            .iter()
            .any(|known| start.starts_with(known));
        if !plain || url.is_split() {
            return refuse(
                "is only judged with a URL in quotes that begins with http:// or https://",
            );
        }
    }
    Ok(())
}

/// Objects that are shown, not set.
fn ip(program: &str, arguments: &[Word], _: usize) -> Result<(), Refusal> {
    const FLAGS: [&str; 14] = [
        "-4", "-6", "-s", "-d", "-o", "-j", "-c", "-br", "-brief", "-json", "-stats", "-details",
        "-oneline", "-color",
    ];
    let operands = options::exact(program, arguments)?;
    let operands: Vec<String> = operands
        .into_iter()
        .skip_while(|text| FLAGS.contains(&text.as_str()))
        .collect();
    let words: Vec<&str> = operands.iter().map(String::as_str).collect();
    match words.as_slice() {
        [
            "a" | "addr" | "address" | "l" | "link" | "r" | "route" | "rule" | "n" | "neigh"
            | "netns",
        ]
        | [
            "a" | "addr" | "address" | "l" | "link" | "r" | "route" | "rule" | "n" | "neigh",
            "show" | "list" | "ls",
            ..,
        ]
        | ["r" | "route", "get", ..] => Ok(()),
        _ => Err(options::form(program, "is only judged as `ip … show`")),
    }
}

fn ifconfig(program: &str, arguments: &[Word], _: usize) -> Result<(), Refusal> {
    match options::exact(program, arguments)?.as_slice() {
        [] => Ok(()),
        [one] if one == "-a" || !one.starts_with('-') => Ok(()),
        _ => Err(options::form(program, "may change an interface")),
    }
}
