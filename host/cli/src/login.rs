//! `pi-vers login`: an API key by mail. The key itself is never shown.

use std::io::{BufRead as _, IsTerminal as _};
use std::sync::Arc;

use pi_vers_host::visible;
use vers_client::login::{LoginOptions, Membership, Prompt};
use vers_client::{Error, Kind, Result};

use crate::args::Login;
use crate::failure::{Code, Failure};
use crate::interrupt::Interrupts;
use crate::terminal::Terminal;
use crate::{doctor, setup};

/// Asks on the terminal.
struct Asker(Arc<Terminal>);

impl Asker {
    /// A line from the terminal. The thread that reads it is left behind if nobody waits for it any more.
    async fn line(&self, question: &str, instead: &str) -> Result<String> {
        if !std::io::stdin().is_terminal() {
            return Err(Error::new(
                Kind::Invalid,
                format!("log in: nobody can be asked here: {instead}"),
            ));
        }
        self.0.note(question);
        let read = tokio::task::spawn_blocking(|| {
            let mut text = String::new();
            std::io::stdin().lock().read_line(&mut text).map(|_| text)
        });
        match read.await {
            Ok(Ok(text)) if !text.trim().is_empty() => Ok(text.trim().to_owned()),
            _ => Err(Error::new(Kind::Cancelled, "log in: no answer")),
        }
    }
}

impl Prompt for Asker {
    async fn email(&self) -> Result<String> {
        self.line(
            "The mail address of your Vers account (a new one makes an account):",
            "give --email ADDRESS",
        )
        .await
    }

    async fn choose(&self, organizations: &[Membership]) -> Result<usize> {
        let mut question = String::from("Which organisation is the key for?");
        for (at, one) in organizations.iter().enumerate() {
            question.push_str(&format!(
                "\n  {} {} ({})",
                at + 1,
                visible(&one.name),
                visible(&one.role)
            ));
        }
        let answer = self
            .line(&format!("{question}\nIts number:"), "give --org NAME")
            .await?;
        let chosen = answer
            .parse::<usize>()
            .ok()
            .and_then(|number| number.checked_sub(1));
        chosen.ok_or_else(|| {
            Error::new(
                Kind::Invalid,
                format!("log in: {answer:?} is none of the numbers"),
            )
        })
    }

    fn mail_sent(&self, email: &str) {
        self.0.note(format!(
            "A mail is on its way to {}: open its link within ten minutes. Waiting …",
            visible(email)
        ));
    }
}

/// Logs in, unless there is a key.
pub(crate) async fn login(
    terminal: Arc<Terminal>,
    options: Login,
) -> std::result::Result<Code, Failure> {
    let settings = setup::settings()?;
    if !options.force && settings.api_key().await.is_ok() {
        terminal.line(format!(
            "there is a key already, from {}; --force gets a new one",
            doctor::key_source(&settings)
        ));
        return Ok(Code::Ok);
    }
    let interrupts = Interrupts::watch(terminal.clone(), None)?;
    let how = LoginOptions {
        email: options.email,
        organization: options.org,
        ..LoginOptions::default()
    };
    let asker = Asker(terminal.clone());
    let done = tokio::select! {
        done = vers_client::login::login(&settings, &how, &asker) => done?,
        () = interrupts.wait() => return Err(Failure::new(Code::Cancelled, "cancelled", "log in: cancelled; nothing was kept")),
    };
    let organization = if done.organization.is_empty() {
        String::new()
    } else {
        format!(" of {}", visible(&done.organization))
    };
    terminal.line(format!(
        "logged in as {}{organization}; the key is kept in ~/.vers/keys.json",
        visible(&done.email)
    ));
    if !done.in_effect {
        terminal.note(format!(
            "calls still use another key, from {}: remove that one to use the new key",
            doctor::key_source(&settings)
        ));
    }
    Ok(Code::Ok)
}
