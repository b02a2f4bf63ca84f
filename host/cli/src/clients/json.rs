//! JSON, with comments or without.

use jsonc_parser::ParseOptions;
use jsonc_parser::cst::{CstContainerNode, CstInputValue, CstNode, CstObject, CstRootNode};
use serde_json::{Map, Value};

use super::document::{Change, Problem, Step, Syntax, shown};

fn options(syntax: Syntax) -> ParseOptions {
    let comments = syntax == Syntax::JsonWithComments;
    ParseOptions {
        allow_comments: comments,
        allow_trailing_commas: comments,
        allow_loose_object_property_names: false,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
    }
}

fn invalid(why: &dyn std::fmt::Display) -> Problem {
    Problem::Invalid("JSON", why.to_string().replace('\n', " "))
}

pub(super) fn read(text: &str, syntax: Syntax) -> Result<Value, Problem> {
    let value = jsonc_parser::parse_to_serde_value::<Option<Value>>(text, &options(syntax));
    let value = value.map_err(|why| invalid(&why))?;
    Ok(value.unwrap_or_else(|| Value::Object(Map::new())))
}

pub(super) fn change(text: &str, syntax: Syntax, changes: &[Change]) -> Result<String, Problem> {
    let root = CstRootNode::parse(text, &options(syntax)).map_err(|why| invalid(&why))?;
    for change in changes {
        match change {
            Change::Set(path, value) => set(&root, path, value)?,
            Change::Append(path, value) => {
                let Some((Step::Name(last), way)) = path.split_last() else {
                    return Err(Problem::Unsure);
                };
                let array = object(&root, way)?
                    .array_value_or_create(last)
                    .ok_or_else(|| Problem::Kind(shown(path), "a list"))?;
                array.append(input(value));
            }
            Change::Remove(path) => remove(&root, path),
        }
    }
    let mut changed = root.to_string();
    if text.trim().is_empty() && !changed.ends_with('\n') {
        changed.push('\n');
    }
    Ok(changed)
}

/// The object at a path, made if it is not there.
fn object(root: &CstRootNode, path: &[Step]) -> Result<CstObject, Problem> {
    let no_object =
        |upto: usize| Problem::Kind(shown(path.get(..upto).unwrap_or_default()), "an object");
    let mut place = root
        .object_value_or_create()
        .map(CstNode::from)
        .ok_or_else(|| no_object(0))?;
    for (at, step) in path.iter().enumerate() {
        place = match step {
            Step::Name(name) => {
                let object = place.as_object().ok_or_else(|| no_object(at))?;
                match object.get(name) {
                    Some(member) => member.value().ok_or(Problem::Unsure)?,
                    None => object
                        .object_value_or_create(name)
                        .map(CstNode::from)
                        .ok_or(Problem::Unsure)?,
                }
            }
            Step::At(index) => {
                let array = place.as_array().ok_or_else(|| {
                    Problem::Kind(shown(path.get(..at).unwrap_or_default()), "a list")
                })?;
                array
                    .elements()
                    .into_iter()
                    .nth(*index)
                    .ok_or(Problem::Unsure)?
            }
        };
    }
    place.as_object().ok_or_else(|| no_object(path.len()))
}

fn set(root: &CstRootNode, path: &[Step], value: &Value) -> Result<(), Problem> {
    let Some((last, way)) = path.split_last() else {
        return Err(Problem::Unsure);
    };
    match last {
        Step::Name(name) => member(&object(root, way)?, name, value),
        Step::At(index) => {
            let Some(CstNode::Container(CstContainerNode::Array(array))) = find(root, way) else {
                return Err(Problem::Kind(shown(way), "a list"));
            };
            let old = array.elements().into_iter().nth(*index);
            old.ok_or(Problem::Unsure)?.remove();
            array.insert(*index, input(value));
        }
    }
    Ok(())
}

/// Of an object that is there, only those members are touched that differ.
fn member(object: &CstObject, name: &str, value: &Value) {
    let Some(old) = object.get(name) else {
        object.append(name, input(value));
        return;
    };
    if old.to_serde_value().as_ref() == Some(value) {
        return;
    }
    match (old.object_value(), value) {
        (Some(old), Value::Object(new)) => {
            for gone in old.properties() {
                let name = gone.decoded_name();
                if !name.is_some_and(|name| new.contains_key(&name)) {
                    gone.remove();
                }
            }
            for (name, value) in new {
                member(&old, name, value);
            }
        }
        _ => old.set_value(input(value)),
    }
}

fn find(root: &CstRootNode, path: &[Step]) -> Option<CstNode> {
    path.iter()
        .try_fold(root.value()?, |place, step| match step {
            Step::Name(name) => place.as_object()?.get(name)?.value(),
            Step::At(at) => place.as_array()?.elements().into_iter().nth(*at),
        })
}

/// Takes the place away, and what then is empty around it, but not the whole.
fn remove(root: &CstRootNode, path: &[Step]) {
    for length in (1..=path.len()).rev() {
        let Some((last, way)) = path.get(..length).and_then(<[Step]>::split_last) else {
            return;
        };
        let Some(holder) = find(root, way) else {
            return;
        };
        let (gone, left) = match (last, &holder) {
            (Step::Name(name), CstNode::Container(CstContainerNode::Object(object))) => {
                let member = object.get(name).map(CstNode::from);
                (member, object.properties().len())
            }
            (Step::At(at), CstNode::Container(CstContainerNode::Array(array))) => {
                let elements = array.elements();
                let left = elements.len();
                (elements.into_iter().nth(*at), left)
            }
            _ => return,
        };
        let Some(gone) = gone else { return };
        gone.remove();
        if left > 1 {
            return;
        }
    }
}

fn input(value: &Value) -> CstInputValue {
    match value {
        Value::Null => CstInputValue::Null,
        Value::Bool(value) => CstInputValue::Bool(*value),
        Value::Number(value) => CstInputValue::Number(value.to_string()),
        Value::String(value) => CstInputValue::String(value.clone()),
        Value::Array(values) => CstInputValue::Array(values.iter().map(input).collect()),
        Value::Object(members) => {
            let members = members
                .iter()
                .map(|(name, value)| (name.clone(), input(value)));
            CstInputValue::Object(members.collect())
        }
    }
}
