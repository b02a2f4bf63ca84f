//! The names a client may ask for. Accepted: `<uuid>.<domain>` and `<port>--<uuid>.<domain>`, the UUID with dashes, any
//! letter case, with or without the final dot. Everything else leads nowhere.

use uuid::Uuid;

/// Where a name leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) vm: Uuid,
    /// `None`: the SSH server.
    pub(crate) port: Option<u16>,
}

impl Target {
    pub(crate) fn parse(name: &str, domain: &str) -> Option<Self> {
        let name = name.strip_suffix('.').unwrap_or(name);
        let label = name.len().checked_sub(domain.len() + 1).and_then(|at| {
            let (label, rest) = name.split_at_checked(at)?;
            rest.strip_prefix('.')?
                .eq_ignore_ascii_case(domain)
                .then_some(label)
        })?;
        let (port, id) = match label.split_once("--") {
            Some((port, id)) => {
                // `parse` alone would take "+80" and "080".
                let plain = !port.starts_with('0') && port.bytes().all(|b| b.is_ascii_digit());
                (Some(port.parse().ok().filter(|_| plain)?), id)
            }
            None => (None, label),
        };
        if id.len() != 36 {
            return None;
        }
        Some(Self {
            vm: Uuid::try_parse(id).ok()?,
            port,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )]
    use super::*;
    use proptest::prelude::*;

    const DOMAIN: &str = "vm.localhost";

    #[test]
    fn names_lead_to_ssh_or_a_port() {
        let vm = Uuid::from_u128(7);
        let at = |name: &str| Target::parse(name, DOMAIN);
        assert_eq!(
            at(&format!("{vm}.vm.localhost")),
            Some(Target { vm, port: None })
        );
        assert_eq!(
            at(&format!("{vm}.VM.localhost.")),
            Some(Target { vm, port: None })
        );
        assert_eq!(
            at(&format!("8080--{vm}.vm.localhost")),
            Some(Target {
                vm,
                port: Some(8080)
            })
        );
        for wrong in [
            format!("{vm}"),
            format!("{vm}.localhost"),
            format!("{vm}xvm.localhost"),
            format!("0--{vm}.vm.localhost"),
            format!("080--{vm}.vm.localhost"),
            format!("+80--{vm}.vm.localhost"),
            format!("65536--{vm}.vm.localhost"),
            format!("--{vm}.vm.localhost"),
            format!("a.{vm}.vm.localhost"),
            format!("{}.vm.localhost", vm.simple()),
            ".vm.localhost".into(),
            "vm.localhost".into(),
            String::new(),
        ] {
            assert_eq!(at(&wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_name_panics_and_good_ones_come_back(junk in "\\PC{0,80}", id: u128, port in 1u16..) {
            let _ = Target::parse(&junk, DOMAIN);
            let vm = Uuid::from_u128(id);
            let parsed = Target::parse(&format!("{port}--{vm}.{DOMAIN}"), DOMAIN);
            prop_assert_eq!(parsed, Some(Target { vm, port: Some(port) }));
        }
    }
}
