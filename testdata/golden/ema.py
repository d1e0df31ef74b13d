#!/usr/bin/env python3
"""Writes ema.json: moving averages computed by PyTorch, and the decays of other libraries' warm-ups, as exact bits.

    python3 ema.py               # needs PyTorch, timm, diffusers, ema-pytorch and torch-ema

The averages are those of torch.optim.swa_utils.AveragedModel with get_ema_multi_avg_fn, after every update: of models in
the dtype of the case ("averages"), and of the same models converted to float64 ("wider"). The decays are what the libraries'
own code returns for update number t = 1, 2, …, where the first update is the one that copies the model: timm and diffusers
are asked for step t; ema-pytorch's and torch-ema's objects are updated, after the model that they are made with in the case
of torch-ema, which so is the first.

Numbers are written as in generate.py. The versions used are in the file.
"""

import importlib.metadata
import json
import pathlib

import torch
from diffusers.training_utils import EMAModel
from ema_pytorch import EMA
from timm.utils.model_ema import ModelEmaV3
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch_ema import ExponentialMovingAverage

from generate import Numbers

UPDATES = [1, 2, 3, 4, 5, 7, 10, 20, 50, 100, 300]


def encode(tensor):
    size = tensor.element_size()
    integers = tensor.contiguous().view({2: torch.int16, 4: torch.int32, 8: torch.int64}[size])
    mask = (1 << 8 * size) - 1
    return "".join(f"{int(i) & mask:0{2 * size}x}" for i in integers)


class Model(torch.nn.Module):
    def __init__(self, values):
        super().__init__()
        self.values = torch.nn.Parameter(values.clone())


def averages(models, decay):
    averaged = AveragedModel(Model(models[0]), multi_avg_fn=get_ema_multi_avg_fn(decay))
    for model in models:
        averaged.update_parameters(Model(model))
        yield encode(averaged.module.values.detach())


def series(name, models, decay):
    return {
        "name": name,
        "dtype": str(models[0].dtype).removeprefix("torch."),
        "decay": encode(torch.tensor([decay], dtype=torch.float64)),
        "models": [encode(m) for m in models],
        "averages": list(averages(models, decay)),
        "wider": list(averages([m.double() for m in models], decay)),
    }


def all_series():
    numbers = Numbers(4)
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        short = str(dtype).removeprefix("torch.")
        for decay in (0.0, 0.3, 0.9, 0.999, 1.0):
            models = []
            for _ in range(12):
                values = [(2 * numbers.uniform() - 1) * 2.0 ** -(numbers.bits() % 7) for _ in range(9)]
                models.append(torch.tensor(values, dtype=torch.float64).to(dtype))
            yield series(f"{short}, decay {decay}", models, decay)
    # A great step at a high decay, from which an average held in 16 bits does not move at all.
    for dtype in (torch.float16, torch.bfloat16):
        models = [torch.tensor([1.0, -2.0], dtype=dtype)] + [torch.tensor([1.375, -2.75], dtype=dtype)] * 40
        yield series(f"{str(dtype).removeprefix('torch.')}, a step, decay 0.999", models, 0.999)


def model():
    return Model(torch.zeros(1))


def decays():
    def case(library, rule, decay, parameters, values):
        return {
            "library": library,
            "rule": rule,
            "decay": decay,
            "inverse_gamma": parameters[0],
            "power": parameters[1],
            "updates": UPDATES,
            "values": encode(torch.tensor(values, dtype=torch.float64)),
        }

    for decay in (0.5, 0.9, 0.999):
        averaged = EMAModel(model().parameters(), decay=decay)
        yield case("diffusers", "warmup", decay, (0, 0), [averaged.get_decay(t) for t in UPDATES])

        averaged = ExponentialMovingAverage(model().parameters(), decay=decay)
        values = {1: 0.0}  # the copy that the object is made with
        for t in range(2, max(UPDATES) + 1):
            averaged.update(model().parameters())
            # The object keeps the counter and not the decay: the line of its update that computes it.
            values[t] = min(decay, (1 + averaged.num_updates) / (10 + averaged.num_updates))
        yield case("torch_ema", "warmup", decay, (0, 0), [values[t] for t in UPDATES])

        for parameters in ((1.0, 2 / 3), (1.0, 0.75), (1.0, 1.0), (5.0, 0.8)):
            inverse, power = parameters
            averaged = EMAModel(model().parameters(), decay=decay, use_ema_warmup=True, inv_gamma=inverse, power=power)
            yield case("diffusers", "inverse gamma", decay, parameters, [averaged.get_decay(t) for t in UPDATES])

            averaged = ModelEmaV3(model(), decay=decay, use_warmup=True, warmup_gamma=inverse, warmup_power=power)
            yield case("timm", "inverse gamma", decay, parameters, [averaged.get_decay(t) for t in UPDATES])

            averaged = EMA(model(), beta=decay, update_every=1, update_after_step=0, inv_gamma=inverse, power=power)
            values = {}
            for t in range(1, max(UPDATES) + 1):
                averaged.update()
                values[t] = averaged.get_current_decay()  # in float32
            yield case("ema-pytorch", "inverse gamma", decay, parameters, [values[t] for t in UPDATES])


def main():
    packages = ("torch", "timm", "diffusers", "ema-pytorch", "torch-ema")
    document = {
        "versions": {p: importlib.metadata.version(p) for p in packages},
        "series": list(all_series()),
        "decays": list(decays()),
    }
    path = pathlib.Path(__file__).resolve().parent / "ema.json"
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
