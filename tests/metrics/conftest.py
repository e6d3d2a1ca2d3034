"""Metrics are tested without network."""

import socket
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="module")
def isolated() -> Iterator[None]:
    """Refuse connections."""

    def refuse(*args: object) -> None:
        raise AssertionError("a metric asked for the network")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        yield
