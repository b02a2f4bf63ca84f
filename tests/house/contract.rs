//! The contract says of each of its items what it is and since when.

use std::collections::HashSet;

use pi_vers_tests::built;
use wit_parser::{
    Docs, Function, InterfaceId, Resolve, Stability, Type, TypeDefKind, TypeOwner, WorldItem,
};

struct Seen {
    items: usize,
    missing: Vec<String>,
}

impl Seen {
    fn item(&mut self, name: &str, docs: Option<&Docs>, stability: &Stability) {
        self.items += 1;
        if docs.is_some_and(|docs| {
            docs.contents
                .as_ref()
                .is_none_or(|text| text.trim().is_empty())
        }) {
            self.missing.push(format!("{name} says nothing of itself"));
        }
        if !matches!(stability, Stability::Stable { .. }) {
            self.missing.push(format!("{name} has no @since"));
        }
    }

    fn function(&mut self, at: &str, function: &Function) {
        self.item(
            &format!("{at}#{}", function.name),
            Some(&function.docs),
            &function.stability,
        );
    }
}

#[test]
fn every_item_is_documented_and_dated() {
    let mut resolve = Resolve::default();
    resolve
        .push_dir(built::root().join("wit"))
        .unwrap_or_else(|why| panic!("{why:#}"));
    let mut seen = Seen {
        items: 0,
        missing: Vec::new(),
    };
    // What a world has from another by `include` is dated there; the parser keeps no date of the inclusion.
    let worlds = resolve
        .worlds
        .iter()
        .flat_map(|(_, world)| world.imports.values().chain(world.exports.values()));
    let dated: HashSet<InterfaceId> = worlds
        .filter_map(|item| match item {
            WorldItem::Interface {
                id,
                stability: Stability::Stable { .. },
                ..
            } => Some(*id),
            _ => None,
        })
        .collect();
    for (_, package) in &resolve.packages {
        assert!(
            package.docs.contents.is_some(),
            "package {} says nothing of itself",
            package.name
        );
        for (name, id) in &package.interfaces {
            let (interface_id, interface) = (*id, &resolve.interfaces[*id]);
            let at = format!("{}/{name}", package.name);
            seen.item(&at, Some(&interface.docs), &interface.stability);
            for (name, id) in &interface.types {
                let definition = &resolve.types[*id];
                // A name that another interface has made says there what it is.
                let borrowed = matches!(definition.kind, TypeDefKind::Type(Type::Id(of)) if resolve.types[of].owner != TypeOwner::Interface(interface_id));
                seen.item(
                    &format!("{at}#{name}"),
                    (!borrowed).then_some(&definition.docs),
                    &definition.stability,
                );
            }
            interface
                .functions
                .values()
                .for_each(|function| seen.function(&at, function));
        }
        for (name, id) in &package.worlds {
            let world = &resolve.worlds[*id];
            let at = format!("world {name}");
            seen.item(&at, Some(&world.docs), &world.stability);
            for item in world.imports.values().chain(world.exports.values()) {
                match item {
                    // What it is, the interface says.
                    WorldItem::Interface { id, .. } if dated.contains(id) => seen.items += 1,
                    WorldItem::Interface { id, stability, .. } => {
                        let interface = resolve.interfaces[*id].name.clone().unwrap_or_default();
                        seen.item(&format!("{at}: {interface}"), None, stability);
                    }
                    WorldItem::Function(function) => seen.function(&at, function),
                    WorldItem::Type { id, .. } => {
                        let definition = &resolve.types[*id];
                        seen.item(
                            &format!("{at}: {:?}", definition.name),
                            Some(&definition.docs),
                            &definition.stability,
                        );
                    }
                }
            }
        }
    }
    assert!(
        seen.items > 150,
        "the contract was not read: {} items",
        seen.items
    );
    assert_eq!(seen.missing, Vec::<String>::new());
}
