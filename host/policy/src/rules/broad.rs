//! Rules that say little and grant much.

use super::{FileRule, ProcessRule, Rules};
use crate::policy::Grants;
use crate::request::Access;

/// Programs that run whatever their arguments say.
const RUNS_ANYTHING: [&str; 16] = [
    "sh", "bash", "dash", "zsh", "fish", "ksh", "env", "xargs", "sudo", "doas", "python",
    "python3", "node", "perl", "ruby", "busybox",
];

impl Grants {
    /// Keys of the user's section that say something else than the defaults.
    pub fn keys(&self) -> Vec<String> {
        let lines = self.layers.first().map(Rules::toml).unwrap_or_default();
        let key = |line: &String| line.split(" = ").next().unwrap_or_default().to_owned();
        lines.iter().map(key).collect()
    }

    /// What of the user's section grants more than it seems to, one sentence each.
    pub fn broad(&self) -> Vec<String> {
        self.layers.first().map(Rules::broad).unwrap_or_default()
    }
}

impl Rules {
    fn broad(&self) -> Vec<String> {
        let processes = self.process.iter().filter_map(ProcessRule::broad);
        processes
            .chain(self.files.iter().filter_map(FileRule::broad))
            .collect()
    }
}

impl ProcessRule {
    fn broad(&self) -> Option<String> {
        let name = self.program.file_name()?.to_str()?;
        let anything = match &self.args {
            None => true,
            Some(args) => args.iter().any(|one| one.to_string().contains("...")),
        };
        (anything && RUNS_ANYTHING.contains(&name)).then(|| {
            format!(
                "process: {} with any arguments runs any program with all your rights",
                self.program.display()
            )
        })
    }
}

impl FileRule {
    fn broad(&self) -> Option<String> {
        let source = self.place.source.trim_end_matches('/');
        (self.access == Access::Write && matches!(source, "" | "~")).then(|| {
            format!(
                "files: rw {} is every file there, what your shell and your tools start with among them",
                self.place.source
            )
        })
    }
}
