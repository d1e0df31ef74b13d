"""Writes the files in numpy/ with NumPy 2.4 (PyPI: numpy), and expected.txt, which says what is in them.

A line of expected.txt is: file, name of the array, dtype, shape, and the data in hexadecimal, row-major and little-endian.
"""

import pathlib
import zipfile

import numpy as np
from numpy.lib import format as npy

DIR = pathlib.Path(__file__).with_name("numpy")
NAMES = {"b1": "BOOL", "i1": "I8", "i2": "I16", "i4": "I32", "i8": "I64", "u1": "U8", "u2": "U16", "u4": "U32",
         "u8": "U64", "f2": "F16", "f4": "F32", "f8": "F64", "c8": "C64"}
lines = []


def expect(file, name, a):
    little = a.astype(a.dtype.newbyteorder("<"))
    shape = "[" + " ".join(str(d) for d in a.shape) + "]"
    lines.append("\t".join([file, name, NAMES[a.dtype.str[1:]], shape, little.tobytes(order="C").hex()]))


def save(name, a, version=None):
    with open(DIR / name, "wb") as f:
        npy.write_array(f, a, version=version)
    expect(name, "array", a)


def array(descr, shape, order="C"):
    """An array of small numbers that differ, negative ones too where there are any."""
    n = int(np.prod(shape))
    values = np.arange(n) * 7 % 23
    a = (values % 2 if descr[1:] == "b1" else values).astype(descr)
    if descr[1] in "fi":
        a[1::2] = -a[1::2]
    if descr[1] == "c":
        a += 1j * np.arange(n)
    return np.array(a.reshape(shape), order=order, dtype=descr)


for descr in ["|b1", "|i1", "|u1"] + [order + t for t in ["i2", "i4", "i8", "u2", "u4", "u8", "f2", "f4", "f8", "c8"]
                                      for order in "<>"]:
    file = descr[1:] + {"|": "", "<": "_little", ">": "_big"}[descr[0]] + ".npy"
    save(file, array(descr, (2, 3)))
for descr in ["<f4", ">f8"]:
    t = descr[1:]
    save(f"{t}_fortran.npy", array(descr, (3, 4), "F"))
    save(f"{t}_fortran3.npy", array(descr, (2, 3, 5), "F"))
    save(f"{t}_fortran_of_one.npy", array(descr, (1, 4, 1), "F"))
    save(f"{t}_scalar.npy", array(descr, ()))
    save(f"{t}_vector.npy", array(descr, (5,)))
    save(f"{t}_empty.npy", array(descr, (0, 3)))
    save(f"{t}_v2.npy", array(descr, (2, 2)), (2, 0))
    save(f"{t}_v3.npy", array(descr, (2, 2), "F"), (3, 0))

arrays = {"w": array("<f4", (2, 3)), "layer/b": array(">f2", (3,)), "f": array("<f8", (2, 3), "F"), "größe": array("<i8", ()),
          "": array("|u1", (2,)), "none": array("<f4", (0,))}
for file, write in [("stored.npz", np.savez), ("deflated.npz", np.savez_compressed)]:
    write(DIR / file, **arrays)
    for name, a in arrays.items():
        expect(file, name, a)

(DIR / "expected.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")

# What is refused.
np.save(DIR / "object.npy", np.array([None]), allow_pickle=True)
np.save(DIR / "structured.npy", np.zeros(2, dtype=[("a", "<f4"), ("b", "<i4")]))
np.save(DIR / "void2.npy", np.zeros(2, dtype="V2"))
np.save(DIR / "complex128.npy", np.zeros(2, dtype="<c16"))
np.save(DIR / "string.npy", np.array(["text"]))
with zipfile.ZipFile(DIR / "bzip2.npz", "w", compression=zipfile.ZIP_BZIP2) as z:
    with z.open("a.npy", "w") as f:
        npy.write_array(f, np.zeros(2))
