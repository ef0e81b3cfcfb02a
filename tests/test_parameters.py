"""What parameters are accepted, how they are named, what a refusal tells, and where they show."""

import argparse
import importlib.util
import inspect
import json
from dataclasses import FrozenInstanceError, fields
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from extended_parameters import ExtendedParameters, extend
from hypothesis import given
from hypothesis import strategies as some

from napari_pixseg import cli, segment
from napari_pixseg.endpoint.openapi import document
from napari_pixseg.endpoint.request_parameters import single, understood
from napari_pixseg.errors import ParameterError, PixsegError, status_of
from napari_pixseg.parameters import AXES, ColorSpace, Parameters
from napari_pixseg.segmentation import open_segmentation
from napari_pixseg.sources.read_options import ReadOptions

finite = some.floats(-1e300, 1e300)
intervals = some.tuples(finite, finite).map(lambda pair: tuple(sorted(pair)))
axes = (
    some.permutations(AXES)
    .map("".join)
    .flatmap(lambda letters: some.sampled_from(["yx", "xy", letters, letters.replace("t", "")]))
)
semantic_thresholds = some.one_of(
    some.fixed_dictionaries(
        {
            "semantics": some.just("documented"),
            "ct": some.floats(0, 100),
            "st": some.floats(0, 255, exclude_min=True),
        }
    ),
    some.fixed_dictionaries(
        {
            "semantics": some.just("imagemagick6"),
            "ct": some.floats(0, 1e300),
            "st": some.floats(0, 255),
        }
    ),
)
others = some.fixed_dictionaries(
    {},
    optional={
        "cs": some.sampled_from(ColorSpace),
        "denoise": some.integers(0, 32),
        "window": some.sampled_from([None, "dtype", "minmax"])
        | some.lists(intervals, min_size=1, max_size=3).map(tuple),
        "axes": some.none() | axes,
        "channels": some.none()
        | some.lists(some.integers(0, 99), min_size=1, max_size=3).map(tuple),
        "connectivity": some.integers(1, 3),
        "background": some.sampled_from([None, "largest"])
        | some.lists(some.integers(1, 65535), max_size=4).map(tuple),
        "min_size": some.integers(0, 10**12),
    },
)
valid_values = some.builds(lambda one, two: {**one, **two}, semantic_thresholds, others)


@given(values=valid_values)
def test_valid_values_are_kept(values):
    parameters = Parameters(**values)
    assert {name: getattr(parameters, name) for name in values} == values


@given(values=valid_values)
def test_parameters_come_back_from_json(values):
    parameters = Parameters(**values)
    text = json.dumps(parameters.to_dict(), allow_nan=False)
    assert Parameters.from_dict(json.loads(text)) == parameters
    assert json.loads(text)["cs"] == int(parameters.cs)
    assert set(json.loads(text)) == {field.name for field in fields(Parameters)}


@given(values=valid_values, change=some.integers(0, 32))
def test_a_replacement_changes_what_was_asked_and_nothing_else(values, change):
    parameters = Parameters(**values)
    replaced = parameters.replace(denoise=change)
    assert replaced.to_dict() == {**parameters.to_dict(), "denoise": change}
    assert parameters == Parameters(**values)
    assert replaced.replace(denoise=parameters.denoise) == parameters
    assert hash(replaced.replace(denoise=parameters.denoise)) == hash(parameters)


