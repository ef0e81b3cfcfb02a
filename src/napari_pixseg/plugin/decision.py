"""The decision about an image's classes, and the counted colors that it is based on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from napari_pixseg.algorithm.classes import Classes, decide
from napari_pixseg.algorithm.color_table import ColorTable
from napari_pixseg.classification.encoding import Encoding
from napari_pixseg.classification.parameter_checks import check_parameters
from napari_pixseg.errors import ParameterError
from napari_pixseg.parameters import Parameters
from napari_pixseg.plugin.layers.overview import Overview
from napari_pixseg.sources.image import Image


@dataclass(frozen=True)
class Decision:
    """The classes to show, and how to find the class of a pixel.

    Attributes
    ----------
    classes : Classes
    table : ColorTable
    encoding : Encoding
        How samples became the colors of the table.
    provisional : bool
        True until every pixel of the finest level has been counted.
    overview : Overview or None
        A small copy of a huge image, filled while it is counted.
    """

    classes: Classes
    table: ColorTable
    encoding: Encoding
    provisional: bool
    overview: Overview | None = None

    def with_background_of(self, before: Decision) -> Decision:
        """Return this decision with the background that an earlier one has, if that is numbers.

        Each class that was background hands that over to the class that holds most of its pixels
        now; a class that has no pixels here, to none. A background that differs from the earlier
        decision's was chosen since, and stays.
        """
        parameters = self.classes.parameters
        numbers = parameters.background
        earlier = before.classes.parameters
        if not isinstance(numbers, tuple) or numbers != earlier.background:
            return self
        if parameters == earlier and before.table == self.table:
            return self
        followed = _follow_classes(numbers, before, self)
        changed = parameters.replace(background=followed or None)
        return replace(self, classes=replace(self.classes, parameters=changed))


def _follow_classes(numbers: tuple[int, ...], before: Decision, after: Decision) -> tuple[int, ...]:
    """Return the classes of a decision that hold most pixels of each class of an earlier one."""
    table = after.table
    space = table.space
    if before.table is table:
        # While a slider moves, nothing has to be classified again.
        old = before.classes.color_classes
    elif space is not None and space != before.classes.parameters.cs:
        # The colors were counted in another space, in which the earlier classes mean nothing.
        return ()
    else:
        old = before.classes.classify(table.colors, space)
    found = set()
    for number in numbers:
        is_old = old == number
        shares = np.bincount(after.classes.color_classes[is_old], table.counts[is_old])
        if shares.any():
            found.add(int(shares.argmax()))
    return tuple(sorted(found - {0}))


def refuse_missing_classes(parameters: Parameters, decision: Decision) -> None:
    """Refuse a background of class numbers that a decision does not have.

    Raises
    ------
    ParameterError
    """
    numbers = parameters.background
    count = len(decision.classes)
    if isinstance(numbers, tuple) and max(numbers, default=0) > count:
        raise ParameterError(
            f"background = {','.join(map(str, numbers))} names a class that is not there; there "
            f"are {count} classes, with the numbers 1 to {count}."
        )


@dataclass(frozen=True)
class CountedColors:
    """Counted colors, on which any number of decisions can be made without reading pixels.

    Attributes
    ----------
    table : ColorTable
    encoding : Encoding
    image : Image
        The finest level, even if a coarser one was counted.
    overview : Overview or None
    provisional : bool
        Whether only a part of the image was counted.
    """

    table: ColorTable
    encoding: Encoding
    image: Image
    overview: Overview | None
    provisional: bool = False

    def decide(self, parameters: Parameters) -> Decision:
        """Decide which classes there are.

        Raises
        ------
        ParameterError, ClassError
        """
        check_parameters(self.image, parameters)
        classes = decide(self.table, parameters, gray=self.image.gray)
        return Decision(classes, self.table, self.encoding, self.provisional, self.overview)
