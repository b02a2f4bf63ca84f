//! Files of policy, and what they grant to one component.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::decision::{quoted, section, visible};
use crate::digest::Digest;
use crate::limits::{LIMITS, Limits, shown};
use crate::parse;
use crate::request::{Access, Request, SecretUse, Vm};
use crate::rules::{Rules, SecretTo};

/// Why a policy cannot be used. One line: where, what was found, what was expected.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text says something the policy does not know.
    #[error("{origin}:{line}:{column}: {message}")]
    Syntax {
        /// The file.
        origin: String,
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
        /// What was expected.
        message: String,
    },
    /// The file cannot be read.
    #[error("cannot read the policy {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why. `NotFound` usually means [`Policy::empty`].
        source: std::io::Error,
    },
    /// Others than its owner can change the file.
    #[error("the policy {} can be written by everybody: run chmod o-w on it", .0.display())]
    Exposed(PathBuf),
    /// The file is larger than any policy.
    #[error("the policy {} is larger than 1 MiB: is it the right file?", .0.display())]
    TooLarge(PathBuf),
}

/// To which bytes a section belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pin {
    Digest(Digest),
    /// The component of this name that is shipped inside the host: see [`Policy::over`].
    Shipped,
    /// A project's section: it follows the user's.
    Follows,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Section {
    pub(crate) pin: Pin,
    pub(crate) rules: Rules,
}

/// What the files say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    pub(crate) origin: String,
    pub(crate) sections: BTreeMap<String, Section>,
    shipped: BTreeMap<String, Digest>,
    narrowed_by: Vec<Policy>,
}

/// What a policy holds for one component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// These bytes have been granted this.
    Granted(Grants),
    /// The name has grants, but for other bytes. They do not hold; show them, ask, and bind them anew.
    Changed {
        /// The bytes that were granted.
        granted_to: Digest,
        /// What those were granted, to be shown.
        grants: Grants,
    },
    /// No grants. [`Grants::nothing`] decides for it.
    Unknown,
}

impl Policy {
    /// A policy that grants nothing to anyone.
    pub fn empty() -> Self {
        Self::default()
    }

    pub(crate) fn at_origin(origin: &str) -> Self {
        Self {
            origin: origin.to_owned(),
            ..Self::default()
        }
    }

    /// Reads a user's policy. `origin` names it in messages. Every section needs a `digest`.
    pub fn parse(text: &str, origin: &str) -> Result<Self, Error> {
        parse::policy(text, origin, false)
    }

    /// Reads a project's policy, for [`Policy::narrowed_by`]: a section may leave out `digest`.
    pub fn parse_project(text: &str, origin: &str) -> Result<Self, Error> {
        parse::policy(text, origin, true)
    }

    /// [`Policy::parse`] of a file. A file that everybody can write is refused.
    pub fn load(path: &Path) -> Result<Self, Error> {
        Self::parse(&read(path)?, &path.display().to_string())
    }

    /// [`Policy::parse_project`] of a file.
    pub fn load_project(path: &Path) -> Result<Self, Error> {
        Self::parse_project(&read(path)?, &path.display().to_string())
    }

    /// What both allow. A name the project does not mention keeps the harmless defaults alone.
    #[must_use]
    pub fn narrowed_by(mut self, project: Self) -> Self {
        self.narrowed_by.push(project);
        self
    }

    /// These sections, and those of `shipped` for names that have none here. `shipped` describes the components inside the
    /// host; `digest = "shipped"` in this policy then means the digest given there.
    #[must_use]
    pub fn over(mut self, shipped: Self) -> Self {
        for (name, section) in shipped.sections {
            if let Pin::Digest(digest) = section.pin {
                self.shipped.insert(name.clone(), digest);
            }
            self.sections.entry(name).or_insert(section);
        }
        self
    }

