//! `vers:system/store`: small values of one extension that outlive the session.

use pi_vers_policy::Request;
use pi_vers_system::store::Store;
use wasmtime::component::{Accessor, HasSelf};

use crate::bindings::vers::harness::types::Error;
use crate::bindings::vers::system::store::{Host, HostWithStore};
use crate::guest::{Ask, Guest, Has};
use crate::types::json;

impl Host for Guest {}

async fn open(accessor: &Accessor<Guest, Has>) -> Result<(Ask, Store), Error> {
    let ask = Ask::of(accessor)?;
    ask.permit(&Request::Store).await?;
    let store = ask.services.store(&ask.name, ask.limits.store)?;
    Ok((ask, store))
}

fn valid(value: &str) -> Result<(), Error> {
    json(value, "the value").map(|_| ()).map_err(Error::Invalid)
}

impl HostWithStore<Guest> for HasSelf<Guest> {
    async fn get(
        accessor: &Accessor<Guest, Has>,
        key: String,
    ) -> wasmtime::Result<Result<Option<String>, Error>> {
        Ok(async {
            let (ask, store) = open(accessor).await?;
            ask.race(store.get(&key)).await
        }
        .await)
    }

    async fn set(
        accessor: &Accessor<Guest, Has>,
        key: String,
        value: String,
    ) -> wasmtime::Result<Result<(), Error>> {
        Ok(async {
            valid(&value)?;
            let (ask, store) = open(accessor).await?;
            ask.race(store.set(&key, &value)).await
        }
        .await)
    }

    async fn delete(
        accessor: &Accessor<Guest, Has>,
        key: String,
    ) -> wasmtime::Result<Result<(), Error>> {
        Ok(async {
            let (ask, store) = open(accessor).await?;
            ask.race(store.delete(&key)).await
        }
        .await)
    }

    async fn keys(
        accessor: &Accessor<Guest, Has>,
        prefix: String,
    ) -> wasmtime::Result<Result<Vec<String>, Error>> {
        Ok(async {
            let (ask, store) = open(accessor).await?;
            ask.race(store.keys(&prefix)).await
        }
        .await)
    }

    async fn swap(
        accessor: &Accessor<Guest, Has>,
        key: String,
        old: Option<String>,
        new: Option<String>,
    ) -> wasmtime::Result<Result<bool, Error>> {
        Ok(async {
            new.as_deref().map(valid).transpose()?;
            let (ask, store) = open(accessor).await?;
            ask.race(store.swap(&key, old.as_deref(), new.as_deref()))
                .await
        }
        .await)
    }
}
