#!/bin/sh
# cargo's wrapper for the compiler, for workspace members alone: with what the fuzzing engine needs to see. Build scripts and macros of the members
# run in the compiler's own process and need none of it.
for word in "$@"; do
  case "$word" in proc-macro | build_script_build) exec "$@" ;; esac
done
exec "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
  -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions -Coverflow-checks --cfg fuzzing
