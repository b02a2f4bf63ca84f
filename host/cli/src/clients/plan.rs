//! What has to change in which file.

use serde_json::Value;

use super::diff;
use super::document::{Change, Path, Problem, Step, find, shown};
use super::entry::{self, Owner, Server};
use super::file::Kept;
use super::options::{Client, HookKind};
use super::places::Place;
use crate::failure::Failure;

/// A file and what it shall be.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) kept: Kept,
    pub(crate) place: Place,
    /// None: it is as it shall be.
    pub(crate) text: Option<String>,
    /// Nothing is in it any more.
    pub(crate) empty: bool,
    pub(crate) diff: String,
}

fn at(place: &Path, steps: impl IntoIterator<Item = Step>) -> Path {
    place.iter().cloned().chain(steps).collect()
}

impl Plan {
    /// The server stands under this name, or no more.
    pub(crate) fn server(
        place: Place,
        client: Client,
        name: &str,
        server: Option<&Server>,
    ) -> Result<Self, Failure> {
        let (kept, data) = read(&place)?;
        let path = at(&place.path, [Step::Name(name.to_owned())]);
        let old = find(&data, &path);
        if let Some(old) = old
            && let Owner::Other(what) = entry::owner(old)
        {
            let file = pi_vers_host::visible(&place.file.display().to_string());
            let what = pi_vers_host::visible(&what);
            return Err(Failure::usage(format!(
                "{} in {file} runs {what}, not pi-vers",
                shown(&path)
            ))
            .next("choose another name with --name, or take that entry out yourself"));
        }
        let new = server.map(|server| server.entry(client, old));
        let changes = match &new {
            Some(new) if Some(new) != old => vec![Change::Set(path, new.clone())],
            None if old.is_some() => vec![Change::Remove(path)],
            _ => Vec::new(),
        };
        let values: Vec<&Value> = old.into_iter().chain(&new).collect();
        Self::new(kept, place, &changes, &values)
    }

    /// The list of hooks has ours, or no more.
    pub(crate) fn hook(
        place: Place,
        (client, kind): (Client, HookKind),
        name: &str,
        program: &str,
    ) -> Result<Self, Failure> {
        let (kept, data) = read(&place)?;
        let wanted = entry::hook(client, kind, name, program);
        let found = hooks(&data, &place.path, name);
        let mut changes = Vec::new();
        let mut values: Vec<&Value> = found.iter().map(|(_, hook)| *hook).collect();
        let mut left = found.iter();
        match (&wanted, left.next()) {
            (Some(wanted), Some((path, hook))) if wanted != *hook => {
                changes.push(Change::Set(path.clone(), wanted.clone()));
            }
            (Some(wanted), None) => {
                changes.push(Change::Append(
                    place.path.clone(),
                    entry::group(client, wanted),
                ));
            }
            (None, Some((path, _))) => changes.push(Change::Remove(whole(&data, path))),
            _ => {}
        }
        // The same twice, or one of each kind: one is enough.
        changes.extend(left.map(|(path, _)| Change::Remove(whole(&data, path))));
        // From the end, so that the places before stay what they are.
        changes.reverse();
        let group = wanted.as_ref().map(|hook| entry::group(client, hook));
        values.extend(&group);
        Self::new(kept, place, &changes, &values)
    }

    fn new(kept: Kept, place: Place, changes: &[Change], ours: &[&Value]) -> Result<Self, Failure> {
        let old = kept.text.as_deref().unwrap_or_default();
        let told = |why: Problem| told(&place, &why);
        let new = place.syntax.change(old, changes).map_err(told)?;
        if changes.is_empty() || new == old {
            return Ok(Self {
                kept,
                place,
                text: None,
                empty: false,
                diff: String::new(),
            });
        }
        // Not even a comment.
        let left: String = new.chars().filter(|c| !c.is_whitespace()).collect();
        let empty = left.is_empty() || left == "{}";
        let shown = if empty { "" } else { &new };
        let ours = diff::texts(ours.iter().copied());
        let diff = diff::unified(place.syntax, &place.file, old, shown, &ours);
        Ok(Self {
            kept,
            place,
            text: Some(new),
            empty,
            diff,
        })
    }
}

/// The place of a hook, or of its group if that has no other.
fn whole(data: &Value, hook: &Path) -> Path {
    let alone = |path: &[Step]| {
        find(data, path)
            .and_then(Value::as_array)
            .is_some_and(|hooks| hooks.len() == 1)
    };
    // A group, its member `hooks`, the place there.
    match hook.as_slice() {
        [group @ .., _, Step::At(_)] if alone(hook.get(..hook.len() - 1).unwrap_or_default()) => {
            group.to_vec()
        }
        _ => hook.clone(),
    }
}

/// Our hooks in the list, with their places.
pub(crate) fn hooks<'a>(data: &'a Value, list: &Path, name: &str) -> Vec<(Path, &'a Value)> {
    let groups = find(data, list).and_then(Value::as_array);
    let mut found = Vec::new();
    for (group, value) in groups.into_iter().flatten().enumerate() {
        let hooks = value.get("hooks").and_then(Value::as_array);
        for (place, hook) in hooks.into_iter().flatten().enumerate() {
            if entry::is_ours(hook, name) {
                let steps = [Step::At(group), Step::Name("hooks".into()), Step::At(place)];
                found.push((at(list, steps), hook));
            }
        }
    }
    found
}

/// A file and its data.
pub(crate) fn read(place: &Place) -> Result<(Kept, Value), Failure> {
    let kept = Kept::read(&place.file)?;
    let text = kept.text.as_deref().unwrap_or_default();
    let data = place.syntax.read(text).map_err(|why| told(place, &why))?;
    Ok((kept, data))
}

fn told(place: &Place, why: &Problem) -> Failure {
    let file = pi_vers_host::visible(&place.file.display().to_string());
    Failure::usage(format!("{file} is left alone: {why}"))
        .next("mend it, or add the server by hand")
}