# name, value, and what the message must say about the allowed range and the remedy
REFUSED = {
    "ct below 0": ("ct", -0.5, "0 to 100"),
    "ct above 100": ("ct", 100.1, "0 to 100 (percent of the counted pixels)"),
    "ct nan": ("ct", float("nan"), "0 to 100"),
    "ct infinite": ("ct", float("inf"), "finite number; it must be 0 to 100"),
    "ct bool": ("ct", True, "0 to 100"),
    "ct numpy bool": ("ct", np.True_, "0 to 100"),
    "ct text": ("ct", "1", "0 to 100"),
    "ct none": ("ct", None, "0 to 100"),
    "ct complex": ("ct", 1j, "0 to 100"),
    "st zero": ("st", 0, "above 0, to 255; useful values are 1 to 50"),
    "st negative": ("st", -1, "above 0, to 255"),
    "st above 255": ("st", 255.5, "above 0, to 255"),
    "st nan": ("st", np.float32("nan"), "above 0, to 255"),
    "st minus infinity": ("st", -np.inf, "above 0, to 255"),
    "st bool": ("st", False, "above 0, to 255"),
    "cs 0": ("cs", 0, "1 RGB, 2 GRAY"),
    "cs 23": ("cs", 23, "22 CMY"),
    "cs float": ("cs", 13.0, "give a number or a name"),
    "cs bool": ("cs", True, "give a number or a name"),
    "cs unknown name": ("cs", "Luv", "13 sRGB"),
    "cs none": ("cs", None, "give a number or a name"),
    "semantics": ("semantics", "imagemagick7", "'documented' or 'imagemagick6'"),
    "denoise negative": ("denoise", -1, "0 to 32 pixels; 0 turns it off"),
    "denoise above 32": ("denoise", 33, "0 to 32"),
    "denoise float": ("denoise", 2.0, "whole number, 0 to 32"),
    "denoise bool": ("denoise", True, "0 to 32"),
    "window text": ("window", "auto", "'dtype', 'minmax', (low, high)"),
    "window low above high": ("window", (2, 1), "give (low, high)"),
    "window nan": ("window", (0.0, float("nan")), "(low, high)"),
    "window infinite": ("window", ((0, np.inf),), "(low, high)"),
    "window bool": ("window", (False, True), "(low, high)"),
    "window empty": ("window", (), "(low, high)"),
    "window of three numbers": ("window", (0, 1, 2), "(low, high)"),
    "window a number": ("window", 255, "(low, high)"),
    "axes unknown letter": ("axes", "ayx", "letters t, c, z, y, x"),
    "axes twice": ("axes", "yyx", "at most once"),
    "axes without x": ("axes", "zy", "y and x among them"),
    "axes empty": ("axes", "", "for example 'zyx'"),
    "axes a number": ("axes", 3, "for example 'zyx'"),
    "channels negative": ("channels", (-1,), "0 or more; channels are counted from 0"),
    "channels four": ("channels", (0, 1, 2, 3), "one to three indices from 0"),
    "channels none": ("channels", (), "one to three indices"),
    "channels text": ("channels", "rgb", "one to three indices"),
    "channels bool": ("channels", True, "counted from 0"),
    "connectivity 0": ("connectivity", 0, "1 to 3; 1 joins over faces"),
    "connectivity 4": ("connectivity", 4, "1 to 3"),
    "background 0": ("background", 0, "1 or more; classes are counted from 1"),
    "background text": ("background", "smallest", "'largest', or class numbers"),
    "min_size negative": ("min_size", -1, "0 or more pixels; 0 keeps all regions"),
    "min_size float": ("min_size", 1.5, "whole number, 0 or more"),
}


def members(value):
    """What is inside a tuple: a message may name the one member that is wrong."""
    for member in value if isinstance(value, tuple) else ():
        yield from (member, *members(member))


@pytest.mark.parametrize(("name", "value", "remedy"), REFUSED.values(), ids=REFUSED)
def test_a_refusal_names_parameter_value_range_and_remedy(name, value, remedy):
    with pytest.raises(ParameterError) as refusal:
        Parameters(**{name: value})
    message = str(refusal.value)
    assert any(f"{name} = {shown!r}" in message for shown in (value, *members(value)))
    assert remedy in message
    assert message.endswith(".")


@pytest.mark.parametrize(("name", "value", "_remedy"), REFUSED.values(), ids=REFUSED)
def test_replace_and_from_dict_refuse_what_the_class_refuses(name, value, _remedy):
    with pytest.raises(ParameterError):
        Parameters().replace(**{name: value})
    with pytest.raises(ParameterError):
        Parameters.from_dict({name: value})


