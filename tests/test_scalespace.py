"""Scale space against SciPy, and the whole analysis against its specification in plain words.

`Specification` follows docs/algorithm.md, sections 3.2 to 3.8, line by line, with lists and
loops and nothing taken from the package.
"""

import math
from itertools import pairwise

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import example, given
from hypothesis import strategies as some
from hypothesis.extra import numpy as arrays

from napari_pixseg.algorithm.scale_space import SCALES, analyze_histogram


class Specification:
    """Sections 3.2 to 3.8 for one channel; +1 and -1 as in the text, 0 for none."""

    def __init__(self, histogram: list[int], st: float) -> None:
        top = float(np.float32(5.2))
        self.tau = [top - i / 2 for i in range(11) if top - i / 2 >= 0.2] + [0.0]
        rows = [self.smooth(histogram, tau) for tau in self.tau]
        self.marks = [self.mark(self.slope(self.slope(row)), st) for row in rows]
        for i in range(len(self.marks) - 2, -1, -1):
            self.consolidate(self.marks[i], self.marks[i + 1])
        for row in self.marks:
            self.set_ends(row)
        self.signs = self.tree_signs()
        self.intervals = self.find_intervals()

    def smooth(self, histogram: list[int], tau: float) -> list[float]:
        if tau == 0:
            return [float(count) for count in histogram]
        g = [0.0] * 256
        for d in range(256):
            g[d] = math.exp(-(d**2) / (2 * tau**2))
            if g[d] < 1e-12:
                break
        bins = [(u, float(count)) for u, count in enumerate(histogram) if count]
        factor = 1 / (tau * math.sqrt(2 * math.pi))
        return [factor * sum(count * g[abs(x - u)] for u, count in bins) for x in range(256)]

    def slope(self, h: list[float]) -> list[float]:
        first = -1.5 * h[0] + 2 * h[1] - 0.5 * h[2]
        last = 0.5 * h[253] - 2 * h[254] + 1.5 * h[255]
        return [first, *((h[x + 1] - h[x - 1]) / 2 for x in range(1, 255)), last]

    def mark(self, q: list[float], st: float) -> list[int]:
        row, last = [0] * 256, None
        for x in range(256):
            if -st <= q[x] < st:
                continue
            sign = 1 if q[x] > 0 else -1
            row[x] = sign if sign == last else 0
            last = sign
        return row

    def consolidate(self, row: list[int], finer: list[int]) -> None:
        for j in range(256):
            if row[j] == 0:
                continue
            left = next((p for p in range(j - 1, 0, -1) if finer[p]), 0)
            right = next((p for p in range(j + 1, 255) if finer[p]), 255)
            k = next((p for p in range(j - 1, 0, -1) if row[p]), 0)

            def even(e: int, k: int = k) -> bool:
                return sum(1 for p in range(k + 1, e) if finer[p]) % 2 == 0

            target = None
            if finer[j] and j != k and even(j):
                target = j
            elif left != k and even(left):
                target = left
            elif right != k and even(right):
                target = right
            value, row[j] = row[j], 0
            if target is not None:
                row[target] = value

    def set_ends(self, row: list[int]) -> None:
        row[0] = -next((value for value in row[:255] if value), row[255])
        row[255] = -next((value for value in row[:0:-1] if value), row[0])

    def tree_signs(self) -> list[int]:
        root = {"left": 0, "right": 255, "row": None, "children": []}
        leaves = [root]
        for number, row in enumerate(self.marks):
            grown = []
            for leaf in leaves:
                inner = [k for k in range(leaf["left"] + 1, leaf["right"]) if row[k]]
                cuts = [leaf["left"], *inner, leaf["right"]] if inner else []
                for a, b in pairwise(cuts):
                    leaf["children"].append({"left": a, "right": b, "row": number, "children": []})
                grown += leaf["children"] or [leaf]
            leaves = grown
        signs = [0] * 256
        for node in self.active(root["children"]):
            peak = self.marks[node["row"]][node["right"]] == -1
            for x in range(node["left"], node["right"] + 1):
                signs[x] = 1 if peak else -1
        return signs

    def stability(self, node: dict) -> float:
        children = node["children"]
        return self.tau[node["row"]] - self.tau[children[0]["row"]] if children else 0

    def is_active(self, node: dict) -> bool:
        children = node["children"]
        mean = sum(map(self.stability, children)) / len(children) if children else 0
        return self.stability(node) >= mean

    def active(self, chain: list[dict]) -> list[dict]:
        found = [node for node in chain if self.is_active(node)]
        for node in reversed([node for node in chain if not self.is_active(node)]):
            found += self.active(node["children"])
        return found

    def find_intervals(self) -> list[list[int]]:
        intervals, start = [], None
        for v, sign in enumerate(self.signs):
            if start is None and sign > 0:
                start = v
            elif start is not None and sign < 0:
                intervals.append([start, v - 1])
                start = None
        return intervals if start is None else [*intervals, [start, 255]]


