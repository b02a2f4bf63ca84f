//! The platform's helper as a program of its own: sandbox helper and detached server. The product's binary does both
//! itself; this one is for the tests, whose `main` belongs to the test harness.

fn main() -> std::process::ExitCode {
    vers_local::helper_main();
    vers_local::serve_main()
}
