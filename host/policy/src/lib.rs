//! What an extension may do.
//!
//! One question: may extension X (a name and the digest of its bytes) do Y? Pure: a decision touches nothing and is the same every
//! time. Denied unless granted.
//!
//! ```
//! use pi_vers_policy::{Decision, Digest, Lookup, Policy, Request, VmVerb};
//!
//! let digest = Digest::of(b"the component's bytes");
//! let text = format!("[extension.my-tool]\ndigest = \"{digest}\"\nvms = [\"list\"]");
//! let policy = Policy::parse(&text, "policy.toml")?;
//! let Lookup::Granted(grants) = policy.grants("my-tool", &digest) else { panic!("known") };
//! assert!(grants.decide(&Request::Vms { verb: VmVerb::List }).is_allowed());
//! let Decision::Deny(denial) = grants.decide(&Request::Vms { verb: VmVerb::Create }) else { panic!("denied") };
//! assert_eq!(denial.to_string(), "my-tool may not create VMs: add \"create\" to vms of [extension.my-tool] in policy.toml");
//! # Ok::<(), pi_vers_policy::Error>(())
//! ```
//!
//! # The file
//!
//! ```toml
//! [extension.my-tool]
//! digest  = "sha256:…"                            # or "shipped": the one inside the host
//! vms     = ["list", "get"]                       # or { verbs = […], scope = … }
//! shell   = { vms = "label:team=web", commands = "any" }
//! process = [{ program = "/usr/bin/git", args = ["status", "log --oneline *"] }]
//! files   = [{ path = ".", mode = "ro" }, { path = "out", mode = "rw" }]
//! http    = ["GET https://api.example.com/v1/*"]
//! secrets = ["LLM_PROXY_KEY -> child env"]
//! limits  = { memory = "64 MiB", call = "10 min" }
//! ```
//!
//! | key | value | absent |
//! |---|---|---|
//! | `vms` | [`VmVerb`]s, or `{ verbs, scope }`; a scope is `"any"`, `"own"`, `"label:K=V"`, a VM's id, or a list of them | none; scope `"any"` |
//! | `shell` | `{ vms = scope, commands, env, files, ports }`: commands are `"any"` or argument patterns | none |
//! | | `env`: names or `"any"`; `files`: `"none"`, `"ro"`, `"rw"` | none; with `commands = "any"` `"any"` and `"rw"` |
//! | | `ports` of the VM that may be forwarded, or `"any"` | none |
//! | `process` | `{ program, args, env, directories }`; `args` are argument patterns or `"any"` | no arguments, no variables, in and below `.` |
//! | `files` | `{ path, mode }` on this machine: `.` is the working directory, `~` home | none |
//! | `http` | URL patterns, or `{ url, addresses }` for private addresses | none |
//! | `secrets` | `NAME -> child env [program]`, `NAME -> vm env`, `NAME -> http https://host` | none |
//! | `environment` | names of the host's environment variables that it may read, never one that holds a secret | none |
//! | `fleet` | [`FleetVerb`]s | none |
//! | `ui` | [`UiVerb`]s; `input` and `edit` could ask for a password | `select`, `confirm` |
//! | `client` | [`ClientVerb`]s: what the client behind a call may be asked; `form` could ask for a password, `sampling` costs | none |
//! | `session` | [`SessionVerb`]s | `append-entry`, `entries` |
//! | `bus` | topics, to emit and to receive; `name*` | none |
//! | `events` | events to see and to answer | `agent-start`, `turn-start`, `model-select` |
//! | `replace` | built-in tools of the harness it may replace | none |
//! | `store` | `false` turns its store off | on |
//! | `ask` | capabilities that a human may allow case by case: `"process"`, `"vms.delete"` | none |
//! | `limits` | [`LIMITS`] | their defaults |
//!
//! Always on, since they tell and change nothing worth keeping: log, timers, notices, status and widgets, the session's id, directory,
//! own flags and tool names. A key that is written replaces its default.
//!
//! Argument patterns: words are literal, `*` is one operand (never an option), `--name=*` one option's value, `**` the operands that
//! follow, `...` everything that follows; quotes make anything literal.

mod argv;
mod contract;
mod decide;
mod decision;
mod digest;
mod limits;
mod parse;
mod paths;
mod policy;
mod request;
mod rules;
mod web;

pub use contract::REQUESTS;
pub use decision::{Decision, Denial, Fix, Ground, Question, is_deceptive, visible};
pub use digest::{Digest, DigestError};
pub use limits::{LIMITS, LimitInfo, Limits, Unit};
pub use paths::{PathError, normalise};
pub use policy::{Error, Grants, Lookup, Policy, diff};
pub use request::{
    Access, ClientVerb, Command, FleetVerb, Kind, Request, SecretUse, SessionVerb, UiVerb, Vm,
    VmVerb,
};
pub use web::special_address;
