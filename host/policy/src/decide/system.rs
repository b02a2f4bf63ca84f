//! This machine: processes, files, HTTP, secrets.

use std::net::IpAddr;
use std::path::Path;

use url::Url;

use super::{Judgement, Refusal, has_nul, sound_env};
use crate::argv::ArgPattern;
use crate::decision::{brief, quoted};
use crate::parse::is_name;
use crate::request::{Access, SecretUse};
use crate::rules::{ProcessRule, Rules, SecretRule, SecretTo, mode};
use crate::web;

impl Rules {
    pub(super) fn process(
        &self,
        program: &Path,
        args: &[String],
        directory: &Path,
        env: &[&str],
    ) -> Judgement {
        let shown = brief(&program.to_string_lossy());
        let pattern = ArgPattern::exactly(args);
        let refusal = || {
            Refusal::new(
                "process",
                format!("start `{}`", brief(format!("{shown} {pattern}").trim_end())),
            )
        };
        if !program.is_absolute() {
            return Err(refusal().because("the program is not an absolute path"));
        }
        if has_nul(args) {
            return Err(refusal().because("an argument contains a NUL byte"));
        }
        sound_env(env, refusal)?;
        // One rule has to hold as a whole: what one allows in its directory, another may not lend its environment.
        let mut nearest = None;
        for rule in self.process.iter().filter(|rule| rule.program == program) {
            match process_rule(rule, args, directory, env) {
                Ok(()) => return Ok(()),
                Err(why) => nearest = nearest.max(Some(why)),
            }
        }
        let rule = format!(
            "{{ program = {}, args = [{}] }}",
            quoted(&program.to_string_lossy()),
            quoted(&pattern)
        );
        Err(match nearest {
            None => refusal().fix(
                format!("add {} to process", brief(&rule)),
                format!("process = [{rule}]"),
            ),
            Some(Near::Arguments) => {
                let add = format!("add {} to the args of {shown} in process", quoted(&pattern));
                refusal()
                    .because("no pattern of its arguments matches")
                    .fix(brief(&add), format!("process = [{rule}]"))
            }
            Some(Near::Directory) => {
                let path = quoted(&directory.to_string_lossy());
                let rule = format!(
                    "process = [{{ program = {}, args = [{}], directories = [{path}] }}]",
                    quoted(&program.to_string_lossy()),
                    quoted(&pattern)
                );
                let why = format!(
                    "not in the directory {}",
                    brief(&directory.to_string_lossy())
                );
                refusal().because(why).fix(
                    format!("add {path} to the directories of {shown} in process"),
                    rule,
                )
            }
            Some(Near::Env(name)) => {
                let rule = format!(
                    "process = [{{ program = {}, args = [{}], env = [{}] }}]",
                    quoted(&program.to_string_lossy()),
                    quoted(&pattern),
                    quoted(&name)
                );
                let why = format!("not with the variable {}", brief(&name));
                refusal().because(why).fix(
                    format!("add {} to the env of {shown} in process", quoted(&name)),
                    rule,
                )
            }
        })
    }

    pub(super) fn file(&self, path: &Path, access: Access) -> Judgement {
        let text = path.to_string_lossy();
        let refusal = Refusal::new("files", format!("{access} {}", brief(&text)));
        if let Err(error) = crate::paths::absolute(path) {
            return Err(refusal.because(error.to_string()));
        }
        match self.file_root(path, access) {
            Some(_) => Ok(()),
            None => Err(refusal.add(
                &format!(
                    "{{ path = {}, mode = \"{}\" }}",
                    quoted(&text),
                    mode(access)
                ),
                "files",
            )),
        }
    }