@pytest.mark.parametrize(
    "values",
    [{"ct": 100.5}, {"ct": 400, "st": 0}, {"st": 0}],
    ids=["ct above 100", "both", "st zero"],
)
def test_only_imagemagick6_takes_what_the_documentation_excludes(values):
    exact = Parameters(semantics="imagemagick6", **values)
    assert {name: getattr(exact, name) for name in values} == values
    with pytest.raises(ParameterError):
        exact.replace(semantics="documented")


@pytest.mark.parametrize(
    "values", [{"ct": -1e-300}, {"st": -1e-300}, {"st": 255.0001}, {"ct": np.inf}], ids=str
)
def test_imagemagick6_has_its_own_limits(values):
    with pytest.raises(ParameterError):
        Parameters(semantics="imagemagick6", **values)


@pytest.mark.parametrize("space", ColorSpace, ids=lambda space: space.name)
def test_a_color_space_is_known_by_number_and_by_name_in_any_case(space):
    number = space.value
    ways = [number, np.uint8(number), np.int64(number), str(number), f" {number} "]
    names = [space, space.name, space.name.upper(), space.name.lower(), f" {space.name}\n"]
    assert all(Parameters(cs=way).cs is space for way in ways + names)


def test_the_22_color_spaces_have_the_numbers_of_the_api():
    assert [int(space) for space in ColorSpace] == list(range(1, 23))
    assert " ".join(space.name for space in ColorSpace) == (
        "RGB GRAY Transparent OHTA Lab XYZ YCbCr YCC YIQ YPbPr YUV CMYK sRGB HSB HSL HWB "
        "Rec601Luma Rec601YCbCr Rec709Luma Rec709YCbCr Log CMY"
    )


def test_the_defaults_are_those_of_the_documentation():
    defaults = Parameters()
    assert (defaults.ct, defaults.cs, defaults.st) == (1.0, ColorSpace.YUV, 1.5)
    assert (defaults.semantics, defaults.denoise, defaults.connectivity) == ("documented", 0, 1)
    assert (defaults.window, defaults.background, defaults.min_size) == (None, None, 0)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.int8, np.uint16, Fraction])
def test_numbers_of_any_kind_become_plain_ones(kind):
    parameters = Parameters(ct=kind(2), st=kind(3), window=(kind(1), kind(4)))
    assert parameters == Parameters(ct=2, st=3, window=(1, 4))
    json.dumps(parameters.to_dict())


@pytest.mark.parametrize("kind", [np.int8, np.uint16, np.int64])
def test_whole_numpy_numbers_become_plain_ones(kind):
    values = {"denoise": 2, "connectivity": 3, "min_size": 4, "channels": 1, "background": 5}
    parameters = Parameters(**{name: kind(value) for name, value in values.items()})
    assert parameters == Parameters(**values)
    json.dumps(parameters.to_dict())


def test_one_pair_one_channel_and_one_class_become_tuples():
    parameters = Parameters(window=[0, 10], channels=2, background=[3, 1], axes="CYX")
    assert parameters.window == ((0.0, 10.0),)
    assert (parameters.channels, parameters.background) == ((2,), (3, 1))
    assert parameters.axes == "cyx"


def test_parameters_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        Parameters().ct = 2.0


@pytest.mark.parametrize("build", [Parameters().replace, lambda **v: Parameters.from_dict(v)])
def test_unknown_names_are_refused_with_the_known_ones(build):
    with pytest.raises(
        ParameterError, match=r"no parameter 'cts'; there are ct, cs, st, "
    ) as error:
        build(ct=1, cts=2)
    assert isinstance(error.value, PixsegError)
    assert isinstance(error.value, ValueError)
    assert status_of(error.value) == 400


# One home ----------------------------------------------------------------------


def test_every_parameter_is_described_in_plain_words():
    for name, info in Parameters.descriptions().items():
        assert info.default == getattr(Parameters(), name)
        for text in (info.label, info.help, info.kind.allowed, info.default_text):
            assert text
        assert not info.help.endswith(".")
        assert not info.advice or info.advice.endswith(".")


@pytest.mark.parametrize("values", [{}, {"ct": 0.25, "window": (1, 2.5), "channels": (4, 1)},
                                    {"background": "largest", "axes": "zyx", "cs": "Lab"},
                                    {"window": "minmax", "background": (3, 7)}])  # fmt: skip
