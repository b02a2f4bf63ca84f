//! Names of signals: `SIGTERM`, `TERM` and `term` are one.

use pi_vers_sdk::system::process::Signal;

/// The signals there are, by name without the prefix.
const NAMES: [(&str, Signal); 8] = [
    ("TERM", Signal::Terminate),
    ("INT", Signal::Interrupt),
    ("KILL", Signal::Kill),
    ("HUP", Signal::HangUp),
    ("USR1", Signal::User1),
    ("USR2", Signal::User2),
    ("STOP", Signal::Stop),
    ("CONT", Signal::Continue),
];

/// Reads a name; returns it in full as well.
///
/// # Errors
/// Which names there are.
pub(crate) fn parse(text: &str) -> Result<(Signal, String), String> {
    let upper = text.trim().to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    NAMES
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(known, signal)| (*signal, format!("SIG{known}")))
        .ok_or_else(|| {
            let names: Vec<String> = NAMES.iter().map(|(name, _)| format!("SIG{name}")).collect();
            format!(
                "There is no signal {text}. Use one of {}.",
                names.join(", ")
            )
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn signals_have_one_name_in_three_forms() {
        for text in ["SIGINT", "INT", " sigint "] {
            let (signal, name) = parse(text).unwrap();
            assert_eq!((signal, name.as_str()), (Signal::Interrupt, "SIGINT"));
        }
        let why = parse("SIGSEGV").unwrap_err();
        assert!(
            why.contains("SIGSEGV") && why.contains("SIGTERM, SIGINT"),
            "{why}"
        );
        assert!(parse("SIG").is_err() && parse("").is_err() && parse("SIGSIGTERM").is_err());
    }
}
