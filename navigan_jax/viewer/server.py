"""The viewer's HTTP server: the page, and an API that takes JSON and returns pictures and JSON.

GET  /                    the page; its scripts and style have paths of their own
GET  /api/state           the generator, the directions, the first samples to show
GET  /api/notes           names, stars and good ranges, read from the disk
POST /api/notes           changes a note and writes it to the disk before it answers
POST /api/image           the image of a view as PNG; 204 if a newer request of the view came first
POST /api/label_map       the label map of a view's sample as PNG; 204 as for an image
POST /api/gauges          the factors of a view and of its original; 204 as for an image
POST /api/latents         saves latents (.npz or .npy), or photographs (inverted.safetensors);
                          ?file= its name
POST /api/export          a file of a view: PNG, recipe, GIF, MP4 or baked checkpoint

An error has a status of 400 or above and the body {"error": REASON}.
"""

import asyncio
import contextlib
import dataclasses
import functools
import importlib.resources
import logging
import pathlib
import socket
import urllib.parse
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from navigan_jax.errors import InputError
from navigan_jax.viewer import requests
from navigan_jax.viewer.access import Access, Application, guard
from navigan_jax.viewer.exports import Exporter, Source
from navigan_jax.viewer.studio import Studio, View
from navigan_jax.viewer.worker import BusyError, Worker

MOST_LATENTS = 32 * 2**20  # bytes of an uploaded file
_MOST_SEQUENCE = 2**53 - 1  # the largest exact whole number of JavaScript

_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}

Handler = Callable[[Request], Awaitable[Response]]


def make_application(
    studio: Studio,
    worker: Worker,
    access: Access,
    start: Mapping[str, Any],
    source: Source | None = None,
) -> Application:
    """Returns the application behind its access rules.

    start: what the page shows first, passed on unchanged. source: the checkpoint to bake into.
    """
    exporter = Exporter(studio, worker, source)
    exports = [{"kind": name, **dataclasses.asdict(kind)} for name, kind in exporter.kinds.items()]
    state = {**studio.describe(), "exports": exports, "start": dict(start)}

    async def get_state(request: Request) -> Response:
        return JSONResponse({**state, **await run_in_threadpool(studio.notes)})

    async def read_or_change_notes(request: Request) -> Response:
        if request.method != "POST":
            return JSONResponse(await run_in_threadpool(studio.notes))
        table = await requests.read_table(request, {"index", "change"}, set())
        index, change = table["index"], table["change"]
        return JSONResponse(await run_in_threadpool(studio.change_note, index, change))

    async def read_asked(request: Request) -> dict[str, Any]:
        return await requests.read_table(
            request, {"client", "sequence", "view"}, {"place", "small", "patient"}
        )

    async def answer(
        table: dict[str, Any], place: str, work: Callable[[View], Any], *, urgent: bool = False
    ) -> Response:
        """Returns what `work` makes of the asked view: a PNG, or JSON; 204 if a newer one came."""
        asking = requests.read_word(table, "client"), place
        sequence = requests.read_number(table, "sequence", 0, _MOST_SEQUENCE)
        view = await run_in_threadpool(studio.view, table["view"])
        made = worker.submit(asking, sequence, functools.partial(work, view), urgent=urgent)
        found = await asyncio.wrap_future(made)
        headers = {"x-sequence": str(sequence), "x-notes": studio.notes_mark}
        if found is None:
            return Response(status_code=204, headers=headers)
        if isinstance(found, bytes):
            return Response(found, media_type="image/png", headers=headers)
        return JSONResponse(found, headers=headers)

    async def image(request: Request) -> Response:
        table = await read_asked(request)
        place = requests.read_word(table, "place", "main")
        small, patient = (requests.read_flag(table, name) for name in ("small", "patient"))
        work = functools.partial(studio.png, small=small)
        return await answer(table, place, work, urgent=not patient)

    async def label_map(request: Request) -> Response:
        return await answer(await read_asked(request), "label map", studio.label_map_png)

    async def gauges(request: Request) -> Response:
        return await answer(await read_asked(request), "gauges", studio.read_gauges)

    async def add_latents(request: Request) -> Response:
        body = await requests.read_body(request, "application/octet-stream", MOST_LATENTS)
        file = requests.read_file_name(request, "latents")
        return JSONResponse(await run_in_threadpool(studio.add_own, body, file))

    async def export(request: Request) -> Response:
        table = await requests.read_table(request, {"kind", "view"}, set())
        kind = requests.read_word(table, "kind")
        view = await run_in_threadpool(studio.view, table["view"])
        made = await exporter.make(kind, view)
        quoted = urllib.parse.quote(made.kind.file)
        headers = {"content-disposition": f"attachment; filename*=utf-8''{quoted}"}
        if isinstance(made.data, bytes):
            return Response(made.data, media_type=made.kind.media_type, headers=headers)
        remove = BackgroundTask(made.data.unlink)
        return FileResponse(
            made.data, media_type=made.kind.media_type, headers=headers, background=remove
        )

    application = Starlette(
        routes=[
            *(Route(path, handler) for path, handler in _page()),
            Route("/api/state", get_state),
            Route("/api/notes", read_or_change_notes, methods=["GET", "POST"]),
            Route("/api/image", image, methods=["POST"]),
            Route("/api/label_map", label_map, methods=["POST"]),
            Route("/api/gauges", gauges, methods=["POST"]),
            Route("/api/latents", add_latents, methods=["POST"]),
            Route("/api/export", export, methods=["POST"]),
        ],
        exception_handlers={
            InputError: _answer_input_error,
            BusyError: _answer_busy,
            HTTPException: _answer_http_error,
            Exception: _answer_failure,
        },
    )
    return guard(application, access)


