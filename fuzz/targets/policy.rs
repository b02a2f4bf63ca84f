//! A policy file, read and asked: what is written back means the same, and what was not granted by a word of the file is denied.

#![cfg_attr(feature = "engine", no_main)]

use std::path::Path;

use pi_vers_policy::{
    Access, Decision, Digest, Grants, Lookup, Policy, Request, SecretUse, Vm, VmVerb,
};
use url::Url;

fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let whole = format!("[extension.x]\ndigest = \"{}\"\n{text}", Digest::of(b"x"));
    for text in [text, &whole] {
        let Ok(policy) = Policy::parse(text, "fuzz") else {
            continue;
        };
        let again = Policy::parse(&policy.to_toml(), "fuzz");
        assert!(again.is_ok_and(|again| again == policy), "{text}");
        let names: Vec<String> = policy.names().map(str::to_owned).collect();
        for name in names {
            ask(&policy, &name);
        }
    }
}

/// Asks for a bit of everything. Other bytes get nothing that needs a grant.
fn ask(policy: &Policy, name: &str) {
    let (Lookup::Granted(grants) | Lookup::Changed { grants, .. }) =
        policy.grants(name, &Digest::of(b"x"))
    else {
        return;
    };
    let grants = grants.at(Path::new("/work"), Some(Path::new("/home/me")));
    let _ = (grants.explain(), grants.limits().changed());
    let url: Url = match "http://127.0.0.1:8080/a/b?c".parse() {
        Ok(url) => url,
        Err(_) => return,
    };
    let arguments = ["-c".to_owned(), "id".to_owned()];
    let labels = [("team".to_owned(), "web".to_owned())];
    let vm = Vm {
        id: "01234567-89ab-4def-8123-456789abcdef",
        labels: &labels,
        own: false,
    };
    let nobody = Grants::of_other_bytes(name);
    for request in [
        Request::Vm {
            verb: VmVerb::Delete,
            vm,
        },
        Request::ShellConnect { vm },
        Request::VmFile {
            vm,
            path: "/etc/shadow",
            access: Access::Write,
        },
        Request::Process {
            program: Path::new("/bin/sh"),
            args: &arguments,
            working_directory: Path::new("/work"),
            env: &["LD_PRELOAD"],
        },
        Request::LocalFile {
            path: Path::new("/home/me/.ssh/id"),
            access: Access::Read,
        },
        Request::Http {
            method: "POST",
            url: &url,
        },
        Request::Secret {
            name: "A",
            to: SecretUse::HttpHeader { url: &url },
        },
        Request::Variable { name: "HOME" },
    ] {
        let decision = grants.decide(&request);
        match &decision {
            Decision::Deny(denial) => assert!(denial.to_string().contains(name)),
            Decision::Ask(question) => assert!(!question.to_string().is_empty()),
            Decision::Allow => {}
        }
        assert!(!nobody.decide(&request).is_allowed());
        let describing = Grants::describing(name);
        assert!(!describing.decide(&request).is_allowed());
    }
}

pi_vers_fuzz::target!(run);
