//! `sed`: scripts that neither write files (`w`, `s///w`) nor run commands (`e`, `s///e`), read by a strict parser.
//!
//! Where versions of sed disagree about where something ends (a delimiter inside of a bracket, text that goes on in the next script), the
//! script is refused: what one sees as text could be a command for another.

use super::options;
use crate::judge::Refusal;
use crate::judge::options::Order;
use crate::judge::word::Word;

pub(super) fn judge(program: &str, arguments: &[Word], _: usize) -> Result<(), Refusal> {
    let parsed = options::parse(
        program,
        "-nErsuz -e: --quiet --silent --regexp-extended --separate --unbuffered --null-data --zero-terminated --posix --debug \
         --sandbox --expression: --version --help",
        Order::Mixed,
        arguments,
    )?;
    let mut scripts: Vec<&Word> = parsed.values(&["-e", "--expression"]).collect();
    if scripts.is_empty() {
        scripts.extend(parsed.operands.first());
    }
    for script in scripts {
        let Some(text) = script.exact() else {
            return Err(options::form(
                program,
                "is only judged with a script that is written out",
            ));
        };
        if check(&text).is_none() {
            return Err(Refusal::new(format!(
                "the script of `{program}` is not known to only read: `{}`",
                script.show()
            )));
        }
    }
    Ok(())
}

/// The rest of a script.
struct Script<'a>(&'a str);

/// `Some` if the whole script is understood and harmless.
fn check(text: &str) -> Option<()> {
    if text.ends_with('\\') || text.contains('\0') {
        return None;
    }
    let mut script = Script(text);
    let mut depth = 0_u32;
    loop {
        script.skip(|c| c.is_ascii_whitespace() || c == ';');
        let Some(c) = script.peek() else { break };
        if c == '#' {
            script.skip(|c| c != '\n');
            continue;
        }
        if c == '}' {
            depth = depth.checked_sub(1)?;
            script.take();
            script.end_of_command()?;
            continue;
        }
        script.addresses()?;
        match script.take()? {
            '{' => depth += 1,
            'p' | 'P' | 'd' | 'D' | '=' | 'n' | 'N' | 'h' | 'H' | 'g' | 'G' | 'x' | 'z' | 'F' => {
                script.end_of_command()?;
            }
            'q' | 'Q' | 'l' => {
                script.blanks();
                script.skip(|c| c.is_ascii_digit());
                script.end_of_command()?;
            }
            ':' | 'b' | 't' | 'T' => {
                script.blanks();
                script.skip(|c| c.is_ascii_alphanumeric() || c == '_');
                script.end_of_command()?;
            }
            's' => {
                let delimiter = script.delimiter()?;
                script.until(delimiter, true)?;
                script.until(delimiter, false)?;
                // Not `w` (writes), `e` (runs).
                script.skip(|c| "gpiIM0123456789".contains(c));
                script.end_of_command()?;
            }
            'y' => {
                let delimiter = script.delimiter()?;
                script.until(delimiter, true)?;
                script.until(delimiter, false)?;
                script.end_of_command()?;
            }
            // One line of text. A backslash could make more of it.
            'a' | 'i' | 'c' => {
                let line = script.0.split('\n').next()?;
                if line.trim_end().ends_with('\\') || line.contains('}') {
                    return None;
                }
                script.skip(|c| c != '\n');
            }
            // `r R w W e v` and what is not known.
            _ => return None,
        }
    }
    (depth == 0).then_some(())
}

