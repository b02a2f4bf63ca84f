//! `git`: subcommands that read, each with its own options.
//!
//! Not among them: what a repository's configuration may make of them by an option (`--ext-diff`, `--textconv`, `--filters`), what runs
//! a program (`--upload-pack`, `-O`), and `-c`, which is all of that.

use super::{Group, options};
use crate::judge::Refusal;
use crate::judge::options::{Order, Parsed};
use crate::judge::word::Word;

pub(super) const GROUP: Group = Group {
    harmless: &[],
    by_options: &[],
    by_form: &[("git", judge)],
    refused: &[
        ("gh", "acts on servers: it is not judged"),
        ("hub", "acts on servers: it is not judged"),
    ],
};

/// Before the subcommand.
const GLOBAL: &str = "-P -C: --no-pager --no-optional-locks --no-replace-objects --literal-pathspecs --glob-pathspecs --noglob-pathspecs \
    --icase-pathspecs --version";

/// What commits and differences are shown as. `-G -S -L` and formats only choose.
const DIFF: &str = "-pusRabwzMCBDW0MWt -U? -X? -G: -S: -O: -l: --patch --no-patch --unified? --raw --stat? --numstat --shortstat --dirstat? \
    --summary --name-only --name-status --color? --no-color --color-words? --word-diff? --word-diff-regex= --color-moved? --no-renames \
    --find-renames? --find-copies? --find-copies-harder --diff-filter= --pickaxe-all --pickaxe-regex --relative? --no-relative --text \
    --ignore-all-space --ignore-space-change --ignore-space-at-eol --ignore-cr-at-eol --ignore-blank-lines --inter-hunk-context= \
    --function-context --full-index --binary --abbrev? --no-abbrev --patch-with-stat --patch-with-raw --minimal --patience --histogram \
    --diff-algorithm= --anchored= --check --exit-code --quiet --no-ext-diff --no-textconv --no-prefix --src-prefix= --dst-prefix= \
    --line-prefix= --ita-invisible-in-index --submodule? --ignore-submodules? --compact-summary --cc --combined-all-paths --cached \
    --staged --no-index --merge-base --break-rewrites? --irreversible-delete --rename-empty --no-rename-empty --default-prefix";

/// Which commits.
const LOG: &str = "-n: -# -g -i -E -F -P -c -m -q --oneline --graph --decorate? --no-decorate --decorate-refs= --decorate-refs-exclude= --all \
    --branches? --tags? --remotes? --glob= --exclude= --reflog --walk-reflogs --max-count= --skip= --since= --after= --until= --before= \
    --author= --committer= --grep= --all-match --invert-grep --regexp-ignore-case --basic-regexp --extended-regexp --fixed-strings \
    --perl-regexp --merges --no-merges --min-parents= --max-parents= --first-parent --not --cherry --cherry-mark --cherry-pick --left-right \
    --left-only --right-only --boundary --simplify-by-decoration --full-history --dense --sparse --simplify-merges --ancestry-path? \
    --date-order --author-date-order --topo-order --reverse --pretty? --format= --abbrev-commit --no-abbrev-commit --date= --parents --children \
    --timestamp --left-right --show-signature --relative-date --follow --full-diff --log-size --source --use-mailmap --mailmap --no-mailmap \
    --notes? --no-notes --show-notes? --encoding= --expand-tabs? --no-expand-tabs --count --objects --no-walk? --do-walk --root --stdin \
    --diff-merges= --remerge-diff --no-diff-merges --show-pulls --since-as-filter= --name-rev --no-commit-id -r -L:";

/// Options with which `branch` and `tag` list, whatever names follow.
const LISTING: [&str; 6] = [
    "--list",
    "--contains",
    "--no-contains",
    "--merged",
    "--no-merged",
    "--points-at",
];
const REFS: &str = "-a -r -v -l -i -q -n? --all --remotes --list --verbose --show-current --contains --no-contains --merged --no-merged \
    --points-at= --sort= --format= --column? --no-column --color? --no-color --abbrev? --no-abbrev --ignore-case --omit-empty --count= \
    --contains= --merged= --no-merged= --no-contains= --exclude= --shell --perl --python --tcl --head --heads --tags --hash? --dereference \
    --verify --exists --refs --symref --exit-code --sort= -d -s -t -h --branches";

