"""Two things that numba lacks: reading eight bytes anywhere in a buffer as one little-endian number, and the high half of a 64 x 64 product."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic


def _pointer(context: Any, builder: Any, signature: Any, arguments: Any, width: int) -> Any:
    array_type, _ = signature.args
    array = context.make_array(array_type)(context, builder, arguments[0])
    byte = builder.gep(array.data, [arguments[1]])
    return builder.bitcast(byte, ir.IntType(width).as_pointer())


@intrinsic
def load64(typing_context: Any, array: Any, index: Any) -> Any:
    """The eight bytes of a contiguous uint8 array from `index` on, as uint64. No bounds check."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_pointer(context, builder, signature, arguments, 64), align=1)

    return types.uint64(array, types.intp), generate


@intrinsic
def load32(typing_context: Any, array: Any, index: Any) -> Any:
    """The four bytes of a contiguous uint8 array from `index` on, as uint64. No bounds check."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = builder.load(_pointer(context, builder, signature, arguments, 32), align=1)
        return builder.zext(value, ir.IntType(64))

    return types.uint64(array, types.intp), generate


@intrinsic
def mulhi(typing_context: Any, a: Any, b: Any) -> Any:
    """The high 64 bits of the product of two uint64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        wide = ir.IntType(128)
        product = builder.mul(builder.zext(arguments[0], wide), builder.zext(arguments[1], wide))
        return builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), ir.IntType(64))

    return types.uint64(types.uint64, types.uint64), generate


__all__ = ["load32", "load64", "mulhi"]
