"""``python -m resolvers.export``: write ``resolvers/schema.graphql`` anew, as ``make schema`` does. The file is
committed; a test says when it differs and what would break for clients.
"""

from __future__ import annotations

from resolvers.schema import FILE, sdl


def main() -> None:
    """Write the file."""
    FILE.write_text(sdl(), encoding="utf-8")


if __name__ == "__main__":
    main()
