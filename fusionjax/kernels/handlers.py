"""Loops that numba compiles, as handlers that XLA calls on a CPU: no compiler to install, no binary to ship, nothing copied.

XLA gives a handler one pointer, to a frame of the structures of its stable C interface (`xla/ffi/api/c_api.h`, in jaxlib). The
offsets below are those of their fields in versions 0.x, where pointers have 64 bits. A call is cut into pieces, which the
handler and threads of XLA's own pool take in turn.
"""

import ctypes
import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from llvmlite import ir
from numba import cfunc, njit, types
from numba.extending import intrinsic
from numba.np.numpy_support import carray

LOOSE = {"fastmath": {"reassoc", "contract", "nsz"}, "error_model": "numpy"}
"""For `numba.njit` of loops: sums in any order, so that they are vectorised; what is not a number stays so."""

_HEADER = Path(jax.ffi.include_dir(), "xla/ffi/api/c_api.h").read_text(encoding="utf-8")
_MAJOR, _MINOR = (int(re.findall(rf"define XLA_FFI_API_{part} (\d+)", _HEADER)[0]) for part in ("MAJOR", "MINOR"))
_FUNCTIONS = [f"XLA_FFI_{name}" for name in re.findall(r"STRUCT_FIELD\(XLA_FFI_(\w+)\);", _HEADER)]
"""In the order of their table, which has 48 bytes of other things before them."""
_NEEDED = ("XLA_FFI_Error_Destroy", "XLA_FFI_ThreadPool_Schedule", "XLA_FFI_ThreadPool_NumThreads")
if _MAJOR != 0 or not set(_NEEDED) <= set(_FUNCTIONS):
    raise ImportError("this jaxlib calls handlers in a way not known here")
_DESTROY_ERROR, _SCHEDULE, _NUMBER_OF_THREADS = (48 + 8 * _FUNCTIONS.index(name) for name in _NEEDED)
_METADATA = 1
"""The extension of a frame that asks for the version a handler was written for, and for nothing else."""
_KEPT: list[Any] = []
"""Compiled handlers: XLA has their addresses."""
_ONE, _THREE = (types.void(*[types.intp] * n) for n in (1, 3))


def register(name: str, piece: Callable[[int, int, int], None]) -> None:
    """Make `piece(frame, i, n)` for every i < n, in any order and at once, the target `name` of `jax.ffi.ffi_call`.

    Args:
      piece: to be compiled by numba; it reads the arguments and writes its share of the result with `floats`, `integers` and
        `result`, every array with two axes.
    """
    does, helps = cfunc(_THREE, **LOOSE)(piece), _help()
    of_piece, of_helper = does.address, helps.address

    @cfunc(types.intp(types.intp))
    def handler(frame):
        _handle(frame, of_piece, of_helper)
        return 0  # no error

    _KEPT.extend((does, handler))
    jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(ctypes.c_void_p(handler.address)), platform="cpu")


# --------------------------------------------------------------------------------------------------------------------- memory
_LIBRARY = ctypes.CDLL(None)
_allocate, _release = _LIBRARY.malloc, _LIBRARY.free
_allocate.argtypes, _allocate.restype = [ctypes.c_size_t], ctypes.c_ssize_t  # addresses as numbers
_release.argtypes, _release.restype = [ctypes.c_ssize_t], None


def _instruction(of: Callable[..., Any]) -> Any:
    """`numba.extending.intrinsic`, whose functions are called without the first argument."""
    return intrinsic(of)


@_instruction
def _pointer(context, address):
    def code(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.intp), code


@_instruction
def _add(context, address, number):
    """Adds to a word, whatever other threads do to it meanwhile; returns what it was."""

    def code(context, builder, signature, arguments):
        word = context.get_value_type(types.intp)
        return builder.atomic_rmw("add", builder.inttoptr(arguments[0], word.as_pointer()), arguments[1], "seq_cst")

    return types.intp(types.intp, types.intp), code


@_instruction
def _call(context, function, argument):
    """Calls a C function of one pointer that returns one."""

    def code(context, builder, signature, arguments):
        word = context.get_value_type(types.intp)
        kind = ir.FunctionType(word, [word])
        return builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), [arguments[1]])

    return types.intp(types.intp, types.intp), code


