"""What a browser may do with our pages: the security headers of each kind of answer.

Invariant: no page may load from, send to or be framed by another host, and no page runs a script that is not one of our
files.
Deliberately not here: Strict-Transport-Security, which belongs to whoever ends TLS.
"""

from collections.abc import Mapping

_EVERYWHERE: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
_CLOSED: Mapping[str, str] = {
    "default-src": "'none'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}


def for_file() -> dict[str, str]:
    """The headers of an asset. A worker script obeys the policy of its own answer, so this one grants nothing."""
    return _headers({})


def for_landing() -> dict[str, str]:
    """The headers of a page without scripts: its style sheet and its picture, from here."""
    return _headers({"style-src": "'self'", "img-src": "'self'"})


def for_playground(nonce: str) -> dict[str, str]:
    """The headers of the playground.

    Scripts are our files only: no inline script, no eval. Monaco makes ``<style>`` elements at run time, which the
    nonce admits (nonce.ts hands it out), and writes ``style="top:..."`` attributes as text for every line it draws, for
    which there is nothing narrower than ``style-src-attr 'unsafe-inline'``. A style attribute can neither load
    (``img-src``, ``font-src``) nor hold selectors. ``data:`` pictures are the icons inside Monaco's style sheet.
    ``connect-src 'self'`` covers the WebSocket of the same host.
    """
    return _headers(
        {
            "script-src": "'self'",
            "worker-src": "'self'",
            "connect-src": "'self'",
            "style-src-elem": f"'self' 'nonce-{nonce}'",
            "style-src-attr": "'unsafe-inline'",
            "img-src": "'self' data:",
            "font-src": "'self'",
        }
    )


def for_console() -> dict[str, str]:
    """The headers of the console: its script and style sheet, the WebSocket of the same host, and ``data:`` pictures,
    which noVNC makes of the guest's pointer and of screens that come as JPEG.
    """
    return _headers({"script-src": "'self'", "connect-src": "'self'", "style-src": "'self'", "img-src": "'self' data:"})


def _headers(granted: Mapping[str, str]) -> dict[str, str]:
    policy = "; ".join(f"{directive} {sources}" for directive, sources in {**_CLOSED, **granted}.items())
    return {**_EVERYWHERE, "Content-Security-Policy": policy}
