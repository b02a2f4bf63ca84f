//! Programs that look at files and directories.

use super::Operands::{Any, Most};
use super::{Group, find};

pub(super) const GROUP: Group = Group {
    harmless: &[
        "ls",
        "dir",
        "vdir",
        "stat",
        "du",
        "df",
        "basename",
        "dirname",
        "realpath",
        "readlink",
        "cat",
        "tac",
        "head",
        "tail",
        "wc",
        "nl",
        "cmp",
        "md5sum",
        "sha1sum",
        "sha224sum",
        "sha256sum",
        "sha384sum",
        "sha512sum",
        "b2sum",
        "cksum",
        "sum",
        "shasum",
        "namei",
        "pathchk",
        "lsattr",
        "getfacl",
        "getfattr",
    ],
    by_options: &[
        // -C writes a compiled magic file.
        (
            &["file"],
            "-bhikLNnprsvz0 -m: -F: -e: -f: --brief --mime --mime-type --mime-encoding --dereference --no-dereference \
             --keep-going --raw --special-files --uncompress --version --separator= --exclude= --files-from=",
            Any,
        ),
        // -o and -R write.
        (
            &["tree"],
            "-adfilxpsughDFqNQnCrtcUvAJX -L: -I: -P: --noreport --dirsfirst --filesfirst --gitignore --prune --du --si \
             --charset= --filelimit= --matchdirs --ignore-case --fromfile --sort= --timefmt= --inodes --device --version",
            Any,
        ),
        (
            &["fd", "fdfind"],
            "-HIuFsiglap0LqR1 -d: -t: -e: -E: -c: -j: -S: -C: --hidden --no-ignore --no-ignore-vcs --unrestricted --case-sensitive \
             --ignore-case --glob --regex --fixed-strings --absolute-path --list-details --follow --full-path --print0 --max-depth: \
             --min-depth: --exact-depth: --type: --extension: --exclude: --color: --size: --changed-within: --changed-before: \
             --newer: --older: --owner: --max-results: --quiet --show-errors --base-directory: --search-path: --one-file-system \
             --strip-cwd-prefix --version --help",
            Any,
        ),
        // Its second operand is a file to write; -r makes it one.
        (&["xxd"], "-abeEiupCdv -c: -g: -l: -o: -s: -n:", Most(1)),
        (
            &["diff"],
            "-qsruabBwiNyptTEZdHce -U: -C: -W: -x: -X: -I: -S: -L: -F: -D: -# --brief --report-identical-files --recursive \
             --unified? --context? --side-by-side --width= --exclude= --exclude-from= --ignore-case --ignore-all-space \
             --ignore-space-change --ignore-blank-lines --ignore-trailing-space --ignore-tab-expansion --ignore-matching-lines= \
             --new-file --text --suppress-common-lines --color? --label= --minimal --no-dereference --strip-trailing-cr --version --help \
             --show-c-function --left-column --expand-tabs --initial-tab --tabsize= --line-format= --changed-group-format= \
             --unchanged-group-format= --old-line-format= --new-line-format= --unchanged-line-format= --speed-large-files",
            Any,
        ),
        (&["lsof"], "-nPtaRlOUVX -p: -u: -c: -d: -i? -s?", Any),
    ],
    by_form: &[("find", find::judge)],
    refused: &[
        ("tee", "writes files"),
        ("cp", "writes files"),
        ("mv", "moves files"),
        ("rm", "removes files"),
        ("rmdir", "removes directories"),
        ("mkdir", "makes directories"),
        ("touch", "writes files"),
        ("ln", "makes links"),
        ("chmod", "changes files"),
        ("chown", "changes files"),
        ("dd", "writes files"),
        ("truncate", "changes files"),
        ("install", "writes files"),
        ("mktemp", "makes files"),
        ("sdiff", "can write files: use diff -y"),
    ],
};
