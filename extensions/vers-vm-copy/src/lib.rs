//! Copies between this machine and Vers VMs.
//!
//! One tool, `vers_vm_copy`. The host moves the bytes, keeps modes, times and links, goes on after a broken connection
//! and cleans up after a copy that was given up; here is what a model writes ([`place`]) and reads ([`report`]).
//!
//! Modules that are public know nothing of the contract and are tested on the machine itself.

pub mod place;
pub mod report;

mod copy;

use pi_vers_sdk::declare::{Declaration, tool};

const DESCRIPTION: &str = "\
Copy a file or a directory from the local machine to a Vers VM, from a VM to the local machine, or between two VMs. A path \
with the prefix 'vm:<vm_id>:' is on that VM (absolute, or relative to the home directory; ~ is the home directory), any other is \
local (a local file called vm:x:y is ./vm:x:y). dst is the exact name of the copy, not the directory to put it into: copy \
'a.txt' to 'vm:<vm_id>:/srv/a.txt'. Missing directories above dst are made. A file replaces a file; a directory is merged into a \
directory that is there. Modes, times, links and empty directories are kept.";

fn extension() -> Declaration {
    let copy = tool("vers_vm_copy", "Copy files to/from VM", DESCRIPTION)
        .destructive()
        .idempotent()
        .open_world()
        .long_running();
    Declaration::new(
        "vers-vm-copy",
        env!("CARGO_PKG_VERSION"),
        env!("CARGO_PKG_DESCRIPTION"),
    )
    .tool(copy, copy::run)
}

pi_vers_sdk::extension!(extension);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn the_parameters_are_those_users_know_and_one_more() {
        let declared = extension();
        let schema: Value = serde_json::from_str(&declared.info().tools[0].parameters).unwrap();
        let names: Vec<&String> = schema["properties"].as_object().unwrap().keys().collect();
        assert_eq!(names, ["src", "dst", "recursive", "exclude"]);
        assert_eq!(schema["required"], json!(["src", "dst"]));
        assert_eq!(schema["properties"]["recursive"]["type"], "boolean");
        assert_eq!(schema["properties"]["exclude"]["items"]["minLength"], 1);
    }

    #[test]
    fn the_description_says_what_a_destination_is() {
        let declared = extension();
        let text = &declared.info().tools[0].description;
        assert!(
            text.contains("dst is the exact name of the copy") && text.contains("./vm:x:y"),
            "{text}"
        );
    }
}
