//! Limits: what a guest may use up, with a name, a unit and a default for each.
//!
//! A capability says *what* an extension may do, a limit *how much*. All are on by default, so that an extension
//! without a single grant still cannot fill the memory, the disk or the log. Zero is refused: it reads like "none"
//! to some and "no limit" to others. There is no way to write "unlimited"; write a large number.

/// What a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Bytes: `"64 MiB"`, `"4 KiB"`, `"1 GiB"`, `"512 B"`.
    Bytes,
    /// Milliseconds: `"10 min"`, `"5 s"`, `"250 ms"`, `"2 h"`.
    Time,
    /// A plain number: `64`.
    Count,
}

const BYTES: [(&str, u64); 4] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];
const TIMES: [(&str, u64); 4] = [("h", 3_600_000), ("min", 60_000), ("s", 1_000), ("ms", 1)];

impl Unit {
    fn table(self) -> &'static [(&'static str, u64)] {
        match self {
            Self::Bytes => &BYTES,
            Self::Time => &TIMES,
            Self::Count => &[],
        }
    }

    /// What to write, for messages.
    pub fn expected(self) -> &'static str {
        match self {
            Self::Bytes => "a size such as \"64 MiB\" (B, KiB, MiB, GiB), not zero",
            Self::Time => "a duration such as \"10 min\" (ms, s, min, h), not zero",
            Self::Count => "a whole number, not zero",
        }
    }

    /// Reads `"64 MiB"`, `"10 min"`, `"64"`. `None` for anything else, for zero and for what does not fit.
    pub fn parse(self, text: &str) -> Option<u64> {
        let text = text.trim();
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at_checked(digits)?;
        let factor = match (self, unit.trim_start()) {
            (Self::Count, "") => 1,
            (_, unit) => self.table().iter().find(|(name, _)| *name == unit)?.1,
        };
        number
            .parse::<u64>()
            .ok()?
            .checked_mul(factor)
            .filter(|value| *value > 0)
    }

    /// The shortest exact form that [`Unit::parse`] reads back.
    pub fn format(self, value: u64) -> String {
        match self
            .table()
            .iter()
            .find(|(_, factor)| value.is_multiple_of(*factor))
        {
            Some((name, factor)) => format!("{} {name}", value / factor),
            None => value.to_string(),
        }
    }
}

/// A value in words; what is never reached is none.
pub(crate) fn shown(unit: Unit, value: u64) -> String {
    match value {
        u64::MAX => "none".into(),
        value => unit.format(value),
    }
}

/// One limit, for documentation and messages.
#[derive(Debug, Clone, Copy)]
pub struct LimitInfo {
    /// Its name in `limits = { … }`.
    pub name: &'static str,
    /// What it counts.
    pub unit: Unit,
    /// Its value when the policy does not name it; the largest number stands for none.
    pub default: u64,
    /// What it bounds.
    pub about: &'static str,
}

macro_rules! limits {
    ($($(#[doc = $doc:literal])+ $field:ident, $name:literal, $unit:ident, $default:expr;)+) => {
        /// The limits that hold for one loaded extension. Sizes are bytes, times milliseconds.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct Limits { $($(#[doc = $doc])+ pub $field: u64,)+ }

        impl Default for Limits {
            fn default() -> Self { Self { $($field: $default,)+ } }
        }

        /// Every limit there is, in the order of [`Limits`].
        pub const LIMITS: &[LimitInfo] = &[$(LimitInfo {
            name: $name, unit: Unit::$unit, default: $default, about: concat!($($doc),+),
        },)+];

        impl Limits {
            /// The value of a limit by its name in the policy.
            pub fn get(&self, name: &str) -> Option<u64> {
                match name { $($name => Some(self.$field),)+ _ => None }
            }

            pub(crate) fn field_mut(&mut self, name: &str) -> Option<&mut u64> {
                match name { $($name => Some(&mut self.$field),)+ _ => None }
            }
        }
    };
}

limits! {
    /// Linear memory, all memories of all its instances together.
    memory, "memory", Bytes, 256 << 20;
    /// Elements of all its tables together.
    table_elements, "table-elements", Count, 1_000_000;
    /// Core instances, memories and tables that one component may be made of.
    instances, "instances", Count, 256;
    /// One call of the extension from start to end; waiting in host calls counts.
    call, "call", Time, 10 * 60_000;
    /// Guest code running without handing control back; then it is interrupted.
    cpu_slice, "cpu-slice", Time, 5_000;
    /// Calls in flight at once; further ones wait in the queue.
    calls, "calls", Count, 64;
    /// Open handles: processes, tool calls, streams, futures.
    handles, "handles", Count, 4_096;
    /// Running processes, here and on VMs together.
    processes, "processes", Count, 256;
    /// Open connections: VMs, HTTP and forwarded ports together.
    connections, "connections", Count, 256;
    /// Bytes the guest wrote to streams that the host has not used yet, all together; who writes more waits.
    stream_buffers, "stream-buffers", Bytes, 16 << 20;
    /// Content and details of one tool result or message.
    output, "output", Bytes, 16 << 20;
    /// Log lines of one call; lines beyond are counted and dropped.
    log, "log", Bytes, 1 << 20;
    /// Keys and values in the store, all together.
    store, "store", Bytes, 16 << 20;
    /// VMs this extension made that are alive at once.
    vms, "vms", Count, 100;
    /// Agents above this host, from which on it makes no VMs: an agent started by an agent started by one stands at 2.
    depth, "depth", Count, 3;
    /// How long a VM that it made may run; then the host pauses it. None unless it is written.
    vm_lifetime, "vm-lifetime", Time, u64::MAX;
}

impl Limits {
    /// The limits in the form of the policy, those that differ from the defaults only.
    pub fn changed(&self) -> Vec<(&'static str, String)> {
        LIMITS
            .iter()
            .filter_map(|limit| {
                self.get(limit.name)
                    .filter(|value| *value != limit.default)
                    .map(|value| (limit.name, shown(limit.unit, value)))
            })
            .collect()
    }
}
