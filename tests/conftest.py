"""What all tests share: how many random examples are tried."""

import os

from hypothesis import HealthCheck, settings

common = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
}
settings.register_profile("quick", max_examples=25, **common)
settings.register_profile("soak", max_examples=1000, **common)
settings.load_profile("soak" if os.environ.get("PIXSEG_SOAK") else "quick")
