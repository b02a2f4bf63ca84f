//! How far a call has come: a bar where the whole is known.

use pi_vers_host::{Content, Progress, Update};

use crate::terminal::Terminal;

const WIDTH: usize = 24;

/// Shows what a running call says of itself.
pub(crate) fn show(terminal: &Terminal, update: &Update) {
    let text: Vec<&str> = update.content.iter().filter_map(Content::as_text).collect();
    let caption = update.progress.as_ref().map(line);
    terminal.show(&text.join("\n"), caption.as_deref());
}

fn line(progress: &Progress) -> String {
    match progress.total {
        Some(total) if total > 0.0 && progress.done.is_finite() => {
            let part = (progress.done / total).clamp(0.0, 1.0);
            // Full when it is done, and not before.
            let full = (1..=WIDTH)
                .filter(|cell| *cell as f64 <= part * WIDTH as f64)
                .count();
            format!(
                "{}{} {:3.0} % {}",
                "█".repeat(full),
                "░".repeat(WIDTH - full),
                100.0 * part,
                progress.caption
            )
        }
        _ => format!("{} {}", progress.done, progress.caption),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_never_longer_than_the_whole() {
        let at = |done, total| {
            line(&Progress {
                done,
                total,
                caption: "files".into(),
            })
        };
        assert_eq!(
            at(0.0, Some(10.0)),
            format!("{}   0 % files", "░".repeat(WIDTH))
        );
        assert_eq!(
            at(20.0, Some(10.0)),
            format!("{} 100 % files", "█".repeat(WIDTH))
        );
        assert_eq!(
            at(5.0, Some(10.0)).chars().filter(|c| *c == '█').count(),
            WIDTH / 2
        );
        assert_eq!(at(7.0, None), "7 files");
        assert_eq!(at(7.0, Some(0.0)), "7 files");
        assert_eq!(at(f64::NAN, Some(1.0)), "NaN files");
    }
}
