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
use crate::types::{Line, Severity, Span, visible};

/// A dialog that nobody answers counts as dismissed after this long.
const LONGEST: Duration = Duration::from_secs(60 * 60);

fn line(line: WitLine) -> Line {
    line.into_iter().map(Span::from).collect()
}

impl Host for Guest {
    fn available(&mut self) -> wasmtime::Result<bool> {
        Ok(self
            .services
            .as_ref()
            .is_some_and(|services| services.harness.interactive()))
    }

    fn set_status(&mut self, key: String, text: Option<WitLine>) -> wasmtime::Result<()> {
        if self
            .judge(&Request::Ui {
                verb: UiVerb::Status,
            })
            .is_ok()
            && let Ok(services) = self.services()
        {
            services
                .harness
                .set_status(&self.name, &key, text.map(line));
        }
        Ok(())
    }

    fn set_widget(&mut self, key: String, lines: Option<Vec<WitLine>>) -> wasmtime::Result<()> {
        if self
            .judge(&Request::Ui {
                verb: UiVerb::Widget,
            })
            .is_ok()
            && let Ok(services) = self.services()
        {
            let lines = lines.map(|lines| lines.into_iter().map(line).collect());
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
        if access.get().judge(&request).is_ok()
            && let Ok(ask) = Ask::with(&mut access)
        {
            let severity = match severity {
                WitSeverity::Info => Severity::Info,
                WitSeverity::Warning => Severity::Warning,
                WitSeverity::Error => Severity::Error,
            };
            let (call, message) = (ask.owner.call(), visible(&message));
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
        let options = options.iter().map(|option| visible(option)).collect();
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
        Ok(ask(
            accessor,
            UiVerb::Confirm,
            dialog,
            Dialog::Confirm(visible(&message)),
        )
        .await
        .map(|answer| match answer {
            Some(Answer::Yes(yes)) => Some(yes),
            _ => None,
        }))
    }

    async fn input(
        accessor: &Accessor<Guest, Has>,
        dialog: WitDialog,
        placeholder: String,
    ) -> wasmtime::Result<Result<Option<String>, Error>> {
        Ok(ask(
            accessor,
            UiVerb::Input,
            dialog,
            Dialog::Input(visible(&placeholder)),
        )
        .await
        .map(text))
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
    let timeout = about
        .timeout
        .map_or(LONGEST, Duration::from_millis)
        .min(LONGEST);
    let answer = ask.services.harness.ask(
        &ask.name,
        ask.owner.call(),
        &visible(&about.title),
        dialog,
        Some(timeout),
    );
    ask.owner
        .race(async { tokio::time::timeout(timeout, answer).await.ok().flatten() })
        .await
}
