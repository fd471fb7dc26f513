"""The OpenAPI document as a gateway shows it: `python -m tests.conformance.openapi > docs/openapi.json`."""

import asyncio
import json
import sys

from tests.e2e.gateway_world import gateway_world


async def document_text() -> str:
    async with gateway_world() as world:
        return json.dumps(world.server.config.loaded_app.openapi(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(asyncio.run(document_text()))
