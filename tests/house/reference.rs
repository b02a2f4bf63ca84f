//! The reference in `docs/reference` is made from `wit/`: one page for each interface, and one of the worlds.
//!
//! `PI_VERS_WRITE=1 cargo test --release -p pi-vers-tests --test house reference` writes the pages anew; without it they have to be as they would be written.
//! A page has each type and each function under a heading of its own, so that others can link to it, and types in signatures lead to where they are
//! explained.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use pi_vers_tests::built;
use wit_parser::{
    Docs, Function, FunctionKind, Handle, Interface, InterfaceId, Resolve, Stability, Type,
    TypeDefKind, TypeId, TypeOwner, World, WorldItem,
};

const HERE: &str = "docs/reference";
const NOTE: &str =
    "<!-- Made from wit/ by a test (tests/house/reference.rs): changes belong there. -->\n\n";

/// Pieces of a signature: what is code, and what leads to a type.
#[derive(Default)]
struct Code {
    out: String,
    open: String,
}

impl Code {
    fn text(&mut self, text: &str) {
        self.open.push_str(text);
    }

    fn link(&mut self, name: &str, target: &str) {
        self.flush();
        let _ = write!(self.out, "[`{name}`]({target})");
    }

    fn flush(&mut self) {
        if !self.open.is_empty() {
            let _ = write!(self.out, "`{}`", self.open);
            self.open.clear();
        }
    }

    fn done(mut self) -> String {
        self.flush();
        self.out
    }
}

struct Writer<'a> {
    resolve: &'a Resolve,
}

