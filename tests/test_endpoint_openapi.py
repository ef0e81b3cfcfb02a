"""The OpenAPI document: valid, and kept by the server, as schemathesis finds out."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from endpoint_tools import LOOPBACK, encoded, picture_server, scene, sends, serving

from napari_pixseg.endpoint.openapi import document
from napari_pixseg.parameters import ColorSpace, Parameters

# Other requests in every soak; in CI the same, so that a failure is of the change.
REQUESTS = ("300",) if os.environ.get("PIXSEG_SOAK") else ("5", "--seed", "1")
KEY = "k"
# What no schema can say: that uploads are pictures, that there is one at img, and that the
# values of a form or query are text: a key or comment that is none cannot be sent in one, and a
# list is sent as fields of one name: of no element as nothing, of one as that element. Neither is
# a fault. Nor is that ct and st have wider ranges with imagemagick6: such a value is refused
# without it, which the other cases try.
HOOKS = """
from hypothesis import strategies as st
import schemathesis

schemathesis.openapi.format("binary", st.sampled_from({pictures!r}))
schemathesis.openapi.format("uri", st.just({url!r}))


def is_sent_as_made(values):
    if not isinstance(values, dict):
        return True
    return not any(isinstance(value, list) and len(value) < 2 for value in values.values())


def is_only_wider(values):
    if not isinstance(values, dict) or values.get("semantics") != "imagemagick6":
        return False
    found = [number_of(values.get(name, usual)) for name, usual in (("ct", 1), ("st", 1))]
    if None in found:
        return False
    ct, st = found
    return ct >= 0 and 0 <= st <= 255 and not (ct <= 100 and st > 0)


def number_of(value):
    try:
        return None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None


@schemathesis.hook
def filter_case(context, case):
    if is_only_wider(case.query) or is_only_wider(case.body):
        return False
    if not is_sent_as_made(case.query):
        return False
    if case.media_type != "multipart/form-data" or not isinstance(case.body, dict):
        return True
    texts = (case.body.get("key", ""), case.body.get("comment", ""))
    return all(isinstance(text, str) for text in texts) and is_sent_as_made(case.body)
"""
# That no class reaches ct is told by the picture.
CONFIG = """
[checks.positive_data_acceptance]
expected-statuses = [200, 404, 422]
"""


def test_schemathesis_finds_no_fault(tmp_path):
    program = Path(sys.executable).with_name("schemathesis")
    if not program.exists():
        pytest.skip("NOT TESTED: schemathesis is not installed")
    pictures = [encoded(scene(seed, (20, 30))) for seed in range(3)]
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    with (
        picture_server(sends(pictures[0])) as url,
        serving(storage=str(tmp_path / "results"), keys=(KEY,), allowed=LOOPBACK) as server,
    ):
        (tmp_path / "hooks.py").write_text(HOOKS.format(pictures=pictures, url=f"{url}/a.png"))
        done = subprocess.run(
            [program, "run", f"{server.url}/openapi.json", "--no-color",
             "--phases", "coverage,fuzzing,stateful", "-H", f"Authorization: Bearer {KEY}",
             "--max-examples", *REQUESTS],
            cwd=tmp_path, capture_output=True, text=True, timeout=500,
            env={**os.environ, "SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(tmp_path)},
        )  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "Tested: 4" in said, said
    # Stored images and results are reached by the links of the description.
    assert re.search("API Links: *[2-9] covered", said), said


@pytest.mark.parametrize("needs_key", [True, False])
def test_the_description_is_valid(needs_key):
    validate = pytest.importorskip("openapi_spec_validator").validate
    validate(document(needs_key))


def test_ranges_and_defaults_are_those_of_the_library():
    usual = Parameters()
    for operation in document(needs_key=False)["paths"]["/segment"].values():
        body = operation.get("requestBody", {"content": {}})["content"].values()
        groups = [content["schema"]["properties"] for content in body] or [
            {one["name"]: one["schema"] for one in operation["parameters"]}
        ]
        for knobs in groups:
            assert knobs["ct"]["default"] == usual.ct
            assert knobs["cs"]["default"] == int(usual.cs)
            assert knobs["st"]["default"] == usual.st
            assert (knobs["cs"]["minimum"], knobs["cs"]["maximum"]) == (1, len(ColorSpace))


def test_the_description_tells_of_the_ranges_of_imagemagick6():
    knobs = {
        one["name"]: one["schema"]
        for one in document(needs_key=False)["paths"]["/segment"]["get"]["parameters"]
    }
    assert "With semantics imagemagick6: 0 or more" in knobs["ct"]["description"]
    assert "imagemagick6" in knobs["semantics"]["enum"]
    assert "imagemagick6" not in knobs["cs"]["description"]


def test_keys_are_asked_for_in_the_description_if_the_server_does():
    with_keys, without = document(True), document(False)
    assert all("security" in one for one in with_keys["paths"]["/segment"].values())
    assert not any("security" in one for one in without["paths"]["/segment"].values())
    assert "security" not in with_keys["paths"]["/results/{name}"]["get"]
