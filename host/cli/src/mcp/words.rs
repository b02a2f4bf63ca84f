//! What the client hears of a call while it runs.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use pi_vers_host::{Content, Update, visible};
use rmcp::model::{
    LoggingLevel, LoggingMessageNotificationParam, ProgressNotificationParam, ProgressToken,
};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, timeout};

use super::client::Client;
use super::desk::{Desk, Hearing, Interest, Log, News};

/// So many notices of progress may come at once,
const BURST: u32 = 10;
/// and one more each time so much time has gone by.
const PAUSE: Duration = Duration::from_millis(100);
/// So long may a client take to read what is said last.
const LAST: Duration = Duration::from_secs(2);
/// The part of a text that shows what is going on.
const CAPTION: usize = 200;

/// What one request hears while its call runs: progress, always rising and seldom enough, and of a newer client log messages, which
/// become progress where it wants none.
pub(crate) struct Words<'a> {
    client: &'a Client,
    hearing: Option<Hearing>,
    last: Option<f64>,
    news: bool,
    /// Notices that may be sent now, and since when there are so many.
    credit: u32,
    since: Instant,
    pause: Pin<Box<Sleep>>,
    /// What is being said.
    saying: Option<BoxFuture<'static, ()>>,
}

impl<'a> Words<'a> {
    pub(crate) fn of(client: &'a Client, desk: &Arc<Desk>, call: &str) -> Self {
        let level = client
            .log
            .or(client.progress.is_some().then_some(LoggingLevel::Info));
        let interest = Interest {
            level: level.filter(|_| client.modern),
            call: Some(call.to_owned()),
            ..Interest::default()
        };
        Self {
            client,
            hearing: interest.level.and_then(|_| desk.hear(interest)),
            last: None,
            news: false,
            credit: BURST,
            since: Instant::now(),
            pause: Box::pin(tokio::time::sleep_until(Instant::now())),
            saying: None,
        }
    }

    /// Waits until there is something to say, and says it. Cancel-safe: what has begun to be said is said to its end by the next one, or by
    /// [`Self::rest`].
    pub(crate) async fn speak(&mut self, updates: Option<&mut watch::Receiver<Update>>) {
        if let Some(saying) = &mut self.saying {
            saying.await;
            self.saying = None;
            return;
        }
        let heard = async {
            match &self.hearing {
                Some(hearing) => hearing.ear.next().await,
                None => std::future::pending().await,
            }
        };
        let token = self.client.progress.clone();
        self.saying = match (updates, token) {
            (Some(updates), Some(token)) => tokio::select! {
                news = heard => self.log(news),
                () = rung(updates, &mut self.news, self.pause.as_mut()) => {
                    let params = params(token, &mut self.last, &updates.borrow_and_update());
                    self.news = false;
                    self.pay();
                    Some(self.progress(params))
                }
            },
            _ => {
                let news = heard.await;
                self.log(news)
            }
        };
    }

    /// One notice is sent: says when the next one may be.
    fn pay(&mut self) {
        let now = Instant::now();
        let earned = now.duration_since(self.since).as_millis() / PAUSE.as_millis();
        if earned > 0 {
            let earned = u32::try_from(earned).unwrap_or(BURST);
            self.credit = self.credit.saturating_add(earned).min(BURST);
            self.since = now;
        }
        self.credit = self.credit.saturating_sub(1);
        let next = if self.credit > 0 { now } else { now + PAUSE };
        self.pause.as_mut().reset(next);
    }

    /// What is still to be said: the client hears it before the result.
    pub(crate) async fn rest(&mut self, updates: Option<&mut watch::Receiver<Update>>) {
        let told = async {
            if let Some(saying) = self.saying.take() {
                saying.await;
            }
            if let (Some(updates), Some(token)) = (updates, self.client.progress.clone())
                && (self.news || updates.has_changed().unwrap_or(false))
            {
                let params = params(token, &mut self.last, &updates.borrow_and_update());
                self.progress(params).await;
            }
            while let Some(news) = self.hearing.as_ref().and_then(|hearing| hearing.ear.now()) {
                if let Some(saying) = self.log(news) {
                    saying.await;
                }
            }
        };
        if timeout(LAST, told).await.is_err() {
            tracing::debug!("a client did not read what was said of a call");
        }
    }

