//! A moment in words.

/// Milliseconds since 1970 as `2026-01-31T23:59:59Z`.
#[must_use]
pub fn iso(millis: u64) -> String {
    let seconds = millis / 1000;
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Civil date of a day number; the year begins in March, so that the leap day is its last.
    let z = days + 719_468;
    let era = z / 146_097;
    let day_of_era = z % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

/// A length of time for people: `1 minute`, `90 minutes`, `30 seconds`.
#[must_use]
pub fn length(millis: u64) -> String {
    let (number, unit) = match millis.div_ceil(1000) {
        seconds @ 0..60 => (seconds, "second"),
        seconds => (seconds.div_ceil(60), "minute"),
    };
    format!("{number} {unit}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_dates() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_827_696_789, "2000-02-29T12:34:56Z"),
            (1_709_251_199_000, "2024-02-29T23:59:59Z"),
            (1_709_251_200_000, "2024-03-01T00:00:00Z"),
            (4_102_444_799_000, "2099-12-31T23:59:59Z"),
        ] {
            assert_eq!(iso(millis), text);
        }
    }

    #[test]
    fn lengths_are_rounded_up() {
        let told = [0, 999, 60_000, 61_000, 5_400_000].map(length);
        assert_eq!(
            told,
            [
                "0 seconds",
                "1 second",
                "1 minute",
                "2 minutes",
                "90 minutes"
            ]
        );
    }
}
