#!/usr/bin/env python3
"""Measures how fast NumPy and PyTorch average models, at the points of bench and in its output format.

    python3 bench/python/compare.py -out bench/out/python.txt
    go run ./bench -from bench/out/results.txt,bench/out/python.txt

Needs NumPy; PyTorch is measured where it is installed. Everything runs on one thread. The functions of the article (see
docs/exponential.md) are measured as they are written there, and beside them the fastest way that users of each library have.
"""

import argparse
import os
import platform
import sys
import time

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
    os.environ[variable] = "1"  # read when the libraries are loaded

import numpy as np  # noqa: E402

try:
    import torch

    torch.set_num_threads(1)
except ImportError:
    torch = None

DECAY = 0.999
GAP = 4096  # bytes between two models, as in bench
SIZES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}


def article_mean(models):
    return np.mean(models, axis=0)


def article_weighted(models, weights):
    if not np.isclose(sum(weights), 1.0):
        return None
    total = np.zeros_like(models[0])
    for model, weight in zip(models, weights):
        total += weight * model
    return total


def article_exponential(models, decay):
    average = np.zeros_like(models[-1])
    for i, model in enumerate(reversed(models)):
        alpha = decay**i
        average = alpha * model + (1 - alpha) * average
    return average


class Point:
    """The arrays of one job at one size."""

    def __init__(self, job, dtype, models, n):
        self.job, self.dtype, self.models, self.n = job, dtype, models, n
        if job == "WeightedSum":
            self.weights = [2 * (k + 1) / (models * (models + 1)) for k in range(models)]
        elif job == "Mean":
            self.weights = [1 / models] * models
        else:
            self.weights = [DECAY, 1 - DECAY]

    def bytes(self):
        return (self.models + 1) * self.n * SIZES[self.dtype]

    def need(self):
        """Returns the bytes at once: the models and up to three arrays as large as the result, or all models stacked."""
        return (self.models + max(3, self.models + 1)) * self.n * SIZES[self.dtype]

    def name(self, library):
        return f"Benchmark{self.job}/library={library}/dtype={self.dtype}/models={self.models}/n={self.n}"

    def allocate(self):
        """Returns the contenders, a dict of functions without arguments."""
        contenders = {}
        random = np.random.default_rng(1)
        pitch = self.n + GAP // SIZES[self.dtype]
        block = random.random(min(self.models * pitch, (1 << 18) + 3), dtype=np.float32) * 2 - 1
        values = np.resize(block, self.models * pitch).reshape(self.models, pitch)
        if self.dtype != "bfloat16":
            stacked = values.astype(self.dtype)[:, : self.n]
            self.numpy(contenders, stacked, list(stacked), np.array(self.weights, dtype=self.dtype))
        if torch is not None:
            tensors = torch.from_numpy(values).to(getattr(torch, self.dtype))[:, : self.n]
            self.torch(contenders, tensors, list(tensors))
        self.reference = sum(
            w * values[k, : self.n].astype(np.float64) for k, w in enumerate(self.weights)
        ) if self.n <= 4096 else None
        return contenders

    def numpy(self, contenders, stacked, models, weights):
        out, scratch = np.ones_like(models[0]), np.ones_like(models[0])

        def in_place():
            np.multiply(models[0], weights[0], out=out)
            for k in range(1, len(models)):
                np.multiply(models[k], weights[k], out=scratch)
                np.add(out, scratch, out=out)
            return out

        if self.job == "Mean":
            contenders["numpy-article"] = lambda: article_mean(models)
            contenders["numpy-in-place"] = in_place
        elif self.job == "WeightedSum":
            # Python's numbers take the type of the array; so do they in the article.
            numbers = self.weights
            contenders["numpy-article"] = lambda: article_weighted(models, numbers)
            contenders["numpy-article-exponential"] = lambda: article_exponential(models, 0.9)
            contenders["numpy-average"] = lambda: np.average(models, axis=0, weights=weights)
            contenders["numpy-in-place"] = in_place
            if self.dtype in ("float32", "float64"):
                contenders["numpy-matmul-stacked"] = lambda: np.matmul(weights, stacked, out=out)
        else:
            average, model = models

            def step():
                np.multiply(average, weights[0], out=average)
                np.multiply(model, weights[1], out=scratch)
                np.add(average, scratch, out=average)
                return average

            def expression():
                average[...] = DECAY * average + (1 - DECAY) * model
                return average

            contenders["numpy-expression"] = expression
            contenders["numpy-in-place"] = step

    def torch(self, contenders, stacked, models):
        out = torch.ones_like(models[0])

        def add_():
            out.zero_()
            for w, x in zip(self.weights, models):
                out.add_(x, alpha=w)
            return out

        def soup():
            total = models[0] * self.weights[0]
            for w, x in zip(self.weights[1:], models[1:]):
                total = total + x * w
            return total

        if self.job == "Mean":
            contenders["torch-stack-mean"] = lambda: torch.stack(models).mean(0)
            contenders["torch-add_"] = add_
        elif self.job == "WeightedSum":
            contenders["torch-add_"] = add_
            contenders["torch-soup"] = soup
        else:
            average, model = models
            try:
                average[:1].clone().lerp_(model[:1], 1 - DECAY)
                contenders["torch-lerp_"] = lambda: average.lerp_(model, 1 - DECAY)
            except RuntimeError as error:  # some versions have no lerp_ for 16 bits
                if self.dtype not in NO_LERP:
                    NO_LERP.add(self.dtype)
                    print(f"left out: torch-lerp_ for {self.dtype}: {error}", file=sys.stderr)
            contenders["torch-mul_add_"] = lambda: average.mul_(DECAY).add_(model, alpha=1 - DECAY)

    def check(self):
        """Raises an error if a contender computes something else. article_exponential does: it has other weights."""
        for library in self.allocate():
            contenders = self.allocate()  # a step in place changes its operands
            if self.reference is None or library == "numpy-article-exponential":
                continue
            got = contenders[library]()
            got = got.to(torch.float64).numpy() if torch is not None and torch.is_tensor(got) else got.astype(np.float64)
            epsilon = {"float64": 1e-14, "float32": 1e-6, "float16": 2e-3, "bfloat16": 2e-2}[self.dtype]
            worst = float(np.max(np.abs(got - self.reference)))
            if not worst <= epsilon * self.models:
                raise SystemExit(f"compare.py: {self.name(library)} is off by {worst}")