    pub(super) fn http(&self, method: &str, url: &Url) -> Judgement {
        let refusal = Refusal::new(
            "http",
            format!("ask {} {}", brief(method), brief(url.as_str())),
        );
        if let Some(why) = web::refused(url) {
            // The URL may carry a password: it is not repeated.
            return Err(Refusal::new("http", "send this request").because(why));
        }
        if self.http.iter().any(|rule| rule.matches(method, url)) {
            return Ok(());
        }
        let refusal = match web::ambiguous(url.path()) {
            Some(why) => refusal.because(why),
            None => refusal,
        };
        let mut exact = url.clone();
        exact.set_query(None);
        exact.set_fragment(None);
        if url.query().is_some() {
            exact.set_path(&format!(
                "{}/*",
                exact.path().rsplit_once('/').map_or("", |(stem, _)| stem)
            ));
        }
        Err(refusal.add(&quoted(exact.as_str()), "http"))
    }

    pub(super) fn address(&self, method: &str, url: &Url, address: IpAddr) -> Judgement {
        let Some(kind) = web::special_address(address) else {
            return Ok(());
        };
        if self
            .http
            .iter()
            .any(|rule| rule.matches(method, url) && rule.names(address))
        {
            return Ok(());
        }
        let host = url.host_str().unwrap_or_default();
        let refusal = Refusal::new(
            "http.address",
            format!("reach {} at {address}", brief(host)),
        )
        .because(format!("the address is {kind}"));
        let rule = format!(
            "{{ url = {}, addresses = [\"{address}\"] }}",
            quoted(&format!("{}/*", url.origin().ascii_serialization()))
        );
        Err(refusal.add(&rule, "http"))
    }

    /// Names are exact: the environment holds what nobody thought of, so nothing is granted by a pattern.
    pub(super) fn variable(&self, name: &str) -> Judgement {
        if self.environment.contains(name) {
            return Ok(());
        }
        let refusal = Refusal::new(
            "environment",
            format!("read the environment variable {}", brief(name)),
        );
        if !is_name(name) {
            return Err(refusal.because("no variable has such a name"));
        }
        Err(refusal.add(&quoted(name), "environment"))
    }

    pub(super) fn secret(&self, name: &str, to: SecretUse<'_>) -> Judgement {
        let matches = |rule: &SecretRule| {
            rule.name == name
                && match (&rule.to, to) {
                    (SecretTo::ChildEnv(None), SecretUse::ChildEnv { .. })
                    | (SecretTo::VmEnv, SecretUse::VmEnv) => true,
                    (SecretTo::ChildEnv(Some(granted)), SecretUse::ChildEnv { program }) => {
                        granted == program
                    }
                    (SecretTo::Http(granted), SecretUse::HttpHeader { url }) => {
                        granted.origin() == url.origin() && url.origin().is_tuple()
                    }
                    (SecretTo::ChildEnv(_) | SecretTo::VmEnv | SecretTo::Http(_), _) => false,
                }
        };
        if self.secrets.iter().any(matches) {
            return Ok(());
        }
        let way = match to {
            SecretUse::ChildEnv { program } => format!("child env {}", program.display()),
            SecretUse::VmEnv => "vm env".into(),
            SecretUse::HttpHeader { url } => format!("http {}", url.origin().ascii_serialization()),
        };
        let refusal = Refusal::new(
            "secrets",
            format!("hand the secret {} to {}", brief(name), brief(&way)),
        );
        Err(refusal.add(&quoted(&format!("{name} -> {way}")), "secrets"))
    }
}

/// How far a rule for the same program was from allowing it.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Near {
    Arguments,
    Directory,
    Env(String),
}

fn process_rule(
    rule: &ProcessRule,
    args: &[String],
    directory: &Path,
    env: &[&str],
) -> Result<(), Near> {
    if rule
        .args
        .as_ref()
        .is_some_and(|patterns| !patterns.iter().any(|pattern| pattern.matches(args)))
    {
        return Err(Near::Arguments);
    }
    if !rule
        .directories
        .iter()
        .any(|place| place.covers(directory).is_some())
    {
        return Err(Near::Directory);
    }
    rule.env
        .missing(env)
        .map_or(Ok(()), |name| Err(Near::Env(name.to_owned())))
}
