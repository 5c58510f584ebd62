"""The processes of a cloud: the API with its workers, and workers on their own. Each runs until it is told to stop.

What only one of them needs is loaded by that one: a worker holds no API in memory.
"""

from __future__ import annotations

import gc
import signal
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.kernel.settings import Settings


def load_settings() -> Settings:
    """The settings, or the end of this process when they are wrong."""
    from gateway.kernel import settings

    try:
        return settings.load()
    except ValueError as error:  # pydantic's ValidationError is one
        import typer

        typer.secho("The settings are wrong:", fg=typer.colors.RED, err=True, nl=False)
        typer.echo(f" {error}", err=True)
        sys.exit(2)


def serve() -> None:
    """Run the API, and the workers too unless there is a broker."""
    gc.disable()  # until all is there that stays: collections find nothing in what is only being built
    import uvicorn

    from gateway import banner
    from gateway.app import Cloud
    from gateway.kernel import log
    from gateway.kernel.core import CORE
    from gateway.kernel.garbage import Aside
    from resolvers.transport.packets import WholeResponses
    from resolvers.transport.prompt import PromptSockets

    settings = load_settings()
    log.configure(settings.log_level, settings.log_format)
    cloud = Cloud.open(settings)
    config = uvicorn.Config(
        cloud.app(),
        host=settings.host,
        port=settings.port,
        log_config=None,
        http=WholeResponses,
        ws=PromptSockets,
        access_log=False,
        ws_max_size=1 << 20,
        ws_ping_interval=None,  # the protocol on top of it has pings of its own
        ws_per_message_deflate=False,  # a compressor a socket holds more memory than all the rest of it
        timeout_graceful_shutdown=10,
        server_header=False,
    )
    if settings.share_core:
        CORE.begin()
    Aside().begin()  # a look at all that is there takes as long as telling thousands of subscribers
    server = banner.Announcing(config, lambda: banner.show(cloud), cloud.stopping.set)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))  # uvicorn raises it once more when all has ended well
    server.run()
    sys.exit(0 if server.started else 1)


def worker() -> None:
    """Carry out jobs that a broker delivers. Run as many as you like."""
    gc.disable()
    from gateway.database import open_database
    from gateway.kernel import log
    from gateway.kernel.core import CORE
    from workers.main import run_forever

    settings = load_settings()
    log.configure(settings.log_level, settings.log_format)
    if settings.share_core:
        CORE.begin()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    db = open_database(settings)
    gc.freeze()
    gc.enable()
    run_forever(db, settings, stop)
    db.close()