@_instruction
def _do(context, piece, frame, number, pieces):
    """Calls a compiled piece."""

    def code(context, builder, signature, arguments):
        word = context.get_value_type(types.intp)
        kind = ir.FunctionType(ir.VoidType(), [word] * 3)
        builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4), code


@njit
def _word(address, offset):
    return carray(_pointer(address + offset), 1, np.int64)[0]


@njit
def _set(address, offset, value):
    carray(_pointer(address + offset), 1, np.int64)[0] = value


# ---------------------------------------------------------------------------------------------------------- what a frame holds
@njit
def floats(frame: int, number: int) -> np.ndarray:
    """The argument with this number: float32 [·, ·]."""
    return _matrix(_word(_word(frame, 72), 8 * number), np.float32)


@njit
def integers(frame: int, number: int) -> np.ndarray:
    """The same of int32."""
    return _matrix(_word(_word(frame, 72), 8 * number), np.int32)


@njit
def result(frame: int) -> np.ndarray:
    """The result: float32 [·, ·], not yet written."""
    return _matrix(_word(_word(frame, 112), 0), np.float32)


@njit
def _matrix(buffer, dtype):
    shape = _word(buffer, 40)
    return carray(_pointer(_word(buffer, 24)), (_word(shape, 0), _word(shape, 8)), dtype)


@njit
def _is_version(frame):
    extension = _word(frame, 8)
    if extension == 0 or carray(_pointer(extension + 8), 1, np.int32)[0] != _METADATA:
        return False
    version = carray(_pointer(_word(extension, 24) + 24), 2, np.int32)
    version[0], version[1] = _MAJOR, _MINOR
    return True


# -------------------------------------------------------------------------------------------------------------------- threads
# A job, in words: the next piece, pieces done, who may still look at the job, pieces, frame, what does a piece; then arguments
# of XLA's functions, and an target. A helper that XLA starts late finds no piece left and never looks at the frame, which may
# be gone; the last to leave frees the job. So a handler waits for pieces that are being done, never for a thread to come free.
_NEXT, _DONE, _HOLDERS, _PIECES, _FRAME, _PIECE, _ARGUMENTS, _ANSWER, _BYTES = 0, 8, 16, 24, 32, 40, 48, 88, 96


@njit
def _handle(frame, piece, helper):
    if _is_version(frame):
        return
    job = _allocate(_BYTES)
    threads = _threads(frame, job)
    for place, value in ((_NEXT, 0), (_DONE, 0), (_HOLDERS, threads), (_PIECES, threads), (_FRAME, frame), (_PIECE, piece)):
        _set(job, place, value)
    for _ in range(threads - 1):
        _schedule(frame, job, helper)
    _work(job)
    while _add(job + _DONE, 0) < threads:
        pass
    _leave(job)


@njit
def _work(job):
    while True:
        number = _add(job + _NEXT, 1)
        if number >= _word(job, _PIECES):
            break
        _do(_word(job, _PIECE), _word(job, _FRAME), number, _word(job, _PIECES))
        _add(job + _DONE, 1)


@njit
def _leave(job):
    if _add(job + _HOLDERS, -1) == 1:
        _release(job)


@functools.cache
def _help() -> Any:
    @cfunc(_ONE)
    def helper(job):
        _work(job)
        _leave(job)

    return helper


@njit
def _threads(frame, job):
    for place, value in ((0, 32), (8, 0), (16, _word(frame, 24)), (24, job + _ANSWER)):
        _set(job + _ARGUMENTS, place, value)
    return max(_word(job, _ANSWER), 1) if _ask(frame, job, _NUMBER_OF_THREADS) else 1


@njit
def _schedule(frame, job, helper):
    for place, value in ((0, 40), (8, 0), (16, _word(frame, 24)), (24, helper), (32, job)):
        _set(job + _ARGUMENTS, place, value)
    if not _ask(frame, job, _SCHEDULE):
        _add(job + _HOLDERS, -1)


@njit
def _ask(frame, job, function):
    """Calls one of XLA's functions; whether it did what it should."""
    table = _word(frame, 16)
    error = _call(_word(table, function), job + _ARGUMENTS)
    if error != 0:
        for place, value in ((0, 24), (8, 0), (16, error)):
            _set(job + _ARGUMENTS, place, value)
        _call(_word(table, _DESTROY_ERROR), job + _ARGUMENTS)
    return error == 0
