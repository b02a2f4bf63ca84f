/** Signals that are one. `AbortSignal.any` is younger than the oldest Node that we run on. */

/** Aborted as soon as one of these is; `release` takes its listeners away again. */
export function eitherOf(...signals: (AbortSignal | undefined)[]): { signal: AbortSignal; release: () => void } {
  const both = new AbortController();
  const abort = () => both.abort();
  const there = signals.filter((signal) => signal !== undefined);
  for (const signal of there) {
    if (signal.aborted) abort();
    else signal.addEventListener("abort", abort, { once: true });
  }
  return {
    signal: both.signal,
    release: () => {
      for (const signal of there) signal.removeEventListener("abort", abort);
    },
  };
}
