#!/usr/bin/env python3
"""Writes the golden files of this directory: averages computed by NumPy, as exact bits.

    python3 generate.py          # needs NumPy 2.0 or later

The three functions follow their definitions in the article "How do I calculate the average weight of multiple models?"
(2024), which the Go functions Mean, WeightedMean and, for weighting.ArticleRecurrence, WeightedSum are held to. Models
are deterministic pseudo-random numbers and the article's own example.

Every number is written as the hexadecimal digits of its IEEE 754 bits, and a vector as one string of numbers, each of
the same width: 4 digits for float16, 8 for float32, 16 for float64. Weights, decays and powers are float64.
"""

import json
import pathlib

import numpy as np

MASK = (1 << 64) - 1


class Numbers:
    """The splitmix64 generator: the same numbers with every version of Python and NumPy."""

    def __init__(self, seed):
        self.state = seed

    def bits(self):
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return z ^ (z >> 31)

    def uniform(self):
        return (self.bits() >> 11) * 2.0**-53

    def model(self, n, dtype, spread):
        """n numbers of either sign, over `spread` binary orders of magnitude below one."""
        values = [(2 * self.uniform() - 1) * 2.0 ** -(self.bits() % (spread + 1)) for _ in range(n)]
        return np.array(values, dtype=dtype)


def simple(models):
    return np.mean(models, axis=0)


def weighted(models, weights):
    if not np.isclose(sum(weights), 1.0):
        raise ValueError("weights do not sum to one")
    total = np.zeros_like(models[0])
    for weight, model in zip(weights, models):
        total += weight * model
    return total


def exponential(models, decay):
    """Returns the average and the powers decay**i that it used, i = 0 for the newest model."""
    average = np.zeros_like(models[-1])
    powers = [decay**i for i in range(len(models))]
    for power, model in zip(powers, reversed(models)):
        average = power * model + (1 - power) * average
    return average, powers


def encode(vector):
    """The bits of an array, or of a list of Python floats, most significant digit first."""
    array = np.asarray(vector)
    array = array.astype(array.dtype.newbyteorder(">"))
    return array.tobytes().hex()


def case(name, models, weights, decay):
    average, powers = exponential(models, decay)
    for result in (simple(models), weighted(models, weights), average):
        assert result.dtype == models[0].dtype, result.dtype
    return {
        "name": name,
        "models": [encode(m.ravel()) for m in models],
        "mean": encode(simple(models).ravel()),
        "weights": encode(np.array(weights)),
        "weighted": encode(weighted(models, weights).ravel()),
        "decay": encode(np.array([decay])),
        "powers": encode(np.array(powers, dtype=np.float64)),
        "exponential": encode(average.ravel()),
        # The mean summed and divided in float64 and rounded once, where that is not the first one.
        "mean_float64": encode(np.mean(models, axis=0, dtype=np.float64).astype(models[0].dtype).ravel()),
    }


def article(dtype):
    models = [np.array([[1.0, 2.0], [3.0, 4.0]], dtype=dtype) + k for k in range(3)]
    return case("the article's example", [m.astype(dtype) for m in models], [0.2, 0.5, 0.3], 0.8)


def cases(dtype, seed):
    numbers = Numbers(seed)
    yield article(dtype)
    for count in (1, 2, 3, 5, 8, 9, 12, 17):
        for decay in (0.5, 0.9) if count == 3 else (0.8,):
            models = [numbers.model(13, dtype, 6) for _ in range(count)]
            scores = [numbers.uniform() + 0.1 for _ in range(count)]
            weights = [s / sum(scores) for s in scores]
            yield case(f"{count} models, decay {decay}", models, weights, decay)
    # The ends of the decay's range, and a list long enough for pairwise summation to show, had NumPy used it here.
    models = [numbers.model(5, dtype, 2) for _ in range(4)]
    yield case("decay 0: the newest", models, [0.25] * 4, 0.0)
    yield case("decay 1: the oldest", models, [0.25] * 4, 1.0)
    models = [numbers.model(3, dtype, 8) for _ in range(150)]
    yield case("150 models", models, [1 / 150] * 150, 0.99)
    # Signed zeros and the last bits: sums that cancel, subnormal numbers, and ties.
    tiny = np.finfo(dtype).smallest_subnormal
    rows = [
        [-0.0, 0.0, 1.0, tiny, 3 * tiny, 1.0, -1.0],
        [-0.0, -0.0, -1.0, tiny, tiny, 1 + np.finfo(dtype).eps, -1.0],
    ]
    yield case("zeros, subnormals and ties", [np.array(r, dtype=dtype) for r in rows], [0.5, 0.5], 0.25)


def main():
    here = pathlib.Path(__file__).resolve().parent
    for seed, dtype in enumerate((np.float64, np.float32, np.float16), start=1):
        name = np.dtype(dtype).name
        document = {"dtype": name, "cases": list(cases(dtype, seed))}
        (here / f"{name}.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
