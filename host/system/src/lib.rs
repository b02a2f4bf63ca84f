//! This machine, as capabilities need it.
