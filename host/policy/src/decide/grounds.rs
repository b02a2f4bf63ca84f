//! Why a request is allowed: the rule that allows it, for the audit log and for `policy explain`.
//!
//! The judges say yes or no, and say more only when they refuse. So that what is shown can't be another rule than the one that was
//! judged by, nothing is matched a second time here: sections of one rule each are made of a file's section, and the first by which the
//! same judge says yes is the answer.

use crate::decision::Ground;
use crate::policy::Grants;
use crate::request::{Kind, Request};
use crate::rules::{Names, Rules, Scope, Shell};

impl Grants {
    /// The rules that allow a request, one for each file; empty if it is not allowed. Costs more than [`Grants::decide`].
    pub fn grounds(&self, request: &Request<'_>) -> Vec<Ground> {
        if !self.decide(request).is_allowed() {
            return Vec::new();
        }
        let ground = |rules: &Rules| Ground {
            origin: rules.origin.clone(),
            rule: rules.ground(request),
        };
        self.layers.iter().map(ground).collect()
    }
}

impl Rules {
    fn ground(&self, request: &Request<'_>) -> String {
        if self.bare().judge(request).is_ok() {
            return "default".into();
        }
        let one = self
            .singles(request.kind())
            .into_iter()
            .find(|one| one.judge(request).is_ok());
        // No single rule would do: the lines together do.
        one.unwrap_or_else(|| self.clone()).toml().join("; ")
    }

    /// The defaults, with what a rule that takes a default away means.
    fn bare(&self) -> Self {
        Self::new(&self.origin)
    }

    /// Sections of one rule each, of those that a request of this kind is judged by.
    fn singles(&self, kind: Kind) -> Vec<Self> {
        let with = |change: &dyn Fn(&mut Self)| {
            let mut rules = self.bare();
            change(&mut rules);
            rules
        };
        match kind {
            Kind::Log | Kind::Timers | Kind::OwnHandle | Kind::Store => Vec::new(),
            // These name no VM: the scope bounds what they show, as a whole.
            Kind::Vms => self
                .vms
                .iter()
                .map(|verb| {
                    with(&|rules| {
                        rules.vms = [*verb].into();
                        rules.scope = self.scope.clone();
                    })
                })
                .collect(),
            Kind::Vm | Kind::VmLabels => {
                let pairs = self
                    .vms
                    .iter()
                    .flat_map(|verb| self.scope.0.iter().map(move |set| (*verb, set)));
                pairs
                    .map(|(verb, set)| {
                        with(&|rules| {
                            rules.vms = [verb].into();
                            rules.scope = Scope(vec![set.clone()]);
                        })
                    })
                    .collect()
            }
            Kind::ShellConnect
            | Kind::ShellSpawn
            | Kind::ShellFollow
            | Kind::ForwardPort
            | Kind::VmFile => self
                .shell
                .iter()
                .flat_map(Shell::singles)
                .map(|shell| with(&|rules| rules.shell = Some(shell.clone())))
                .collect(),
            Kind::Process => self
                .process
                .iter()
                .flat_map(|rule| {
                    let args = rule.args.as_ref().map_or_else(
                        || vec![None],
                        |args| args.iter().map(|one| Some(vec![one.clone()])).collect(),
                    );
                    args.into_iter().map(|args| {
                        let mut one = rule.clone();
                        one.args = args;
                        with(&|rules| rules.process = vec![one.clone()])
                    })
                })
                .collect(),
            Kind::LocalFile => self
                .files
                .iter()
                .map(|rule| with(&|rules| rules.files = vec![rule.clone()]))
                .collect(),
            Kind::Http | Kind::HttpAddress => self
                .http
                .iter()
                .map(|rule| with(&|rules| rules.http = vec![rule.clone()]))
                .collect(),
            Kind::Secret => self
                .secrets
                .iter()
                .map(|rule| with(&|rules| rules.secrets = vec![rule.clone()]))
                .collect(),
            Kind::Variable => self
                .environment
                .iter()
                .map(|name| with(&|rules| rules.environment = [name.clone()].into()))
                .collect(),
            Kind::Ui => self
                .ui
                .iter()
                .map(|verb| with(&|rules| rules.ui = [*verb].into()))
                .collect(),
            Kind::Client => self
                .client
                .iter()
                .map(|verb| with(&|rules| rules.client = [*verb].into()))
                .collect(),
            Kind::Session => self
                .session
                .iter()
                .map(|verb| with(&|rules| rules.session = [*verb].into()))
                .collect(),
            Kind::Fleet => self
                .fleet
                .iter()
                .map(|verb| with(&|rules| rules.fleet = [*verb].into()))
                .collect(),
            Kind::Bus => each(&self.bus, |names| with(&|rules| rules.bus = names.clone())),
            Kind::Event => each(&self.events, |names| {
                with(&|rules| rules.events = names.clone())
            }),
            Kind::ReplaceTool => each(&self.replace, |names| {
                with(&|rules| rules.replace = names.clone())
            }),
        }
    }
}

impl Shell {
    /// The same for one part of the scope and one command each.
    fn singles(&self) -> Vec<Self> {
        let commands: Vec<_> = match &self.commands {
            None => vec![None],
            Some(commands) => std::iter::once(Some(Vec::new()))
                .chain(commands.iter().map(|one| Some(vec![one.clone()])))
                .collect(),
        };
        self.scope
            .0
            .iter()
            .flat_map(|set| {
                commands.iter().map(|commands| Self {
                    scope: Scope(vec![set.clone()]),
                    commands: commands.clone(),
                    ..self.clone()
                })
            })
            .collect()
    }
}

fn each(names: &Names, section: impl Fn(Names) -> Rules) -> Vec<Rules> {
    names
        .0
        .iter()
        .map(|name| section(Names([name.clone()].into())))
        .collect()
}
