"""Writes reference.safetensors with the format's reference implementation (PyPI: safetensors 0.8.0).

The test of the writer makes the same file and compares the bytes. F6_E2M3 and F6_E3M2 cannot be written from Python.
"""

import ctypes
import math
import pathlib

import safetensors

# name in the format, name in Python, bits of an element
DTYPES = [
    ("BOOL", "bool", 8), ("F4", "float4_e2m1fn_x2", 4), ("U8", "uint8", 8), ("I8", "int8", 8),
    ("F8_E5M2", "float8_e5m2", 8), ("F8_E4M3", "float8_e4m3fn", 8), ("F8_E8M0", "float8_e8m0fnu", 8),
    ("F8_E4M3FNUZ", "float8_e4m3fnuz", 8), ("F8_E5M2FNUZ", "float8_e5m2fnuz", 8), ("I16", "int16", 16),
    ("U16", "uint16", 16), ("F16", "float16", 16), ("BF16", "bfloat16", 16), ("I32", "int32", 32),
    ("U32", "uint32", 32), ("F32", "float32", 32), ("C64", "complex64", 64), ("F64", "float64", 64),
    ("I64", "int64", 64), ("U64", "uint64", 64),
]
NAMES = ['quote" back\\slash / slash', "control \x00\x01\b\t\n\x0b\f\r\x1f\x7f", "größe 世界 \U0001d11e \u2028 <&>", ""]

buffers = []  # the bytes have to live until they are written


def spec(dtype, bits, shape, first):
    """A tensor whose bytes count up from first."""
    size = math.prod(shape) * bits // 8
    if bits < 8:
        shape = shape[:-1] + [shape[-1] // 2]  # the binding takes pairs
    data = ctypes.create_string_buffer(bytes((first + i) % 256 for i in range(size)), max(size, 1))
    buffers.append(data)
    return safetensors.TensorSpec(dtype=dtype, shape=shape, data_ptr=ctypes.addressof(data), data_len=size)


tensors = {}
for i, (name, python, bits) in enumerate(DTYPES):
    tensors[name] = spec(python, bits, [3, 4], i)
    tensors[name + " empty"] = spec(python, bits, [0, 2], i)
    if bits >= 8:
        tensors[name + " scalar"] = spec(python, bits, [], i)
for name in NAMES:
    tensors[name] = spec("uint8", 8, [1], 255)

out = safetensors.serialize(tensors, {"format": "pt"})
pathlib.Path(__file__).with_name("reference.safetensors").write_bytes(out)
