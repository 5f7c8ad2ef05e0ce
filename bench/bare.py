"""The floor: a bare ASGI app that reads the body and answers ``{"code":0}``; `python -m bench.bare PORT`."""

import sys
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"10")]


async def app(_scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Read the body, answer."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": b'{"code":0}'})


def serve(application: Any, port: int) -> None:
    """Run an application under uvicorn as the connector does: httptools, uvloop, no access log."""
    uvicorn.run(
        application,
        port=port,
        http="httptools",
        loop="uvloop",
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=False,
    )


if __name__ == "__main__":
    serve(app, int(sys.argv[1]))