@some.composite
def random_histograms(draw):
    """Sparse, dense, flat, hilly, spiky, or at the ends only; counts up to 10^12."""
    rng = np.random.default_rng(draw(some.integers(0, 2**32 - 1)))
    most = draw(some.sampled_from([1, 3, 20, 1_000, 10**6, 10**9, 10**12]))
    x = np.arange(256)
    hills = sum(
        rng.random() * np.exp(-(((x - rng.integers(256)) / rng.uniform(1, 40)) ** 2))
        for _ in range(rng.integers(1, 12))
    )
    shapes = {
        "dense": rng.integers(0, most + 1, 256),
        "sparse": rng.integers(0, most + 1, 256) * (rng.random(256) < 0.1),
        "flat": np.full(256, most),
        "step": np.full(256, most) * (x >= rng.integers(256)),
        "hills": rng.poisson(hills * most),
        "spikes": rng.poisson(hills * most / 50) + most * (rng.random(256) < 0.03),
        "ends": rng.integers(0, most + 1, 256) * ((x < 4) | (x > 255 - rng.integers(4))),
        "comb": rng.poisson(hills * most) * (x % rng.integers(2, 6) == 0),
    }
    return shapes[draw(some.sampled_from(sorted(shapes)))].astype(np.int64)


histograms = random_histograms() | arrays.arrays(np.int64, 256, elements=some.integers(0, 1000))
thresholds = some.tuples(some.floats(0.1, 255), some.booleans())


def absolute(threshold: tuple[float, bool], histogram: np.ndarray) -> float:
    """A threshold on raw curvature: of an image of this size, or as it is but at least 1."""
    st, normalized = threshold
    return st * max(int(histogram.sum()), 1) / 2**20 if normalized else max(st, 1.0)


@given(histogram=histograms, threshold=thresholds)
@example(histogram=np.zeros(256, np.int64), threshold=(1.0, False))
def test_marks_signs_and_regions_are_those_of_the_specification(histogram, threshold):
    st = absolute(threshold, histogram)
    ours, text = analyze_histogram(histogram, st), Specification(histogram.tolist(), st)
    np.testing.assert_array_equal(ours.marks, text.marks)
    np.testing.assert_array_equal(ours.signs, text.signs)
    assert ours.intervals.tolist() == text.intervals


def test_two_hills_are_regions_for_the_specification_too():
    """Else the comparison above would compare nothing with nothing."""
    x = np.arange(256)
    hills = 1000 * np.exp(-(((x - 80) / 15) ** 2)) + 700 * np.exp(-(((x - 180) / 9) ** 2))
    two_hills = hills.astype(np.int64)
    found = Specification(two_hills.tolist(), 1.0).intervals
    assert len(found) >= 2
    assert analyze_histogram(two_hills, 1.0).intervals.tolist() == found


def test_there_are_ten_filtered_scales_and_the_raw_histogram():
    expected = [5.2, 4.7, 4.2, 3.7, 3.2, 2.7, 2.2, 1.7, 1.2, 0.7, 0]
    np.testing.assert_allclose(SCALES, expected, atol=1e-6)
    assert SCALES[0] == 5.19999980926513671875


