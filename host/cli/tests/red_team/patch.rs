//! Components of a toolchain with instructions of the test's own in them: for what a guest does where its language has no say, such as in the
//! functions that the host calls to make room in it.

use wasmparser::{
    BinaryReader, CodeSectionReader, ExportSectionReader, ExternalKind, FunctionBody,
    FunctionSectionReader, ImportSectionReader, TypeRef, TypeSectionReader,
};

use crate::raw::{COMPONENT, MODULE, items, number, section};

/// A loop without end.
pub(crate) const SPIN: &[u8] = b"\x03\x40\x0c\x00\x0b";

/// The component with instructions before everything else that one of its functions does: the one that a core module of it exports by this name.
/// They are told the index of a variable of their own, an `i32` that is zero.
pub(crate) fn begun_with(wasm: &[u8], export: &str, code: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
    let mut whole = COMPONENT.to_vec();
    let mut found = 0;
    for (id, content) in sections(wasm) {
        let module = (id == 1).then(|| module_begun_with(content, export, &code));
        match module.flatten() {
            Some(module) => {
                found += 1;
                whole.extend(section(id, &module));
            }
            None => whole.extend(section(id, content)),
        }
    }
    assert_eq!(found, 1, "modules that export {export}");
    whole
}

/// The sections of a module or a component.
fn sections(wasm: &[u8]) -> Vec<(u8, &[u8])> {
    let mut reader = BinaryReader::new(wasm, 0);
    reader.read_bytes(MODULE.len()).unwrap();
    let mut all = Vec::new();
    while !reader.eof() {
        let id = reader.read_u8().unwrap();
        let length = reader.read_var_u32().unwrap();
        all.push((id, reader.read_bytes(length as usize).unwrap()));
    }
    all
}

/// Nothing where the module exports no such function.
fn module_begun_with(
    module: &[u8],
    export: &str,
    code: &impl Fn(u32) -> Vec<u8>,
) -> Option<Vec<u8>> {
    let sections = sections(module);
    let content = |id: u8| {
        let mut all = sections.iter();
        let found = all.find(|(found, _)| *found == id)?;
        Some(BinaryReader::new(found.1, 0))
    };
    let mut exports = ExportSectionReader::new(content(7)?).unwrap().into_iter();
    let index = exports.find_map(|one| {
        let one = one.unwrap();
        (one.name == export && one.kind == ExternalKind::Func).then_some(one.index)
    })?;
    let imports = content(2).map_or(0, |imports| {
        let imports = ImportSectionReader::new(imports).unwrap().into_imports();
        imports
            .filter(|one| matches!(one.as_ref().unwrap().ty, TypeRef::Func(_)))
            .count()
    });
    let index = index as usize - imports;
    let functions = FunctionSectionReader::new(content(3)?).unwrap();
    let of = functions.into_iter().nth(index).unwrap().unwrap();
    let groups = TypeSectionReader::new(content(1)?).unwrap();
    let mut types = groups
        .into_iter()
        .flat_map(|group| group.unwrap().into_types());
    let parameters = types.nth(of as usize).unwrap();
    let parameters = parameters.unwrap_func().params().len();

    let bodies: Vec<Vec<u8>> = CodeSectionReader::new(content(10)?)
        .unwrap()
        .into_iter()
        .enumerate()
        .map(|(at, body)| {
            let body = body.unwrap();
            let bytes = match at == index {
                true => body_begun_with(&body, parameters, code),
                false => body.as_bytes().to_vec(),
            };
            [number(bytes.len()), bytes].concat()
        })
        .collect();
    let mut whole = MODULE.to_vec();
    for (id, content) in &sections {
        match id {
            10 => whole.extend(section(10, &items(&bodies))),
            _ => whole.extend(section(*id, content)),
        }
    }
    Some(whole)
}

fn body_begun_with(
    body: &FunctionBody<'_>,
    parameters: usize,
    code: &impl Fn(u32) -> Vec<u8>,
) -> Vec<u8> {
    let groups: Vec<_> = body
        .get_locals_reader()
        .unwrap()
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let locals: u32 = groups.iter().map(|(count, _)| count).sum();
    let own = u32::try_from(parameters).unwrap() + locals;
    // What stands between the number of groups and the instructions: the groups.
    let mut rest = body.get_binary_reader();
    rest.read_var_u32().unwrap();
    let begin = rest.original_position();
    let operators = body.get_binary_reader_for_operators().unwrap();
    let end = operators.original_position();
    let (written, instructions) = body.as_bytes().split_at(end - body.range().start);
    let written = &written[begin - body.range().start..];
    [
        &number(groups.len() + 1)[..],
        written,
        b"\x01\x7f",
        &code(own),
        instructions,
    ]
    .concat()
}