impl Script<'_> {
    fn peek(&self) -> Option<char> {
        self.0.chars().next()
    }

    fn take(&mut self) -> Option<char> {
        let mut chars = self.0.chars();
        let c = chars.next();
        self.0 = chars.as_str();
        c
    }

    fn skip(&mut self, fits: impl Fn(char) -> bool) {
        self.0 = self.0.trim_start_matches(fits);
    }

    fn blanks(&mut self) {
        self.skip(|c| c == ' ' || c == '\t');
    }

    fn delimiter(&mut self) -> Option<char> {
        self.take().filter(|c| "/|,#:@!%_+~;=".contains(*c))
    }

    /// Text up to a delimiter that is not escaped.
    fn until(&mut self, delimiter: char, regex: bool) -> Option<()> {
        let mut bracket = false;
        loop {
            let c = self.take()?;
            match c {
                '\n' => return None,
                '\\' => {
                    let escaped = self.take()?;
                    if bracket && escaped == delimiter {
                        return None;
                    }
                }
                _ if c == delimiter => return (!bracket).then_some(()),
                '[' if regex && !bracket => {
                    bracket = true;
                    // A `]` right at the beginning belongs to the bracket.
                    if self.peek() == Some('^') {
                        self.take();
                    }
                    if self.peek() == Some(']') {
                        self.take();
                    }
                }
                '[' if bracket && matches!(self.peek(), Some(':' | '.' | '=')) => {
                    let (class, rest) = self.0.split_once(']')?;
                    if class.contains(delimiter) {
                        return None;
                    }
                    self.0 = rest;
                }
                ']' => bracket = false,
                _ => {}
            }
        }
    }

    fn addresses(&mut self) -> Option<()> {
        if self.address()? {
            self.blanks();
            if self.peek() == Some(',') {
                self.take();
                self.blanks();
                if matches!(self.peek(), Some('+' | '~')) {
                    self.take();
                }
                if !self.address()? {
                    return None;
                }
            }
        }
        self.skip(|c| c == ' ' || c == '\t' || c == '!');
        Some(())
    }

    fn address(&mut self) -> Option<bool> {
        match self.peek()? {
            '$' => {
                self.take();
            }
            '0'..='9' => {
                self.skip(|c| c.is_ascii_digit());
                if self.peek() == Some('~') {
                    self.take();
                    self.skip(|c| c.is_ascii_digit());
                }
            }
            '/' => {
                self.take();
                self.until('/', true)?;
                self.skip(|c| c == 'I' || c == 'M');
            }
            '\\' => {
                self.take();
                let delimiter = self.delimiter()?;
                self.until(delimiter, true)?;
                self.skip(|c| c == 'I' || c == 'M');
            }
            _ => return Some(false),
        }
        Some(true)
    }

    /// Nothing but a command's end may follow.
    fn end_of_command(&mut self) -> Option<()> {
        self.blanks();
        matches!(self.peek(), None | Some(';' | '\n' | '}' | '#')).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn scripts_that_only_read() {
        for script in [
            "",
            "p",
            "1,5p",
            "$p",
            "/a/,/b/p",
            "s/a/b/g",
            "s|/usr|/opt|2",
            r"s/\/a/b/I",
            "y/abc/xyz/",
            ":a;N;$!ba;s/\\n/ /g",
            "1!G;h;$!d",
            "/x/{p;q}",
            "10q",
            "2~3d",
            "/a/I,+3p",
            r"\,a,p",
            "s/[[:space:]]*$//",
            "s/[^]x]/y/",
            "# a comment\np",
            "$a the end",
            "0~4p",
        ] {
            assert!(check(script).is_some(), "{script}");
        }
    }

    #[test]
    fn scripts_that_write_run_or_are_not_clear() {
        for script in [
            "w out",
            "1w out",
            "s/a/b/w out",
            "s/a/b/gw out",
            "s/a/b/e",
            "s/a/b/ge",
            "e",
            "e id",
            "1e id",
            "r /etc/passwd",
            "R x",
            "W x",
            "s/[/]/b/w out",
            "s/a/b",
            "p;w out",
            "/a/{w out\n}",
            "p}w x",
            "{p",
            "}",
            "a\\\ntext",
            "s/a/b/;e",
            "ba;w x;",
            "b a w x",
            "y/a/b/w x",
            "p w x",
            "q5 w x",
            "/a/w x",
            "\\xaxw f",
            "s\na\nb\nw f",
            "sxaxbxw f",
            "v",
            "s/[[:alpha:/]]/x/",
        ] {
            // A label's end is where it seems to be, and what follows is refused by itself.
            assert!(check(script).is_none(), "{script}");
        }
    }
}
