"""No claim of a test here is about speed, so Hypothesis does not judge by it: a busy machine is no failure.

Nor does a test find what another run has read and tokenized: the cache is a fresh folder.
"""

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("whatever_the_machine_does", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("whatever_the_machine_does")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["XDG_CACHE_HOME"]
    else:
        os.environ["XDG_CACHE_HOME"] = before
