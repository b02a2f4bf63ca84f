//! Rounds: every method has its turn in each, in an order drawn anew.

use std::time::Duration;

use futures::future::BoxFuture;
use pi_vers_bench::stats::Series;
use rand::seq::SliceRandom as _;

use crate::Outcome;
use crate::cases::Context;

/// Nothing that is measured takes so long; what does has failed.
const DEADLINE: Duration = Duration::from_secs(300);

/// One run of a method: how long it took, and what failed in it though the rest went on.
pub(crate) struct Run {
    pub(crate) took: Duration,
    pub(crate) failed: Vec<String>,
}

impl From<Duration> for Run {
    fn from(took: Duration) -> Self {
        Self {
            took,
            failed: Vec::new(),
        }
    }
}

/// One way to do a job.
pub(crate) struct Method<'a> {
    pub(crate) name: &'static str,
    /// Runs in each turn, one behind the other.
    times: u32,
    work: Box<dyn Fn() -> BoxFuture<'a, Outcome<Run>> + 'a>,
}

impl<'a> Method<'a> {
    /// `work` runs once and says how long it took; preparing and checking are its own business.
    pub(crate) fn new<W, R, F>(name: &'static str, work: W) -> Self
    where
        W: Fn() -> F + 'a,
        R: Into<Run>,
        F: Future<Output = Outcome<R>> + Send + 'a,
    {
        let work = move || -> BoxFuture<'a, Outcome<Run>> {
            let run = work();
            Box::pin(async move { Ok(run.await?.into()) })
        };
        Self {
            name,
            times: 1,
            work: Box::new(work),
        }
    }

    /// Several runs in each turn: for what is quick.
    pub(crate) fn times(mut self, times: u32) -> Self {
        self.times = times;
        self
    }
}

/// What one method gave.
pub(crate) struct Result {
    pub(crate) name: &'static str,
    pub(crate) series: Series,
}

/// Runs those that are wanted. The first round warms up and does not count.
pub(crate) async fn run(
    context: &Context,
    what: &str,
    rounds: usize,
    mut methods: Vec<Method<'_>>,
) -> Vec<Result> {
    let meter = &context.meter;
    methods.retain(|method| context.wants(method.name));
    let mut results: Vec<Result> = methods
        .iter()
        .map(|method| Result {
            name: method.name,
            series: Series::default(),
        })
        .collect();
    let mut order: Vec<usize> = (0..methods.len()).collect();
    for round in 0..=rounds {
        eprintln!("{what}: round {round} of {rounds}");
        order.shuffle(&mut rand::rng());
        let counts = round > 0;
        if counts {
            results.iter_mut().for_each(|result| result.series.round());
        }
        for &at in &order {
            let (Some(method), Some(result)) = (methods.get(at), results.get_mut(at)) else {
                continue;
            };
            let before = meter.client();
            for _ in 0..method.times {
                let run = tokio::time::timeout(DEADLINE, (method.work)()).await;
                let run = run.unwrap_or_else(|_| Err("it did not end".into()));
                if !counts {
                    continue;
                }
                match run {
                    Ok(run) => {
                        result.series.add(run.took.as_secs_f64());
                        run.failed
                            .into_iter()
                            .for_each(|why| result.series.fail(why));
                    }
                    Err(why) => result.series.fail(why.to_string()),
                }
            }
            meter.reap().await;
            if counts {
                result.series.cpu += meter.client().saturating_sub(before);
            }
        }
    }
    results
}
