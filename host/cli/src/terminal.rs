//! The one place that writes to the terminal.
//!
//! Results go to standard output, everything else to standard error. What others wrote (a VM's output, a guest's
//! notice) is made harmless before it reaches a terminal: it must not move the cursor, and cannot forge our lines. A
//! reader that has gone away (`| head`) is no error.

use std::io::{IsTerminal as _, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};

use pi_vers_host::visible;

/// Lines of a running call that are shown at once.
const LIVE_LINES: usize = 8;
/// Lines of a panel: fewer than a terminal has.
const PANEL_LINES: usize = 40;
/// Longest line that is looked at, in characters: a terminal shows fewer.
const LONGEST_LINE: usize = 400;

/// How a piece of text looks, where colour is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Good,
    Bad,
    Dim,
    Bold,
}

/// Standard output and standard error.
#[derive(Debug)]
pub(crate) struct Terminal {
    out_is_terminal: bool,
    err_is_terminal: bool,
    colour: bool,
    quiet: bool,
    live: Mutex<Live>,
}

/// What a running call shows of itself on standard error.
#[derive(Debug, Default)]
struct Live {
    /// On the screen now, to be redrawn below what is printed meanwhile.
    lines: Vec<String>,
    /// Without a terminal: the lines printed so far, the last ones.
    printed: Vec<String>,
    /// What is shown again when what was printed has taken its place.
    panel: Vec<String>,
    /// A question is on the screen.
    held: bool,
}

/// Keeps the live view off the screen until it is dropped.
pub(crate) struct Hold<'a>(&'a Terminal);

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.0.live().held = false;
    }
}

impl Terminal {
    /// Looks at what the two streams are. `NO_COLOR` and `TERM=dumb` turn colour off.
    pub(crate) fn new(quiet: bool) -> Self {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            out_is_terminal: std::io::stdout().is_terminal(),
            err_is_terminal: std::io::stderr().is_terminal() && !dumb,
            colour: !set("NO_COLOR") && !dumb,
            quiet,
            live: Mutex::default(),
        }
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Text for standard output in this style, if it takes colour.
    pub(crate) fn styled(&self, style: Style, text: &str) -> String {
        paint(self.colour && self.out_is_terminal, style, text)
    }

    /// A line of the result.
    pub(crate) fn line(&self, text: impl AsRef<str>) {
        self.result(text.as_ref().as_bytes(), true);
    }

    /// Text of a tool, made harmless on a terminal and left alone elsewhere; ends with a line feed.
    pub(crate) fn output(&self, text: &str) {
        if text.is_empty() {
            return;
        }
        if self.out_is_terminal {
            self.result(visible(text).as_bytes(), !text.ends_with('\n'));
        } else {
            self.result(text.as_bytes(), !text.ends_with('\n'));
        }
    }

    fn result(&self, bytes: &[u8], line_feed: bool) {
        let mut live = self.live();
        if self.out_is_terminal {
            self.erase(&mut live);
        }
        let mut out = std::io::stdout().lock();
        // A closed pipe: nobody wants it.
        let _ = out.write_all(bytes);
        if line_feed {
            let _ = out.write_all(b"\n");
        }
        let _ = out.flush();
    }

    /// A line for people, on standard error.
    pub(crate) fn note(&self, text: impl AsRef<str>) {
        let mut live = self.live();
        let shown = std::mem::take(&mut live.lines);
        if !shown.is_empty() {
            clear(shown.len());
        }
        error_line(text.as_ref());
        if !shown.is_empty() {
            draw(&shown);
            live.lines = shown;
        }
    }

    /// The same, unless the user wants quiet.
    pub(crate) fn remark(&self, text: impl AsRef<str>) {
        if !self.quiet {
            self.note(text);
        }
    }

    /// Shows what a running call has to say: on a terminal its last lines in place, elsewhere the lines that are new.
    pub(crate) fn show(&self, text: &str, caption: Option<&str>) {
        if self.quiet {
            return;
        }
        let mut live = self.live();
        if live.held {
            return;
        }
        if self.err_is_terminal {
            let mut lines: Vec<String> = text
                .lines()
                .rev()
                .take(LIVE_LINES)
                .map(screen_line)
                .collect();
            lines.reverse();
            lines.extend(caption.map(screen_line));
            if lines != live.lines {
                self.erase(&mut live);
                draw(&lines);
                live.lines = lines;
            }
            return;
        }
        // A line without its end may still grow.
        let complete = text
            .rfind('\n')
            .map_or("", |end| text.get(..end).unwrap_or_default());
        let mut lines: Vec<String> = complete
            .lines()
            .rev()
            .take(LONGEST_LINE)
            .map(visible)
            .collect();
        lines.reverse();
        lines.extend(caption.map(visible));
        for line in fresh(&live.printed, &lines) {
            error_line(line);
        }
        live.printed = lines;
    }

