//! `awk`: programs that neither run commands nor write files, read by their tokens.
//!
//! Refused: `system`, `getline`, pipes, `@` (gawk's directives and indirect calls), functions of the program's own, any function that is not
//! in the list, `>>`, and `>` where it can be a redirection: inside of braces and outside of parentheses. To see these, strings
//! and regular expressions have to be told from code, exactly as awk does; where awks differ or grammar decides, the program is refused.

use super::options;
use crate::judge::Refusal;
use crate::judge::options::Order;
use crate::judge::word::Word;

pub(super) fn judge(program: &str, arguments: &[Word], _: usize) -> Result<(), Refusal> {
    let parsed = options::parse(
        program,
        "-F: -v: -S --field-separator= --assign= --sandbox --posix --re-interval --version",
        Order::First,
        arguments,
    )?;
    if parsed.has(&["--version"]) {
        return Ok(());
    }
    let Some(text) = parsed.operands.first().and_then(Word::exact) else {
        return Err(options::form(
            program,
            "is only judged with a program that is written out",
        ));
    };
    // With `--`-less awks an operand after the program is a file or an assignment, never an option.
    match check(&text) {
        Ok(()) => Ok(()),
        Err(why) => Err(Refusal::new(format!(
            "the program of `{program}` is not known to only read: {why}"
        ))),
    }
}

/// Functions that compute.
const FUNCTIONS: &[&str] = &[
    "length", "substr", "index", "split", "sub", "gsub", "gensub", "match", "sprintf", "tolower",
    "toupper", "int", "sqrt", "exp", "log", "sin", "cos", "atan2", "rand", "srand", "strftime",
    "systime", "mktime", "asort", "asorti", "and", "or", "xor", "lshift", "rshift", "compl",
    "strtonum", "patsplit", "typeof", "isarray",
];
/// Words after which an expression may begin.
const KEYWORDS: &[&str] = &[
    "if",
    "else",
    "while",
    "for",
    "do",
    "in",
    "print",
    "printf",
    "return",
    "exit",
    "next",
    "nextfile",
    "delete",
    "break",
    "continue",
    "BEGIN",
    "END",
    "BEGINFILE",
    "ENDFILE",
    "switch",
    "case",
    "default",
];

/// What the last token was, for what a `/` means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    /// A value: `/` divides.
    Value,
    /// An operator or a keyword: `/` begins a regular expression.
    Other,
    /// The grammar decides.
    Either,
}

fn check(program: &str) -> Result<(), String> {
    let chars: Vec<char> = program.chars().collect();
    let at = |i: usize| chars.get(i).copied();
    let (mut i, mut braces, mut parens) = (0_usize, 0_usize, 0_usize);
    let mut last = Last::Other;
    while let Some(c) = at(i) {
        i += 1;
        match c {
            ' ' | '\t' => {}
            '\n' | ';' | ',' => last = Last::Other,
            '\\' if at(i) == Some('\n') => i += 1,
            '#' => {
                while at(i).is_some_and(|c| c != '\n') {
                    i += 1;
                }
            }
            '"' => {
                i = string(&chars, i)?;
                last = Last::Value;
            }
            '/' => match last {
                Last::Value => last = Last::Other,
                Last::Other => {
                    i = regex(&chars, i)?;
                    last = Last::Value;
                }
                Last::Either if chars.iter().skip(i).any(|c| *c == '/') => {
                    return Err("what `/` means here is not clear".into());
                }
                Last::Either => last = Last::Other,
            },
            '{' => {
                braces += 1;
                last = Last::Other;
            }
            '}' => {
                braces = braces.checked_sub(1).ok_or("`}` without `{`")?;
                last = Last::Other;
            }
            '(' => {
                parens += 1;
                last = Last::Other;
            }
            ')' => {
                parens = parens.checked_sub(1).ok_or("`)` without `(`")?;
                last = Last::Either;
            }
            ']' => last = Last::Value,
            '|' if at(i) == Some('|') => {
                i += 1;
                last = Last::Other;
            }
            '|' => return Err("a pipe runs a command".into()),
            '>' if at(i) == Some('>') => return Err("`>>` writes a file".into()),
            '>' if at(i) == Some('=') || parens > 0 || braces == 0 => last = Last::Other,
            '>' => return Err("`>` may write a file: put a comparison in parentheses".into()),
            '+' | '-' if at(i) == Some(c) => {
                i += 1;
                last = Last::Either;
            }
            '$' | '!' | '~' | '=' | '<' | '+' | '-' | '*' | '%' | '^' | '&' | '?' | ':' | '[' => {
                last = Last::Other;
            }
            '.' | '0'..='9' => {
                while at(i).is_some_and(|c| c == '.' || c.is_ascii_digit()) {
                    i += 1;
                }
                // `1system("id")` is a number and a call.
                if at(i).is_some_and(|c| c == '_' || c.is_ascii_alphabetic()) {
                    return Err("a number with letters is not clear".into());
                }
                last = Last::Value;
            }
            c if c == '_' || c.is_ascii_alphabetic() => {
                let mut name = c.to_string();
                while let Some(c) = at(i).filter(|c| *c == '_' || c.is_ascii_alphanumeric()) {
                    name.push(c);
                    i += 1;
                }
                last = word(&name, &chars, i)?;
            }
            c => return Err(format!("`{}` is not judged", c.escape_default())),
        }
    }
    if braces == 0 && parens == 0 {
        Ok(())
    } else {
        Err("its brackets do not match".into())
    }
}

