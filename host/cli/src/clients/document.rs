//! A client's configuration as text that is changed in place.
//!
//! The file belongs to its user: comments, order, layout and everything that nobody here knows stay. So a change is not made by
//! writing the whole anew, but at its place in the syntax tree. What comes of that is read again and compared with the same change made to
//! the plain data: a file that does not come out exactly so, for example because a name stands in it twice, is left alone.

use serde_json::{Map, Value};

use super::{json, toml};

/// How the text is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Syntax {
    /// JSON as the standard has it.
    Json,
    /// With comments and commas at the end.
    JsonWithComments,
    Toml,
}

/// A step on the way to a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Name(String),
    At(usize),
}

/// A place.
pub(crate) type Path = Vec<Step>;

/// A path of names.
pub(crate) fn names<'a>(names: impl IntoIterator<Item = &'a str>) -> Path {
    names
        .into_iter()
        .map(|name| Step::Name(name.to_owned()))
        .collect()
}

/// A change of the data.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Change {
    /// The member at the path has this value, whether it was there or not. Objects on the way are made. The last step is a name, or a place
    /// that is there.
    Set(Path, Value),
    /// One more element at the end of the array at the path, which is made if it is not there.
    Append(Path, Value),
    /// The place is not there, nor what holds nothing else.
    Remove(Path),
}

/// Why a text can't be changed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Problem {
    #[error("it is no valid {0}: {1}")]
    Invalid(&'static str, String),
    #[error("{0} is there but is not {1}")]
    Kind(String, &'static str),
    #[error("it can't be changed here without changing something else, too")]
    Unsure,
}

/// A name of the path, for people.
pub(crate) fn shown(path: &[Step]) -> String {
    let parts: Vec<String> = path
        .iter()
        .map(|step| match step {
            Step::Name(name) => name.clone(),
            Step::At(at) => at.to_string(),
        })
        .collect();
    parts.join(".")
}

impl Syntax {
    /// The data of the text. Nothing at all is an empty object.
    pub(crate) fn read(self, text: &str) -> Result<Value, Problem> {
        match self {
            Self::Json | Self::JsonWithComments => json::read(body(text).1, self),
            Self::Toml => toml::read(body(text).1),
        }
    }

    /// The text with these changes made in order.
    pub(crate) fn change(self, text: &str, changes: &[Change]) -> Result<String, Problem> {
        let mut wanted = self.read(text)?;
        for change in changes {
            apply(&mut wanted, change)?;
        }
        let (mark, body) = body(text);
        let changed = match self {
            Self::Json | Self::JsonWithComments => json::change(body, self, changes)?,
            Self::Toml => toml::change(body, changes)?,
        };
        let changed = format!("{mark}{changed}");
        if self.read(&changed)? != wanted {
            return Err(Problem::Unsure);
        }
        Ok(changed)
    }
}

/// A byte order mark, and the rest.
fn body(text: &str) -> (&str, &str) {
    match text.strip_prefix('\u{feff}') {
        Some(rest) => ("\u{feff}", rest),
        None => ("", text),
    }
}

fn apply(root: &mut Value, change: &Change) -> Result<(), Problem> {
    match change {
        Change::Set(path, value) => {
            *make(root, path, || Value::Object(Map::new()))? = value.clone();
        }
        Change::Append(path, value) => {
            let place = make(root, path, || Value::Array(Vec::new()))?;
            let array = place
                .as_array_mut()
                .ok_or_else(|| Problem::Kind(shown(path), "a list"))?;
            array.push(value.clone());
        }
        Change::Remove(path) => {
            remove(root, path);
        }
    }
    Ok(())
}

/// The place at the path, made with what is missing on the way.
fn make<'a>(
    root: &'a mut Value,
    path: &[Step],
    last: impl Fn() -> Value,
) -> Result<&'a mut Value, Problem> {
    let mut place = root;
    for (at, step) in path.iter().enumerate() {
        let here = || shown(path.get(..at).unwrap_or_default());
        place = match step {
            Step::Name(name) => {
                let object = place
                    .as_object_mut()
                    .ok_or_else(|| Problem::Kind(here(), "an object"))?;
                let fresh = || {
                    if at + 1 == path.len() {
                        last()
                    } else {
                        Value::Object(Map::new())
                    }
                };
                object.entry(name.clone()).or_insert_with(fresh)
            }
            Step::At(index) => place
                .get_mut(*index)
                .ok_or_else(|| Problem::Kind(here(), "a list that long"))?,
        };
    }
    Ok(place)
}

