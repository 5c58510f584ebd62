"""The routes of the dashboard: `/`, `/playground`, its files, and the schema as text.

Invariant: what is served here needs no sign-in and says nothing of any tenant; all data comes by `/graphql` with the
reader's own token. Every address is made from the request's root path, so a gateway behind a prefix works unchanged.
Deliberately not here: `/graphql`, `/healthz` (the pages only link to them) and any knowledge of the schema's types.
"""

import secrets
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from string import Template

from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from gateway.dashboard import policy
from gateway.dashboard.asset import Asset, Assets

_PAGES = Path(__file__).parent / "pages"


def routes(
    *, sdl: str | None = None, future: Callable[[], str] | None = None, endpoint: str = "/graphql"
) -> list[BaseRoute]:
    """The dashboard's routes, for the Starlette application to mount at its root.

    Args:
        sdl: the schema as text, served at `/schema.graphql`; without it there is no such route.
        future: makes the text served at `/schema.graphql?future`: the schema without what is deprecated. Called once,
            when somebody first asks.
        endpoint: the path of the GraphQL endpoint, for HTTP and WebSocket alike, below the application's root.
    """
    pages = _Pages(endpoint)
    served: list[BaseRoute] = [
        Route("/", pages.landing),
        Route("/playground", pages.playground),
        Route("/console", pages.console),
        Route("/playground/assets/{name}", pages.file, name="dashboard-file"),
    ]
    if sdl is not None:
        served.append(Route("/schema.graphql", _Schema(sdl, future).answer))
    return served


class _Schema:
    """The schema as text: as it is, and as it will be; packed when somebody first asks."""

    def __init__(self, sdl: str, future: Callable[[], str] | None) -> None:
        self._present = cache(lambda: Asset.of_text("schema.graphql", sdl))
        self._future = cache(lambda: Asset.of_text("schema.graphql", sdl if future is None else future()))

    def answer(self, request: Request) -> Response:
        asset = self._future() if "future" in request.query_params else self._present()
        return asset.answer(request)


class _Pages:
    """The pages' texts and files, read at the first request and kept. Methods run in Starlette's thread pool."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._assets = Assets()
        self._landing = Template((_PAGES / "landing.html").read_text(encoding="utf-8"))
        self._console = Template((_PAGES / "console.html").read_text(encoding="utf-8"))
        self._playground = Template((_PAGES / "playground.html").read_text(encoding="utf-8"))

    def landing(self, request: Request) -> Response:
        text = self._landing.substitute(
            root=_root(request),
            version=version("stratograph"),
            style=self._address(request, "landing.css"),
            logo=self._address(request, "logo.svg"),
        )
        return HTMLResponse(text, headers=policy.for_landing() | {"Cache-Control": "no-cache"})

    def playground(self, request: Request) -> Response:
        nonce = secrets.token_urlsafe(16)
        text = self._playground.substitute(
            nonce=nonce,
            home=f"{_root(request)}/",
            endpoint=f"{_root(request)}{self._endpoint}",
            style=self._address(request, "playground.css"),
            nonce_script=self._address(request, "nonce.js"),
            script=self._address(request, "playground.js"),
            logo=self._address(request, "logo.svg"),
        )
        # A kept page would repeat its nonce.
        return HTMLResponse(text, headers=policy.for_playground(nonce) | {"Cache-Control": "no-store"})

    def console(self, request: Request) -> Response:
        """A server's screen. The ticket is behind the address's `#`, which no browser sends: no secret comes here."""
        text = self._console.substitute(
            socket=f"{_root(request)}/console/socket",
            style=self._address(request, "console.css"),
            script=self._address(request, "console.js"),
            logo=self._address(request, "logo.svg"),
        )
        return HTMLResponse(text, headers=policy.for_console() | {"Cache-Control": "no-store"})

    def file(self, request: Request) -> Response:
        asset = self._assets.find(request.path_params["name"])
        if asset is None:
            return PlainTextResponse("Not Found", status_code=404, headers=policy.for_file())
        return asset.answer(request)

    def _address(self, request: Request, entry: str) -> str:
        return f"{_root(request)}/playground/assets/{self._assets.name_of(entry)}"


def _root(request: Request) -> str:
    """The prefix the application is mounted at, safe to stand in an HTML attribute."""
    path: str = request.scope.get("root_path", "")
    return "".join(character for character in path if character.isalnum() or character in "/-._~").rstrip("/")