    /// The names that have a section.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.sections.keys().map(String::as_str)
    }

    /// What a component of this name and these bytes may do.
    pub fn grants(&self, name: &str, digest: &Digest) -> Lookup {
        let Some(section) = self.sections.get(name) else {
            return Lookup::Unknown;
        };
        let granted_to = match section.pin {
            Pin::Digest(granted) => granted,
            Pin::Shipped => match self.shipped.get(name) {
                Some(shipped) => *shipped,
                None => return Lookup::Unknown,
            },
            Pin::Follows => return Lookup::Unknown,
        };
        let mut layers = vec![section.rules.clone()];
        self.narrowings(name, &granted_to, &mut layers);
        let grants = Grants::new(name, layers);
        if granted_to == *digest {
            Lookup::Granted(grants)
        } else {
            Lookup::Changed { granted_to, grants }
        }
    }

    fn narrowings(&self, name: &str, digest: &Digest, layers: &mut Vec<Rules>) {
        for project in &self.narrowed_by {
            let holds = |section: &&Section| match section.pin {
                Pin::Follows | Pin::Shipped => true,
                Pin::Digest(pinned) => pinned == *digest,
            };
            layers.push(match project.sections.get(name).filter(holds) {
                Some(section) => section.rules.clone(),
                None => Rules::new(&project.origin),
            });
            project.narrowings(name, digest, layers);
        }
    }

    /// The file again, without comments and what narrows it. Reading it back gives the same policy.
    pub fn to_toml(&self) -> String {
        let mut out = String::new();
        for (name, Section { pin, rules }) in &self.sections {
            if !out.is_empty() {
                out.push('\n');
            }
            out += &format!("{}\n", section(name));
            match pin {
                Pin::Digest(digest) => {
                    out += &format!("digest = {}\n", quoted(&digest.to_string()))
                }
                Pin::Shipped => out += "digest = \"shipped\"\n",
                Pin::Follows => {}
            }
            rules
                .toml()
                .iter()
                .for_each(|line| out += &format!("{line}\n"));
        }
        out
    }
}

fn read(path: &Path) -> Result<String, Error> {
    use std::io::Read as _;
    const MOST: u64 = 1 << 20;
    let failed = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        if file.metadata().map_err(failed)?.mode() & 0o002 != 0 {
            return Err(Error::Exposed(path.to_owned()));
        }
    }
    let mut text = String::new();
    let read = file
        .take(MOST + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    if read as u64 > MOST {
        Err(Error::TooLarge(path.to_owned()))
    } else {
        Ok(text)
    }
}

/// What one component may do: the rules of every file that speaks of it, all of which have to allow a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grants {
    pub(crate) name: String,
    /// Never empty. The user's first, then what narrows it.
    pub(crate) layers: Vec<Rules>,
    pub(crate) describing: bool,
    /// Its name was granted something, but for other bytes than its own.
    pub(crate) changed: bool,
    limits: Limits,
}

impl Grants {
    fn new(name: &str, layers: Vec<Rules>) -> Self {
        let mut limits = Limits::default();
        for (at, rules) in layers.iter().enumerate() {
            for (name, value) in &rules.limits {
                if let Some(limit) = limits.field_mut(name) {
                    // The user's file may raise a default; what narrows it may not.
                    *limit = if at == 0 {
                        *value
                    } else {
                        (*limit).min(*value)
                    };
                }
            }
        }
        Self {
            name: name.to_owned(),
            layers,
            describing: false,
            changed: false,
            limits,
        }
    }

    /// For a component without grants: the harmless defaults and nothing else.
    pub fn nothing(name: &str) -> Self {
        Self::new(name, vec![Rules::new("the policy")])
    }

    /// For a component whose name has grants for other bytes ([`Lookup::Changed`]): less than for one that nobody knows, since what was
    /// kept under that name (its store, its entries in sessions) is not its own until somebody says so.
    pub fn of_other_bytes(name: &str) -> Self {
        Self {
            changed: true,
            ..Self::nothing(name)
        }
    }

    /// For the instance that runs `describe`: the log alone.
    pub fn describing(name: &str) -> Self {
        Self {
            describing: true,
            ..Self::nothing(name)
        }
    }

    /// The extension's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it may use up.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Says what `.` and `~` mean in this session. Both absolute. Until then such paths match nothing.
    #[must_use]
    pub fn at(mut self, working_directory: &Path, home: Option<&Path>) -> Self {
        self.layers
            .iter_mut()
            .for_each(|rules| rules.resolve(working_directory, home));
        self
    }

