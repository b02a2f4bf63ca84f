"""Runs schemathesis against the platform named by $ENDPOINT."""

import json
import os
import pathlib
import subprocess
import sys

here = pathlib.Path(__file__).resolve().parent
endpoint = json.loads(pathlib.Path(os.environ["ENDPOINT"]).read_text())
origin = endpoint["api_url"].removesuffix("/api/v1")
environment = dict(os.environ, SCHEMATHESIS_HOOKS="hooks", PYTHONPATH=str(here), PYTHONDONTWRITEBYTECODE="1", API_KEY=endpoint["api_key"],
                   ORIGIN=origin, NO_COLOR="1")
schemathesis = pathlib.Path(sys.executable).with_name("schemathesis")
command = [
    str(schemathesis), "--config-file", str(here / "schemathesis.toml"), "run", f"{origin}/openapi.json", "--url", origin,
    "--header", f"Authorization: Bearer {endpoint['api_key']}",
    "--max-examples", os.environ["EXAMPLES"], "--seed", "1", "--workers", "2", "--continue-on-failure",
    "--generation-database", "none", "--request-timeout", "60",
    # Excluded: `positive_data_acceptance`, because the platform refuses more than a schema can say (names that are taken,
    # limits, states of VMs); `ignored_auth` and `missing_required_header`, which want 401 for a wrong key and a
    # missing one, where the platform's gateway says 403 (held by the crate's own tests).
    "--exclude-checks", "positive_data_acceptance,ignored_auth,missing_required_header",
]
sys.exit(subprocess.run(command, env=environment, check=False).returncode)
