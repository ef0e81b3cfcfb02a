"""What all tests share: how many examples are tried, which tests run alone, one S3 server."""

import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor

import pytest
from hypothesis import HealthCheck, settings

common = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
}
settings.register_profile("quick", max_examples=12, **common)
settings.register_profile("soak", max_examples=1000, **common)
settings.load_profile("soak" if os.environ.get("PIXSEG_SOAK") else "quick")

BEGAN = pytest.StashKey[float]()
# Files whose tests need the machine to themselves, and why. `make test` runs them after the others,
# one at a time, and `make quick` leaves them out.
ALONE = {
    "test_cluster": "starts schedulers and workers, and kills them",
    "test_cluster_hosts": "makes networks and an SSH server",
    "test_endpoint_fetch": "waits for a server that is too slow on purpose",
    "test_endpoint_load": "compares the memory of its own process",
    "test_full_disk": "mounts a small disk",
}


def pytest_addoption(parser):
    """Add the options that ``make quick`` and ``make release-check`` use."""
    parser.addoption("--budget", type=float, help="skip tests that start after so many seconds")
    parser.addoption("--built", help="folder with the distributions that test_release looks at")


def pytest_collection_modifyitems(items):
    """Mark the tests that run alone."""
    for item in items:
        if item.path.stem in ALONE:
            item.add_marker(pytest.mark.alone)


def pytest_configure(config):
    """Start the clock of the budget."""
    config.stash[BEGAN] = time.monotonic()


def pytest_runtest_setup(item):
    """Skip what is left when the budget is spent."""
    budget = item.config.getoption("--budget")
    if budget is not None and time.monotonic() - item.config.stash[BEGAN] > budget:
        pytest.skip(f"not run: the budget of {budget:g} seconds is spent")


@pytest.fixture(scope="session")
def two_processes():
    """Settings of Dask for two processes, which begin once for all tests."""
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        yield {"scheduler": "processes", "num_workers": 2, "pool": pool}


@pytest.fixture(scope="session")
def s3_endpoint():
    """Address of an S3 server on loopback: one for all tests, as fsspec keeps connections."""
    server_module = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "someone")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield f"http://{host}:{port}"
    server.stop()
