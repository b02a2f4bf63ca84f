//! Programs that read text and write it to their output.

use super::Operands::{Any, Most};
use super::{Group, awk, sed};

pub(super) const GROUP: Group = Group {
    harmless: &[
        "grep", "egrep", "fgrep", "cut", "paste", "join", "comm", "fold", "fmt", "expand",
        "unexpand", "column", "rev", "tr", "od", "hexdump", "hd", "tsort", "jq", "seq", "numfmt",
        "factor",
    ],
    by_options: &[
        // -o, --compress-program and -T write or run.
        (
            &["sort"],
            "-bdfgiMhnRrVcCmsuz -k: -t: -S: --ignore-leading-blanks --dictionary-order --ignore-case --general-numeric-sort \
             --ignore-nonprinting --month-sort --human-numeric-sort --numeric-sort --random-sort --reverse --version-sort --sort= \
             --check? --merge --key= --field-separator= --stable --unique --zero-terminated --parallel= --buffer-size= --debug \
             --files0-from= --version --help",
            Any,
        ),
        // Its second operand is a file to write.
        (
            &["uniq"],
            "-cdDiuz -f: -s: -w: --count --repeated --all-repeated? --skip-fields= --skip-chars= --check-chars= --ignore-case \
             --unique --zero-terminated --group? --version --help",
            Most(1),
        ),
        (
            &["base64", "base32"],
            "-dD -w: --decode --wrap= --ignore-garbage --version --help",
            Most(1),
        ),
        (
            &["strings"],
            "-afw -n: -t: -e: -# --all --bytes= --radix= --encoding= --print-file-name --version --help",
            Any,
        ),
        (
            &["iconv"],
            "-cls -f: -t: --from-code= --to-code= --list --version --help",
            Any,
        ),
        // --pre and --hostname-bin run programs, -z runs decompressors.
        (
            &["rg", "ripgrep"],
            "-abcFHhiILlNnopqPsSUuvVwx0 -A: -B: -C: -E: -e: -f: -g: -j: -m: -M: -d: -r: -t: -T: --after-context: --before-context: \
             --context: --encoding: --regexp: --file: --glob: --iglob: --max-count: --max-columns: --max-columns-preview --max-depth: \
             --max-filesize: --replace: --type: --type-not: --type-add: --type-clear: --type-list --text --count --count-matches \
             --fixed-strings --with-filename --no-filename --ignore-case --files-with-matches --files-without-match --line-number \
             --no-line-number --only-matching --pcre2 --case-sensitive --smart-case --multiline --multiline-dotall --unrestricted \
             --invert-match --word-regexp --line-regexp --null --null-data --files --hidden --no-hidden --no-ignore --no-ignore-vcs \
             --no-ignore-dot --no-ignore-parent --no-ignore-global --ignore-file: --follow --color: --colors: --column --no-column \
             --heading --no-heading --json --json-seq --sort: --sortr: --stats --trim --vimgrep --passthru --passthrough --quiet \
             --pretty --no-messages --no-config --one-file-system --binary --byte-offset --crlf --engine: --threads: --debug --trace \
             --context-separator: --field-context-separator: --field-match-separator: --path-separator: --include-zero --glob-case-insensitive \
             --version --help --no-unicode --stop-on-nonmatch --mmap --no-mmap --no-pre --no-require-git --block-buffered --line-buffered \
             --dfa-size-limit: --regex-size-limit: --auto-hybrid-regex --max-columns-preview --print0",
            Any,
        ),
        (
            &["ag"],
            "-acfFGhHiLlnoQrRsStuUvVwz0 -A? -B? -C? -g: -m: -p: --after= --before= --context= --count --ignore= --ignore-dir= --hidden \
             --nocolor --color --column --nogroup --group --literal --numbers --filename --nofilename --depth= --silent --version",
            Any,
        ),
        // -i and -s write.
        (
            &["yq"],
            "-rejPMCN -p? -o? --raw-output --exit-status --tojson --prettyPrint --no-colors --version",
            Any,
        ),
    ],
    by_form: &[
        ("sed", sed::judge),
        ("gsed", sed::judge),
        ("awk", awk::judge),
        ("gawk", awk::judge),
        ("mawk", awk::judge),
        ("nawk", awk::judge),
    ],
    refused: &[
        ("less", "can start programs: use cat, head or sed -n"),
        ("more", "can start programs: use cat, head or sed -n"),
        ("most", "can start programs: use cat, head or sed -n"),
        ("man", "starts a pager"),
        ("split", "writes files"),
        ("csplit", "writes files"),
        ("vi", "is an editor"),
        ("vim", "is an editor"),
        ("nano", "is an editor"),
        ("emacs", "is an editor"),
        ("ed", "is an editor"),
        ("ex", "is an editor"),
    ],
};
