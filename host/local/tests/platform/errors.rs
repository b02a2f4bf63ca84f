//! Refusals: their statuses, bodies and content types are those of the platform, quirks included.

use crate::lab::{Lab, answer};
use reqwest::Method;
use serde_json::json;

const NOBODY: &str = "00000000-0000-4000-8000-000000000000";
const JSON: Option<&str> = Some("application/json");
const TEXT: Option<&str> = Some("text/plain; charset=utf-8");

/// Method, path, body; status, Content-Type, how the text begins.
type Case = (
    Method,
    String,
    Option<serde_json::Value>,
    u16,
    Option<&'static str>,
    &'static str,
);

#[tokio::test(flavor = "multi_thread")]
async fn refusals_have_the_shapes_of_the_platform() {
    let lab = Lab::new().await;
    let api = &lab.api;
    let vm = api.create().await;
    let not_found = r#"{"error":"not found","success":false}"#;
    let cases: Vec<Case> = vec![
        (
            Method::GET,
            "/vm/xyz/status".into(),
            None,
            400,
            None,
            "Invalid URL: Cannot parse `vm_id` with value `xyz`: UUID parsing failed",
        ),
        (
            Method::GET,
            format!("/vm/{NOBODY}/status"),
            None,
            404,
            JSON,
            not_found,
        ),
        (
            Method::GET,
            format!("/vm/{NOBODY}/logs"),
            None,
            404,
            JSON,
            not_found,
        ),
        (
            Method::DELETE,
            format!("/vm/{NOBODY}"),
            None,
            403,
            JSON,
            r#"{"error":"Forbidden","success":false}"#,
        ),
        (
            Method::POST,
            format!("/vm/{NOBODY}/branch"),
            None,
            404,
            JSON,
            r#"{"error":"commit not found","success":false}"#,
        ),
        (
            Method::POST,
            format!("/vm/branch/by_vm/{NOBODY}"),
            None,
            404,
            JSON,
            r#"{"vms":[],"error":"parent vm not found"}"#,
        ),
        (
            Method::POST,
            format!("/vm/branch/by_commit/{NOBODY}"),
            None,
            404,
            JSON,
            r#"{"vms":[],"error":"commit not found"}"#,
        ),
        (
            Method::POST,
            "/vm/branch/by_tag/x".into(),
            None,
            404,
            JSON,
            r#"{"vms":[],"error":"tag not found"}"#,
        ),
        (
            Method::POST,
            "/vm/branch/by_ref/x/y".into(),
            None,
            404,
            JSON,
            r#"{"vms":[],"error":"repository not found"}"#,
        ),
        (
            Method::POST,
            "/vm/from_commit".into(),
            Some(json!({})),
            400,
            TEXT,
            "Failed to parse the request body as JSON: ",
        ),
        (
            Method::POST,
            "/vm/from_commit".into(),
            Some(json!({"commit_id": NOBODY, "ref": "a:b"})),
            400,
            TEXT,
            "Failed to parse the request body as JSON: ",
        ),
        (
            Method::POST,
            "/vm/from_commit".into(),
            Some(json!({"ref": "nocolon"})),
            400,
            JSON,
            r#"{"error":"Invalid ref format. Expected 'repo_name:tag_name'","success":false}"#,
        ),
        (
            Method::POST,
            "/vm/from_commit".into(),
            Some(json!({"commit_id": NOBODY})),
            404,
            JSON,
            r#"{"error":"commit not found","success":false}"#,
        ),
        (
            Method::PATCH,
            format!("/vm/{vm}/state"),
            Some(json!({"state": "running"})),
            422,
            TEXT,
            "Failed to deserialize the JSON body into the target type: state: unknown variant `running`, expected `Paused` or `Running`",
        ),
        (
            Method::POST,
            "/vm/new_root".into(),
            Some(json!({})),
            422,
            TEXT,
            "Failed to deserialize the JSON body into the target type: missing field `vm_config`",
        ),
        (
            Method::POST,
            "/vm/new_root".into(),
            Some(json!({"vm_config": {"image_name": "x"}})),
            400,
            JSON,
            r#"{"error":"image_name must be 'default'"#,
        ),
        (
            Method::POST,
            "/vm/new_root".into(),
            Some(json!({"vm_config": {"vcpu_count": 0}})),
            400,
            JSON,
            r#"{"error":"vcpu_count must be"#,
        ),
        (
            Method::DELETE,
            format!("/commits/{NOBODY}"),
            None,
            404,
            JSON,
            r#"{"error":"commit not found","success":false}"#,
        ),
        (
            Method::GET,
            "/repositories/x".into(),
            None,
            404,
            JSON,
            r#"{"error":"repository not found","success":false}"#,
        ),
        (
            Method::GET,
            "/commit_tags/x".into(),
            None,
            404,
            JSON,
            r#"{"error":"tag not found","success":false}"#,
        ),
        (
            Method::DELETE,
            "/env_vars/X".into(),
            None,
            404,
            JSON,
            r#"{"error":"Environment variable not found","success":false}"#,
        ),
        (
            Method::PUT,
            "/env_vars".into(),
            Some(json!({"vars": {"1": "x"}})),
            400,
            JSON,
            r#"{"error":"environment variable keys"#,
        ),
        (
            Method::GET,
            "/domains".into(),
            None,
            501,
            JSON,
            r#"{"error":"the local platform has no custom domains"#,
        ),
        (
            Method::POST,
            "/deploy".into(),
            Some(json!({})),
            501,
            JSON,
            r#"{"error":"the local platform has no deployments"#,
        ),
        (
            Method::GET,
            "/images".into(),
            None,
            501,
            JSON,
            r#"{"error":"the local platform has no base images"#,
        ),
        (
            Method::POST,
            "/repositories/fork".into(),
            Some(json!({})),
            501,
            JSON,
            r#"{"error":"the local platform has no forking"#,
        ),
        (Method::GET, "/nowhere".into(), None, 404, JSON, not_found),
        (
            Method::GET,
            format!("/vm/{vm}/files?path=/nowhere"),
            None,
            404,
            JSON,
            r#"{"error":"file not found","success":false}"#,
        ),
        (
            Method::GET,
            format!("/vm/{vm}/files?path=etc"),
            None,
            400,
            JSON,
            r#"{"error":"path must be absolute"#,
        ),
        (
            Method::GET,
            format!("/vm/{vm}/files?path=/etc"),
            None,
            400,
            JSON,
            r#"{"error":"/etc is not a regular file"#,
        ),
        (
            Method::GET,
            format!("/vm/{vm}/files?path=/dev/zero"),
            None,
            400,
            JSON,
            r#"{"error":"/dev/zero is not a regular file"#,
        ),
        (
            Method::POST,
            format!("/vm/{vm}/exec"),
            Some(json!({"command": []})),
            400,
            JSON,
            r#"{"error":"command must name a program"#,
        ),
        (
            Method::POST,
            format!("/vm/{vm}/exec/stream/attach"),
            Some(json!({"exec_id": NOBODY})),
            404,
            JSON,
            r#"{"error":"exec not found"#,
        ),
    ];
    for (method, path, body, status, kind, text) in cases {
        let got = api.answer(method.clone(), &path, body).await;
        assert_eq!(
            (got.0, got.1.as_deref()),
            (status, kind),
            "{method} {path}: {}",
            got.2
        );
        assert!(got.2.starts_with(text), "{method} {path}: {}", got.2);
    }
    let malformed = api
        .request(Method::PATCH, &format!("/vm/{vm}/state"))
        .header("content-type", "application/json")
        .body("{x");
    let got = answer(malformed.send().await.unwrap()).await;
    assert_eq!((got.0, got.1.as_deref()), (400, TEXT));
    assert!(
        got.2
            .starts_with("Failed to parse the request body as JSON: "),
        "{}",
        got.2
    );
    let huge = api
        .request(Method::PUT, "/env_vars")
        .json(&json!({"vars": {"A": "x".repeat(3 << 20)}}));
    assert_eq!(answer(huge.send().await.unwrap()).await.0, 413);
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_gets_the_answer_of_the_gateway() {
    let lab = Lab::new().await;
    let api = &lab.api;
    let url = |path: &str| format!("{}{path}", api.endpoint.api_url);
    let gateway = (403, None, "403 Forbidden".to_owned());
    for key in [None, Some("x"), Some(&api.endpoint.api_key[..99])] {
        for path in ["/vms", "/nowhere", "/vm/xyz/status", "/local/shutdown"] {
            let mut request = api.client.get(url(path));
            if let Some(key) = key {
                request = request.bearer_auth(key);
            }
            assert_eq!(
                answer(request.send().await.unwrap()).await,
                gateway,
                "{path}"
            );
        }
    }
    let basic = api
        .client
        .get(url("/vms"))
        .basic_auth("user", Some(&api.endpoint.api_key));
    assert_eq!(answer(basic.send().await.unwrap()).await, gateway);
    for path in ["/system/version", "/public/repositories"] {
        assert_eq!(
            api.client.get(url(path)).send().await.unwrap().status(),
            200,
            "{path}"
        );
    }
    let origin = api.endpoint.api_url.strip_suffix("/api/v1").unwrap();
    for path in ["/health", "/openapi.json"] {
        let got = api
            .client
            .get(format!("{origin}{path}"))
            .send()
            .await
            .unwrap();
        assert_eq!(got.status(), 200);
        got.json::<serde_json::Value>().await.unwrap();
    }
    assert_eq!(
        api.answer(Method::POST, "/keys/validate", None).await.0,
        200
    );
    assert_eq!(api.get("/whoami").await["org"]["name"], "local");
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_public_repositories_are_shown_without_a_key() {
    let lab = Lab::new().await;
    let api = &lab.api;
    let vm = api.create().await;
    let commit = api.commit(&vm).await;
    api.answer(
        Method::POST,
        "/repositories",
        Some(json!({"name": "r", "description": "d"})),
    )
    .await;
    api.answer(
        Method::POST,
        "/repositories/r/tags",
        Some(json!({"tag_name": "t", "commit_id": commit})),
    )
    .await;
    assert_eq!(
        api.answer(Method::GET, "/public/repositories/local/r", None)
            .await
            .0,
        404
    );
    api.empty(
        Method::PATCH,
        "/repositories/r/visibility",
        Some(json!({"is_public": true})),
        204,
    )
    .await;
    assert_eq!(
        api.get("/public/repositories/local/r").await["full_name"],
        "local/r"
    );
    assert_eq!(
        api.get("/public/repositories").await["repositories"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        api.get("/public/repositories/local/r/tags/t").await["commit_id"].as_str(),
        Some(&*commit)
    );
    assert_eq!(
        api.answer(Method::GET, "/public/repositories/other/r/tags", None)
            .await
            .0,
        404
    );
    let patch = |body| api.answer(Method::PATCH, "/repositories/r/tags/t", Some(body));
    assert_eq!(
        patch(json!({})).await.2,
        r#"{"error":"No updates provided","success":false}"#
    );
    assert_eq!(patch(json!({"description": "x"})).await.0, 204);
    assert_eq!(api.get("/repositories/r/tags/t").await["description"], "x");
    assert_eq!(patch(json!({"description": null})).await.0, 204);
    assert_eq!(
        api.get("/repositories/r/tags/t").await["description"],
        json!(null)
    );
    api.empty(Method::DELETE, "/repositories/r/tags/t", None, 204)
        .await;
    api.empty(Method::DELETE, "/repositories/r", None, 204)
        .await;
    api.empty(Method::DELETE, &format!("/commits/{commit}"), None, 204)
        .await;
    lab.end().await;
}
