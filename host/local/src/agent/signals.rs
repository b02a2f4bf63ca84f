//! SSH's signal names and the system's numbers.

use russh::Sig;
use rustix::process::Signal;

/// RFC 4254 names, and those that are of use besides.
const NAMES: [(&str, Signal); 22] = [
    ("ABRT", Signal::ABORT),
    ("ALRM", Signal::ALARM),
    ("BUS", Signal::BUS),
    ("CHLD", Signal::CHILD),
    ("CONT", Signal::CONT),
    ("FPE", Signal::FPE),
    ("HUP", Signal::HUP),
    ("ILL", Signal::ILL),
    ("INT", Signal::INT),
    ("KILL", Signal::KILL),
    ("PIPE", Signal::PIPE),
    ("QUIT", Signal::QUIT),
    ("SEGV", Signal::SEGV),
    ("STOP", Signal::STOP),
    ("SYS", Signal::SYS),
    ("TERM", Signal::TERM),
    ("TSTP", Signal::TSTP),
    ("TTIN", Signal::TTIN),
    ("TTOU", Signal::TTOU),
    ("USR1", Signal::USR1),
    ("USR2", Signal::USR2),
    ("WINCH", Signal::WINCH),
];

/// `None` for a name that is not known.
pub(super) fn from_ssh(sig: &Sig) -> Option<Signal> {
    let name = match sig {
        Sig::ABRT => "ABRT",
        Sig::ALRM => "ALRM",
        Sig::FPE => "FPE",
        Sig::HUP => "HUP",
        Sig::ILL => "ILL",
        Sig::INT => "INT",
        Sig::KILL => "KILL",
        Sig::PIPE => "PIPE",
        Sig::QUIT => "QUIT",
        Sig::SEGV => "SEGV",
        Sig::TERM => "TERM",
        Sig::USR1 => "USR1",
        Sig::Custom(name) => name.strip_prefix("SIG").unwrap_or(name),
    };
    NAMES.iter().find(|(n, _)| *n == name).map(|(_, s)| *s)
}

/// The name for `exit-signal`.
pub(super) fn to_ssh(number: i32) -> Sig {
    let name = NAMES
        .iter()
        .find(|(_, s)| s.as_raw() == number)
        .map(|(n, _)| *n);
    match name {
        Some("ABRT") => Sig::ABRT,
        Some("ALRM") => Sig::ALRM,
        Some("FPE") => Sig::FPE,
        Some("HUP") => Sig::HUP,
        Some("ILL") => Sig::ILL,
        Some("INT") => Sig::INT,
        Some("KILL") => Sig::KILL,
        Some("PIPE") => Sig::PIPE,
        Some("QUIT") => Sig::QUIT,
        Some("SEGV") => Sig::SEGV,
        Some("TERM") => Sig::TERM,
        Some("USR1") => Sig::USR1,
        Some(other) => Sig::Custom(other.into()),
        None => Sig::Custom(format!("{number}@vers-local")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_signal_goes_there_and_back() {
        for (name, signal) in NAMES {
            assert_eq!(from_ssh(&to_ssh(signal.as_raw())), Some(signal), "{name}");
        }
        assert_eq!(from_ssh(&Sig::Custom("NONSENSE".into())), None);
        assert_eq!(from_ssh(&Sig::Custom("SIGUSR2".into())), Some(Signal::USR2));
    }
}
