//! Answers: allowed, denied and what would allow it, or left to a human.
//!
//! Both texts are made of what a guest wrote, and people act on them. So every control character, every invisible or
//! direction-changing one is written as an escape, and a denial is one bounded line. A question is never shortened:
//! what is too long to be read is denied instead.

use std::fmt;

/// What the policy says to one request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Decision {
    /// Go on.
    Allow,
    /// Change nothing, and answer with this.
    Deny(Denial),
    /// The policy leaves it open: a human may allow it. Without one (CI), it is a denial: [`Question::refused`].
    Ask(Question),
}

impl Decision {
    /// Whether nobody has to be asked.
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allow)
    }
}

/// Why a request was refused, and the line that would allow it. `Display` is one line for people and models.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.line())]
pub struct Denial {
    /// Who asked.
    pub extension: String,
    /// The capability, for programs: `vms.delete`, `process`.
    pub capability: String,
    /// What it may not do: `delete VMs`.
    pub what: String,
    /// Why not, where that is not plain from `what`.
    pub why: Option<String>,
    /// What to add to the policy, if any rule could allow this.
    pub fix: Option<Fix>,
}

/// A change of the policy that would allow a refused request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fix {
    /// What to do, in words: `add "delete" to vms`.
    pub text: String,
    /// The line of the section `[extension.NAME]`: the whole new line for `vms`, `shell`, `ui`, `session` and `fleet`
    /// (`vms = ["list", "delete"]`), for the other lists one with the new item alone.
    pub rule: String,
    /// The file that refuses.
    pub origin: String,
}

impl Denial {
    fn line(&self) -> String {
        let Self {
            extension,
            what,
            why,
            fix,
            ..
        } = self;
        let mut line = format!("{} may not {what}", visible(extension));
        if let Some(why) = why {
            line += &format!(" ({why})");
        }
        if let Some(Fix { text, origin, .. }) = fix {
            line += &format!(": {text} of {} in {}", section(extension), visible(origin));
        }
        line
    }
}

/// Why a request is allowed: one rule of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ground {
    /// The file.
    pub origin: String,
    /// The narrowest part of a line of TOML that would allow it by itself (`vms = ["delete"]`), or `default` for what needs none.
    pub rule: String,
}

impl fmt::Display for Ground {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.rule, visible(&self.origin))
    }
}

/// What a human is asked. Every text is safe to print.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// What to answer if nobody allows it; it also carries the rule that "always" would add.
    pub refused: Denial,
    /// The exact facts, by name: program, arguments, directory, environment names, VM, URL.
    pub details: Vec<(&'static str, String)>,
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "May {} {}?",
            visible(&self.refused.extension),
            self.refused.what
        )?;
        self.details
            .iter()
            .try_for_each(|(name, value)| write!(f, "\n  {name}: {value}"))
    }
}

/// Whether a character is a control character, is invisible, or could rearrange what stands around it.
pub fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202f}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// The text with every deceptive character written as `\u{…}`.
pub fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_deceptive(c) {
            out.extend(c.escape_unicode())
        } else {
            out.push(c)
        }
    }
    out
}

/// [`visible`], cut to what fits a line.
pub(crate) fn brief(text: &str) -> String {
    const MOST: usize = 160;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", visible(text.get(..end).unwrap_or_default())),
        None => visible(text),
    }
}

/// A TOML string on one line, nothing in it hidden.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if is_deceptive(c) => out += &format!("\\U{:08X}", u32::from(c)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// `[extension.NAME]`
pub(crate) fn section(name: &str) -> String {
    let bare = !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if bare {
        format!("[extension.{name}]")
    } else {
        format!("[extension.{}]", quoted(name))
    }
}
