//! The lock, and `--locked`.

use crate::common::Home;
use crate::{built, home, other};

fn project() -> Home {
    let home = home();
    home.write("work/ext/hello.wasm", built().wasm());
    home.write(
        "work/pi-vers.toml",
        "# mine\n[extensions]\nhello = \"ext/hello.wasm\" # greets\n",
    );
    home
}

fn lock_of(home: &Home) -> String {
    std::fs::read_to_string(home.path("work/pi-vers.lock")).unwrap()
}

#[test]
fn a_lock_is_deterministic_and_a_list_keeps_its_comments() {
    let home = project();
    assert_eq!(home.run(["lock", "--project"]).code, 0);
    let first = lock_of(&home);
    let again = project();
    assert_eq!(again.run(["lock", "--project"]).code, 0);
    assert_eq!(first, lock_of(&again), "the same wherever it is made");
    assert_eq!(home.run(["lock", "--project"]).code, 0);
    assert_eq!(home.run(["update", "--project"]).code, 0);
    assert_eq!(first, lock_of(&home), "the same however often");
    let ran = home.run(["remove", "hello", "--project"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let list = std::fs::read_to_string(home.path("work/pi-vers.toml")).unwrap();
    assert!(list.starts_with("# mine\n[extensions]"), "{list}");
    assert!(!lock_of(&home).contains("hello"));
}

#[test]
fn locked_installs_what_the_lock_says_and_nothing_else() {
    let home = project();
    let ran = home.run(["lock", "--project", "--locked"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.line().contains("hello is not locked"), "{ran:?}");
    assert!(!home.path("work/pi-vers.lock").exists());
    assert_eq!(home.run(["lock", "--project"]).code, 0);
    // A clean machine: fetched and compared.
    let ci = project();
    ci.write("work/pi-vers.lock", lock_of(&home));
    let run = |home: &Home| home.run(["run", "--locked", "hello_greet", r#"{"name":"Ada"}"#]);
    let ran = run(&ci);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.line().contains("not installed here"), "{ran:?}");
    assert_eq!(ci.run(["lock", "--project", "--locked"]).code, 0);
    let ran = run(&ci);
    assert_eq!(ran.code, 0, "{ran:?}");
    // The source has changed since.
    let late = project();
    late.write("work/pi-vers.lock", lock_of(&home));
    late.write("work/ext/hello.wasm", other(&built().wasm(), "late"));
    let ran = late.run(["lock", "--project", "--locked"]);
    assert_eq!(ran.code, 3, "{ran:?}");
    assert_eq!(run(&late).code, 2);
    // The list has changed since.
    let other_list = "[extensions]\nhello = \"elsewhere.wasm\"\n";
    ci.write("work/pi-vers.toml", other_list);
    assert_eq!(ci.run(["lock", "--project", "--locked"]).code, 2);
    assert_eq!(run(&ci).code, 2);
    ci.write("work/pi-vers.toml", "[extensions]\n");
    let ran = ci.run(["lock", "--project", "--locked"]);
    assert!(ran.line().contains("locked and not wanted"), "{ran:?}");
}

#[test]
fn a_forged_lock_brings_nothing_in() {
    let home = project();
    assert_eq!(home.run(["lock", "--project"]).code, 0);
    let good = lock_of(&home);
    for (what, forged) in [
        (
            "a path for a name",
            good.replace("name = \"hello\"", "name = \"../hello\""),
        ),
        (
            "no digest",
            good.replace("digest = \"sha256:", "digest = \"md5:"),
        ),
        (
            "twice",
            format!(
                "{good}{}",
                good.split_once("[[extension]]")
                    .map(|(_, rest)| format!("\n[[extension]]{rest}"))
                    .unwrap()
            ),
        ),
        (
            "another form",
            good.replace("version = 1\n", "version = 9\n"),
        ),
        (
            "unknown members",
            good.replace("tools =", "run = true\ntools ="),
        ),
        ("no TOML", "{".into()),
    ] {
        home.write("work/pi-vers.lock", forged);
        let ran = home.run(["run", "hello_greet", r#"{"name":"Ada"}"#]);
        assert_eq!(ran.code, 2, "{what}: {ran:?}");
        ran.line();
    }
}
