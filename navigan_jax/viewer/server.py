"""The viewer's HTTP: a page, and JSON in, pictures and JSON out.

GET  /                    the page; its modules and style beside it
GET  /api/state           what there is: generator, directions, where to begin
GET  /api/notes           names, stars and good ranges as they are on the disk now
POST /api/notes           changes one; it is on the disk when the answer comes
POST /api/image           the image of a view, PNG; 204 if a newer request of that view came first
POST /api/latents         keeps own latents (an .npz or .npy file, ?file= what it is called)
POST /api/export          a PNG, a recipe, a GIF or MP4, as a file

Answers to mistakes have a status of 400 or above and say why, as {"error": TEXT}.
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
from navigan_jax.viewer.studio import Studio
from navigan_jax.viewer.worker import BusyError, Worker

MOST_LATENTS = 32 * 2**20  # bytes of a file
_MOST_SEQUENCE = 2**53 - 1  # the whole numbers of JavaScript

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
    """Returns the application behind its rule of access.

    start: what the page shows first, handed to it as it is. source: for baked checkpoints.
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

    async def image(request: Request) -> Response:
        table = await requests.read_table(
            request, {"client", "sequence", "view"}, {"place", "small", "patient"}
        )
        place = requests.read_word(table, "client"), requests.read_word(table, "place", "main")
        sequence = requests.read_number(table, "sequence", 0, _MOST_SEQUENCE)
        small, patient = (requests.read_flag(table, name) for name in ("small", "patient"))
        view = await run_in_threadpool(studio.view, table["view"])
        work = functools.partial(studio.png, view, small=small)
        png = await asyncio.wrap_future(worker.submit(place, sequence, work, urgent=not patient))
        headers = {"x-sequence": str(sequence), "x-notes": studio.notes_mark}
        if png is None:
            return Response(status_code=204, headers=headers)
        return Response(png, media_type="image/png", headers=headers)

    async def add_latents(request: Request) -> Response:
        body = await requests.read_body(request, "application/octet-stream", MOST_LATENTS)
        file = requests.read_file_name(request, "latents")
        name, latents = await run_in_threadpool(studio.own.add, body, file)
        count = len(latents.values)
        return JSONResponse(
            {"own": name, "space": latents.space, "count": count, "told": latents.told}
        )

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
            Route("/api/latents", add_latents, methods=["POST"]),
            Route("/api/export", export, methods=["POST"]),
        ],
        exception_handlers={
            InputError: _tell_mistake,
            BusyError: _tell_busy,
            HTTPException: _tell,
            Exception: _tell_fault,
        },
    )
    return guard(application, access)


def _page() -> Iterator[tuple[str, Handler]]:
    """Yields the path and the handler of each file of the page; they are read once."""
    for file in (importlib.resources.files("navigan_jax.viewer") / "page").iterdir():
        kind = _KINDS.get(pathlib.PurePath(file.name).suffix)
        if kind is not None:
            path = "/" if file.name == "index.html" else f"/{file.name}"
            yield path, _file(file.read_bytes(), kind)


def _file(body: bytes, kind: str) -> Handler:
    async def send(request: Request) -> Response:
        return Response(body, media_type=kind)

    return send


async def _tell(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    reason = error.detail
    if error.status_code == 404:
        reason = f"path: expected a part of the viewer; got {request.url.path[:80]!r}"
    if error.status_code == 405:
        allowed = ", ".join(sorted((error.headers or {}).get("Allow", "").split(", ")))
        reason = f"method: expected {allowed}; got {request.method}"
    return JSONResponse({"error": reason}, error.status_code, error.headers)


async def _tell_mistake(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 400)


async def _tell_busy(request: Request, error: Exception) -> Response:
    reason = "busy: too many pictures are waited for; try again in a moment"
    return JSONResponse({"error": reason}, 503, {"retry-after": "1"})


async def _tell_fault(request: Request, error: Exception) -> Response:
    """The traceback goes to the terminal, as starlette raises the error again after this."""
    reason = f"the viewer failed: {type(error).__name__}; its terminal says more"
    return JSONResponse({"error": reason}, 500)


def listen(host: str, port: int) -> socket.socket:
    """Returns a socket that listens; port 0 takes any that is free.

    Raises: InputError if the address is not this machine's or in use.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=256)
    except OSError as error:
        raise InputError(
            f"config.port: expected a free port of {host}; got {port} ({error.strerror}); "
            "set --config.port=0 for any that is free"
        ) from error


def make_config(application: Application) -> uvicorn.Config:
    """Returns how uvicorn is to run the application."""
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
    """Serves until the process is told to stop (Ctrl-C or SIGTERM), then returns."""
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(make_config(application)).run(sockets=[listening])
