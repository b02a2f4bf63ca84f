//! The life of VMs and commits.

use crate::lab::Lab;
use reqwest::{Method, StatusCode};
use serde_json::json;
use std::collections::HashSet;

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_lives_is_labelled_and_goes() {
    let lab = Lab::new().await;
    let api = &lab.api;
    let config =
        json!({"vm_config": {"vcpu_count": 1, "mem_size_mib": 256, "labels": {"role": "test"}}});
    let made = api
        .json(
            Method::POST,
            "/vm/new_root?wait_boot=true",
            Some(config),
            StatusCode::CREATED,
        )
        .await;
    let vm = made["vm_id"].as_str().unwrap();
    let status = api.get(&format!("/vm/{vm}/status")).await;
    assert_eq!(status["state"], "running");
    assert_eq!(
        status["owner_id"].as_str().unwrap(),
        &api.endpoint.api_key[..36]
    );
    assert_eq!(api.get("/vms").await, json!([status]));
    assert_eq!(api.get("/vm").await, json!([status]));
    let metadata = api.get(&format!("/vm/{vm}/metadata")).await;
    assert_eq!(
        (&metadata["mem_size_mib"], &metadata["parent_commit_id"]),
        (&json!(256), &json!(null))
    );
    assert_eq!(metadata["ip"], "127.0.0.1");
    let key = api.get(&format!("/vm/{vm}/ssh_key")).await;
    assert_eq!(key["ssh_port"], api.endpoint.ssh_addr.port());
    assert!(
        key["ssh_private_key"]
            .as_str()
            .unwrap()
            .starts_with("-----BEGIN OPENSSH PRIVATE KEY-----")
    );

    let label = format!("/vm/{vm}/label");
    api.empty(
        Method::PATCH,
        &label,
        Some(json!({"labels": {"a": "1"}})),
        200,
    )
    .await;
    api.empty(Method::PATCH, &label, Some(json!({"labels": null})), 200)
        .await;
    assert_eq!(
        api.get(&format!("/vm/{vm}/status")).await["labels"],
        json!({"a": "1", "role": "test"})
    );
    api.empty(Method::DELETE, &format!("{label}/role"), None, 204)
        .await;
    api.empty(
        Method::PUT,
        &format!("/vm/{vm}/labels"),
        Some(json!({"labels": {"b": "2"}})),
        200,
    )
    .await;
    assert_eq!(
        api.get(&format!("/vm/{vm}/status")).await["labels"],
        json!({"b": "2"})
    );

    api.empty(
        Method::PATCH,
        &format!("/vm/{vm}/disk"),
        Some(json!({"fs_size_mib": 2048})),
        200,
    )
    .await;
    let smaller = api
        .answer(
            Method::PATCH,
            &format!("/vm/{vm}/disk"),
            Some(json!({"fs_size_mib": 2048})),
        )
        .await;
    assert_eq!(smaller.0, 400);
    api.delete(vm).await;
    assert_eq!(api.get("/vms").await, json!([]));
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pausing_stops_time_inside_and_keeps_processes() {
    let lab = Lab::new().await;
    let api = &lab.api;
    let vm = api.create().await;
    api.sh(
        &vm,
        "nohup sh -c 'while :; do echo x >> /root/ticks; sleep 0.01; done' >/dev/null 2>&1 &",
    )
    .await;
    api.set_state(&vm, "Paused").await;
    assert_eq!(api.state(&vm).await, "paused");
    let refused = api
        .answer(
            Method::POST,
            &format!("/vm/{vm}/exec"),
            Some(json!({"command": ["true"]})),
        )
        .await;
    assert_eq!(refused.0, 400);
    assert!(refused.2.contains("paused"), "{}", refused.2);
    api.set_state(&vm, "Paused").await;
    api.set_state(&vm, "Running").await;
    let before: u64 = api
        .sh(&vm, "wc -l < /root/ticks")
        .await
        .trim()
        .parse()
        .unwrap();
    let wait = format!("while [ $(wc -l < /root/ticks) -le {before} ]; do sleep 0.01; done");
    api.sh(&vm, &wait).await;
    // A frozen VM can be deleted.
    api.set_state(&vm, "Paused").await;
    api.delete(&vm).await;
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_whose_first_process_dies_sleeps_and_wakes_with_its_files() {
    let lab = Lab::new().await;
    let api = &lab.api;
    let vm = api.create().await;
    api.sh(
        &vm,
        "echo kept > /root/file; mkdir /etc/mine; rm /etc/os-release",
    )
    .await;
    let killed = json!({"command": ["sh", "-c", "kill -9 1; kill -TERM 1; exit 0"]});
    let _ = api
        .answer(Method::POST, &format!("/vm/{vm}/exec"), Some(killed))
        .await;
    // Inside, pid 1 is protected from its children; from outside it is not.
    let meta = std::fs::read(lab.dir.path().join(format!("state/vms/{vm}/meta.json"))).unwrap();
    let meta: serde_json::Value = serde_json::from_slice(&meta).unwrap();
    if let Some(pid) = meta["handle"]["pid"].as_i64() {
        let _ = std::process::Command::new("kill")
            .args(["-9", &pid.to_string()])
            .status();
    }
    while api.state(&vm).await != "sleeping" {
        tokio::task::yield_now().await;
    }
    let refused = api
        .answer(
            Method::PATCH,
            &format!("/vm/{vm}/state"),
            Some(json!({"state": "Paused"})),
        )
        .await;
    assert_eq!(refused.0, 400, "{}", refused.2);
    // Its disk can be committed as it is.
    let commit = api.commit(&vm).await;
    api.set_state(&vm, "Running").await;
    assert_eq!(
        api.sh(
            &vm,
            "cat /root/file; ls -d /etc/mine; ls /etc/os-release 2>/dev/null || true"
        )
        .await,
        "kept\n/etc/mine\n"
    );
    let body = json!({"commit_id": commit});
    let copy = api
        .json(
            Method::POST,
            "/vm/from_commit",
            Some(body),
            StatusCode::CREATED,
        )
        .await;
    assert_eq!(
        api.sh(copy["vm_id"].as_str().unwrap(), "cat /root/file")
            .await,
        "kept\n"
    );
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_are_restored_by_every_name_and_branches_go_apart() {
    let lab = Lab::new().await;
    let api = &lab.api;
    let root = api.create().await;
    api.sh(
        &root,
        "echo one > /root/file; chmod 600 /root/file; echo gone > /root/gone",
    )
    .await;
    let body = json!({"name": "golden", "description": "d"});
    let made = api
        .json(
            Method::POST,
            &format!("/vm/{root}/commit"),
            Some(body),
            StatusCode::CREATED,
        )
        .await;
    let commit = made["commit_id"].as_str().unwrap().to_owned();
    api.sh(&root, "echo two > /root/file").await;

    let tag = json!({"tag_name": "golden", "commit_id": commit});
    api.json(Method::POST, "/commit_tags", Some(tag), StatusCode::CREATED)
        .await;
    api.json(
        Method::POST,
        "/repositories",
        Some(json!({"name": "repo"})),
        StatusCode::CREATED,
    )
    .await;
    let tag = json!({"tag_name": "latest", "commit_id": commit});
    let tagged = api
        .json(
            Method::POST,
            "/repositories/repo/tags",
            Some(tag),
            StatusCode::CREATED,
        )
        .await;
    assert_eq!(tagged["reference"], "repo:latest");
    for body in [
        json!({"commit_id": commit}),
        json!({"tag_name": "golden"}),
        json!({"ref": "repo:latest"}),
    ] {
        let vm = api
            .json(
                Method::POST,
                "/vm/from_commit",
                Some(body),
                StatusCode::CREATED,
            )
            .await;
        let vm = vm["vm_id"].as_str().unwrap();
        assert_eq!(
            api.sh(vm, "cat /root/file; stat -c %a /root/file").await,
            "one\n600\n"
        );
        let metadata = api.get(&format!("/vm/{vm}/metadata")).await;
        assert_eq!(
            (
                metadata["parent_commit_id"].as_str(),
                metadata["grandparent_vm_id"].as_str()
            ),
            (Some(&*commit), Some(&*root))
        );
        api.delete(vm).await;
    }
    for path in [
        format!("/vm/{commit}/branch?count=2"),
        format!("/vm/branch/by_commit/{commit}?count=2"),
        "/vm/branch/by_tag/golden?count=2".to_owned(),
        "/vm/branch/by_ref/repo/latest?count=2".to_owned(),
    ] {
        let made = api
            .json(Method::POST, &path, None, StatusCode::CREATED)
            .await;
        let vms: Vec<_> = made["vms"]
            .as_array()
            .unwrap()
            .iter()
            .map(|v| v["vm_id"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(vms.len(), 2, "{path}");
        for vm in &vms {
            api.delete(vm).await;
        }
    }
    // Of a VM: from what it is now, each its own.
    for path in [
        format!("/vm/{root}/branch?count=3"),
        format!("/vm/branch/by_vm/{root}?count=1&keep_paused=true"),
    ] {
        let made = api
            .json(Method::POST, &path, None, StatusCode::CREATED)
            .await;
        let vms: Vec<_> = made["vms"]
            .as_array()
            .unwrap()
            .iter()
            .map(|v| v["vm_id"].as_str().unwrap().to_owned())
            .collect();
        for vm in &vms {
            assert_eq!(
                api.sh(
                    vm,
                    &format!("cat /root/file; rm /root/gone; echo {vm} > /root/file; hostname")
                )
                .await
                .lines()
                .next(),
                Some("two")
            );
        }
        let files: HashSet<_> =
            futures::future::join_all(vms.iter().map(|vm| api.sh(vm, "cat /root/file")))
                .await
                .into_iter()
                .collect();
        assert_eq!(files.len(), vms.len());
        // The commit in between goes with its last VM.
        assert_eq!(api.get("/commits").await["total"], 2);
        for vm in &vms {
            api.delete(vm).await;
        }
        assert_eq!(api.get("/commits").await["total"], 1);
    }
    assert_eq!(api.state(&root).await, "paused");
    api.set_state(&root, "Running").await;
    assert_eq!(
        api.sh(&root, "cat /root/file /root/gone").await,
        "two\ngone\n"
    );

    let listed = api.get("/commits?limit=1&offset=0").await;
    assert_eq!(
        (&listed["commits"][0]["name"], &listed["limit"]),
        (&json!("golden"), &json!(1))
    );
    assert_eq!(listed["commits"][0]["contents"], "disk_only");
    assert_eq!(api.get("/commits/public").await["total"], 0);
    let body = json!({"is_public": true, "name": "renamed"});
    let changed = api
        .json(
            Method::PATCH,
            &format!("/commits/{commit}"),
            Some(body),
            StatusCode::OK,
        )
        .await;
    assert_eq!(
        (&changed["name"], &changed["description"]),
        (&json!("renamed"), &json!("d"))
    );
    assert_eq!(api.get("/commits/public").await["total"], 1);
    let parents = api.get(&format!("/vm/commits/{commit}/parents")).await;
    assert_eq!(parents[0]["id"].as_str(), Some(&*commit));
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_of_commits_stacks_and_later_commits_of_one_vm_share() {
    let lab = Lab::new().await;
    let api = &lab.api;
    let mut vm = api.create().await;
    for n in 0..4 {
        api.sh(
            &vm,
            &format!(
                "echo {n} > /root/f{n}; ! [ -e /root/f{m} ] || rm /root/f{m}",
                m = n - 1
            ),
        )
        .await;
        let commit = api.commit(&vm).await;
        let next = api
            .json(
                Method::POST,
                "/vm/from_commit",
                Some(json!({"commit_id": commit})),
                StatusCode::CREATED,
            )
            .await;
        vm = next["vm_id"].as_str().unwrap().to_owned();
        if n == 3 {
            let parents = api.get(&format!("/vm/commits/{commit}/parents")).await;
            assert_eq!(parents.as_array().unwrap().len(), 4);
            assert_eq!(parents[0]["grandparent_commit_id"], parents[1]["id"]);
        }
    }
    assert_eq!(api.sh(&vm, "cd /root; ls f*").await, "f3\n");
    let (first, second) = (api.commit(&vm).await, api.commit(&vm).await);
    api.empty(Method::DELETE, &format!("/commits/{first}"), None, 204)
        .await;
    let body = Some(json!({"commit_id": second}));
    let copy = api
        .json(Method::POST, "/vm/from_commit", body, StatusCode::CREATED)
        .await;
    assert_eq!(
        api.sh(copy["vm_id"].as_str().unwrap(), "cat /root/f3")
            .await,
        "3\n"
    );
    let used = api
        .answer(Method::DELETE, &format!("/commits/{second}"), None)
        .await;
    assert_eq!(used.0, 409);
    assert_eq!(
        used.2,
        r#"{"error":"commit still has 1 active VM(s)","success":false}"#
    );
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn variables_of_the_account_reach_vms_at_their_start() {
    let lab = Lab::new().await;
    let api = &lab.api;
    let body = json!({"vars": {"GREETING": "it's $HOME"}});
    let set = api
        .json(Method::PUT, "/env_vars", Some(body), StatusCode::OK)
        .await;
    assert_eq!(set["vars"]["GREETING"], "it's $HOME");
    let vm = api.create().await;
    assert_eq!(
        api.sh(&vm, "printf %s \"$GREETING\"; printf ' %s' \"$VERS_VM_ID\"")
            .await,
        format!("it's $HOME {vm}")
    );
    let body = json!({"vars": {"OTHER": "x"}, "replace": true});
    let set = api
        .json(Method::PUT, "/env_vars", Some(body), StatusCode::OK)
        .await;
    assert_eq!(set["vars"], json!({"OTHER": "x"}));
    api.empty(Method::DELETE, "/env_vars/OTHER", None, 204)
        .await;
    assert_eq!(api.get("/env_vars").await["vars"], json!({}));
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_and_capabilities_are_said() {
    let lab = Lab::with(|o| o.limits.max_vms = 2).await;
    let api = &lab.api;
    let vm = api.create().await;
    let refused = api
        .answer(Method::POST, &format!("/vm/{vm}/branch?count=2"), None)
        .await;
    assert_eq!(refused.0, 400);
    assert!(refused.2.contains("at most 2 VMs"), "{}", refused.2);
    let capabilities = api.get("/local/capabilities").await;
    assert_eq!(capabilities["capabilities"]["memory_snapshots"], false);
    assert!(
        capabilities["commits"]["statement"]
            .as_str()
            .unwrap()
            .contains("disk only")
    );
    let status = vers_local::status(&lab.dir.path().join("state"))
        .await
        .unwrap();
    assert!(status.running && status.disk_bytes > 0 && status.vms.len() == 1);
    assert!(status.captured.not_captured[0].contains("memory"));
    lab.end().await;
}
