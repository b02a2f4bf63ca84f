//! `pi-vers add`, `remove`, `list`, `update` and `lock`: extensions of others in every session.
//!
//! What is loaded are bytes that this user installed, by the digest in the lock; where they came from is asked only by these commands. An
//! extension that was added may do nothing until its owner grants it something, and a grant is bound to its bytes: an update voids it.

mod active;
mod changes;
mod fetch;
mod get;
mod list;
mod oci;
mod sign;
mod source;
mod store;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use pi_vers_host::policy::{Digest, Lookup};
use pi_vers_host::visible;
use serde_json::{Value, json};

pub(crate) use active::{Added, active, fingerprint, is_added, load, locks};

use self::get::Got;
use self::list::{List, Locked, Scope, Wanted};
use self::source::Source;
use crate::failure::{Code, Failure};
use crate::terminal::{Style, Terminal};
use crate::{inspect, setup};

/// Which list.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Where {
    /// The project's list: `[extensions]` of ./pi-vers.toml (default: yours, which every session loads)
    #[arg(long)]
    pub(crate) project: bool,
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Add {
    /// A file, an https URL, or oci://HOST/REPOSITORY:TAG
    pub(crate) source: String,
    /// Refuse any other bytes
    #[arg(long, value_name = "SHA256")]
    pub(crate) digest: Option<String>,
    /// Refuse it now and in every update unless this key signed it: a name from `[signers]` of extensions.toml, or "ssh-ed25519 AAAA…"
    #[arg(long, value_name = "KEY")]
    pub(crate) signed_by: Option<String>,
    #[command(flatten)]
    pub(crate) place: Where,
}

#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// The extension
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) place: Where,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Update {
    /// Which ones (default: all of the list)
    pub(crate) name: Vec<String>,
    /// Say what is new and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) place: Where,
}

#[derive(Debug, Args)]
pub(crate) struct Lock {
    /// Change nothing in the lock: install what it says, and fail if the list says something else
    #[arg(long)]
    pub(crate) locked: bool,
    #[command(flatten)]
    pub(crate) place: Where,
}

fn scope(place: &Where) -> Result<Scope, Failure> {
    if !place.project {
        return Ok(Scope::User);
    }
    let here = std::env::current_dir()
        .map_err(|why| Failure::usage(format!("the working directory is gone: {why}")))?;
    Ok(Scope::Project(here))
}

/// Adds an extension to a list.
pub(crate) async fn add(terminal: Arc<Terminal>, options: Add) -> Result<Code, Failure> {
    let scope = scope(&options.place)?;
    let mut list = List::read(scope.clone())?;
    let mut source = Source::parse(&options.source).map_err(Failure::usage)?;
    if let Source::File(path) = &source {
        // As seen from the list, which may be elsewhere.
        let absolute = std::path::absolute(path)
            .map_err(|why| Failure::usage(format!("{}: {why}", path.display())))?;
        source = Source::File(match &scope {
            Scope::Project(directory) => absolute
                .strip_prefix(directory)
                .map_or(absolute.clone(), PathBuf::from),
            Scope::User => absolute,
        });
    }
    let expected = options.digest.as_deref().map(digest).transpose()?;
    let signed_by = match &options.signed_by {
        Some(key) => Some(list::key_of(key, &list.signers).map_err(Failure::usage)?),
        None => None,
    };
    let mut wanted = Wanted { source, signed_by };
    let got = get::get(&list, &wanted, expected.as_ref()).await?;
    let name = got.locked.name.clone();
    if let Some(old) = list.wanted.get(&name)
        && old.source != wanted.source
    {
        return Err(Failure::usage(format!(
            "{name} is in {} already, from {}",
            scope.words(),
            old.source
        ))
        .next(format!("`pi-vers remove {name}` takes it out")));
    }
    // Who signs with a key that the user trusts has to go on doing so.
    if wanted.signed_by.is_none()
        && let Some(signed) = &got.signed
        && signed.name.is_some()
    {
        wanted.signed_by = Some(signed.key.clone());
    }
    fits(&got).await?;
    got.install()?;
    let old = list.locked.insert(name.clone(), got.locked.clone());
    // First what the bytes are, then that they are wanted: between the two nothing is loaded.
    list.write_lock()?;
    list.want(&name, wanted)?;
    tell_added(&terminal, &options, &got, old.as_ref());
    Ok(Code::Ok)
}

