//! `find`: its starting points, tests, and the actions that only print or run a command that only reads.

use crate::judge::word::{Kind, Piece, Word};
use crate::judge::{Refusal, command};

/// Tests, operators and actions without an argument.
const BARE: &[&str] = &[
    "(",
    ")",
    "!",
    ",",
    "-not",
    "-a",
    "-and",
    "-o",
    "-or",
    "-print",
    "-print0",
    "-ls",
    "-prune",
    "-quit",
    "-empty",
    "-readable",
    "-writable",
    "-executable",
    "-depth",
    "-d",
    "-xdev",
    "-mount",
    "-x",
    "-follow",
    "-daystart",
    "-noleaf",
    "-nouser",
    "-nogroup",
    "-true",
    "-false",
    "-nowarn",
    "-warn",
    "-ignore_readdir_race",
    "-noignore_readdir_race",
    "-H",
    "-L",
    "-P",
    "-E",
    "-s",
    "-X",
    "--version",
    "--help",
];

/// Tests and actions with one argument.
const VALUED: &[&str] = &[
    "-name",
    "-iname",
    "-path",
    "-ipath",
    "-wholename",
    "-iwholename",
    "-regex",
    "-iregex",
    "-regextype",
    "-lname",
    "-ilname",
    "-type",
    "-xtype",
    "-size",
    "-mtime",
    "-mmin",
    "-atime",
    "-amin",
    "-ctime",
    "-cmin",
    "-Btime",
    "-Bmin",
    "-used",
    "-newer",
    "-anewer",
    "-cnewer",
    "-samefile",
    "-inum",
    "-links",
    "-perm",
    "-user",
    "-group",
    "-uid",
    "-gid",
    "-maxdepth",
    "-mindepth",
    "-fstype",
    "-printf",
    "-flags",
    "-context",
];

pub(super) fn judge(program: &str, arguments: &[Word], depth: usize) -> Result<(), Refusal> {
    let refuse = |why: String| Err(Refusal::new(why));
    let mut starts_known = true;
    let mut rest = arguments.iter();
    while let Some(word) = rest.next() {
        let Some(text) = word.exact() else {
            if word.may_be_option() || word.prefix().starts_with(['(', ')', '!', ',']) {
                return refuse(format!(
                    "`{}` may become an action of `{program}` when it runs: put patterns in quotes, and begin paths with `./`",
                    word.show()
                ));
            }
            continue;
        };
        if BARE.contains(&&*text) || text.starts_with("-O") && text.len() == 3 || text == "--" {
            continue;
        }
        let newer = text
            .strip_prefix("-newer")
            .is_some_and(|kinds| kinds.len() == 2 && kinds.bytes().all(|b| b"aBcmt".contains(&b)));
        if newer || VALUED.contains(&&*text) {
            match rest.next() {
                Some(value) if !value.is_many() => continue,
                Some(value) => {
                    return refuse(format!(
                        "`{}` may become several words before `{program}` sees it: put it in quotes",
                        value.show()
                    ));
                }
                None => return refuse(format!("`{program} {text}` lacks its value")),
            }
        }
        if text == "-exec" || text == "-execdir" {
            let inner = executed(program, &mut rest, starts_known)?;
            command(&inner, depth + 1)?;
            continue;
        }
        if text.starts_with('-') {
            return refuse(format!(
                "`{program} {}` is not known to only read",
                word.show()
            ));
        }
        // A starting point; what is found begins with it.
        starts_known &= !text.is_empty();
    }
    Ok(())
}

/// The command of an `-exec`, until its `;` or `+`.
fn executed(
    program: &str,
    rest: &mut std::slice::Iter<'_, Word>,
    starts_known: bool,
) -> Result<Vec<Word>, Refusal> {
    let mut inner = Vec::new();
    for word in rest {
        match word.exact().as_deref() {
            Some(";") => return Ok(inner),
            Some("+") if inner.last().is_some_and(is_found) => return Ok(inner),
            Some("{}") => inner.push(Word::unknown(if starts_known {
                Kind::Operand
            } else {
                Kind::Whole(None)
            })),
            Some(text) if text.contains("{}") => {
                let (before, _) = text.split_once("{}").unwrap_or_default();
                let mut word = Word::text(before);
                word.pieces.push(Piece::Unknown(Kind::Whole(None)));
                inner.push(word);
            }
            Some(_) => inner.push(word.clone()),
            None => {
                return Err(Refusal::new(format!(
                    "the command of `{program} -exec` is only judged when it is written out, and `{}` is not",
                    word.show()
                )));
            }
        }
    }
    Err(Refusal::new(format!("`{program} -exec` lacks its end")))
}

fn is_found(word: &Word) -> bool {
    matches!(word.pieces.as_slice(), [Piece::Unknown(_)])
}
