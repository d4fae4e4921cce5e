"""What numba has no word for, as LLVM's own instructions: eight values compared with eight at once, and a read of a file that needs no Python."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

BLOCK = 8  # values that `matches` looks at on each side
_BLOCK = ir.VectorType(ir.IntType(32), BLOCK)


@intrinsic
def matches(typing_context: Any, one: Any, other: Any) -> Any:
    """How many of the BLOCK uint32 at the address `one` are equal to one at the address `other`, values of a side being different."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        left, right = (builder.load(builder.inttoptr(at, _BLOCK.as_pointer()), align=4) for at in arguments)
        found = builder.icmp_unsigned("==", left, right)
        for turn in range(1, BLOCK):
            places = ir.Constant(_BLOCK, [(place + turn) % BLOCK for place in range(BLOCK)])
            found = builder.or_(found, builder.icmp_unsigned("==", left, builder.shuffle_vector(right, right, places)))
        return builder.zext(builder.ctpop(builder.bitcast(found, ir.IntType(BLOCK))), ir.IntType(64))

    return types.int64(types.int64, types.int64), code


@intrinsic
def pread(typing_context: Any, file: Any, address: Any, size: Any, offset: Any) -> Any:
    """POSIX pread of an open file's number into the memory at the address: the bytes read, 0 at the end of the file, -1 on an error."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        number, place = ir.IntType(32), ir.IntType(64)
        kind = ir.FunctionType(place, [number, ir.IntType(8).as_pointer(), place, place])
        function = cgutils.get_or_insert_function(builder.module, kind, "pread")
        descriptor, to, length, start = arguments
        return builder.call(
            function, [builder.trunc(descriptor, number), builder.inttoptr(to, kind.args[1]), length, start]
        )

    return types.int64(types.int64, types.int64, types.int64, types.int64), code