def test_what_is_shown_can_be_typed(values):
    parameters = Parameters(**values)
    for name, info in Parameters.descriptions().items():
        value = getattr(parameters, name)
        if value is not None and name != "cs":
            assert parameters.replace(**{name: info.kind.parse(info.kind.format(value))}) == (
                parameters
            )


def test_the_arguments_of_segment_are_the_parameters_and_their_defaults():
    arguments = list(inspect.signature(segment).parameters.values())[1:]
    wanted = {name: info.default for name, info in Parameters.descriptions().items()}
    # How the input is read comes after what is done with it.
    wanted |= {field.name: field.default for field in fields(ReadOptions)}
    assert [(one.name, one.default) for one in arguments] == list(wanted.items())


@pytest.fixture(scope="module")
def table_maker():
    """The script that writes the table of the parameters."""
    path = Path(__file__).parents[1] / "docs" / "make_parameter_table.py"
    spec = importlib.util.spec_from_file_location("make_parameter_table", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_of_the_pages_are_made_from_the_parameters(table_maker):
    for name in table_maker.PAGES:
        text = (Path(__file__).parents[1] / name).read_text(encoding="utf-8")
        assert table_maker.with_table(text) == text, "run python docs/make_parameter_table.py"


def test_another_parameter_is_in_the_table_at_once(table_maker, monkeypatch):
    monkeypatch.setattr(table_maker, "Parameters", ExtendedParameters)
    table = table_maker.parameter_table()
    assert "| `sharpen` | how often edges are sharpened | 0 to 9 steps | 3 |" in table
    assert "| `drop_classes` | classes that are given to their neighbors |" in table


def test_another_parameter_is_an_option_of_the_command_at_once(monkeypatch, capsys):
    extend(monkeypatch, "cli")
    with pytest.raises(SystemExit):
        cli.main(["segment", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "--sharpen STEPS how often edges are sharpened; 0 to 9 steps (default: 3)" in shown
    words = ["segment", "a", "b", "--sharpen=4", "--drop-classes=2,5", "--ct=2"]
    options = cli._make_parser().parse_args(words)
    assert cli._given_parameters(options) == ExtendedParameters(
        ct=2, sharpen=4, drop_classes=(2, 5)
    )
    with pytest.raises(ParameterError, match="sharpen = 10 must be a whole number, 0 to 9 steps"):
        cli._given_parameters(argparse.Namespace(**{**vars(options), "sharpen": 10}))


def test_another_parameter_is_known_to_the_endpoint_at_once(monkeypatch):
    extend(monkeypatch, "endpoint.openapi", "endpoint.request_parameters")
    query = document(False)["paths"]["/segment"]["get"]["parameters"]
    schemas = {one["name"]: one["schema"] for one in query}
    assert schemas["sharpen"] == {
        "type": "integer",
        "minimum": 0,
        "maximum": 9,
        "default": 3,
        "description": "How often edges are sharpened.",
    }
    assert "drop_classes" not in schemas
    pairs = [("sharpen", "5"), ("drop_classes", "2"), ("ct", "2")]
    assert understood(single(pairs)).parameters == ExtendedParameters(ct=2, sharpen=5)
    with pytest.raises(ParameterError, match=r"sharpen = '5\.5' must be a whole number, 0 to 9"):
        understood({"sharpen": "5.5"})


def test_another_parameter_is_changed_by_an_update_unless_it_needs_the_pixels():
    segmentation = open_segmentation(np.zeros((4, 4), np.uint8), ExtendedParameters())
    updated = segmentation.update(drop_classes=3, ct=2)
    assert updated.parameters == ExtendedParameters(ct=2, drop_classes=(3,))
    with pytest.raises(ParameterError, match=r"cannot change 'sharpen', only ct, .*drop_classes;"):
        segmentation.update(sharpen=1)
    assert ExtendedParameters(sharpen=1).needs_pixels_again(ExtendedParameters())
    assert not updated.parameters.needs_pixels_again(ExtendedParameters())
