//! TOML.

use serde_json::{Map, Number, Value};
use toml_edit::{Array, DocumentMut, InlineTable, Item, Table, TableLike, Value as Toml};

use super::document::{Change, Problem, Step, shown};

fn parse(text: &str) -> Result<DocumentMut, Problem> {
    text.parse::<DocumentMut>().map_err(|why| {
        // Only the first line of the message, without the picture of the place.
        let full = why.to_string();
        let place = full.lines().next().unwrap_or_default();
        let place = place.trim_start_matches("TOML parse error at ");
        Problem::Invalid(
            "TOML",
            format!("{place}: {}", why.message().replace('\n', " ")),
        )
    })
}

pub(super) fn read(text: &str) -> Result<Value, Problem> {
    Ok(table(parse(text)?.as_table()))
}

/// Lists are not added to: no client with TOML needs it.
pub(super) fn change(text: &str, changes: &[Change]) -> Result<String, Problem> {
    let mut document = parse(text)?;
    for change in changes {
        match change {
            Change::Set(path, value) => set(document.as_table_mut(), path, value)?,
            Change::Append(..) => return Err(Problem::Unsure),
            Change::Remove(path) => {
                remove(document.as_table_mut(), path);
            }
        }
    }
    Ok(document.to_string())
}

fn set(root: &mut Table, path: &[Step], value: &Value) -> Result<(), Problem> {
    let Some((Step::Name(last), way)) = path.split_last() else {
        return Err(Problem::Unsure);
    };
    let mut place: &mut dyn TableLike = root;
    for (at, step) in way.iter().enumerate() {
        let Step::Name(name) = step else {
            return Err(Problem::Unsure);
        };
        let item = place.entry(name).or_insert_with(|| {
            let mut table = Table::new();
            // No header of its own for what holds nothing but tables.
            table.set_implicit(true);
            Item::Table(table)
        });
        let here = path.get(..=at).unwrap_or_default();
        place = item
            .as_table_like_mut()
            .ok_or_else(|| Problem::Kind(shown(here), "a table"))?;
    }
    member(place, last, value)
}

/// Of a table that is there, only those members are touched that differ.
fn member(holder: &mut dyn TableLike, name: &str, value: &Value) -> Result<(), Problem> {
    if let Some(old) = holder.get_mut(name) {
        if data(old).as_ref() == Some(value) {
            return Ok(());
        }
        if let (Some(old), Value::Object(new)) = (old.as_table_like_mut(), value) {
            let gone: Vec<String> = old
                .iter()
                .map(|(name, _)| name.to_owned())
                .filter(|name| !new.contains_key(name))
                .collect();
            for name in gone {
                old.remove(&name);
            }
            for (name, value) in new {
                member(old, name, value)?;
            }
            return Ok(());
        }
        if let (Some(old), Some(mut new)) = (old.as_value_mut(), plain(value)) {
            *new.decor_mut() = old.decor().clone();
            *old = new;
            return Ok(());
        }
        return Err(Problem::Unsure);
    }
    let item = match value {
        Value::Object(members) => {
            let mut table = Table::new();
            for (name, value) in members {
                member(&mut table, name, value)?;
            }
            Item::Table(table)
        }
        other => Item::Value(plain(other).ok_or(Problem::Unsure)?),
    };
    holder.insert(name, item);
    Ok(())
}

/// Takes the place away; says whether nothing is left around it.
fn remove(holder: &mut dyn TableLike, path: &[Step]) -> bool {
    let Some((Step::Name(first), rest)) = path.split_first() else {
        return false;
    };
    let empty = match holder.get_mut(first) {
        None => return false,
        Some(_) if rest.is_empty() => true,
        Some(inner) => inner
            .as_table_like_mut()
            .is_some_and(|inner| remove(inner, rest)),
    };
    if empty {
        holder.remove(first);
    }
    holder.is_empty()
}

/// TOML has no null; numbers are whole ones here.
fn plain(value: &Value) -> Option<Toml> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(value) => Toml::from(*value),
        Value::Number(value) => Toml::from(value.as_i64()?),
        Value::String(value) => Toml::from(value.as_str()),
        Value::Array(values) => {
            let values: Option<Array> = values.iter().map(plain).collect();
            Toml::Array(values?)
        }
        Value::Object(members) => {
            let mut table = InlineTable::new();
            for (name, value) in members {
                table.insert(name, plain(value)?);
            }
            Toml::InlineTable(table)
        }
    })
}

fn table(table: &dyn TableLike) -> Value {
    let members = table
        .iter()
        .filter_map(|(name, item)| Some((name.to_owned(), data(item)?)));
    Value::Object(members.collect::<Map<_, _>>())
}

fn data(item: &Item) -> Option<Value> {
    Some(match item {
        Item::None => return None,
        Item::Value(value) => scalar(value),
        Item::Table(inner) => table(inner),
        Item::ArrayOfTables(all) => all.iter().map(|inner| table(inner)).collect(),
    })
}

fn scalar(value: &Toml) -> Value {
    match value {
        Toml::String(value) => Value::String(value.value().clone()),
        Toml::Integer(value) => Value::Number((*value.value()).into()),
        Toml::Boolean(value) => Value::Bool(*value.value()),
        // What JSON has no number for is compared as text.
        Toml::Float(value) => Number::from_f64(*value.value())
            .map_or_else(|| Value::String(value.value().to_string()), Value::Number),
        Toml::Datetime(value) => Value::String(value.value().to_string()),
        Toml::Array(values) => values.iter().map(scalar).collect(),
        Toml::InlineTable(inner) => table(inner),
    }
}
