//! `vers:harness/ui`: what the user sees besides messages. All text is made visible first.

use std::time::Duration;

use pi_vers_policy::{Request, UiVerb};
use wasmtime::component::{Access, Accessor, HasSelf};

use crate::bindings::vers::harness::types::{Error, Line as WitLine};
use crate::bindings::vers::harness::ui::{
    Dialog as WitDialog, Host, HostWithStore, Severity as WitSeverity,
};
use crate::guest::{Ask, Guest, Has};
use crate::harness::{Answer, Dialog};
use crate::services::Services;
use crate::types::{Line, Severity, Span};

/// A dialog that nobody answers counts as dismissed after this long.
const LONGEST: Duration = Duration::from_secs(60 * 60);

/// The longest notice, title or key, in characters.
const LONGEST_TEXT: usize = 4_000;

/// Lines of a widget, and stretches of a line.
const MOST_LINES: usize = 200;

fn line(services: &Services, line: WitLine) -> Line {
    let spans = line.into_iter().take(MOST_LINES).map(|mut span| {
        span.text = services.clean_brief(&span.text, LONGEST_TEXT);
        Span::from(span)
    });
    spans.collect()
}

impl Host for Guest {
    fn available(&mut self) -> wasmtime::Result<bool> {
        Ok(self
            .services
            .as_ref()
            .is_some_and(|services| services.harness.interactive()))
    }

    fn set_status(&mut self, key: String, text: Option<WitLine>) -> wasmtime::Result<()> {
        if self.changes.take()
            && self
                .judge(&Request::Ui {
                    verb: UiVerb::Status,
                })
                .is_ok()
            && let Ok(services) = self.services()
        {
            let key = services.clean_brief(&key, LONGEST_TEXT);
            let text = text.map(|text| line(&services, text));
            services.harness.set_status(&self.name, &key, text);
        }
        Ok(())
    }

    fn set_widget(&mut self, key: String, lines: Option<Vec<WitLine>>) -> wasmtime::Result<()> {
        if self.changes.take()
            && self
                .judge(&Request::Ui {
                    verb: UiVerb::Widget,
                })
                .is_ok()
            && let Ok(services) = self.services()
        {
            let key = services.clean_brief(&key, LONGEST_TEXT);
            let lines = lines.map(|lines| {
                let lines = lines.into_iter().take(MOST_LINES);
                lines.map(|text| line(&services, text)).collect()
            });
            services.harness.set_widget(&self.name, &key, lines);
        }
        Ok(())
    }
}

impl HostWithStore<Guest> for HasSelf<Guest> {
    fn notify(
        mut access: Access<'_, Guest, Has>,
        message: String,
        severity: WitSeverity,
    ) -> wasmtime::Result<()> {
        let request = Request::Ui {
            verb: UiVerb::Notify,
        };
        if access.get().notices.take()
            && access.get().judge(&request).is_ok()
            && let Ok(ask) = Ask::with(&mut access)
        {
            let severity = match severity {
                WitSeverity::Info => Severity::Info,
                WitSeverity::Warning => Severity::Warning,
                WitSeverity::Error => Severity::Error,
            };
            let message = ask.services.clean_brief(&message, LONGEST_TEXT);
            let call = ask.owner.call();
            let harness = &ask.services.harness;
            harness.notify_during(&ask.name, call, &message, severity);
        }
        Ok(())
    }

    async fn select(
        accessor: &Accessor<Guest, Has>,
        dialog: WitDialog,
        options: Vec<String>,
    ) -> wasmtime::Result<Result<Option<u32>, Error>> {
        let count = options.len();
        Ok(
            ask(accessor, UiVerb::Select, dialog, Dialog::Select(options))
                .await
                .map(|answer| match answer {
                    Some(Answer::Index(index)) if index < count => u32::try_from(index).ok(),
                    _ => None,
                }),
        )
    }

    async fn confirm(
        accessor: &Accessor<Guest, Has>,
        dialog: WitDialog,
        message: String,
    ) -> wasmtime::Result<Result<Option<bool>, Error>> {
        Ok(
            ask(accessor, UiVerb::Confirm, dialog, Dialog::Confirm(message))
                .await
                .map(|answer| match answer {
                    Some(Answer::Yes(yes)) => Some(yes),
                    _ => None,
                }),
        )
    }

    async fn input(
        accessor: &Accessor<Guest, Has>,
        dialog: WitDialog,
        placeholder: String,
    ) -> wasmtime::Result<Result<Option<String>, Error>> {
        Ok(
            ask(accessor, UiVerb::Input, dialog, Dialog::Input(placeholder))
                .await
                .map(text),
        )
    }

    async fn edit(
        accessor: &Accessor<Guest, Has>,
        dialog: WitDialog,
        prefill: String,
    ) -> wasmtime::Result<Result<Option<String>, Error>> {
        Ok(ask(accessor, UiVerb::Edit, dialog, Dialog::Edit(prefill))
            .await
            .map(text))
    }
}

fn text(answer: Option<Answer>) -> Option<String> {
    match answer {
        Some(Answer::Text(text)) => Some(text),
        _ => None,
    }
}

async fn ask(
    accessor: &Accessor<Guest, Has>,
    verb: UiVerb,
    about: WitDialog,
    dialog: Dialog,
) -> Result<Option<Answer>, Error> {
    let ask = Ask::of(accessor)?;
    ask.permit(&Request::Ui { verb }).await?;
    let title = ask.services.clean_brief(&about.title, LONGEST_TEXT);
    let dialog = match dialog {
        Dialog::Select(options) => {
            let clean = |text: &String| ask.services.clean_brief(text, LONGEST_TEXT);
            Dialog::Select(options.iter().map(clean).collect())
        }
        Dialog::Confirm(text) => Dialog::Confirm(ask.services.clean(&text)),
        Dialog::Input(text) => Dialog::Input(ask.services.clean(&text)),
        // It comes back to the guest as it is: only what it may not hold is taken out.
        Dialog::Edit(text) => Dialog::Edit(ask.services.secrets.redact(&text).into_owned()),
    };
    let timeout = about
        .timeout
        .map_or(LONGEST, Duration::from_millis)
        .min(LONGEST);
    let answer =
        ask.services
            .harness
            .ask(&ask.name, ask.owner.call(), &title, dialog, Some(timeout));
    ask.owner
        .race(async { tokio::time::timeout(timeout, answer).await.ok().flatten() })
        .await
}
