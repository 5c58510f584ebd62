"""The fixtures of the real servers, for their own tests."""

from tests.servers.fixtures import *  # noqa: F403  # pytest finds fixtures by name in this module