fn word(name: &str, chars: &[char], after: usize) -> Result<Last, String> {
    if ["system", "getline", "function", "func", "close", "fflush"].contains(&name) {
        return Err(format!("`{name}` is not judged"));
    }
    if KEYWORDS.contains(&name) {
        return Ok(Last::Other);
    }
    if FUNCTIONS.contains(&name) {
        // `length /re/` and `length / 2` look the same.
        return Ok(Last::Either);
    }
    if chars.get(after) == Some(&'(') {
        return Err(format!(
            "the function `{name}` is not known to only compute"
        ));
    }
    Ok(Last::Value)
}

fn string(chars: &[char], mut i: usize) -> Result<usize, String> {
    loop {
        match chars.get(i) {
            Some('"') => return Ok(i + 1),
            Some('\\') => i += 2,
            None | Some('\n') => return Err("a string has no end".into()),
            Some(_) => i += 1,
        }
    }
}

fn regex(chars: &[char], mut i: usize) -> Result<usize, String> {
    let mut bracket = false;
    loop {
        match chars.get(i) {
            Some('/') if bracket => return Err("a `/` inside of brackets is not clear".into()),
            Some('/') => return Ok(i + 1),
            Some('\\') if bracket && chars.get(i + 1) == Some(&'/') => {
                return Err("a `/` inside of brackets is not clear".into());
            }
            Some('\\') => i += 2,
            Some('[') if !bracket => {
                bracket = true;
                i += 1;
                if chars.get(i) == Some(&'^') {
                    i += 1;
                }
                if chars.get(i) == Some(&']') {
                    i += 1;
                }
            }
            Some('[') if matches!(chars.get(i + 1), Some(':' | '.' | '=')) => {
                // A class such as `[:alpha:]` ends with its own bracket.
                i += 2;
                while chars.get(i).is_some_and(|c| c.is_ascii_alphabetic()) {
                    i += 1;
                }
                if !matches!(
                    (chars.get(i), chars.get(i + 1)),
                    (Some(':' | '.' | '='), Some(']'))
                ) {
                    return Err("a bracket is not clear".into());
                }
                i += 2;
            }
            Some(']') => {
                bracket = false;
                i += 1;
            }
            None | Some('\n') => return Err("a regular expression has no end".into()),
            Some(_) => i += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn programs_that_only_read() {
        for program in [
            "{print}",
            "{print $1}",
            "{ print $1, $NF }",
            "$3 > 10",
            "$3 > 10 {print $1}",
            "NR==1",
            "/foo/",
            "/foo/ {print $2}",
            "!/a|b/",
            "{ if ($1 > 5) print }",
            "{s+=$1} END {print s/NR}",
            "{s+=$1/1024/1024} END {print s}",
            r#"{print "a > b | c"}"#,
            "BEGIN{FS=\":\"} {print $1}",
            "length($0) > 80",
            "{gsub(/a\\/b/, \"x\"); print}",
            "{print substr($0, 1, 10)}",
            "NR>=5 && NR<=10",
            "{a[$1]++} END {for (k in a) print k, a[k]}",
            "{printf \"%s\\n\", $1}",
            "$1 ~ /^[a-z]+$/ {c++} END{print c}",
            "{ x = (a > b) ? 1 : 2 }",
            "/a/,/b/",
            "NF",
            "{print $1 >= 2}",
        ] {
            assert_eq!(check(program), Ok(()), "{program}");
        }
    }

    #[test]
    fn programs_that_write_run_or_are_not_clear() {
        for program in [
            "BEGIN{system(\"id\")}",
            "{print > \"f\"}",
            "{print >> \"f\"}",
            "{print | \"sh\"}",
            "BEGIN{\"id\" | getline x}",
            "{getline < \"f\"}",
            "@load \"filefuncs\"",
            "BEGIN{f=\"system\"; @f(\"id\")}",
            "{print $1 > $2}",
            "{printf(\"x\") > \"f\"}",
            "function f(x){}",
            "BEGIN{close(\"x\")}",
            "/[/]/ {print > \"f\"} /]/",
            "/\"/ {print > \"f\"} /\"/",
            "BEGIN{system (\"id\")}",
            "{print |& \"x\"}",
            "{print (1)(2) > \"f\"}",
            "BEGIN{x(1)}",
            "BEGIN{1system(\"id\")}",
            "{1getline}",
            "BEGIN{x=1e5}",
            "{print",
            "print)",
            "{ if (x) /\"/ ; print > \"f\" ; y = \"/\" }",
            "BEGIN { a++ /\"/ 1; print > \"f\" } /\"/",
            "{ print \"a\n\" > \"f\" }",
        ] {
            assert!(check(program).is_err(), "{program}");
        }
    }
}
