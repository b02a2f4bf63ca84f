//! `vers:harness/client`: what the client behind a call can be asked beyond the dialogs.

use pi_vers_policy::{ClientVerb, Request};
use wasmtime::component::{Access, Accessor, HasSelf};

use crate::bindings::vers::harness::client::{
    Host, HostWithStore, Listing as WitListing, Question as WitQuestion,
    QuestionKind as WitQuestionKind,
};
use crate::bindings::vers::harness::types::Error;
use crate::client::{QuestionKind, answers, questions};
use crate::guest::{Ask, Guest, Has};

impl Host for Guest {
    fn list_changed(&mut self, list: WitListing) -> wasmtime::Result<()> {
        let request = Request::Client {
            verb: ClientVerb::ListChanged,
        };
        if self.judge(&request).is_ok()
            && let Ok(services) = self.services()
        {
            services.harness.list_changed(&self.name, list.into());
        }
        Ok(())
    }
}

impl HostWithStore<Guest> for HasSelf<Guest> {
    fn offers(mut access: Access<'_, Guest, Has>, kind: WitQuestionKind) -> wasmtime::Result<bool> {
        Ok(Ask::with(&mut access)
            .is_ok_and(|ask| ask.services.harness.offers(ask.owner.call(), kind.into())))
    }

    async fn ask(
        accessor: &Accessor<Guest, Has>,
        asked: Vec<WitQuestion>,
    ) -> wasmtime::Result<Result<Vec<(String, String)>, Error>> {
        Ok(async {
            let ask = Ask::of(accessor)?;
            let questions = questions(asked).map_err(Error::Invalid)?;
            for question in &questions {
                let verb = verb(question.kind);
                ask.permit(&Request::Client { verb }).await?;
            }
            let keys: Vec<String> = questions.iter().map(|one| one.key.clone()).collect();
            let harness = &ask.services.harness;
            let given = ask
                .race(harness.ask_client(&ask.name, ask.owner.call(), questions))
                .await?;
            answers(&keys, given).map_err(Error::Other)
        }
        .await)
    }
}

fn verb(kind: QuestionKind) -> ClientVerb {
    match kind {
        QuestionKind::Form => ClientVerb::Form,
        QuestionKind::Sampling => ClientVerb::Sampling,
        QuestionKind::Roots => ClientVerb::Roots,
    }
}
