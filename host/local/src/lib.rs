//! The Vers platform on this machine.
