"""Metrics are tested without network, and write nothing to the home folder."""

import socket
from collections.abc import Iterator

import evaluate
import pytest


@pytest.fixture(autouse=True, scope="module")
def isolated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No network, and nothing is written to the home folder."""

    def refuse(*args: object) -> None:
        raise AssertionError("a metric asked for the network")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        patch.setattr(evaluate.config, "HF_METRICS_CACHE", tmp_path_factory.mktemp("metrics"))
        yield
