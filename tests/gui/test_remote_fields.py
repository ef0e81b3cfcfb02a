"""The choice where a job runs, in a window."""

import pytest
from qtpy.QtWidgets import QLineEdit

from napari_pixseg.errors import ParameterError
from napari_pixseg.plugin.widget.remote_fields import ENDPOINT, THIS_MACHINE, RemoteFields


@pytest.fixture
def fields(qtbot):
    made = RemoteFields()
    qtbot.addWidget(made.native)
    made.native.show()
    return made


def test_address_and_key_are_shown_for_an_endpoint_only(fields):
    assert not fields.is_remote
    assert not fields.url.visible
    assert not fields.key.visible
    fields.where.value = ENDPOINT
    assert fields.url.visible
    assert fields.key.visible
    fields.where.value = THIS_MACHINE
    assert not fields.key.visible


def test_the_key_is_hidden_while_it_is_typed(fields):
    assert fields.key.native.echoMode() == QLineEdit.EchoMode.Password
    fields.key.value = "hush"
    assert fields.key.native.displayText() != "hush"


def test_the_fields_name_an_endpoint(fields):
    fields.url.value = " http://127.0.0.1:8000 "
    fields.key.value = " hush "
    assert (fields.endpoint().url, fields.endpoint().key) == ("http://127.0.0.1:8000", "hush")
    assert "hush" not in repr(fields.endpoint())
    fields.key.value = ""
    assert fields.endpoint().key is None
    fields.url.value = "nonsense"
    with pytest.raises(ParameterError, match="not the address"):
        fields.endpoint()
