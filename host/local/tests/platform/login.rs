//! The login from a shell.

use crate::lab::{Lab, answer};
use serde_json::{Value, json};

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ me@here";

async fn post(lab: &Lab, path: &str, body: Value) -> (u16, Value) {
    let origin = lab.api.endpoint.api_url.strip_suffix("/api/v1").unwrap();
    let response = lab
        .api
        .client
        .post(format!("{origin}{path}"))
        .json(&body)
        .send()
        .await
        .unwrap();
    let (status, _, text) = answer(response).await;
    (status, serde_json::from_str(&text).unwrap_or(Value::Null))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_waits_for_its_link_and_only_the_owner_has_it() {
    let lab = Lab::new().await;
    let pair = json!({"email": "me@example.com", "ssh_public_key": KEY});
    assert_eq!(
        post(&lab, "/api/shell-auth/verify-key", pair.clone())
            .await
            .0,
        403
    );
    let (status, begun) = post(&lab, "/api/shell-auth", pair.clone()).await;
    assert_eq!(
        (status, &begun["success"], &begun["already_verified"]),
        (200, &json!(true), &json!(false))
    );
    assert_eq!(
        post(&lab, "/api/shell-auth/verify-key", pair.clone())
            .await
            .0,
        401
    );
    let asked = json!({"email": "me@example.com", "ssh_public_key": KEY, "label": "a label"});
    assert_eq!(
        post(&lab, "/api/shell-auth/api-keys", asked.clone())
            .await
            .0,
        401
    );
    // What the asker was told opens nothing.
    let origin = lab.api.endpoint.api_url.strip_suffix("/api/v1").unwrap();
    let open = |nonce: &str| {
        lab.api
            .client
            .get(format!("{origin}/local/verify?nonce={nonce}"))
            .send()
    };
    assert_eq!(
        open(begun["nonce"].as_str().unwrap())
            .await
            .unwrap()
            .status(),
        404
    );
    let status = vers_local::status(&lab.dir.path().join("state"))
        .await
        .unwrap();
    let link = status.pending_logins[0].link.clone();
    assert_eq!(
        lab.api.client.get(&link).send().await.unwrap().status(),
        200
    );
    assert_eq!(
        lab.api.client.get(&link).send().await.unwrap().status(),
        404,
        "a link opens once"
    );
    let (status, verified) = post(&lab, "/api/shell-auth/verify-key", pair.clone()).await;
    assert_eq!(
        (status, &verified["verified"], &verified["orgs"][0]["name"]),
        (200, &json!(true), &json!("local"))
    );
    let (status, made) = post(&lab, "/api/shell-auth/api-keys", asked).await;
    assert_eq!(
        (status, made["api_key"].as_str()),
        (200, Some(&*lab.api.endpoint.api_key))
    );
    let (_, again) = post(&lab, "/api/shell-auth", pair).await;
    assert_eq!(again["already_verified"], true);
    let other = json!({"email": "you@example.com", "ssh_public_key": KEY});
    assert_eq!(post(&lab, "/api/shell-auth", other).await.0, 409);
    let (_, known) = post(
        &lab,
        "/api/shell-auth/verify-public-key",
        json!({"ssh_public_key": KEY}),
    )
    .await;
    assert_eq!(
        (&known["count"], &known["matches"][0]["email"]),
        (&json!(1), &json!("me@example.com"))
    );
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_is_verified_at_once_when_told_so() {
    let lab = Lab::with(|o| o.auto_verify = true).await;
    let pair = json!({"email": "me@example.com", "ssh_public_key": KEY});
    post(&lab, "/api/shell-auth", pair.clone()).await;
    assert_eq!(post(&lab, "/api/shell-auth/verify-key", pair).await.0, 200);
    let short = json!({"email": "me@example.com", "ssh_public_key": KEY, "label": "x"});
    assert_eq!(post(&lab, "/api/shell-auth/api-keys", short).await.0, 400);
    let wrong = json!({"email": "me@example.com", "ssh_public_key": "x"});
    assert_eq!(post(&lab, "/api/shell-auth", wrong).await.0, 400);
    lab.end().await;
}