fn digest(text: &str) -> Result<Digest, Failure> {
    let whole = match text.contains(':') {
        true => text.to_owned(),
        false => format!("sha256:{text}"),
    };
    whole
        .parse()
        .map_err(|_| Failure::usage(format!("{} is no digest", visible(text))))
}

/// Whether its names clash with those of others that are loaded: told now, and not by each session.
async fn fits(got: &Got) -> Result<(), Failure> {
    let policy = setup::policy(None)?;
    let host = setup::host(policy, setup::settings()?).await?;
    let mut all = setup::extensions(&host, &[]).await?;
    let here = std::env::current_dir().unwrap_or_default();
    for added in active(&here, false)? {
        if added.name != got.locked.name
            && let Ok(extension) = load(&host, &added.origin, added.bytes).await
        {
            all.push(extension);
        }
    }
    all.push(got.extension.clone());
    let harness =
        crate::harness::CommandLine::new(Arc::new(Terminal::new(true)), None, BTreeMap::new())?;
    let session = host.session(Arc::new(harness), all)?;
    session.end().await;
    Ok(())
}

fn tell_added(terminal: &Terminal, options: &Add, got: &Got, old: Option<&Locked>) {
    let locked = &got.locked;
    if options.place.json {
        let json = json!({
            "added": json_of(locked),
            "signed_by": got.signed.as_ref().map(|signed| json!({ "key": signed.key.text(), "name": signed.name })),
            "changes": old.map(|old| changes::lines(old, locked)),
        });
        terminal.line(json.to_string());
        return;
    }
    let heading = format!(
        "added {} {}",
        visible(&locked.name),
        visible(&locked.version)
    );
    terminal.line(terminal.styled(Style::Bold, &heading));
    terminal.line(format!("from    {}", visible(&locked.source)));
    terminal.line(format!("digest  {}", locked.digest));
    terminal.line(match &got.signed {
        Some(signed) => format!("signed  by {}", visible(&signed.by())),
        None => "signed  by nobody".into(),
    });
    if !locked.tools.is_empty() {
        terminal.line(format!("tools   {}", visible(&locked.tools.join(", "))));
    }
    terminal.line("imports: what it can ask for");
    for line in inspect::import_lines(&got.extension) {
        terminal.line(format!("  {line}"));
    }
    for line in old
        .map(|old| changes::lines(old, locked))
        .unwrap_or_default()
    {
        terminal.line(line);
    }
    if !locked.asks.is_empty() {
        terminal.remark(format!(
            "it is granted nothing yet; `pi-vers policy grant {}` grants it something of: {}",
            visible(&locked.name),
            locked.asks.join(", ")
        ));
    }
}

fn json_of(locked: &Locked) -> Value {
    json!({
        "name": locked.name,
        "version": locked.version,
        "source": locked.source,
        "digest": locked.digest,
        "size": locked.size,
        "signed_by": locked.signed_by,
        "imports": locked.imports,
        "asks": locked.asks,
        "tools": locked.tools,
    })
}

/// Takes an extension out of a list.
pub(crate) fn remove(terminal: &Terminal, options: &Remove) -> Result<Code, Failure> {
    let scope = scope(&options.place)?;
    let mut list = List::read(scope.clone())?;
    let name = &options.name;
    if !list.wanted.contains_key(name) && !list.locked.contains_key(name) {
        let known: Vec<&str> = list.wanted.keys().map(String::as_str).collect();
        return Err(
            Failure::usage(format!("{} is not in {}", visible(name), scope.words())).next(
                match known.is_empty() {
                    true => "nothing is".to_owned(),
                    false => format!("there are {}", known.join(", ")),
                },
            ),
        );
    }
    list.forget(name)?;
    if options.place.json {
        terminal.line(json!({ "removed": name }).to_string());
    } else {
        terminal.line(format!("removed {name} from {}", scope.words()));
        terminal.remark("what the policy grants its bytes is still there, and what it has stored");
    }
    Ok(Code::Ok)
}

