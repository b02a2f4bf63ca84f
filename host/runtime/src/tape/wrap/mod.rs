//! The contract's imports for a session on a tape: each writes down what it is asked and answered around the real one, or has its answer
//! from the tape and leaves the real one alone.
//!
//! Three kinds: what waits is *asked* and answered at its turn; what waits for nothing and changes nothing is *looked* at; what
//! waits for nothing and has an effect is *told*, and in a replay reaches the front end alone.

mod harness;
mod platform;
mod system;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use wasmtime::AsContextMut as _;
use wasmtime::component::{
    Access, Accessor, ComponentType, FutureReader, HasData, Lift, Linker, Lower, StreamReader,
};

use super::line::{Key, Line};
use super::taps::Tap;
use super::voice::{Voice, read, value};
use crate::bindings::Publisher;
use crate::bindings::vers::harness::types::Error;
use crate::capability::streams;
use crate::guest::{Guest, Has};

/// How the bindings reach the data of a store whose session is on a tape.
pub(crate) struct Taped;

/// The data of such a store.
pub(crate) struct TapedGuest<'a>(&'a mut Guest);

impl HasData for Taped {
    type Data<'a> = TapedGuest<'a>;
}

fn data(guest: &mut Guest) -> TapedGuest<'_> {
    TapedGuest(guest)
}

fn guest(guest: &mut Guest) -> &mut Guest {
    guest
}

/// Links every interface of the contract.
pub(crate) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    Publisher::add_to_linker::<_, Taped>(linker, data)
}

/// Arguments under their names.
macro_rules! arguments {
    ($($argument:ident),* $(,)?) => {{
        #[allow(unused_mut, reason = "some functions have none")]
        let mut all = serde_json::Map::new();
        $(all.insert(stringify!($argument).replace('_', "-"), super::value(&$argument)?);)*
        all
    }};
}

/// A function that waits, asked with these arguments.
macro_rules! asked {
    ($interface:ident :: $function:ident, $accessor:ident, ($($argument:ident),*)) => {{
        let name = concat!(stringify!($interface), ".", stringify!($function));
        let asked = super::Asked::of($accessor, name, arguments!($($argument),*))?;
        let real = $accessor.with_getter::<Has>(super::guest);
        asked
            .answer(<Has as $interface::HostWithStore<Guest>>::$function(&real, $($argument),*))
            .await
    }};
}

/// Implementations that do nothing else.
macro_rules! all_asked {
    ($interface:ident: $(async fn $function:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => {
        $(async fn $function(
            accessor: &Accessor<Guest, Taped>,
            $($argument: $type),*
        ) -> wasmtime::Result<$result> {
            asked!($interface::$function, accessor, ($($argument),*))
        })*
    };
}

use {all_asked, arguments, asked};

/// The plain view of the same store.
fn plain<'a>(access: &'a mut Access<'_, Guest, Taped>) -> Access<'a, Guest, Has> {
    let get: fn(&mut Guest) -> &mut Guest = guest;
    Access::<_, Has>::new(access.as_context_mut(), get)
}

/// The call that asks, by its number.
fn call(access: &mut Access<'_, Guest, Taped>) -> Option<u64> {
    let oldest = access
        .as_context_mut()
        .async_call_stack()
        .ok()
        .and_then(Iterator::last);
    let owner = access.data_mut().owner_of(oldest);
    owner.number().map(|(n, _)| *n)
}

fn named(function: &str) -> String {
    function.replace('_', "-")
}

/// Something that an extension asked and that is to be answered.
struct Asked {
    /// None while the extension describes itself.
    voice: Option<Arc<Voice>>,
    n: u64,
}

impl Asked {
    fn of(
        accessor: &Accessor<Guest, Taped>,
        function: &str,
        with: Map<String, Value>,
    ) -> wasmtime::Result<Self> {
        accessor.with(|mut access| Self::with(&mut access, function, with))
    }

    fn with(
        access: &mut Access<'_, Guest, Taped>,
        function: &str,
        with: Map<String, Value>,
    ) -> wasmtime::Result<Self> {
        let call = call(access);
        let Some(voice) = access.data_mut().voice.clone() else {
            return Ok(Self { voice: None, n: 0 });
        };
        let (n, _) = voice.ask(call, &named(function), with.into(), None)?;
        Ok(Self {
            voice: Some(voice),
            n,
        })
    }

    /// Who replays this, if it is replayed.
    fn replayed(&self) -> Option<Tap> {
        let voice = self.voice.as_ref().filter(|voice| voice.replays())?;
        Some(Tap::new(voice.clone(), self.n))
    }

    /// The answer: of the real function, or from the tape.
    async fn answer<R: Serialize + DeserializeOwned>(
        self,
        real: impl Future<Output = wasmtime::Result<R>> + Send,
    ) -> wasmtime::Result<R> {
        if self.replayed().is_some() {
            return self.replay().await;
        }
        let result = self.real(real).await?;
        self.taped(&result).await?;
        Ok(result)
    }

    /// The real function's answer. Streams that it makes are those of this ask.
    async fn real<R>(
        &self,
        real: impl Future<Output = wasmtime::Result<R>> + Send,
    ) -> wasmtime::Result<R> {
        match &self.voice {
            None => real.await,
            Some(voice) => {
                Within {
                    voice: voice.clone(),
                    n: self.n,
                    real: Box::pin(real),
                }
                .await
            }
        }
    }

    /// Writes an answer down, at its turn.
    async fn taped(&self, result: &impl Serialize) -> wasmtime::Result<()> {
        let Some(voice) = &self.voice else {
            return Ok(());
        };
        let result = value(result)?;
        let passed = voice.turn(Key::Answer(self.n)).await?;
        voice.write(Line::Answer {
            n: self.n,
            by: voice.by.to_string(),
            at: passed.at,
            value: result,
        });
        Ok(())
    }

    /// The tape's answer, at its turn.
    async fn replay<R: DeserializeOwned>(&self) -> wasmtime::Result<R> {
        let Some(voice) = &self.voice else {
            return Err(wasmtime::Error::msg("there is no tape"));
        };
        match voice.turn(Key::Answer(self.n)).await?.line {
            Some(Line::Answer { value, .. }) => read(value),
            _ => Err(wasmtime::Error::msg("the tape brings something else")),
        }
    }
}

/// A future of a real function: what it makes while it is polled belongs to its ask.
struct Within<F> {
    voice: Arc<Voice>,
    n: u64,
    real: Pin<Box<F>>,
}

impl<F: Future> Future for Within<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        self.voice.set_asking(Some(self.n));
        let result = self.real.as_mut().poll(context);
        self.voice.set_asking(None);
        result
    }
}

