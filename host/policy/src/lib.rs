//! What an extension may do.
mod decision;
mod digest;
mod limits;
mod request;

pub use decision::{Decision, Denial, Fix, Question, visible};
pub use digest::{Digest, DigestError};
pub use limits::{LIMITS, LimitInfo, Limits, Unit};
pub use request::{Access, Command, FleetVerb, Kind, Request, SecretUse, SessionVerb, UiVerb, Vm, VmVerb};
