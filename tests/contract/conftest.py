"""The contract's tests run in every setting; what differs between them is said in `tests.support.settings`."""

import pytest

from tests.support.settings import SETTINGS, Open


@pytest.fixture(params=SETTINGS, ids=lambda each: each.__name__)
def opening(request: pytest.FixtureRequest) -> Open:
    """Open a node with a service, and one where it is used, perhaps the same."""
    return request.param