/// A question that waits for nothing and changes nothing.
fn look<R: Serialize + DeserializeOwned>(
    guest: &mut Guest,
    function: &str,
    with: Map<String, Value>,
    real: impl FnOnce(&mut Guest) -> wasmtime::Result<R>,
) -> wasmtime::Result<R> {
    match guest.voice.clone() {
        None => real(guest),
        Some(voice) => voice.look(&named(function), with.into(), || real(guest)),
    }
}

/// Something with an effect that nobody waits for; whether the real one is to be done, too.
fn tell(
    guest: &mut Guest,
    call: Option<u64>,
    function: &str,
    with: Map<String, Value>,
) -> wasmtime::Result<()> {
    match guest.voice.clone() {
        None => Ok(()),
        Some(voice) => voice
            .ask(call, &named(function), with.into(), None)
            .map(|_| ()),
    }
}

/// A stream, and what comes of it.
type Streamed<T, R> = (StreamReader<T>, FutureReader<Result<R, Error>>);

/// A function that answers at once with a stream and what comes of it.
fn streamed<T, R>(
    mut access: Access<'_, Guest, Taped>,
    function: &str,
    with: Map<String, Value>,
    real: impl FnOnce(Access<'_, Guest, Has>) -> wasmtime::Result<Streamed<T, R>>,
    replayed: impl FnOnce(Access<'_, Guest, Has>, Tap) -> wasmtime::Result<StreamReader<T>>,
) -> wasmtime::Result<Streamed<T, R>>
where
    R: ComponentType + Lift + Lower + DeserializeOwned + Send + Sync + 'static,
{
    let asked = Asked::with(&mut access, function, with)?;
    if let Some(tap) = asked.replayed() {
        let stream = replayed(plain(&mut access), tap.clone())?;
        let done = FutureReader::new(&mut access, tap.replayed_done::<Result<R, Error>>())?;
        return Ok((stream, done));
    }
    let voice = asked.voice.clone();
    if let Some(voice) = &voice {
        voice.set_asking(Some(asked.n));
    }
    let made = real(plain(&mut access));
    if let Some(voice) = &voice {
        voice.set_asking(None);
    }
    made
}

/// Bytes from the tape, for the guest to read.
fn replayed_bytes(access: Access<'_, Guest, Has>, tap: Tap) -> wasmtime::Result<StreamReader<u8>> {
    streams::outgoing(access, tap.replayed_bytes())
}

/// Items from the tape.
fn replayed_items<T>(
    mut access: Access<'_, Guest, Has>,
    tap: Tap,
) -> wasmtime::Result<StreamReader<T>>
where
    T: ComponentType + Lift + Lower + DeserializeOwned + Unpin + Send + Sync + 'static,
{
    streams::items(&mut access, tap.replayed_items::<T>())
}

/// What the guest writes in a replay: compared, and dropped.
fn compare(
    accessor: &Accessor<Guest, Taped>,
    tap: Tap,
    written: Option<StreamReader<u8>>,
) -> wasmtime::Result<()> {
    match written {
        None => Ok(()),
        Some(written) => accessor.with(|mut access| written.pipe(&mut access, tap.compared())),
    }
}