NO_LERP = set()  # the types without lerp_ that were said to be left out


def calibrate(run, sample):
    run()  # the first call of a function pays for what all calls share
    times = 1
    while True:
        elapsed = timed(run, times)
        if elapsed >= sample / 4:
            return max(1, int(times * sample / elapsed))
        times = min(times * 10, max(times * 2, int(times * sample / elapsed)))


def timed(run, times):
    start = time.perf_counter()
    for _ in range(times):
        run()
    return max(time.perf_counter() - start, 1e-9)


def numbers(text):
    return [int(item.replace("_", "")) for item in text.split(",")]


def main():
    parser = argparse.ArgumentParser(description="Measures NumPy and PyTorch at the points of bench.")
    parser.add_argument("-jobs", default="WeightedSum,Mean,EMAStep")
    parser.add_argument("-dtypes", default="float32,float64,float16,bfloat16")
    parser.add_argument("-models", default="2,4,8,16", type=numbers)
    parser.add_argument("-n", default="8,64,256,4096,65536,1048576,64000000", type=numbers)
    parser.add_argument("-rounds", default=10, type=int)
    parser.add_argument("-time", default=5, type=lambda text: float(text.removesuffix("ms")), help="milliseconds of a sample")
    parser.add_argument("-memory", default=12, type=float, help="leave out what needs more than this many GiB")
    parser.add_argument("-check", action="store_true", help="measure nothing: only check the results, of up to 4096 elements")
    parser.add_argument("-out", default="-", help="file of the results, or - for the standard output")
    arguments = parser.parse_args()
    for flag, known in ("jobs", "WeightedSum,Mean,EMAStep"), ("dtypes", "float32,float64,float16,bfloat16"):
        for item in getattr(arguments, flag).split(","):
            if item not in known.split(","):
                parser.error(f"-{flag}: got {item!r}, want some of {known}")
    if min(arguments.models) < 2 or min(arguments.n) < 1 or arguments.rounds < 1 or not arguments.time > 0:
        parser.error("want at least 2 models, 1 element and 1 round, and a time of more than 0")
    if arguments.out != "-":
        os.makedirs(os.path.dirname(arguments.out) or ".", exist_ok=True)

    points = []
    for dtype in arguments.dtypes.split(","):
        for job in arguments.jobs.split(","):
            for models in [2] if job == "EMAStep" else arguments.models:
                for n in arguments.n:
                    point = Point(job, dtype, models, n)
                    if dtype == "bfloat16" and torch is None:
                        continue
                    if point.need() + 4 * models * n > arguments.memory * 2**30:
                        print(f"left out: {point.name('*')}", file=sys.stderr)
                        continue
                    points.append(point)
    for point in points:
        if point.n <= 4096:
            point.check()
    if arguments.check:
        return

    out = sys.stdout if arguments.out == "-" else open(arguments.out, "w", encoding="utf-8")
    print(f"goos: {platform.system().lower()}", file=out)
    print(f"numpy: {np.__version__}", file=out)
    print(f"torch: {torch.__version__ if torch is not None else 'none'}", file=out)
    print(f"python: {platform.python_version()}", file=out)
    # The arrays of one point at a time: all rounds of a point follow each other, its contenders take turns.
    for point in points:
        contenders = list(point.allocate().items())
        iterations = {library: calibrate(run, arguments.time / 1000) for library, run in contenders}
        for round_ in range(arguments.rounds):
            for i in range(len(contenders)):
                library, run = contenders[(i + round_) % len(contenders)]
                times = iterations[library]
                elapsed = timed(run, times) / times
                print(f"{point.name(library)}\t{times}\t{elapsed * 1e9:.4g} ns/op\t{point.bytes() / elapsed / 1e6:.2f} MB/s",
                      file=out, flush=True)


if __name__ == "__main__":
    main()
