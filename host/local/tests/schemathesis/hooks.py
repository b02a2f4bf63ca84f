"""Lets the fuzzer reach beyond 404: half of the ids and names it makes up become those of things that exist.

Also: two refusals of the platform have no Content-Type at all (a malformed id in the path, a wrong key), which a schema
cannot say. They are recognised by their exact text and given one before the checks look.
"""

import json
import os
import random
import urllib.error
import urllib.request
import uuid

import schemathesis

ORIGIN = os.environ["ORIGIN"]
KEY = os.environ["API_KEY"]
known = {"vm": None, "commit": None, "tag": "none", "repository": "none", "n": 0}
dice = random.Random(1)


def call(method, path, body=None):
    request = urllib.request.Request(
        f"{ORIGIN}/api/v1{path}", method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read() or b"null")


def living():
    """A VM and a commit of it; made anew when the fuzzer has deleted them."""
    for vm in call("GET", "/vms"):
        if vm["vm_id"] == known["vm"]:
            break
    else:
        for vm in call("GET", "/vms")[4:]:
            call("DELETE", f"/vm/{vm['vm_id']}")
        known["vm"] = call("POST", "/vm/new_root?wait_boot=true", {"vm_config": {}})["vm_id"]
        known["commit"] = call("POST", f"/vm/{known['vm']}/commit")["commit_id"]
    try:
        call("GET", f"/commit_tags/{known['tag']}")
        call("GET", f"/repositories/{known['repository']}/tags/{known['tag']}")
    except urllib.error.HTTPError:
        # Never a name that was used: what is deleted must stay deleted.
        known["n"] += 1
        known["tag"], known["repository"] = f"tag{known['n']}", f"repository{known['n']}"
        tag = {"tag_name": known["tag"], "commit_id": known["commit"]}
        repository = {"name": known["repository"]}
        for path, body in (("/repositories", repository), (f"/repositories/{repository['name']}/tags", tag),
                           ("/commit_tags", tag)):
            try:
                call("POST", path, body)
            except urllib.error.HTTPError:
                pass  # The commit was deleted in this instant.
    return known


def well_formed(text):
    try:
        return str(uuid.UUID(text)) == text
    except (AttributeError, TypeError, ValueError):
        return False


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    if path_parameters and dice.random() < 0.5:
        there = living()
        for name, kind in (("vm_id", "vm"), ("commit_id", "commit"), ("vm_or_commit_id", "vm")):
            # What was made up to be refused stays so.
            if well_formed(path_parameters.get(name)):
                path_parameters[name] = there[kind]
        for name, value in (("repo_name", there["repository"]), ("tag_name", there["tag"]), ("org_name", "local")):
            if name in path_parameters:
                path_parameters[name] = value
    return path_parameters


@schemathesis.hook
def after_call(context, case, response):
    text = response.content
    untyped = text == b"403 Forbidden" and response.status_code == 403
    untyped |= text.startswith(b"Invalid URL: ") and response.status_code == 400
    if untyped and "content-type" not in response.headers:
        response.headers["content-type"] = ["text/plain"]
