//! The grammar of arguments: a pattern on the first line, an argument on each line after it. Whatever both are, an option that no word of the pattern writes out
//! is not let through.

#![cfg_attr(feature = "engine", no_main)]

use std::path::Path;

use pi_vers_policy::{Digest, Lookup, Policy, Request};

fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let mut lines = text.split('\n');
    let pattern = lines.next().unwrap_or_default();
    if pattern.contains("'''") || pattern.ends_with('\'') || pattern.contains('\r') {
        return;
    }
    let arguments: Vec<String> = lines.map(str::to_owned).collect();
    let digest = Digest::of(b"x");
    let policy = format!(
        "[extension.x]\ndigest = \"{digest}\"\nprocess = [{{ program = \"/bin/p\", args = ['''{pattern}'''] }}]\n"
    );
    let Ok(policy) = Policy::parse(&policy, "fuzz") else {
        return;
    };
    let Lookup::Granted(grants) = policy.grants("x", &digest) else {
        return;
    };
    let grants = grants.at(Path::new("/work"), None);
    let allowed = |arguments: &[String]| {
        let request = Request::Process {
            program: Path::new("/bin/p"),
            args: arguments,
            working_directory: Path::new("/work"),
            env: &[],
        };
        grants.decide(&request).is_allowed()
    };
    if !allowed(&arguments) {
        return;
    }
    // One more option at the end is let through by `...` alone.
    let open = pattern.split_whitespace().next_back() == Some("...");
    let mut more = arguments.clone();
    more.push("--exec=sh".to_owned());
    assert!(open || !allowed(&more), "{pattern:?} {more:?}");
    if open {
        return;
    }
    let plain: String = pattern
        .chars()
        .filter(|c| !matches!(c, '\'' | '"' | '\\'))
        .collect();
    for argument in arguments
        .iter()
        .filter(|argument| argument.starts_with('-'))
    {
        let name = argument.split_inclusive('=').next().unwrap_or_default();
        let name: String = name
            .chars()
            .filter(|c| !matches!(c, '\'' | '"' | '\\'))
            .collect();
        assert!(plain.contains(&name), "{pattern:?} let {argument:?} pass");
    }
    assert!(!arguments.iter().any(|argument| argument.contains('\0')));
}

pi_vers_fuzz::target!(run);