/// Shows both lists.
pub(crate) fn list(terminal: &Terminal, options: &Show) -> Result<Code, Failure> {
    let here = std::env::current_dir()
        .map_err(|why| Failure::usage(format!("the working directory is gone: {why}")))?;
    let policy = setup::policy(None)?;
    let mut all = Vec::new();
    let project = list::has_project_list(&here).then_some(Scope::Project(here));
    for scope in [Some(Scope::User), project].into_iter().flatten() {
        let list = List::read(scope.clone())?;
        for (name, wanted) in &list.wanted {
            let locked = list.locked.get(name);
            let digest = locked.and_then(|locked| locked.digest().ok());
            let state = match &digest {
                None => "not locked: `pi-vers lock`",
                Some(digest) if store::has(digest) => "installed",
                Some(_) => "not installed: `pi-vers lock`",
            };
            let bound = locked.map(Locked::bound).transpose()?;
            let grants = bound.map(|bound| match policy.grants(name, &bound) {
                Lookup::Granted(_) => "granted",
                Lookup::Changed { .. } => "granted to other bytes: nothing holds",
                Lookup::Unknown => "nothing granted",
            });
            all.push((
                name.clone(),
                wanted.source.to_string(),
                scope.clone(),
                locked.cloned(),
                state,
                grants,
            ));
        }
    }
    if options.json {
        let all = all
            .iter()
            .map(|(name, source, scope, locked, state, grants)| {
                json!({
                    "name": name,
                    "source": source,
                    "list": match scope { Scope::User => "user", Scope::Project(_) => "project" },
                    "state": state.split(':').next(),
                    "grants": grants,
                    "locked": locked.as_ref().map(json_of),
                })
            });
        terminal.line(Value::from_iter(all).to_string());
        return Ok(Code::Ok);
    }
    if all.is_empty() {
        terminal.line("no extensions are added");
    }
    for (name, source, scope, locked, state, grants) in all {
        let version = locked.map(|locked| locked.version).unwrap_or_default();
        let title = format!("{} {}", visible(&name), visible(&version));
        let from = match scope {
            Scope::User => visible(&source),
            Scope::Project(_) => format!("{} (project)", visible(&source)),
        };
        terminal.line(format!(
            "{}  {from}  {state}{}",
            terminal.styled(Style::Bold, title.trim_end()),
            grants.map_or_else(String::new, |grants| format!(", {grants}")),
        ));
    }
    Ok(Code::Ok)
}

