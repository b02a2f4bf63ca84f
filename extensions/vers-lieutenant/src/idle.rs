//! When a lieutenant that nobody uses is paused.
//!
//! A VM that waits costs as much as one that works. Who sets `vers-lt-idle-minutes` has idle lieutenants paused, never deleted,
//! and is told some time before. Time counts from when the lieutenant last did something, or when this session began to
//! look after it: one that was idle over night is not paused as soon as somebody comes to use it.

/// The longest time between the warning and the pause, in milliseconds.
const WARNING: u64 = 300_000;

/// What is to be done about an idle lieutenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Nothing until this moment.
    Nothing(u64),
    /// Its owner is to be warned; it is paused at this moment.
    Warn(u64),
    /// It is to be paused.
    Pause,
}

/// What is due now. `lease` is how long it may be idle; `warned`: there was a warning, and this is when it is paused. All in
/// milliseconds.
#[must_use]
pub fn due(lease: u64, idle_since: u64, warned: Option<u64>, now: u64) -> Due {
    let ahead = WARNING.min(lease / 5);
    let end = idle_since.saturating_add(lease);
    match warned {
        Some(at) if now >= at => Due::Pause,
        Some(at) => Due::Nothing(at),
        // Whoever slept through the warning's moment gets its time all the same.
        None if now >= end - ahead => Due::Warn(end.max(now.saturating_add(ahead))),
        None => Due::Nothing(end - ahead),
    }
}

/// The flag's minutes in milliseconds; none: never.
#[must_use]
pub fn lease(minutes: f64) -> Option<u64> {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positive and bounded"
    )]
    (minutes.is_finite() && minutes > 0.0).then(|| (minutes.min(1e9) * 60_000.0) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defect_53_an_idle_lieutenant_is_paused_and_only_after_a_warning() {
        let hour = 3_600_000;
        assert_eq!(due(hour, 0, None, 10), Due::Nothing(hour - WARNING));
        assert_eq!(due(hour, 0, None, hour - WARNING), Due::Warn(hour));
        assert_eq!(due(hour, 0, Some(hour), hour - 1), Due::Nothing(hour));
        assert_eq!(due(hour, 0, Some(hour), hour), Due::Pause);
        // The machine slept: warned first, and paused later.
        let late = 9 * hour + WARNING;
        assert_eq!(due(hour, 0, None, 9 * hour), Due::Warn(late));
        assert_eq!(due(hour, 0, Some(late), 9 * hour), Due::Nothing(late));
        // Of a short time the last fifth.
        assert_eq!(due(1000, 0, None, 0), Due::Nothing(800));
    }

    #[test]
    fn zero_is_never() {
        assert_eq!(
            [0.0, -1.0, f64::NAN, f64::INFINITY].map(lease),
            [None, None, None, None]
        );
        assert_eq!(lease(0.5), Some(30_000));
    }
}