def _page() -> Iterator[tuple[str, Handler]]:
    """Yields the path and the handler of each file of the page; each file is read once, here."""
    for file in (importlib.resources.files("navigan_jax.viewer") / "page").iterdir():
        kind = _KINDS.get(pathlib.PurePath(file.name).suffix)
        if kind is not None:
            path = "/" if file.name == "index.html" else f"/{file.name}"
            yield path, _file(file.read_bytes(), kind)


def _file(body: bytes, kind: str) -> Handler:
    async def send(request: Request) -> Response:
        return Response(body, media_type=kind)

    return send


async def _answer_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    reason = error.detail
    if error.status_code == 404:
        reason = f"path: expected a path of the viewer; got {request.url.path[:80]!r}"
    if error.status_code == 405:
        allowed = ", ".join(sorted((error.headers or {}).get("Allow", "").split(", ")))
        reason = f"method: expected {allowed}; got {request.method}"
    return JSONResponse({"error": reason}, error.status_code, error.headers)


async def _answer_input_error(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 400)


async def _answer_busy(request: Request, error: Exception) -> Response:
    reason = "busy: too many requests are waiting; try again in a moment"
    return JSONResponse({"error": reason}, 503, {"retry-after": "1"})


async def _answer_failure(request: Request, error: Exception) -> Response:
    """Answers a bug; starlette then raises the error again, so the terminal shows the traceback."""
    reason = f"the viewer failed: {type(error).__name__}; its terminal shows the details"
    return JSONResponse({"error": reason}, 500)


def listen(host: str, port: int) -> socket.socket:
    """Returns a listening socket; port 0 means any free port.

    Raises: InputError if the address is not this machine's, or is in use.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=256)
    except OSError as error:
        raise InputError(
            f"config.port: expected a free port of {host}; got {port} ({error.strerror}); "
            "set --config.port=0 for any free port"
        ) from error


def make_config(application: Application) -> uvicorn.Config:
    """Returns uvicorn's settings for the application."""
    return uvicorn.Config(
        application,
        lifespan="off",
        ws="none",
        log_level=logging.WARNING,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=2,
        timeout_keep_alive=30,
        limit_concurrency=1024,
    )


def serve(application: Application, listening: socket.socket) -> None:
    """Serves until Ctrl-C or SIGTERM, then returns."""
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(make_config(application)).run(sockets=[listening])
