"""The task `viewer`: serves a page that shows directions, until Ctrl-C."""

import pathlib
import secrets

from navigan_jax import checkpoints
from navigan_jax import params as params_lib
from navigan_jax.config import Config
from navigan_jax.directions import read_fitting
from navigan_jax.errors import InputError
from navigan_jax.generators.source_map import read_source_map
from navigan_jax.tasks import inputs
from navigan_jax.tasks.settings import Limits, Settings
from navigan_jax.viewer import access, server
from navigan_jax.viewer.exports import Source
from navigan_jax.viewer.proxies import read_address
from navigan_jax.viewer.studio import Studio
from navigan_jax.viewer.worker import Worker

SETTINGS = (
    inputs.COMMON
    | inputs.SYNTHESIS
    | Settings(
        {
            "generator": str,
            "directions": str,
            "any_weights": bool,
            "source": str | None,
            "gauges": str | None,
            "samples": int,
            "port": int,
            "host": str,
            "token": str | None,
            "address": str | None,
        },
        {"samples": Limits(least=1, most=32), "port": Limits(most=2**16 - 1)},
    )
)


def run(config: Config, workdir: pathlib.Path) -> None:
    """Prints the address and serves the viewer. Ctrl-C ends it cleanly."""
    SETTINGS.check(config)
    if config.distributed:
        raise InputError(
            "config.distributed: expected False, as the viewer is one process; got True; leave it"
        )
    is_open = not access.is_loopback(config.host)
    proxy = None if config.address is None else read_address(config.address)
    is_reachable = is_open or proxy is not None
    token = config.token or (secrets.token_urlsafe(24) if is_reachable else None)
    generator, params, synthesis = inputs.read_set_generator(config)
    digest = params_lib.digest(params)
    directions = read_fitting(
        config.directions, params, digest=digest, any_weights=config.any_weights
    )
    generator.find_layers(directions.layers)
    gauges = inputs.read_gauges(config)
    source = None
    if config.source is not None:
        source = Source(pathlib.Path(config.source), read_source_map(config.generator))
    with checkpoints.locked(workdir), server.listen(config.host, config.port) as listening:
        port = listening.getsockname()[1]
        rule = access.make_access(config.host, port, token, proxy)
        studio = Studio(
            generator, params, directions, config.directions, workdir, synthesis, gauges
        )
        start = {"seed": config.seed, "samples": config.samples}
        with Worker() as worker:
            application = server.make_application(studio, worker, rule, start, source)
            host = f"[{config.host}]" if ":" in config.host else config.host
            url = proxy.url if proxy is not None else f"http://{host}:{port}/"
            print(f"open {url}{f'?token={token}' if token else ''}", flush=True)
            if is_reachable:
                where = "on the network" if is_open else "who reach that address"
                print(f"others {where} can open it, with that token", flush=True)
            server.serve(application, listening)
    print("stopped; the page goes on when the same command is run again", flush=True)