/// A subcommand, its options, and what else has to hold.
type Subcommand = (&'static str, &'static [&'static str], fn(&Parsed) -> bool);

const ANY: fn(&Parsed) -> bool = |_| true;

const SUBCOMMANDS: &[Subcommand] = &[
    ("log", &[LOG, DIFF], ANY),
    ("show", &[LOG, DIFF], ANY),
    ("whatchanged", &[LOG, DIFF], ANY),
    (
        "diff",
        &[DIFF, "--diff-merges= --base --ours --theirs -1 -2 -3"],
        ANY,
    ),
    ("diff-tree", &[LOG, DIFF], ANY),
    ("diff-index", &[DIFF, "-m"], ANY),
    ("diff-files", &[DIFF, "-q"], ANY),
    (
        "range-diff",
        &[
            DIFF,
            "--creation-factor= --no-dual-color --left-only --right-only",
        ],
        ANY,
    ),
    (
        "rev-list",
        &[
            LOG,
            "--abbrev? --disk-usage? --no-object-names --object-names --quiet --header",
        ],
        ANY,
    ),
    (
        "shortlog",
        &[
            "-nsec -w? --numbered --summary --email --group= --committer",
            LOG,
        ],
        ANY,
    ),
    (
        "status",
        &[
            "-sbuvz -u? --short --branch --show-stash --porcelain? --long --verbose --untracked-files? --ignore-submodules? --ignored? \
           --column? --no-column --ahead-behind --no-ahead-behind --renames --no-renames --find-renames?",
        ],
        ANY,
    ),
    (
        "blame",
        &[
            "-bctfnlsewpC -L: -M? -C? -S: --root --show-stats --porcelain --line-porcelain --incremental --encoding= --date= --reverse \
           --ignore-rev= --ignore-revs-file= --color-lines --color-by-age --show-name --show-number --show-email --abbrev= --since=",
        ],
        ANY,
    ),
    ("annotate", &["-bctfnlsewp -L: --date="], ANY),
    (
        "grep",
        &[
            "-aiIwvhHEGPFnlLzcopWqrC -A: -B: -C: -e: -f: -m: -# --cached --untracked --no-index --recurse-submodules --exclude-standard \
           --no-exclude-standard --text --ignore-case --word-regexp --invert-match --full-name --extended-regexp --basic-regexp \
           --perl-regexp --fixed-strings --line-number --column --files-with-matches --name-only --files-without-match --null \
           --only-matching --count --color? --no-color --break --heading --show-function --context= --after-context= --before-context= \
           --function-context --max-count= --and --or --not --all-match --quiet --max-depth= --recursive --no-recursive --threads= --no-textconv",
        ],
        ANY,
    ),
    (
        "ls-files",
        &[
            "-zcdomiskutvfr -x: -X: --cached --deleted --others --modified --ignored --stage --unmerged --killed --directory \
           --no-empty-directory --eol --deduplicate --exclude= --exclude-from= --exclude-per-directory= --exclude-standard \
           --error-unmatch --with-tree= --full-name --recurse-submodules --abbrev? --debug --format= --sparse",
        ],
        ANY,
    ),
    (
        "ls-tree",
        &[
            "-drtlz --long --name-only --name-status --object-only --full-name --full-tree --abbrev? --format=",
        ],
        ANY,
    ),
    (
        "cat-file",
        &[
            "-tspe --batch? --batch-check? --batch-command? --batch-all-objects --buffer --unordered --follow-symlinks --allow-unknown-type --use-mailmap",
        ],
        ANY,
    ),
    (
        "rev-parse",
        &[
            "-q --verify --quiet --short? --abbrev-ref? --symbolic --symbolic-full-name --all --branches? --tags? --remotes? --glob= \
           --show-toplevel --show-prefix --show-cdup --git-dir --absolute-git-dir --git-common-dir --is-inside-work-tree \
           --is-inside-git-dir --is-bare-repository --is-shallow-repository --show-superproject-working-tree --show-object-format? \
           --default= --revs-only --no-revs --flags --no-flags --since= --until= --disambiguate= --local-env-vars --path-format= --git-path= \
           --not --sq",
        ],
        ANY,
    ),
    (
        "describe",
        &[
            "--all --tags --contains --abbrev= --candidates= --exact-match --long --match= --exclude= --always --first-parent --dirty? --broken? --debug",
        ],
        ANY,
    ),
    (
        "name-rev",
        &["--tags --refs= --exclude= --all --name-only --no-undefined --always"],
        ANY,
    ),
    (
        "merge-base",
        &["-a --all --octopus --independent --is-ancestor --fork-point"],
        ANY,
    ),
    ("for-each-ref", &[REFS, "--stdin --include-root-refs"], ANY),
    ("show-ref", &[REFS], |parsed| !parsed.has(&["-v"])),
    (
        "show-branch",
        &[
            "-ar --all --remotes --current --topo-order --date-order --sparse --more= --list --merge-base --independent --no-name --sha1-name --topics --color? --no-color",
        ],
        ANY,
    ),
    (
        "ls-remote",
        &["-htqb --heads --tags --refs --branches --quiet --exit-code --get-url --symref --sort="],
        remote_is_plain,
    ),
    ("count-objects", &["-vH --verbose --human-readable"], ANY),
    (
        "check-ignore",
        &["-qvnz --quiet --verbose --non-matching --no-index --stdin"],
        ANY,
    ),
    ("check-attr", &["-az --all --cached --stdin --source="], ANY),
    (
        "check-ref-format",
        &["--branch --normalize --allow-onelevel --refspec-pattern"],
        ANY,
    ),
    ("var", &["-l"], ANY),
    ("version", &["--build-options"], ANY),
    ("cherry", &["-v --verbose --abbrev?"], ANY),
    ("branch", &[REFS], |parsed| {
        !parsed.has(&["-d", "-l", "-t", "-s", "-h"])
            && (parsed.operands.is_empty() || parsed.has(&LISTING))
    }),
    ("tag", &[REFS], |parsed| {
        !parsed.has(&["-d", "-a", "-s", "-v", "-h", "--verify"])
            && (parsed.operands.is_empty() || parsed.has(&LISTING) || parsed.has(&["-l"]))
    }),
    ("remote", &["-vn --verbose --push --all"], |parsed| {
        matches!(first(parsed).as_deref(), None | Some("show" | "get-url"))
            && remote_is_plain(parsed)
    }),
    ("stash", &[LOG, DIFF], |parsed| {
        matches!(first(parsed).as_deref(), Some("list" | "show"))
    }),
    ("reflog", &[LOG, DIFF], |parsed| {
        matches!(
            first(parsed).as_deref(),
            None | Some("show" | "list" | "exists")
        )
    }),
    ("worktree", &["-vz --porcelain --verbose"], |parsed| {
        first(parsed).as_deref() == Some("list")
    }),
    ("notes", &["--ref="], |parsed| {
        matches!(first(parsed).as_deref(), None | Some("list" | "show"))
    }),
    ("bisect", &[""], |parsed| {
        first(parsed).as_deref() == Some("log")
    }),
    (
        "symbolic-ref",
        &["-q --quiet --short --no-recurse"],
        |parsed| parsed.operands.len() == 1 && !parsed.operands.iter().any(Word::is_many),
    ),
    (
        "config",
        &[
            "-lz -f: --get --get-all --get-regexp --get-urlmatch --list --global --system --local --worktree --file= --blob= --bool --int \
           --bool-or-int --path --expiry-date --type= --null --name-only --show-origin --show-scope --includes --no-includes --default= --all \
           --regexp --value= --fixed-value --url=",
        ],
        reads_config,
    ),
];

/// The first operand: what a subcommand of a subcommand is called.
fn first(parsed: &Parsed) -> Option<String> {
    // What is not known is none of the names.
    parsed
        .operands
        .first()
        .map(|word| word.exact().unwrap_or_else(|| "$".into()))
}

/// `git config NAME` reads, `git config NAME VALUE` writes.
fn reads_config(parsed: &Parsed) -> bool {
    parsed.has(&[
        "--get",
        "--get-all",
        "--get-regexp",
        "--get-urlmatch",
        "--list",
        "-l",
    ]) || matches!(first(parsed).as_deref(), Some("get" | "list"))
        || parsed.operands.len() == 1 && !parsed.operands.iter().any(Word::is_many)
}

/// `ext::` and the like name a program to run.
fn remote_is_plain(parsed: &Parsed) -> bool {
    parsed
        .operands
        .iter()
        .all(|word| word.exact().is_some_and(|text| !text.contains("::")))
}

fn judge(program: &str, arguments: &[Word], _: usize) -> Result<(), Refusal> {
    let global = options::parse(program, GLOBAL, Order::First, arguments)?;
    let Some((name, rest)) = global.operands.split_first() else {
        return Ok(());
    };
    let name = name.exact().ok_or_else(|| {
        options::form(program, "is only judged when its subcommand is written out")
    })?;
    let shown = format!("git {name}");
    let Some((_, specs, holds)) = SUBCOMMANDS.iter().find(|(known, ..)| *known == name) else {
        return Err(options::form(&shown, "is not known to only read"));
    };
    let parsed = options::parse(&shown, &specs.join(" "), Order::Mixed, rest)?;
    if holds(&parsed) {
        return Ok(());
    }
    Err(options::form(
        &shown,
        "is not known to only read in this form",
    ))
}
