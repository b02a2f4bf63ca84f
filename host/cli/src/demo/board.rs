//! The demo's record: each step with what it did, how long it took, and ✓ or ✗.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::failure::{Code, Failure};
use crate::terminal::{Style, Terminal};

/// What a step did, in lines for people.
pub(crate) type Told = Vec<String>;

/// Prints steps as they end, and remembers how they ended.
#[derive(Debug)]
pub(crate) struct Board {
    terminal: Arc<Terminal>,
    json: bool,
    begun: Instant,
    steps: usize,
    failed: usize,
    /// Of the first step that failed.
    code: Code,
}

impl Board {
    pub(crate) fn new(terminal: Arc<Terminal>, json: bool) -> Self {
        Self {
            terminal,
            json,
            begun: Instant::now(),
            steps: 0,
            failed: 0,
            code: Code::Ok,
        }
    }

    /// A step that ran.
    pub(crate) fn ran(&mut self, name: &str, took: Duration, result: &Result<Told, Failure>) {
        let failure = result.as_ref().err();
        if let Some(failure) = failure
            && self.code == Code::Ok
        {
            self.code = failure.code;
        }
        let lines = match result {
            Ok(lines) => lines.clone(),
            Err(failure) => vec![failure.line()],
        };
        self.put(name, failure.is_none(), false, Some(took), &lines);
    }

    /// A step that could not run.
    pub(crate) fn skipped(&mut self, name: &str, why: &str) {
        self.put(name, false, true, None, &[format!("skipped: {why}")]);
    }

    fn put(
        &mut self,
        name: &str,
        ok: bool,
        skipped: bool,
        took: Option<Duration>,
        lines: &[String],
    ) {
        self.steps += 1;
        self.failed += usize::from(!ok);
        let millis = took.map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        if self.json {
            let line =
                json!({ "step": name, "ok": ok, "skipped": skipped, "ms": millis, "text": lines });
            self.terminal.line(line.to_string());
            return;
        }
        let mark = if ok {
            self.terminal.styled(Style::Good, "✓")
        } else {
            self.terminal.styled(Style::Bad, "✗")
        };
        let time = took.map(shown).unwrap_or_default();
        self.terminal.line(format!(
            "{mark} {} {}",
            self.terminal.styled(Style::Bold, &format!("{name:52}")),
            self.terminal.styled(Style::Dim, &time)
        ));
        for line in lines {
            self.terminal
                .line(format!("    {}", pi_vers_host::visible(line)));
        }
    }

    /// How it went as a whole. A user who cancelled knows that the rest was skipped.
    pub(crate) fn end(&self, cancelled: bool) -> Code {
        let took = self.begun.elapsed();
        let code = match self.code {
            Code::Ok if cancelled => Code::Cancelled,
            Code::Ok if self.failed > 0 => Code::Internal,
            code => code,
        };
        if self.json {
            let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            let line = json!({ "ok": code == Code::Ok, "steps": self.steps, "failed": self.failed, "ms": millis, "exit": code as u8 });
            self.terminal.line(line.to_string());
        } else if code == Code::Ok {
            self.terminal.line(format!(
                "{} {} steps in {}",
                self.terminal.styled(Style::Good, "✓"),
                self.steps,
                shown(took)
            ));
        } else {
            let text = format!(
                "{} of {} steps failed or were skipped, after {}",
                self.failed,
                self.steps,
                shown(took)
            );
            self.terminal
                .line(format!("{} {text}", self.terminal.styled(Style::Bad, "✗")));
        }
        code
    }
}

/// `812 ms`, `12.3 s`.
pub(crate) fn shown(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{} ms", time.as_millis())
    } else {
        format!("{:.1} s", time.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_decides_and_skipped_steps_are_no_success() {
        let mut board = Board::new(Arc::new(Terminal::new(true)), true);
        board.ran("a", Duration::ZERO, &Ok(vec![]));
        assert_eq!(board.end(false), Code::Ok);
        assert_eq!(board.end(true), Code::Cancelled);
        board.skipped("b", "because");
        assert_eq!(board.end(false), Code::Internal);
        board.ran(
            "c",
            Duration::ZERO,
            &Err(Failure::new(Code::Platform, "x", "x")),
        );
        board.ran(
            "d",
            Duration::ZERO,
            &Err(Failure::new(Code::Tool, "x", "x")),
        );
        assert_eq!(board.end(false), Code::Platform);
    }
}