    fn progress(&self, params: ProgressNotificationParam) -> BoxFuture<'static, ()> {
        let peer = self.client.peer.clone();
        async move { drop(peer.notify_progress(params).await) }.boxed()
    }

    fn log(&mut self, news: News) -> Option<BoxFuture<'static, ()>> {
        let News::Log(log) = news else { return None };
        if self.client.log.is_some() {
            let peer = self.client.peer.clone();
            let say = async move { drop(peer.notify_logging_message(message(log)).await) };
            return Some(say.boxed());
        }
        let token = self.client.progress.clone()?;
        let next = rising(&mut self.last, None);
        let params = ProgressNotificationParam::new(token, next).with_message(log.text);
        Some(self.progress(params))
    }
}

/// A log message as the protocol has it.
pub(crate) fn message(log: Log) -> LoggingMessageNotificationParam {
    LoggingMessageNotificationParam::new(log.level, Value::String(log.text)).with_logger(log.from)
}

/// Waits for news that may be told now. Cancel-safe.
async fn rung(updates: &mut watch::Receiver<Update>, news: &mut bool, mut pause: Pin<&mut Sleep>) {
    if !*news && updates.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
    *news = true;
    pause.as_mut().await;
}

/// A number above the last one, whatever an extension reports.
fn rising(last: &mut Option<f64>, done: Option<f64>) -> f64 {
    let next = match (*last, done.filter(|done| done.is_finite())) {
        (None, done) => done.unwrap_or(0.0),
        (Some(last), Some(done)) if done > last => done,
        // A step that changes the number, however large it is.
        (Some(last), _) => (last + 0.001).max(last.next_up()),
    };
    *last = Some(next);
    next
}

fn params(
    token: ProgressToken,
    last: &mut Option<f64>,
    update: &Update,
) -> ProgressNotificationParam {
    let told = update.progress.as_ref();
    let next = rising(last, told.map(|told| told.done));
    let mut params = ProgressNotificationParam::new(token, next);
    params.total = told
        .and_then(|told| told.total)
        .filter(|total| *total >= next);
    params.message = caption(update);
    params
}

/// What is going on, in one line.
pub(crate) fn caption(update: &Update) -> Option<String> {
    let told = update.progress.as_ref().map(|told| told.caption.clone());
    let told = told.filter(|caption| !caption.is_empty());
    let told = told.or_else(|| last_line(&update.content))?;
    Some(visible(&told))
}

fn last_line(content: &[Content]) -> Option<String> {
    let text = content.iter().rev().find_map(Content::as_text)?;
    let line = text.lines().rev().find(|line| !line.trim().is_empty())?;
    Some(line.trim().chars().take(CAPTION).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use rmcp::model::NumberOrString;

    #[test]
    fn progress_rises_whatever_a_tool_reports() {
        let mut last = None;
        let mut before = f64::NEG_INFINITY;
        let token = || ProgressToken(NumberOrString::Number(1));
        for done in [5.0, 5.0, 3.0, f64::NAN, 1e300, 1e300, 2.0] {
            let update = Update {
                progress: Some(pi_vers_host::Progress {
                    done,
                    total: Some(10.0),
                    caption: String::new(),
                }),
                ..Update::default()
            };
            let params = params(token(), &mut last, &update);
            let now = params.progress;
            assert!(now > before, "{now} after {before}");
            assert_eq!(params.total.is_some(), now <= 10.0);
            before = now;
        }
        let update = Update {
            content: vec![Content::text("one\ntwo\n\n")],
            ..Update::default()
        };
        assert_eq!(params(token(), &mut None, &update).message.unwrap(), "two");
    }
}
