"""No claim of a test here is about speed, so Hypothesis does not judge by it: a busy machine is no failure.

Nor does a test find what another run has read and tokenized: the cache is a fresh folder.
"""

import os
import sys
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


@pytest.fixture(autouse=True)
def torch_as_it_was() -> Iterator[None]:
    """A stage sets the precision of products and the threads; the next test rounds as if it were the first."""
    torch = sys.modules.get("torch")
    threads = torch.get_num_threads() if torch is not None else None
    yield
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_float32_matmul_precision("highest")
        if threads is not None and torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