    /// Shows these lines in place, on a terminal alone: elsewhere a picture that changes is noise.
    pub(crate) fn panel(&self, lines: &[String]) {
        let lines = lines.iter().take(PANEL_LINES);
        self.live().panel = lines.map(|line| screen_line(line)).collect();
        self.panel_again();
    }

    /// The same lines once more, below what was printed meanwhile.
    pub(crate) fn panel_again(&self) {
        let mut live = self.live();
        if self.quiet || !self.err_is_terminal || live.held || live.panel == live.lines {
            return;
        }
        self.erase(&mut live);
        if !live.panel.is_empty() {
            draw(&live.panel);
        }
        live.lines = live.panel.clone();
    }

    /// Makes room for a question.
    pub(crate) fn hold(&self) -> Hold<'_> {
        let mut live = self.live();
        self.erase(&mut live);
        live.held = true;
        Hold(self)
    }

    /// Takes away what a call has shown.
    pub(crate) fn end_show(&self) {
        let mut live = self.live();
        self.erase(&mut live);
        live.printed.clear();
    }

    fn erase(&self, live: &mut Live) {
        if !live.lines.is_empty() {
            clear(live.lines.len());
            live.lines.clear();
        }
    }
}

fn paint(colour: bool, style: Style, text: &str) -> String {
    if !colour {
        return text.to_owned();
    }
    let code = match style {
        Style::Good => "32",
        Style::Bad => "31",
        Style::Dim => "2",
        Style::Bold => "1",
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

fn error_line(text: &str) {
    let mut err = std::io::stderr().lock();
    let _ = writeln!(err, "{text}");
}

/// Draws lines without wrapping, so that as many can be cleared as were drawn.
fn draw(lines: &[String]) {
    let mut text = String::from("\x1b[?7l");
    for line in lines {
        text.push_str("\x1b[2m");
        text.push_str(line);
        text.push_str("\x1b[0m\n");
    }
    text.push_str("\x1b[?7h");
    let mut err = std::io::stderr().lock();
    let _ = err.write_all(text.as_bytes());
    let _ = err.flush();
}

fn clear(lines: usize) {
    let mut err = std::io::stderr().lock();
    let _ = write!(err, "\x1b[{lines}A\r\x1b[J");
    let _ = err.flush();
}

fn screen_line(line: &str) -> String {
    visible(line)
        .replace('\t', "    ")
        .chars()
        .take(LONGEST_LINE)
        .collect()
}

/// The lines of `new` behind the longest end of `old` that `new` begins with: a tail that moves on is printed once.
fn fresh<'a>(old: &[String], new: &'a [String]) -> &'a [String] {
    let most = old.len().min(new.len());
    let overlap = (0..=most).rev().find(|count| {
        let (end, start) = (old.get(old.len() - count..), new.get(..*count));
        end.is_some() && end == start
    });
    new.get(overlap.unwrap_or(0)..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.chars().map(String::from).collect()
    }

    #[test]
    fn a_tail_that_moves_on_is_printed_once() {
        for (old, new, expected) in [
            ("", "ab", "ab"),
            ("ab", "abc", "c"),
            ("abc", "bcd", "d"),
            ("abc", "abc", ""),
            ("abc", "xyz", "xyz"),
            ("aab", "abab", "ab"),
        ] {
            assert_eq!(
                fresh(&lines(old), &lines(new)).concat(),
                expected,
                "{old} {new}"
            );
        }
    }

    #[test]
    fn foreign_text_cannot_move_the_cursor_of_the_live_tail() {
        assert_eq!(screen_line("a\x1b[2J\tb"), "a\u{241b}[2J    b");
    }

    #[test]
    fn colour_is_for_those_who_want_it() {
        assert_eq!(paint(false, Style::Bad, "x"), "x");
        assert_eq!(paint(true, Style::Bad, "x"), "\x1b[31mx\x1b[0m");
    }
}