impl Writer<'_> {
    /// `harness/tools`, after which its page is called.
    fn place(&self, id: InterfaceId) -> (String, String) {
        let interface = &self.resolve.interfaces[id];
        let package = interface.package.expect("an interface is in a package");
        let name = interface
            .name
            .clone()
            .expect("the contract's interfaces have names");
        (self.resolve.packages[package].name.name.clone(), name)
    }

    /// From the page of one interface to the page of another.
    fn way(&self, from: Option<InterfaceId>, to: InterfaceId) -> String {
        let (package, name) = self.place(to);
        match from.map(|from| self.place(from)) {
            None => format!("{package}/{name}.md"),
            Some((here, _)) if here == package => format!("{name}.md"),
            Some(_) => format!("../{package}/{name}.md"),
        }
    }

    /// The type behind what `use` has brought from elsewhere.
    fn made(&self, id: TypeId) -> TypeId {
        let definition = &self.resolve.types[id];
        match definition.kind {
            TypeDefKind::Type(Type::Id(of)) if self.resolve.types[of].owner != definition.owner => {
                self.made(of)
            }
            _ => id,
        }
    }

    fn ty(&self, at: InterfaceId, ty: &Type, code: &mut Code) {
        let id = match ty {
            Type::Bool => return code.text("bool"),
            Type::U8 => return code.text("u8"),
            Type::U16 => return code.text("u16"),
            Type::U32 => return code.text("u32"),
            Type::U64 => return code.text("u64"),
            Type::S8 => return code.text("s8"),
            Type::S16 => return code.text("s16"),
            Type::S32 => return code.text("s32"),
            Type::S64 => return code.text("s64"),
            Type::F32 => return code.text("f32"),
            Type::F64 => return code.text("f64"),
            Type::Char => return code.text("char"),
            Type::String => return code.text("string"),
            Type::ErrorContext => return code.text("error-context"),
            Type::Id(id) => self.made(*id),
        };
        let definition = &self.resolve.types[id];
        if let Some(name) = &definition.name {
            let TypeOwner::Interface(owner) = definition.owner else {
                return code.text(name);
            };
            let page = if owner == at {
                String::new()
            } else {
                self.way(Some(at), owner)
            };
            return code.link(name, &format!("{page}#{name}"));
        }
        let one = |ty: &Type, code: &mut Code| self.ty(at, ty, code);
        let maybe = |ty: &Option<Type>, code: &mut Code| match ty {
            Some(ty) => self.ty(at, ty, code),
            None => code.text("_"),
        };
        let wrapped = |name: &str, code: &mut Code, inner: &dyn Fn(&mut Code)| {
            code.text(name);
            code.text("<");
            inner(code);
            code.text(">");
        };
        match &definition.kind {
            TypeDefKind::Option(of) => wrapped("option", code, &|code| one(of, code)),
            TypeDefKind::List(of) => wrapped("list", code, &|code| one(of, code)),
            TypeDefKind::Stream(of) => wrapped("stream", code, &|code| maybe(of, code)),
            TypeDefKind::Future(of) => wrapped("future", code, &|code| maybe(of, code)),
            TypeDefKind::Handle(Handle::Own(of)) => one(&Type::Id(*of), code),
            TypeDefKind::Handle(Handle::Borrow(of)) => {
                wrapped("borrow", code, &|code| one(&Type::Id(*of), code));
            }
            TypeDefKind::Result(result) => wrapped("result", code, &|code| {
                maybe(&result.ok, code);
                if result.err.is_some() {
                    code.text(", ");
                    maybe(&result.err, code);
                }
            }),
            TypeDefKind::Tuple(tuple) => wrapped("tuple", code, &|code| {
                for (number, ty) in tuple.types.iter().enumerate() {
                    if number > 0 {
                        code.text(", ");
                    }
                    one(ty, code);
                }
            }),
            other => panic!("the reference has no words for {other:?} yet"),
        }
    }

    fn spelled(&self, at: InterfaceId, ty: &Type) -> String {
        let mut code = Code::default();
        self.ty(at, ty, &mut code);
        code.done()
    }

    fn signature(&self, at: InterfaceId, function: &Function) -> String {
        let mut code = Code::default();
        let own = matches!(
            function.kind,
            FunctionKind::Method(_) | FunctionKind::AsyncMethod(_)
        );
        code.text(match function.kind {
            FunctionKind::Freestanding | FunctionKind::Method(_) => "func(",
            FunctionKind::AsyncFreestanding | FunctionKind::AsyncMethod(_) => "async func(",
            FunctionKind::Static(_) => "static func(",
            FunctionKind::AsyncStatic(_) => "static async func(",
            FunctionKind::Constructor(_) => "constructor(",
        });
        // What a method belongs to is in its heading.
        for (number, param) in function.params.iter().skip(usize::from(own)).enumerate() {
            if number > 0 {
                code.text(", ");
            }
            code.text(&format!("{}: ", param.name));
            self.ty(at, &param.ty, &mut code);
        }
        code.text(")");
        if let Some(result) = &function.result {
            code.text(" -> ");
            self.ty(at, result, &mut code);
        }
        code.done()
    }

    fn function(&self, at: InterfaceId, function: &Function, out: &mut String) {
        let name = match function.kind.resource() {
            Some(of) => format!(
                "{}.{}",
                self.resolve.types[of].name.as_deref().unwrap_or_default(),
                function.item_name()
            ),
            None => function.name.clone(),
        };
        let signature = self.signature(at, function);
        let _ = write!(
            out,
            "### `{name}`\n\n{signature}{}\n\n",
            since(&function.stability)
        );
        let _ = write!(out, "{}\n\n", text(&function.docs));
    }

    fn definition(&self, at: InterfaceId, name: &str, id: TypeId, out: &mut String) {
        let definition = &self.resolve.types[id];
        let spelled = |ty: &Type| self.spelled(at, ty);
        let (kind, head, rows): (String, &str, Vec<[String; 3]>) = match &definition.kind {
            TypeDefKind::Record(record) => (
                "`record`".to_owned(),
                "| field | type | |",
                record
                    .fields
                    .iter()
                    .map(|field| [field.name.clone(), spelled(&field.ty), cell(&field.docs)])
                    .collect(),
            ),
            TypeDefKind::Variant(variant) => (
                "`variant`".to_owned(),
                "| case | of | |",
                variant
                    .cases
                    .iter()
                    .map(|case| {
                        let of = case.ty.as_ref().map(spelled).unwrap_or_default();
                        [case.name.clone(), of, cell(&case.docs)]
                    })
                    .collect(),
            ),
            TypeDefKind::Enum(of) => (
                "`enum`".to_owned(),
                "| case | |",
                of.cases
                    .iter()
                    .map(|case| [case.name.clone(), String::new(), cell(&case.docs)])
                    .collect(),
            ),
            TypeDefKind::Flags(of) => (
                "`flags`".to_owned(),
                "| flag | |",
                of.flags
                    .iter()
                    .map(|flag| [flag.name.clone(), String::new(), cell(&flag.docs)])
                    .collect(),
            ),
            TypeDefKind::Resource => ("`resource`".to_owned(), "", Vec::new()),
            TypeDefKind::Type(of) => (format!("`type` = {}", spelled(of)), "", Vec::new()),
            _ => {
                // A name for what has none of its own, such as `list<span>`.
                (
                    format!("`type` = {}", self.anonymous(at, id)),
                    "",
                    Vec::new(),
                )
            }
        };
        let _ = write!(
            out,
            "### `{name}`\n\n{kind}{}\n\n{}\n\n",
            since(&definition.stability),
            text(&definition.docs)
        );
        let columns = head.matches('|').count().saturating_sub(1);
        if columns > 0 {
            let _ = writeln!(out, "{head}\n|{}", "---|".repeat(columns));
            for [name, of, docs] in rows {
                let middle = if columns == 3 {
                    format!(" {of} |")
                } else {
                    String::new()
                };
                let _ = writeln!(out, "| `{name}` |{middle} {docs} |");
            }
            out.push('\n');
        }
        let methods = self.resolve.interfaces[at].functions.values();
        for function in methods.filter(|function| function.kind.resource() == Some(id)) {
            self.function(at, function, out);
        }
    }

    /// What a named type is made of.
    fn anonymous(&self, at: InterfaceId, id: TypeId) -> String {
        let of = |name: &str, ty: &Type| {
            let mut code = Code::default();
            code.text(&format!("{name}<"));
            self.ty(at, ty, &mut code);
            code.text(">");
            code.done()
        };
        match &self.resolve.types[id].kind {
            TypeDefKind::List(ty) => of("list", ty),
            TypeDefKind::Option(ty) => of("option", ty),
            other => panic!("the reference has no words for a name of {other:?} yet"),
        }
    }

    fn interface(&self, id: InterfaceId, interface: &Interface) -> String {
        let (package, name) = self.place(id);
        let mut out = format!("# {package}/{name}\n\n{NOTE}");
        let _ = write!(
            out,
            "`{}`{}\n\n{}\n\n",
            self.resolve.id_of(id).expect("it has a name"),
            since(&interface.stability),
            text(&interface.docs)
        );
        let mut free = interface
            .functions
            .values()
            .filter(|function| function.kind.resource().is_none())
            .peekable();
        if free.peek().is_some() {
            out.push_str("## Functions\n\n");
            free.for_each(|function| self.function(id, function, &mut out));
        }
        let mut types = interface
            .types
            .iter()
            .filter(|(_, ty)| self.made(**ty) == **ty)
            .peekable();
        if types.peek().is_some() {
            out.push_str("## Types\n\n");
            types.for_each(|(name, ty)| self.definition(id, name, *ty, &mut out));
        }
        out
    }

    fn world(&self, world: &World, out: &mut String) {
        let _ = write!(
            out,
            "## World `{}`\n\n{}\n\n",
            world.name,
            text(&world.docs)
        );
        for (what, items) in [("imports", &world.imports), ("exports", &world.exports)] {
            let names: Vec<String> = items
                .values()
                .map(|item| match item {
                    WorldItem::Interface { id, .. } => {
                        let (package, name) = self.place(*id);
                        format!("[{package}/{name}]({})", self.way(None, *id))
                    }
                    WorldItem::Function(function) => format!("`{}`", function.name),
                    WorldItem::Type { id, .. } => {
                        format!(
                            "`{}`",
                            self.resolve.types[*id].name.as_deref().unwrap_or_default()
                        )
                    }
                })
                .collect();
            if !names.is_empty() {
                let _ = write!(out, "It {what} {}.\n\n", names.join(", "));
            }
        }
    }

    fn pages(&self) -> BTreeMap<String, String> {
        let mut pages = BTreeMap::new();
        let mut index = format!(
            "# The contract\n\n{NOTE}What an extension and the host know of each other is in [`wit/`](../../wit): here it is to be read. Every function with \
             `async` may wait. Whatever does something to the outside needs a grant in the [policy](../policy.md).\n\n"
        );
        for (_, package) in &self.resolve.packages {
            let _ = write!(
                index,
                "## Package `{}`\n\n{}\n\n",
                package.name,
                text(&package.docs)
            );
            if !package.interfaces.is_empty() {
                index.push_str("| interface | |\n|---|---|\n");
            }
            for id in package.interfaces.values() {
                let interface = &self.resolve.interfaces[*id];
                let (package, name) = self.place(*id);
                let docs = cell(&interface.docs);
                let first = docs.split_inclusive(". ").next().unwrap_or_default().trim();
                let _ = writeln!(
                    index,
                    "| [{package}/{name}]({}) | {first} |",
                    self.way(None, *id)
                );
                pages.insert(
                    format!("{package}/{name}.md"),
                    self.interface(*id, interface),
                );
            }
            if !package.interfaces.is_empty() {
                index.push('\n');
            }
            for id in package.worlds.values() {
                self.world(&self.resolve.worlds[*id], &mut index);
            }
        }
        pages.insert("README.md".to_owned(), index);
        for page in pages.values_mut() {
            page.truncate(page.trim_end().len());
            page.push('\n');
        }
        pages
    }
}

