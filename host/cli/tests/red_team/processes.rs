//! Processes of this machine that a test looks for.

/// Processes of this machine that `sleep` with this argument.
pub(crate) fn processes(argument: &str) -> usize {
    let all = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    all.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains("sleep ") && line.contains(argument))
        .count()
}
