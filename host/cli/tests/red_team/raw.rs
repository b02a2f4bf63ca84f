//! Components by hand: what no toolchain writes.

/// The beginning of a component, and of a core module.
pub(crate) const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";
pub(crate) const MODULE: &[u8] = b"\0asm\x01\0\0\0";

/// A number as WebAssembly writes it.
pub(crate) fn number(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let byte = u8::try_from(number & 0x7f).unwrap();
        number >>= 7;
        if number == 0 {
            bytes.push(byte);
            return bytes;
        }
        bytes.push(byte | 0x80);
    }
}

/// A section with its number and its length.
pub(crate) fn section(id: u8, content: &[u8]) -> Vec<u8> {
    [&[id][..], &number(content.len()), content].concat()
}

/// Items with their count.
pub(crate) fn items(items: &[Vec<u8>]) -> Vec<u8> {
    [number(items.len()), items.concat()].concat()
}

/// A name with its length.
pub(crate) fn name(name: &str) -> Vec<u8> {
    [&number(name.len())[..], name.as_bytes()].concat()
}

/// A component that exports what every extension exports, so that it is compiled, linked and started: an instance of that name, though with
/// nothing in it.
pub(crate) fn extension(content: &[u8]) -> Vec<u8> {
    let instance = section(5, b"\x01\x01\x00");
    let export = [
        b"\x01\x00",
        &name("vers:harness/description@0.1.0")[..],
        b"\x05\x00\x00",
    ];
    [
        COMPONENT,
        content,
        &instance,
        &section(11, &export.concat()),
    ]
    .concat()
}

/// A function without parameters and results: its local variables and its code.
pub(crate) fn function(locals: &[u8], code: &[u8]) -> Vec<u8> {
    let body = [locals, code, b"\x0b"].concat();
    [number(body.len()), body].concat()
}

/// A core module of these functions, the first of which runs when it is instantiated. `more` are the sections between functions and start.
pub(crate) fn module(functions: &[Vec<u8>], more: &[u8]) -> Vec<u8> {
    let kinds = vec![vec![0]; functions.len()];
    [
        MODULE,
        &section(1, b"\x01\x60\x00\x00"),
        &section(3, &items(&kinds)),
        more,
        &section(8, b"\x00"),
        &section(10, &items(functions)),
    ]
    .concat()
}

/// A component that instantiates a core module.
pub(crate) fn starting(module: &[u8]) -> Vec<u8> {
    extension(&[section(1, module), section(2, b"\x01\x00\x00\x00")].concat())
}

/// The same of one function without local variables.
pub(crate) fn running(code: &[u8]) -> Vec<u8> {
    starting(&module(&[function(b"\x00", code)], b""))
}

/// A component with a resource of its own, whose destructor is this code, and which makes one and drops it before anything is called.
pub(crate) fn destroying(code: &[u8]) -> Vec<u8> {
    let kind = b"\x01\x60\x01\x7f\x00";
    let destructor = [
        MODULE,
        &section(1, kind),
        &section(3, b"\x01\x00"),
        &section(7, &[b"\x01", &name("d")[..], b"\x00\x00"].concat()),
        &section(10, &items(&[function(b"\x00", code)])),
    ];
    // Takes `n`, which makes a handle, and `d`, which drops it.
    let imports = [
        [&name("")[..], &name("n"), b"\x00\x00"].concat(),
        [&name("")[..], &name("d"), b"\x00\x01"].concat(),
    ];
    let user = [
        MODULE,
        &section(1, b"\x03\x60\x01\x7f\x01\x7f\x60\x01\x7f\x00\x60\x00\x00"),
        &section(2, &items(&imports)),
        &section(3, b"\x01\x02"),
        &section(8, b"\x02"),
        // d(n(1))
        &section(
            10,
            &items(&[function(b"\x00", b"\x41\x01\x10\x00\x10\x01")]),
        ),
    ];
    let built_in = [
        b"\x01\x01\x02",
        &name("n")[..],
        b"\x00\x01",
        &name("d"),
        b"\x00\x02",
    ]
    .concat();
    let user_with = [b"\x01\x00\x01\x01", &name("")[..], b"\x12\x01"].concat();
    extension(
        &[
            section(1, &destructor.concat()),
            section(2, b"\x01\x00\x00\x00"),
            // The destructor, and the resource that it is of.
            section(6, &[b"\x01\x00\x00\x01\x00", &name("d")[..]].concat()),
            section(7, b"\x01\x3f\x7f\x01\x00"),
            section(8, b"\x02\x02\x00\x03\x00"),
            section(2, &built_in),
            section(1, &user.concat()),
            section(2, &user_with),
        ]
        .concat(),
    )
}
