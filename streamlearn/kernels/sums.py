"""Sums of some rows of a table, each times a factor: the operation in which the kernels spend nearly all of their time.

A compiler that may not reorder sums does not keep what it sums in registers, so the loop is written in vector instructions.
Each entry of the result is summed in the order of the terms, product and sum in one rounding where the processor can; how wide
its vectors are changes no bit.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from llvmlite import binding, ir  # type: ignore[import-untyped]  # it ships no types
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

AT_ONCE = 8  # vectors kept in registers
Block = Callable[[Any, "_Sum", list[Any], int], None]


class _Sum(NamedTuple):
    """What is summed: values of the function that is being written."""

    out: Any  # pointer to the row's first entry
    table: Any  # pointer
    stride: Any  # entries from one row of the table to the next
    picks: Any  # pointer
    factors: Any  # pointer
    count: Any
    adds: bool  # to what is there, not to 0


def _typed(*, adds: bool) -> Any:
    def typed(_: Any, out: Any, row: Any, table: Any, count: Any, picks: Any, factors: Any) -> Any:  # noqa: ARG001, PLR0917 as it is called
        return types.void(out, types.intp, table, types.intp, picks, factors), partial(_write, adds=adds)

    return intrinsic(typed)


add_terms = _typed(adds=True)
"""`add_terms(out, row, table, count, picks, factors)` adds to `out[row]` the first `count` rows of `table` that `picks` name,
each times its factor, entry by entry; as many entries as the narrower of the two has. All arrays but `picks` have one type, and
rows lie one after another."""

sum_terms = _typed(adds=False)
"""The same, but to 0 in place of `out[row]`."""


def _typed_fours(*, grouped: bool) -> Any:
    def typed(_: Any, out: Any, row: Any, width: Any, table: Any, count: Any, picks: Any, factors: Any) -> Any:  # noqa: ARG001, PLR0917 as it is called
        return types.void(out, types.intp, types.intp, table, types.intp, picks, factors), partial(
            _write_fours, grouped=grouped
        )

    return intrinsic(typed)


add_fours = _typed_fours(grouped=False)
"""`add_fours(out, row, width, table, count, picks, factors)` adds to the first `width` entries, in another order and with each
product rounded: four terms at a time, `out += (a + b) + (c + d)`, then what is left one by one."""

add_groups = _typed_fours(grouped=True)
"""The same, but what is left at once: `out += (a + b) + c`, or `out += a + b`."""


def _write_fours(context: Any, builder: Any, signature: Any, args: Sequence[Any], *, grouped: bool) -> Any:
    out, table, picks, factors = (context.make_array(signature.args[i])(context, builder, args[i]) for i in (0, 3, 5, 6))
    across, stride = (cgutils.unpack_tuple(builder, each.shape)[1] for each in (out, table))  # type: ignore[no-untyped-call]  # as below
    start = builder.gep(out.data, [builder.mul(args[1], across)])
    block = partial(_fours, grouped=grouped)
    _columns(builder, _Sum(start, table.data, stride, picks.data, factors.data, args[4], adds=True), args[2], block)
    return context.get_dummy_value()


def _write(context: Any, builder: Any, signature: Any, args: Sequence[Any], *, adds: bool) -> Any:
    out, table, picks, factors = (context.make_array(signature.args[i])(context, builder, args[i]) for i in (0, 2, 4, 5))
    across, stride = (cgutils.unpack_tuple(builder, each.shape)[1] for each in (out, table))  # type: ignore[no-untyped-call]  # as below
    width = builder.select(builder.icmp_signed("<", across, stride), across, stride)
    start = builder.gep(out.data, [builder.mul(args[1], across)])
    _columns(builder, _Sum(start, table.data, stride, picks.data, factors.data, args[3], adds), width, _block)
    return context.get_dummy_value()


def _columns(builder: Any, terms: _Sum, width: Any, block: Block) -> None:
    """All columns: as many vectors at once as fit, then half as many, and so on; what is narrower than a vector in two narrower
    ones, which hold the same sums where they overlap."""
    size = _vector_bits() // (32 if isinstance(terms.out.type.pointee, ir.FloatType) else 64)
    zero, step = width.type(0), width.type(AT_ONCE * size)
    with cgutils.for_range_slice(builder, zero, builder.and_(width, width.type(-AT_ONCE * size)), step) as (column, _):
        block(builder, terms, _places(builder, column, AT_ONCE, size), size)
    count = AT_ONCE // 2
    while count:
        with builder.if_then(builder.icmp_signed("!=", builder.and_(width, width.type(count * size)), zero)):
            block(builder, terms, _places(builder, builder.and_(width, width.type(-2 * count * size)), count, size), size)
        count //= 2
    left, entries = builder.and_(width, width.type(size - 1)), size // 2
    while entries:
        fits = builder.icmp_signed(">=", left, width.type(entries))
        with builder.if_then(builder.and_(fits, builder.icmp_signed("<", left, width.type(2 * entries)))):
            places = [builder.sub(width, left), builder.sub(width, width.type(entries))]
            block(builder, terms, places if entries > 1 else places[:1], entries)
        entries //= 2


def _places(builder: Any, column: Any, count: int, size: int) -> list[Any]:
    """Of so many vectors, one after another."""
    return [builder.add(column, column.type(v * size)) for v in range(count)]


def _vector_bits() -> int:
    return 512 if binding.get_host_cpu_features().get("avx512f") else 256


class _Kept(NamedTuple):
    """Vectors in registers, and the columns that they stand for."""

    vector: Any
    sums: list[Any]
    places: list[Any]


def _block(builder: Any, terms: _Sum, places: list[Any], entries: int) -> None:
    """Vectors of so many entries from these columns on, over all terms."""
    kept = _take_up(builder, terms, places, entries)
    with cgutils.for_range(builder, terms.count) as loop:
        factor, line = _term(builder, terms, loop.index, kept.vector)
        for total, place in zip(kept.sums, kept.places, strict=True):
            product = builder.fmul(factor, _load(builder, builder.gep(line, [place]), kept.vector), flags=("contract",))
            builder.store(builder.fadd(builder.load(total), product, flags=("contract",)), total)
    _put_down(builder, terms, kept)


def _fours(builder: Any, terms: _Sum, places: list[Any], entries: int, *, grouped: bool) -> None:
    """The same, four terms at a time."""
    kept, count = _take_up(builder, terms, places, entries), terms.count
    zero, one, four = count.type(0), count.type(1), count.type(4)
    whole = builder.and_(count, count.type(-4))
    with cgutils.for_range_slice(builder, zero, whole, four) as (index, _):
        _add_group(builder, terms, index, (kept, 4))
    if not grouped:
        with cgutils.for_range_slice(builder, whole, count, one) as (index, _):
            _add_group(builder, terms, index, (kept, 1))
    for rest in (1, 2, 3) if grouped else ():
        with builder.if_then(builder.icmp_signed("==", builder.sub(count, whole), count.type(rest))):
            _add_group(builder, terms, whole, (kept, rest))
    _put_down(builder, terms, kept)


def _add_group(builder: Any, terms: _Sum, index: Any, group: tuple[_Kept, int]) -> None:
    """Add terms from `index` on: two and two first, then their sums."""
    kept, many = group
    known = [_term(builder, terms, builder.add(index, index.type(t)), kept.vector) for t in range(many)]
    for total, place in zip(kept.sums, kept.places, strict=True):
        parts = [builder.fmul(factor, _load(builder, builder.gep(line, [place]), kept.vector)) for factor, line in known]
        while len(parts) > 1:
            parts = [builder.fadd(*parts[t : t + 2]) if t + 1 < len(parts) else parts[t] for t in range(0, len(parts), 2)]
        builder.store(builder.fadd(builder.load(total), parts[0]), total)


def _take_up(builder: Any, terms: _Sum, places: list[Any], entries: int) -> _Kept:
    vector, sums = ir.VectorType(terms.out.type.pointee, entries), []
    for place in places:
        zero = ir.Constant(vector, [0.0] * vector.count)
        sums.append(cgutils.alloca_once(builder, vector))  # type: ignore[no-untyped-call]  # numba types some of it
        builder.store(_load(builder, builder.gep(terms.out, [place]), vector) if terms.adds else zero, sums[-1])
    return _Kept(vector, sums, places)


def _put_down(builder: Any, terms: _Sum, kept: _Kept) -> None:
    for total, place in zip(kept.sums, kept.places, strict=True):
        to = builder.bitcast(builder.gep(terms.out, [place]), kept.vector.as_pointer())
        builder.store(builder.load(total), to, align=4 if isinstance(terms.out.type.pointee, ir.FloatType) else 8)


def _term(builder: Any, terms: _Sum, index: Any, vector: Any) -> tuple[Any, Any]:
    """A factor in every entry of a vector, and its row of the table."""
    pick = builder.load(builder.gep(terms.picks, [index]))
    factor = _spread(builder, builder.load(builder.gep(terms.factors, [index])), vector)
    return factor, builder.gep(terms.table, [builder.mul(pick, terms.stride)])


def _load(builder: Any, at: Any, vector: Any) -> Any:
    align = 4 if isinstance(vector.element, ir.FloatType) else 8
    return builder.load(builder.bitcast(at, vector.as_pointer()), align=align)


def _spread(builder: Any, value: Any, vector: Any) -> Any:
    index, empty = ir.IntType(32), ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(empty, value, index(0))
    return builder.shuffle_vector(first, empty, ir.Constant(ir.VectorType(index, vector.count), [0] * vector.count))
