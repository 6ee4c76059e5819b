"""One API server per database for the tests of its endpoints; each has gateways of its own, so their rows cannot meet. A fault proxy for who asks for one."""

from collections.abc import Iterator

import pytest

from tests.chaos.proxy import Proxy
from tests.support.rest import Client, Rest, serving


@pytest.fixture(scope="session")
def rest(shared_database: str) -> Iterator[Rest]:
    with serving(shared_database) as running:
        yield running


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    made = Proxy()
    yield made
    made.close()


@pytest.fixture
def gateway_id(rest: Rest) -> str:
    return rest.gateway()


@pytest.fixture
def admin(rest: Rest, gateway_id: str) -> Iterator[Client]:
    with rest.client(gateway_id) as client:
        yield client


@pytest.fixture
def user(rest: Rest, gateway_id: str) -> Iterator[Client]:
    with rest.client(gateway_id, user="bob", role="user") as client:
        yield client


@pytest.fixture
def operator(rest: Rest) -> Iterator[Client]:
    with rest.client(role="operator", user="olga") as client:
        yield client


@pytest.fixture
def service(rest: Rest) -> Iterator[Client]:
    with rest.client(role="service", user="sink", internal=True) as client:
        yield client
