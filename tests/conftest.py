"""What all tests share: how many random examples are tried, and one object store."""

import os

import pytest
from hypothesis import HealthCheck, settings

common = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
}
settings.register_profile("with_fast_local_io", max_examples=25, **common)
settings.register_profile("soak", max_examples=1000, **common)
settings.load_profile("soak" if os.environ.get("PIXSEG_SOAK") else "with_fast_local_io")


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