    /// Whether a VM may appear in a list or be found by the start of its id. Says nothing about the verb.
    pub fn sees(&self, vm: &Vm<'_>) -> bool {
        !self.describing && self.layers.iter().all(|rules| rules.scope.holds(vm))
    }

    /// Whether a secret of this name may go anywhere at all: into a child's environment here or on a VM, or into a header. A way out that
    /// a human would have to allow first does not count.
    pub fn may_use_secret(&self, name: &str) -> bool {
        // Some program that no rule can mean: what is granted for all of them is granted for it.
        let unnamed = Path::new("/");
        let ways = self
            .layers
            .iter()
            .flat_map(|rules| &rules.secrets)
            .filter(|rule| rule.name == name)
            .map(|rule| match &rule.to {
                SecretTo::ChildEnv(program) => SecretUse::ChildEnv {
                    program: program.as_deref().unwrap_or(unnamed),
                },
                SecretTo::VmEnv => SecretUse::VmEnv,
                SecretTo::Http(url) => SecretUse::HttpHeader { url },
            });
        ways.map(|to| Request::Secret { name, to })
            .any(|way| self.decide(&way).is_allowed())
    }

    /// Whether a decision can depend on a VM's labels. Where it can't, nobody needs to ask the platform for them.
    pub fn labels_matter(&self) -> bool {
        self.layers.iter().any(|rules| {
            rules.scope.has_labels()
                || rules
                    .shell
                    .as_ref()
                    .is_some_and(|shell| shell.scope.has_labels())
        })
    }

    /// The granted directory (or file) beneath which to open this path, the narrowest if several hold it. `None` if none does,
    /// also for a path that a human allowed: open that beneath its own directory.
    pub fn file_root(&self, path: &Path, access: Access) -> Option<&Path> {
        let roots = self
            .layers
            .iter()
            .map(|rules| rules.file_root(path, access))
            .collect::<Option<Vec<_>>>()?;
        roots
            .into_iter()
            .max_by_key(|root| root.components().count())
    }

    /// What holds and which file says so, one line each.
    pub fn explain(&self) -> Vec<String> {
        let log = match self.layers.iter().all(|rules| rules.log) {
            true => "log, ",
            false => "",
        };
        let mut lines = vec![format!(
            "{} may always {log}wait, show notices and status, and see its session's id, directory, flags and tool names",
            visible(&self.name)
        )];
        for (at, rules) in self.layers.iter().enumerate() {
            let relation = if at == 0 {
                "granted by"
            } else {
                "and only what is also in"
            };
            lines.push(format!("{relation} {}:", rules.origin));
            lines.extend(
                rules
                    .rights()
                    .iter()
                    .map(|line| format!("  {}", visible(line))),
            );
        }
        lines.extend(self.limit_lines().map(|line| format!("  {line}")));
        lines
    }

    fn limit_lines(&self) -> impl Iterator<Item = String> + '_ {
        LIMITS.iter().filter_map(|limit| {
            Some(format!(
                "limit {}: {}",
                limit.name,
                shown(limit.unit, self.limits.get(limit.name)?)
            ))
        })
    }
}

/// What changes from one set of grants to another: `- …` for what is lost, `+ …` for what is new. Empty if nothing changes.
pub fn diff(old: &Grants, new: &Grants) -> Vec<String> {
    let lines = |grants: &Grants| {
        let layers = grants
            .layers
            .iter()
            .zip(std::iter::once("").chain(std::iter::repeat("narrowed to ")));
        let rights = layers.flat_map(|(rules, how)| {
            rules
                .rights()
                .into_iter()
                .map(move |line| visible(&format!("{how}{line}")))
        });
        rights.chain(grants.limit_lines()).collect::<Vec<_>>()
    };
    let (old, new) = (lines(old), lines(new));
    let lost = old
        .iter()
        .filter(|line| !new.contains(line))
        .map(|line| format!("- {line}"));
    let gained = new
        .iter()
        .filter(|line| !old.contains(line))
        .map(|line| format!("+ {line}"));
    lost.chain(gained).collect()
}
