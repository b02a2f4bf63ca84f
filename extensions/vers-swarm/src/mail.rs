//! What workers tell their coordinator while they work: gathered, bounded, and said not too often.
//!
//! A line on a VM wakes the coordinator's model, which costs, and a worker in a loop writes many. So lines that come together are one
//! message, messages keep a distance, and of a flood the first lines are told and the rest is counted.

use std::collections::VecDeque;

use crate::bound::first;

/// How long a line waits for others, in milliseconds.
pub const GATHER: u64 = 300;
/// From one message to the next, in milliseconds.
pub const DISTANCE: u64 = 10_000;
/// Lines in one message.
const MOST: usize = 20;
/// Characters of a line there.
const LONGEST: usize = 1_000;

/// One line of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Its label.
    pub from: String,
    /// What it says.
    pub text: String,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Mail {
    waiting: VecDeque<Note>,
    left_out: u64,
    sent: Option<u64>,
}

impl Mail {
    /// Takes a line in.
    pub fn put(&mut self, from: &str, text: &str) {
        if self.waiting.len() >= MOST {
            self.left_out += 1;
        } else {
            self.waiting.push_back(Note {
                from: from.to_owned(),
                text: first(text, LONGEST, "…"),
            });
        }
    }

    /// How long to wait until the next message, in milliseconds; none while there is nothing to say.
    #[must_use]
    pub fn due(&self, now: u64) -> Option<u64> {
        if self.waiting.is_empty() {
            return None;
        }
        let earliest = self.sent.map_or(0, |sent| sent.saturating_add(DISTANCE));
        Some(earliest.saturating_sub(now).max(GATHER))
    }

    /// The message: its text and its lines.
    pub fn take(&mut self, now: u64) -> Option<(String, Vec<Note>)> {
        if self.waiting.is_empty() {
            return None;
        }
        self.sent = Some(now);
        let notes: Vec<Note> = std::mem::take(&mut self.waiting).into();
        let left_out = std::mem::take(&mut self.left_out);
        let mut text = String::from("Messages of swarm agents at work:");
        for note in &notes {
            text.push_str(&format!("\n[{}] {}", note.from, note.text));
        }
        if left_out > 0 {
            text.push_str(&format!(
                "\n({left_out} more line(s) came too quickly and are left out)"
            ));
        }
        text.push_str("\nAnswer with vers_swarm_message while the agent is working.");
        Some((text, notes))
    }
}

/// What an agent is told of it, with its first task.
#[must_use]
pub fn briefing(label: &str) -> String {
    format!(
        "\n\n(You are the agent \"{label}\" of a swarm. If your coordinator has to know something while you work, such as a question or a \
         blocker, append it as one line to the file /root/.swarm/outbox. What you say at the end of the task reaches the coordinator by \
         itself.)"
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn lines_that_come_together_are_one_message_and_messages_keep_their_distance() {
        let mut mail = Mail::default();
        assert_eq!((mail.due(0), mail.take(0)), (None, None));
        mail.put("a", "one");
        mail.put("b", "two");
        assert_eq!(mail.due(5_000), Some(GATHER));
        let (text, notes) = mail.take(5_300).unwrap();
        assert_eq!(
            text,
            "Messages of swarm agents at work:\n[a] one\n[b] two\nAnswer with vers_swarm_message while the agent is working."
        );
        assert_eq!(notes.len(), 2);
        mail.put("a", "three");
        assert_eq!(mail.due(6_000), Some(9_300));
        assert_eq!(mail.due(99_000), Some(GATHER));
    }

    #[test]
    fn a_flood_is_bounded_and_counted() {
        let mut mail = Mail::default();
        for _ in 0..1_000 {
            mail.put("a", &"ä".repeat(5_000));
        }
        let (text, notes) = mail.take(0).unwrap();
        assert_eq!(notes.len(), MOST);
        assert!(text.contains("(980 more line(s) came too quickly"));
        assert!(text.len() < MOST * (2 * LONGEST + 50));
    }

    #[test]
    fn the_briefing_is_one_line_of_speech() {
        let text = briefing("a");
        assert_eq!(text.trim().lines().count(), 1);
        assert!(text.contains("\"a\"") && text.contains("/root/.swarm/outbox"));
    }
}
