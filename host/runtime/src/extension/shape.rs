//! The shape of a component, judged before anything else reads it.
//!
//! The threat is bytes that are valid and made to be hard: types inside of types inside of types overflow the stack of every reader that calls
//! itself for each level, which ends the whole host; components inside of components, and functions of a million instructions,
//! keep the compiler busy for minutes. Toolchains make neither. So depth and size are counted here, level by level on a
//! list and not on the stack, and what is beyond any honest component is refused by name.

use wasmparser::{
    BinaryReader, BinaryReaderError, ComponentImport, ComponentType, InstanceTypeDeclaration,
    Parser, Payload,
};

/// Components and modules inside of each other. Composed components have three or four levels.
const DEEPEST: usize = 64;

/// The longest function, in bytes. The largest interpreter loops have a fifth of that; compiling takes more than twice as long for twice as much.
const LONGEST_FUNCTION: usize = 1 << 20;

/// Why a component is not looked at any further.
pub(super) enum Unfit {
    /// The bytes are no component.
    Damaged(BinaryReaderError),
    /// They are more than the host takes on.
    Beyond(String),
}

impl From<BinaryReaderError> for Unfit {
    fn from(why: BinaryReaderError) -> Self {
        Self::Damaged(why)
    }
}

impl std::fmt::Display for Unfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Damaged(why) => write!(f, "its bytes are damaged: {why}"),
            Self::Beyond(why) => f.write_str(why),
        }
    }
}

/// Checks the whole of it.
pub(super) fn check(wasm: &[u8]) -> Result<(), Unfit> {
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(wasm) {
        match payload? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => {
                depth += 1;
                bounded(depth, "components and modules")?;
            }
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::CodeSectionEntry(body) => {
                let size = body.range().len();
                if size > LONGEST_FUNCTION {
                    return Err(Unfit::Beyond(format!(
                        "a function of {} KiB is more than the {} KiB that one may have",
                        size >> 10,
                        LONGEST_FUNCTION >> 10
                    )));
                }
            }
            Payload::ComponentTypeSection(section) => {
                let bytes = wasm.get(section.range()).unwrap_or_default();
                types(BinaryReader::new(bytes, section.range().start))?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn bounded(depth: usize, what: &str) -> Result<(), Unfit> {
    match depth > DEEPEST {
        true => Err(Unfit::Beyond(format!(
            "it has more than {DEEPEST} levels of {what} inside of each other"
        ))),
        false => Ok(()),
    }
}

/// The types of components and instances: the only ones that are written inside of each other.
fn types(mut reader: BinaryReader<'_>) -> Result<(), Unfit> {
    /// What a type inside of another begins with.
    const TYPE: u8 = 0x01;
    const IMPORT: u8 = 0x03;
    // How many declarations each open level still has; the section itself is the first.
    let mut open = vec![reader.read_var_u32()?];
    while let Some(left) = open.last_mut() {
        let Some(less) = left.checked_sub(1) else {
            open.pop();
            continue;
        };
        *left = less;
        if open.len() > 1 {
            match first(&reader)? {
                TYPE => {
                    reader.read_u8()?;
                }
                IMPORT => {
                    reader.read_u8()?;
                    reader.read::<ComponentImport<'_>>()?;
                    continue;
                }
                _ => {
                    reader.read::<InstanceTypeDeclaration<'_>>()?;
                    continue;
                }
            }
        }
        match first(&reader)? {
            // A component's or an instance's: its declarations are the next level.
            0x41 | 0x42 => {
                reader.read_u8()?;
                open.push(reader.read_var_u32()?);
                bounded(open.len(), "types")?;
            }
            _ => {
                reader.read::<ComponentType<'_>>()?;
            }
        }
    }
    Ok(())
}

fn first(reader: &BinaryReader<'_>) -> Result<u8, BinaryReaderError> {
    reader.clone().read_u8()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn component(section: u8, content: &[u8]) -> Vec<u8> {
        let mut wasm = b"\0asm\x0d\0\x01\0".to_vec();
        wasm.push(section);
        let mut size = content.len();
        while size > 0x7f {
            wasm.push(u8::try_from(size & 0x7f).unwrap_or_default() | 0x80);
            size >>= 7;
        }
        wasm.push(u8::try_from(size).unwrap_or_default());
        wasm.extend_from_slice(content);
        wasm
    }

    /// A component type in a component type, so often.
    fn nested(depth: usize) -> Vec<u8> {
        let mut types = vec![1];
        types.extend([0x41, 0x01, 0x01].repeat(depth));
        types.extend([0x42, 0x00]);
        component(7, &types)
    }

    #[test]
    fn types_inside_of_types_do_not_overflow_the_stack() {
        assert!(check(&nested(3)).is_ok());
        for depth in [DEEPEST + 1, 1_000, 1_000_000] {
            let why = check(&nested(depth)).err().map(|why| why.to_string());
            assert!(
                why.as_ref()
                    .is_some_and(|why| why.contains("levels of types")),
                "{depth}: {why:?}"
            );
        }
    }

    #[test]
    fn components_inside_of_components_are_counted() {
        let mut wasm = component(4, b"\0asm\x0d\0\x01\0");
        for _ in 0..DEEPEST + 1 {
            wasm = component(4, &wasm);
        }
        let why = check(&wasm).err().map(|why| why.to_string());
        assert!(why.is_some_and(|why| why.contains("levels of components")));
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_types_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..256)) {
            let _ = check(&component(7, &bytes));
        }
    }
}