fn text(docs: &Docs) -> String {
    docs.contents.clone().unwrap_or_default().trim().to_owned()
}

/// Docs within a table.
fn cell(docs: &Docs) -> String {
    let text = text(docs);
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").replace('|', "\\|")
}

fn since(stability: &Stability) -> String {
    match stability {
        Stability::Stable { since, .. } => format!(", since {since}"),
        _ => String::new(),
    }
}

/// What lies below a directory, by its path in it.
fn files(directory: &Path, below: &str, found: &mut BTreeMap<String, String>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = format!("{below}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            files(&entry.path(), &format!("{name}/"), found);
        } else {
            let text = std::fs::read_to_string(entry.path()).expect("a page is UTF-8");
            found.insert(name, text);
        }
    }
}

#[test]
fn the_reference_is_what_the_contract_says() {
    let mut resolve = Resolve::default();
    resolve
        .push_dir(built::root().join("wit"))
        .unwrap_or_else(|why| panic!("{why:#}"));
    let pages = Writer { resolve: &resolve }.pages();
    assert!(
        pages.len() > 15,
        "the contract was not read: {} pages",
        pages.len()
    );
    let here = built::root().join(HERE);
    if std::env::var_os("PI_VERS_WRITE").is_some() {
        let _ = std::fs::remove_dir_all(&here);
        for (name, page) in &pages {
            let path = here.join(name);
            std::fs::create_dir_all(path.parent().expect("it lies in a directory"))
                .expect("a directory for pages");
            std::fs::write(path, page).expect("a page is written");
        }
    }
    let mut there = BTreeMap::new();
    files(&here, "", &mut there);
    let differ: Vec<&String> = pages
        .keys()
        .chain(there.keys())
        .filter(|name| pages.get(*name) != there.get(*name))
        .collect();
    assert!(
        differ.is_empty(),
        "{HERE} is not what wit/ says: {differ:?}; write it with \
         PI_VERS_WRITE=1 cargo test --release -p pi-vers-tests --test house reference"
    );
}
