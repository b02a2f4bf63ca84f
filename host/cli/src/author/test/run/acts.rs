//! What lines do: calls of tools and commands, and looks at what came of them.

use std::collections::BTreeMap;
use std::time::Instant;

use pi_vers_host::{Content, Update};
use serde_json::{Value, json};

use super::super::matching::mismatches;
use super::super::script::{self, Cancel, Subject};
use super::{Outcome, Test, World, Wrong, judged};
use crate::call::Done;
use crate::failure::Failure;

/// Most texts of a call's progress that are kept.
const MOST_SHOWN: usize = 1_000;

impl Test {
    pub(super) async fn call(&mut self, number: usize, step: script::Call) -> Outcome {
        let begun = Instant::now();
        let played = match &self.world {
            World::Fake { fakes, .. } => Some(fakes.clone()),
            World::Local { .. } => None,
        };
        let before = played.as_ref().map(|fakes| fakes.started());
        let (started_before, mut asked) = match before {
            Some((count, asked)) => (count, Some(asked)),
            None => (0, None),
        };
        let session = self.session(number).await?;
        let mut call = session.call(&step.call, step.args.clone());
        let (mut updates, canceller) = (call.updates(), call.canceller());
        let mut shown: Vec<Value> = Vec::new();
        let mut seen = |update: &Update| {
            let text = text_of(&update.content);
            if !text.is_empty() && shown.len() < MOST_SHOWN {
                let text = Value::from(text);
                if shown.last() != Some(&text) {
                    shown.push(text.clone());
                }
                if let Some(Cancel::Shown(wanted)) = &step.cancel
                    && mismatches(wanted, &text).is_empty()
                {
                    canceller.cancel();
                }
            }
        };
        if let Some(Cancel::AtOnce(true)) = step.cancel {
            canceller.cancel();
        }
        let deadline = tokio::time::sleep(script::time(step.within_ms));
        tokio::pin!(deadline);
        let (mut live, mut late) = (true, false);
        let outcome = loop {
            tokio::select! {
                biased;
                outcome = call.outcome() => break outcome,
                () = &mut deadline, if !late => {
                    late = true;
                    canceller.cancel();
                }
                changed = updates.changed(), if live => match changed {
                    Ok(()) => seen(&updates.borrow_and_update()),
                    Err(_) => live = false,
                },
                Some(()) = more(&mut asked) => {
                    let started = played.as_ref().map_or(0, |fakes| fakes.started().0);
                    if let Some(Cancel::Started(count)) = step.cancel
                        && started.saturating_sub(started_before) >= count
                    {
                        canceller.cancel();
                    }
                }
            }
        };
        // What came last, when nobody was looking.
        seen(&updates.borrow());
        if late {
            return Err(Box::new(Wrong::new(
                number,
                format!(
                    "{} had not ended after {} ms and was cancelled; \"within_ms\" gives it longer",
                    step.call, step.within_ms
                ),
            )));
        }
        let stopped = match &outcome {
            Err(pi_vers_host::CallError::Cancelled { stopped, .. }) => json!(stopped),
            _ => json!([]),
        };
        let text = match &outcome {
            Ok(output) => output.text(),
            Err(pi_vers_host::CallError::Failed(output)) => output.text(),
            Err(_) => String::new(),
        };
        let done = Done {
            tool: step.call,
            result: outcome.map_err(Failure::from),
            took: begun.elapsed(),
        };
        let mut came = done.json();
        if let Some(object) = came.as_object_mut() {
            object.remove("ms");
            object.remove("tool");
            for (key, value) in [
                ("text", Value::from(text)),
                ("updates", Value::from(shown)),
                ("stopped", stopped),
            ] {
                object.insert(key.into(), value);
            }
        }
        self.save(number, &step.save, &came)?;
        judged(number, Some(&wanted(step.expect)), came)
    }

    fn save(
        &mut self,
        number: usize,
        save: &BTreeMap<String, String>,
        came: &Value,
    ) -> Result<(), Box<Wrong>> {
        for (name, pointer) in save {
            let value = match came.pointer(pointer) {
                Some(Value::String(text)) => text.clone(),
                Some(value) if !value.is_null() => value.to_string(),
                _ => {
                    let mut wrong =
                        Wrong::new(number, format!("{pointer} leads to nothing to save"));
                    wrong.came = Some(came.clone());
                    return Err(Box::new(wrong));
                }
            };
            self.known.insert(name.clone(), value);
        }
        Ok(())
    }

    pub(super) async fn command(&mut self, number: usize, step: script::Command) -> Outcome {
        let session = self.session(number).await?;
        let work = session.command(&step.command, &step.args);
        let came = match tokio::time::timeout(script::time(step.within_ms), work).await {
            Ok(Ok(())) => json!({ "ok": true, "error": null }),
            Ok(Err(why)) => json!({ "ok": false, "error": Failure::from(why).json() }),
            Err(_) => {
                let why = format!(
                    "/{} had not ended after {} ms",
                    step.command, step.within_ms
                );
                return Err(Box::new(Wrong::new(number, why)));
            }
        };
        judged(number, Some(&wanted(step.expect)), came)
    }

    /// What background work makes may take its time: looked at whenever there is news.
    pub(super) async fn check(&mut self, number: usize, check: script::Check) -> Outcome {
        self.session(number).await?;
        let mut news = self.stage.news();
        let mut asked = match &self.world {
            World::Fake { fakes, .. } => Some(fakes.started().1),
            World::Local { .. } => None,
        };
        let deadline = tokio::time::sleep(script::time(check.within_ms));
        tokio::pin!(deadline);
        loop {
            let came = self.look(&check).await;
            let came = came.map_err(|why| Box::new(Wrong::new(number, why)))?;
            let judged = judged(number, Some(&check.expect), came);
            let waits = !matches!(check.check, Subject::File | Subject::Store | Subject::Vms);
            if judged.is_ok() || !waits {
                return judged;
            }
            tokio::select! {
                () = &mut deadline => return judged,
                Ok(()) = news.changed() => {}
                Some(()) = more(&mut asked) => {}
            }
        }
    }
}

async fn more(asked: &mut Option<tokio::sync::watch::Receiver<u64>>) -> Option<()> {
    match asked {
        Some(asked) => asked.changed().await.ok(),
        None => std::future::pending().await,
    }
}

fn text_of(content: &[Content]) -> String {
    let texts: Vec<&str> = content.iter().filter_map(Content::as_text).collect();
    texts.join("\n")
}

/// Who says nothing of failing expects none.
fn wanted(expect: Option<Value>) -> Value {
    let mut wanted = expect.unwrap_or_else(|| json!({}));
    if let Some(object) = wanted.as_object_mut()
        && !object.contains_key("ok")
        && !object.contains_key("error")
    {
        object.insert("ok".into(), true.into());
    }
    wanted
}
