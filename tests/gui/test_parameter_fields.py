"""The widget's fields are made from the parameters, each of the widget for its kind of value."""

import pytest
from extended_parameters import ExtendedParameters, extend

from napari_pixseg.parameters import Parameters
from napari_pixseg.plugin.widget.parameter_fields import Fields

OTHERS = {
    "ct": 0.25,
    "cs": 5,
    "st": 20.5,
    "semantics": "imagemagick6",
    "denoise": 4,
    "window": ((1.5, 300.0), (0.0, 9.0)),
    "channels": (2, 0),
    "connectivity": 3,
    "background": (1, 3),
    "min_size": 12,
}


@pytest.fixture
def fields(qapp):
    """The fields as they are at first."""
    return Fields()


def test_fields_begin_with_the_defaults(fields):
    assert fields.parameters(Parameters(), None) == Parameters()


def test_fields_have_the_parameters_order_labels_and_ranges(fields):
    known = Parameters.descriptions()
    widgets = [*fields.main, *fields.advanced]
    named = [widget.name for widget in widgets if widget.name in known]
    assert named == [name for name, info in known.items() if info.in_widget]
    for widget in widgets:
        if widget.name in known:
            assert widget.label == known[widget.name].label
            assert known[widget.name].help[1:] in widget.tooltip
            assert ("Counts anew" in widget.tooltip) == known[widget.name].needs_pixels
    assert (fields.denoise.min, fields.denoise.max) == (0, 32)


@pytest.mark.parametrize("name", OTHERS)
def test_a_field_says_what_it_shows(fields, name):
    shown = Parameters(**{name: OTHERS[name]})
    fields.show(shown)
    assert fields.parameters(Parameters(), None) == shown


def test_fields_are_quiet_while_they_are_set(fields):
    heard = []
    fields.listen(lambda: heard.append("changed"), lambda: heard.append("typed"))
    fields.show(Parameters(**OTHERS))
    assert heard == []
    fields.denoise.value = 5
    fields.channels.value = "1"
    assert heard == ["changed", "typed"]


def test_another_parameter_has_a_field_at_once(qapp, monkeypatch):
    extend(monkeypatch, "plugin.widget.parameter_fields")
    fields = Fields()
    assert (fields.sharpen.min, fields.sharpen.max, fields.sharpen.value) == (0, 9, 3)
    assert fields.sharpen.label == "sharpening"
    assert "How often edges are sharpened. Counts anew." in fields.sharpen.tooltip
    assert fields.sharpen in fields.main
    assert fields.drop_classes in list(fields.advanced)
    fields.drop_classes.value = "4,2"
    wanted = ExtendedParameters(drop_classes=(4, 2))
    assert fields.parameters(ExtendedParameters(), None) == wanted
