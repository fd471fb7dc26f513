"""Schemathesis over the OpenAPI document, against the running platform: no 5xx, nothing that the document does not say,
no route that does without its key. Bodies that are nearly right are made from the document itself.
"""

import json
import subprocess
import sys
from pathlib import Path

from tests.conformance.world import open_world

ROOT = Path(__file__).parents[2]
PROGRAM = Path(sys.executable).with_name("schemathesis")
EXAMPLES_MAX = 4
BUDGET_S = 25  # for all phases together; another seed each time, told where it fails
RUN_S_MAX = 200
# A body may be refused for reasons that no schema can say (an unknown model, an order of roles), and some say more than
# the parser asks for (null in lenient mode).
NOT_TOLD_BY_A_SCHEMA = "negative_data_rejection,positive_data_acceptance"
ADMIN = "/v1/admin"  # it changes the platform under everything else: its own tests look after it


def test_no_server_error_no_schema_break_no_way_around_the_key(platform, tmp_path):
    world, _ = open_world(platform, "schemathesis")
    document = json.loads((ROOT / "docs" / "openapi.json").read_text())
    document["paths"] = {path: ways for path, ways in document["paths"].items() if not path.startswith(ADMIN)}
    made = tmp_path / "openapi.json"
    made.write_text(json.dumps(document))
    options = {
        "--url": world.base_url,
        "--header": f"Authorization: Bearer {world.key}",
        "--phases": "coverage,fuzzing,stateful",
        "--max-examples": str(EXAMPLES_MAX),
        "--max-time": str(BUDGET_S),
        "--checks": "all",
        "--exclude-checks": NOT_TOLD_BY_A_SCHEMA,
        "--request-timeout": "60",
        "--generation-database": "none",
        "--warnings": "off",
    }
    argv = [str(PROGRAM), "run", str(made), "--no-color", "--continue-on-failure"]
    argv += [part for option in options.items() for part in option]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=RUN_S_MAX, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Seed: " in done.stdout
    assert platform.quick("status")["ready"] is True