/// Asks the sources for what is new.
pub(crate) async fn update(terminal: Arc<Terminal>, options: Update) -> Result<Code, Failure> {
    let mut list = List::read(scope(&options.place)?)?;
    if let Some(unknown) = options
        .name
        .iter()
        .find(|name| !list.wanted.contains_key(*name))
    {
        return Err(Failure::usage(format!(
            "{} is not in {}",
            visible(unknown),
            list.scope.words()
        )));
    }
    let names: Vec<String> = list
        .wanted
        .keys()
        .filter(|name| options.name.is_empty() || options.name.contains(name))
        .cloned()
        .collect();
    // All of them first: one that fails leaves everything as it was.
    let mut got = Vec::new();
    for name in &names {
        let Some(wanted) = list.wanted.get(name) else {
            continue;
        };
        let one = get::get(&list, wanted, None).await?;
        if one.locked.name != *name {
            return Err(Failure::new(
                Code::Denied,
                "name",
                format!("{name} calls itself {} now", visible(&one.locked.name)),
            )
            .next("remove it, and add it again if it is what you want"));
        }
        got.push(one);
    }
    let policy = setup::policy(None)?;
    let mut told = Vec::new();
    for one in got {
        let (name, new) = (one.locked.name.clone(), one.locked.clone());
        let old = list.locked.get(&name).cloned();
        let lost = match old.as_ref().map(Locked::bound).transpose()? {
            Some(digest) if old.as_ref().map(|old| &old.digest) != Some(&new.digest) => {
                changes::lost(&policy, &name, &digest)
            }
            _ => Vec::new(),
        };
        if !options.dry_run {
            one.install()?;
            list.locked.insert(name.clone(), new.clone());
        }
        told.push((name, old, new, lost));
    }
    if !options.dry_run {
        list.write_lock()?;
    }
    for (name, old, new, lost) in told {
        let lines = old.as_ref().map(|old| changes::lines(old, &new));
        let same = old.as_ref().is_some_and(|old| old.digest == new.digest);
        if options.place.json {
            let json = json!({ "name": name, "updated": !same, "new": json_of(&new), "changes": lines, "grants_lost": lost });
            terminal.line(json.to_string());
            continue;
        }
        if same {
            terminal.line(format!("{name} {}: nothing new", visible(&new.version)));
            continue;
        }
        let title = format!("{name} {}", visible(&new.version));
        terminal.line(terminal.styled(Style::Bold, &title));
        for line in lines.unwrap_or_default() {
            terminal.line(format!("  {line}"));
        }
        if !lost.is_empty() {
            terminal.line("  its bytes changed, so what it was granted does not hold any more:");
            for line in lost {
                terminal.line(format!("    {line}"));
            }
            terminal.line(format!(
                "  `pi-vers policy grant {name} --rule …` grants it to the new ones"
            ));
        }
    }
    Ok(Code::Ok)
}

/// Makes the lock agree with the list, and installs what it says.
pub(crate) async fn lock(terminal: Arc<Terminal>, options: Lock) -> Result<Code, Failure> {
    let mut list = List::read(scope(&options.place)?)?;
    let differences = list.differences();
    if options.locked && !differences.is_empty() {
        return Err(Failure::new(
            Code::Usage,
            "locked",
            format!(
                "the lock is not that of the list: {}",
                differences.join("; ")
            ),
        )
        .next("`pi-vers lock` without --locked makes a new one"));
    }
    let mut done = Vec::new();
    let spare: Vec<String> = list
        .locked
        .keys()
        .filter(|name| !list.wanted.contains_key(*name))
        .cloned()
        .collect();
    for name in spare {
        list.locked.remove(&name);
        done.push((name, "taken out of the lock"));
    }
    for (name, wanted) in list.wanted.clone() {
        let fits = |locked: &&Locked| locked.source == wanted.source.to_string();
        let locked = list.locked.get(&name).filter(fits).cloned();
        let digest = locked.as_ref().map(Locked::digest).transpose()?;
        let key = wanted.signed_by.as_ref().map(sign::Key::text);
        let settled = locked.is_some_and(|locked| key.is_none() || key == locked.signed_by);
        if let Some(digest) = &digest
            && settled
            && store::get(digest)?.is_some()
        {
            done.push((name, "installed"));
            continue;
        }
        let got = get::get(&list, &wanted, digest.as_ref()).await?;
        if got.locked.name != name {
            return Err(Failure::new(
                Code::Denied,
                "name",
                format!(
                    "{} calls itself {}, not {name}",
                    wanted.source,
                    visible(&got.locked.name)
                ),
            ));
        }
        got.install()?;
        done.push((
            name.clone(),
            match digest {
                Some(_) => "fetched, as locked",
                None => "locked",
            },
        ));
        if !options.locked {
            list.locked.insert(name, got.locked);
        }
    }
    if !options.locked {
        list.write_lock()?;
    }
    if options.place.json {
        let all = done
            .iter()
            .map(|(name, what)| json!({ "name": name, "state": what }));
        terminal.line(Value::from_iter(all).to_string());
    } else if done.is_empty() {
        terminal.line(format!("{} is empty", list.scope.words()));
    } else {
        for (name, what) in done {
            terminal.line(format!("{}: {what}", visible(&name)));
        }
    }
    Ok(Code::Ok)
}