/// Takes the place away; says whether nothing is left around it.
fn remove(value: &mut Value, path: &[Step]) -> bool {
    let Some((first, rest)) = path.split_first() else {
        return true;
    };
    match (value, first) {
        (Value::Object(object), Step::Name(name)) => {
            let Some(inner) = object.get_mut(name) else {
                return false;
            };
            if remove(inner, rest) {
                object.shift_remove(name);
            }
            object.is_empty()
        }
        (Value::Array(array), Step::At(at)) => {
            let Some(inner) = array.get_mut(*at) else {
                return false;
            };
            if remove(inner, rest) {
                array.remove(*at);
            }
            array.is_empty()
        }
        _ => false,
    }
}

/// What is at the path.
pub(crate) fn find<'a>(root: &'a Value, path: &[Step]) -> Option<&'a Value> {
    path.iter().try_fold(root, |place, step| match step {
        Step::Name(name) => place.get(name),
        Step::At(at) => place.get(at),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn set(value: Value) -> Vec<Change> {
        vec![Change::Set(names(["servers", "vers"]), value)]
    }

    const REMOVE: fn() -> Vec<Change> = || vec![Change::Remove(names(["servers", "vers"]))];

    #[test]
    fn json_keeps_comments_order_and_layout() {
        let text = "// mine\n{\n\t\"z\": 1, // last letter\n\t\"servers\": {\n\t\t\"other\": {\"command\": \"x\"},\n\t},\n\t\"a\": [1,2],\n}\n";
        let syntax = Syntax::JsonWithComments;
        let after = syntax
            .change(text, &set(json!({ "command": "c", "args": ["mcp"] })))
            .unwrap();
        assert_eq!(
            after,
            "// mine\n{\n\t\"z\": 1, // last letter\n\t\"servers\": {\n\t\t\"other\": {\"command\": \"x\"},\n\t\t\"vers\": {\n\t\t\t\"command\": \"c\",\n\t\t\t\"args\": [\"mcp\"],\n\t\t},\n\t},\n\t\"a\": [1,2],\n}\n"
        );
        assert_eq!(syntax.change(&after, &REMOVE()).unwrap(), text);
    }

    #[test]
    fn toml_keeps_comments_order_and_layout() {
        let text =
            "# mine\nmodel = \"x\" # this one\n\n[servers.other]\ncommand = 'y'\n\n[z]\na=1\n";
        let after = Syntax::Toml
            .change(
                text,
                &set(json!({ "command": "c", "args": ["mcp"], "n": 600 })),
            )
            .unwrap();
        assert!(
            after.contains("[servers.vers]\ncommand = \"c\"\nargs = [\"mcp\"]\nn = 600\n"),
            "{after}"
        );
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.iter().all(|line| after.contains(line)), "{after}");
        assert_eq!(Syntax::Toml.change(&after, &REMOVE()).unwrap(), text);
    }

    #[test]
    fn a_change_of_one_member_leaves_the_others_and_their_comments() {
        let text = "{\"servers\": {\"vers\": {\n  // by hand\n  \"env\": {\"A\": \"b\"},\n  \"command\": \"old\"\n}}}";
        let wanted = json!({ "env": { "A": "b" }, "command": "new", "args": [] });
        let after = Syntax::JsonWithComments.change(text, &set(wanted)).unwrap();
        assert!(
            after.contains("// by hand\n  \"env\": {\"A\": \"b\"},\n  \"command\": \"new\""),
            "{after}"
        );
        let text = "[servers.vers]\n# by hand\ncommand = \"old\" # why\n";
        let after = Syntax::Toml
            .change(text, &set(json!({ "command": "new", "n": 1 })))
            .unwrap();
        assert_eq!(
            after,
            "[servers.vers]\n# by hand\ncommand = \"new\" # why\nn = 1\n"
        );
    }

    #[test]
    fn nothing_is_an_empty_object_in_all_of_them() {
        for syntax in [Syntax::Json, Syntax::JsonWithComments, Syntax::Toml] {
            for text in ["", "\n", "\u{feff}"] {
                assert_eq!(syntax.read(text).unwrap(), json!({}), "{syntax:?} {text:?}");
                let after = syntax
                    .change(text, &set(json!({ "command": "c" })))
                    .unwrap();
                let value = syntax.read(&after).unwrap();
                assert_eq!(value, json!({ "servers": { "vers": { "command": "c" } } }));
            }
        }
    }

    #[test]
    fn what_is_no_object_where_one_is_needed_is_told_and_not_replaced() {
        for (syntax, text) in [
            (Syntax::Json, r#"{"servers": 5}"#),
            (Syntax::Json, r#"{"servers": ["a"]}"#),
            (Syntax::Toml, "servers = 5\n"),
            (Syntax::Json, "[]"),
            (Syntax::Json, "7"),
        ] {
            let why = syntax.change(text, &set(json!({}))).unwrap_err();
            assert!(matches!(why, Problem::Kind(..)), "{text}: {why}");
        }
    }

    #[test]
    fn a_text_of_another_syntax_is_told_with_the_place() {
        for (syntax, text, says) in [
            (Syntax::Json, "{\"a\": 1,}", "JSON"),
            (Syntax::Json, "{\"a\": 1 // x\n}", "JSON"),
            (Syntax::Json, "{", "line 1"),
            (Syntax::JsonWithComments, "{\"a\" 1}", "line 1"),
            (Syntax::Toml, "a = \n", "line 1"),
            (Syntax::Toml, "{\"a\": 1}", "TOML"),
        ] {
            let why = syntax.read(text).unwrap_err().to_string();
            assert!(why.contains(says), "{text}: {why}");
            assert!(!why.contains('\n'), "{why}");
        }
    }

    #[test]
    fn a_name_that_is_there_twice_is_left_alone() {
        let text = r#"{"servers": {"a": 1}, "servers": {"b": 2}}"#;
        assert!(Syntax::Json.change(text, &set(json!({}))).is_err());
    }

    #[test]
    fn elements_of_lists_come_and_go_and_leave_nothing_behind() {
        let place = || names(["hooks", "Pre"]);
        for text in [
            "{\n  \"x\": 1\n}\n",
            "{}",
            "{\n  \"hooks\": {\n    \"Post\": []\n  }\n}\n",
        ] {
            let append = [Change::Append(place(), json!({ "matcher": "Bash" }))];
            let after = Syntax::Json.change(text, &append).unwrap();
            let mut at = place();
            at.push(Step::At(0));
            let back = Syntax::Json.change(&after, &[Change::Remove(at)]).unwrap();
            assert_eq!(Syntax::Json.read(&back), Syntax::Json.read(text), "{after}");
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(json!(true)),
            any::<i32>().prop_map(Value::from),
            "\\PC{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 1..4).prop_map(Value::from),
                prop::collection::btree_map("[a-z\"\\\\ .é]{1,6}", inner, 1..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn object() -> impl Strategy<Value = Value> {
        prop::collection::btree_map("[a-z.\" ]{1,8}", value(), 0..4)
            .prop_map(|map| Value::Object(map.into_iter().collect()))
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,60}") {
            for syntax in [Syntax::Json, Syntax::JsonWithComments, Syntax::Toml] {
                let _ = syntax.change(&text, &set(json!({ "command": "c" })));
                let _ = syntax.change(&text, &REMOVE());
            }
        }

        #[test]
        fn what_is_set_is_there_and_what_is_removed_leaves_the_rest(before in object(), pretty: bool) {
            let text = if pretty { serde_json::to_string_pretty(&before) } else { serde_json::to_string(&before) }.unwrap();
            let entry = json!({ "command": "c", "args": ["mcp", "-e"], "n": 5 });
            let after = Syntax::Json.change(&text, &set(entry.clone())).unwrap();
            let data = Syntax::Json.read(&after).unwrap();
            prop_assert_eq!(find(&data, &names(["servers", "vers"])), Some(&entry));
            let back = Syntax::Json.change(&after, &REMOVE()).unwrap();
            prop_assert_eq!(Syntax::Json.read(&back).unwrap(), before);
        }
    }
}