@given(histogram=histograms)
def test_smoothing_is_convolution_with_a_gaussian_and_zeros_outside(histogram):
    raw = histogram.astype(np.float64)
    smoothed = analyze_histogram(histogram, 1.0).smoothed
    np.testing.assert_array_equal(smoothed[-1], raw)
    # Weights below 1e-12 are cut off.
    close = {"rtol": 1e-9, "atol": 1e-11 * max(raw.sum(), 1)}
    distance = np.arange(-255, 256)
    for row, tau in zip(smoothed, SCALES[:-1], strict=False):
        weights = np.exp(-(distance**2) / (2 * tau**2)) / (tau * np.sqrt(2 * np.pi))
        expected = scipy.ndimage.convolve1d(raw, weights, mode="constant", cval=0)
        np.testing.assert_allclose(row, expected, **close)
        if tau > 1:  # below, SciPy's normalisation of the sampled kernel shows
            expected = scipy.ndimage.gaussian_filter1d(raw, tau, mode="constant", truncate=12)
            np.testing.assert_allclose(row, expected, **close)


@pytest.mark.parametrize("row", range(10), ids=lambda row: f"scale {SCALES[row]:.1f}")
def test_the_first_weight_below_1e_12_is_kept_and_those_beyond_are_zero(row):
    histogram = np.zeros(256, np.int64)
    histogram[128] = 10**12
    reach = math.ceil(SCALES[row] * math.sqrt(2 * math.log(1e12)))
    seen = np.flatnonzero(analyze_histogram(histogram, 1.0).smoothed[row])
    assert (seen[0], seen[-1]) == (128 - reach, 128 + reach)


@given(histogram=histograms)
def test_curvature_is_the_second_order_gradient_taken_twice(histogram):
    ours = analyze_histogram(histogram, 1.0)
    once = np.gradient(ours.smoothed, axis=1, edge_order=2)
    twice = np.gradient(once, axis=1, edge_order=2)
    np.testing.assert_allclose(ours.curvature, twice, atol=1e-12 * max(int(histogram.sum()), 1))


@given(histogram=histograms, threshold=thresholds, power=some.integers(1, 8))
def test_counts_and_threshold_taken_twice_find_the_same(histogram, threshold, power):
    st = absolute(threshold, histogram)
    once, often = (
        analyze_histogram(histogram, st),
        analyze_histogram(histogram << power, st * 2**power),
    )
    np.testing.assert_array_equal(once.marks, often.marks)
    np.testing.assert_array_equal(once.intervals, often.intervals)


@given(histogram=histograms, threshold=thresholds)
def test_regions_are_ascending_runs_without_a_negative_sign_that_begin_with_a_peak(
    histogram, threshold
):
    ours = analyze_histogram(histogram, absolute(threshold, histogram))
    edges = ours.intervals.ravel()
    assert ((np.diff(edges) >= 0) & (edges[1:] <= 255)).all()
    assert (ours.intervals[1:, 0] > ours.intervals[:-1, 1] + 1).all()
    covered = np.zeros(256, bool)
    for left, right in ours.intervals:
        assert ours.signs[left] == 1
        assert (ours.signs[left : right + 1] >= 0).all()
        covered[left : right + 1] = True
    assert not (ours.signs[~covered] > 0).any()


@pytest.mark.parametrize("count", [0, 1, 10**12])
def test_a_histogram_without_curvature_above_the_threshold_has_no_region(count):
    ours = analyze_histogram(np.full(256, count), 1e13)
    assert not ours.marks.any()
    assert not ours.signs.any()
    assert ours.intervals.shape == (0, 2)


def test_a_curvature_equal_to_the_threshold_is_convex_and_its_negative_is_flat():
    """Flat is [-st, st): the half-open side of section 3.4."""
    histogram = np.zeros(256, np.int64)
    histogram[100:110] = 4
    curvature = analyze_histogram(histogram, 0.5).curvature[-1]
    assert set(curvature[95:105]) == {0.0, 1.0, -1.0}
    at, above = (
        analyze_histogram(histogram, 1.0),
        analyze_histogram(histogram, np.nextafter(1.0, 2.0)),
    )
    assert (at.marks[-1, 1:-1] == 1).any()
    assert not (at.marks[-1, 1:-1] == -1).any()
    assert not above.marks[-1, 1:-1].any()
