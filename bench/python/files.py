"""Averages safetensors files as a Python user does: python3 files.py numpy|torch OUT IN...

It is what go run ./bench/files runs beside the command, where NumPy or PyTorch (with its package safetensors) is there.
All tensors have one dtype and the same places in all files.
"""

import json
import os
import struct
import sys

library, out, inputs = sys.argv[1], sys.argv[2], sys.argv[3:]


def header(path):
    with open(path, "rb") as f:
        size = struct.unpack("<Q", f.read(8))[0]
        return size, f.read(size)


if library == "numpy":
    import numpy

    size, text = header(inputs[0])
    tensors = json.loads(text)
    tensors.pop("__metadata__", None)
    dtype = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}[next(iter(tensors.values()))["dtype"]]
    total = numpy.fromfile(inputs[0], dtype=dtype, offset=8 + size)
    for path in inputs[1:]:
        total += numpy.fromfile(path, dtype=dtype, offset=8 + header(path)[0])
    total /= len(inputs)
    with open(out, "wb") as f:
        f.write(struct.pack("<Q", size))
        f.write(text)
        total.tofile(f)
else:
    from safetensors.torch import load_file, save_file

    total = load_file(inputs[0])
    for path in inputs[1:]:
        for name, tensor in load_file(path).items():
            total[name] += tensor
    for name in total:
        total[name] /= len(inputs)
    save_file(total, out)

print(os.path.getsize(out))
