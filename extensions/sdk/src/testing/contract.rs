//! The contract's packages and interfaces, made of fakes. The types are the bindings' own.

pub(crate) use super::call::Call;
pub(crate) use super::executor::{spawn, yield_now};
pub(crate) use super::streams::pipe;
pub use super::streams::{FutureReader, StreamReader, StreamWriter};

/// What extension and harness say to each other: `types`, `session`, `client`, `ui`, `timers`, `log`, `bus`.
pub mod harness {
    pub use crate::bindings::vers::harness::types;

    /// What the user sees besides messages.
    pub mod ui {
        pub use crate::bindings::vers::harness::ui::{Dialog, Error, Line, Millis, Severity};
        pub use crate::testing::ui::{
            available, confirm, edit, input, notify, select, set_status, set_widget,
        };
    }

    /// The conversation and the harness around it.
    pub mod session {
        pub use crate::bindings::vers::harness::session::Delivery;
        pub use crate::testing::session::{
            active_tools, all_tools, append_entry, entries, flag, has_secret, id, is_idle,
            run_built_in, send_message, send_user_message, set_active_tools, variable,
            working_directory,
        };
    }

    /// The client behind the front end.
    pub mod client {
        pub use crate::bindings::vers::harness::client::{Listing, Question, QuestionKind};
        pub use crate::testing::client::{ask, list_changed, offers};
    }

    /// Messages between extensions of one session.
    pub mod bus {
        use serde_json::json;

        use crate::testing::world::{ask, world};

        /// Delivered to every subscriber but the sender, in order.
        pub fn emit(topic: &str, data: &str) {
            let message = serde_json::from_str(data).unwrap_or_default();
            // Nobody hears what is denied.
            if ask("bus.emit", json!({ "topic": topic })).is_ok() {
                world(|world| world.told.push((topic.into(), message)));
            }
        }
    }

    /// Structured logging.
    pub mod log {
        pub use crate::bindings::vers::harness::log::Level;

        /// Writes one line.
        pub fn write(level: Level, message: &str) {
            crate::testing::world::world(|world| world.log.push((level, message.into())));
        }
    }

    /// Time.
    pub mod timers {
        use crate::Error;
        use crate::testing::executor;

        /// Noon of the first day of 2026.
        const EPOCH: u64 = 1_767_268_800_000;

        /// Milliseconds since 1970.
        #[must_use]
        pub fn now() -> u64 {
            EPOCH + executor::ticks()
        }

        /// Milliseconds of a clock that only goes forward.
        #[must_use]
        pub fn ticks() -> u64 {
            executor::ticks()
        }

        /// Waits this long.
        pub async fn sleep(duration: u64) -> Result<(), Error> {
            let due = executor::ticks().saturating_add(duration);
            executor::waiting(executor::until(due)).await
        }
    }
}

/// The Vers platform: `vms`, `shell`, `fleet`.
pub mod platform {
    /// The Vers REST API, as far as extensions need it.
    pub mod vms {
        pub use crate::bindings::vers::platform::vms::{
            CommitId, CommitInfo, Origin, State, Vm, VmConfig, VmId,
        };
        pub use crate::testing::vms::{
            branch, commit, create, delete, delete_commit, get, list, list_commits, resize_disk,
            resolve, restore, set_commit_public, set_labels, set_state,
        };
    }

    /// Commands on VMs.
    pub mod shell {
        pub use crate::bindings::vers::platform::shell::{Followed, Line, Position};
        pub use crate::testing::shell::{
            Forward, connect, disconnect, follow, forward_port, spawn,
        };
    }

    /// The control plane of a fleet.
    pub mod fleet {
        pub use crate::bindings::vers::platform::fleet::{Golden, Member, Source};
        pub use crate::testing::fleet::{available, deregister, golden_commit, members, register};
    }
}

/// The machine and its surroundings: `process`, `files`, `http`, `store`.
pub mod system {
    /// Processes.
    pub mod process {
        pub use crate::bindings::vers::system::process::{
            Command, EnvValue, EnvVar, Exit, OutputMode, Program, Signal, Stopped,
        };
        pub use crate::testing::processes::{Child, spawn};
    }

    /// Files of the working directory and of VMs.
    pub mod files {
        pub use crate::bindings::vers::system::files::{
            CopyOptions, CopyProgress, CopySummary, Kind, Location, Metadata, Range, WriteOptions,
        };
        pub use crate::testing::files::{copy, list, read, remove, stat, write};
    }

    /// HTTP to the origins that the policy grants.
    pub mod http {
        pub use crate::bindings::vers::system::http::{Header, HeaderValue, Request};
        pub use crate::testing::http::{Response, send};
    }

    /// Small values that outlive the session.
    pub mod store {
        pub use crate::testing::store::{delete, get, keys, set, swap};
    }
}
