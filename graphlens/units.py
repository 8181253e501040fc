"""The only place that writes nanoseconds, bytes, FLOPs, their rates, and shares as words."""

from __future__ import annotations

from collections.abc import Iterable

_TIME_UNITS = ((1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "us"))
_BYTE_UNITS = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))
_FLOP_UNITS = ((10**12, "TFLOP"), (10**9, "GFLOP"), (10**6, "MFLOP"), (10**3, "kFLOP"))
_RATE_UNITS = ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB"))
UNKNOWN = "unknown"


def format_ns(ns: int | None) -> str:
    """Write a duration with three significant digits, as in ``1.23 ms``.

    >>> format_ns(1_234_567), format_ns(999), format_ns(0), format_ns(None)
    ('1.23 ms', '999 ns', '0 ns', 'unknown')
    """
    return _scaled(ns, _TIME_UNITS, "ns")


def format_bytes(nbytes: int | None) -> str:
    """Write a size in binary units, as in ``1.50 MiB``.

    >>> format_bytes(1_572_864), format_bytes(12), format_bytes(None)
    ('1.50 MiB', '12 B', 'unknown')
    """
    return _scaled(nbytes, _BYTE_UNITS, "B")


def format_flops(flops: int | None) -> str:
    """Write an operation count in decimal units, as in ``7.72 GFLOP``.

    >>> format_flops(7_716_000_000), format_flops(None)
    ('7.72 GFLOP', 'unknown')
    """
    return _scaled(flops, _FLOP_UNITS, "FLOP")


def format_flop_rate(flops_per_s: float) -> str:
    """Write operations per second in decimal units, as in ``121 GFLOP/s``.

    >>> format_flop_rate(121e9)
    '121 GFLOP/s'
    """
    return f"{format_flops(round(flops_per_s))}/s"


def format_byte_rate(bytes_per_s: float) -> str:
    """Write bytes per second in decimal units, as vendors of memory do: ``19.4 GB/s``.

    >>> format_byte_rate(19.4e9), format_byte_rate(12)
    ('19.4 GB/s', '12 B/s')
    """
    return f"{_scaled(round(bytes_per_s), _RATE_UNITS, 'B')}/s"


def format_frequency(per_s: float) -> str:
    """Write how many there are of something in a second with three significant digits, as in ``1,230``.

    >>> format_frequency(70.42), format_frequency(1234.5), format_frequency(0.126)
    ('70.4', '1,230', '0.13')
    """
    if per_s < 1000:
        return _three_digits(per_s)
    size = 10 ** (len(str(round(per_s))) - 3)
    return f"{round(per_s / size) * size:,}"


def format_share(share: float | None) -> str:
    """Write a share as percent, with a decimal below ten, as in ``4.2 %``.

    >>> format_share(0.042), format_share(0.42), format_share(None), format_share(0.0001)
    ('4.2 %', '42 %', 'unknown', '<0.1 %')
    """
    if share is None:
        return UNKNOWN
    percent = share * 100
    if 0 < percent < 0.1:
        return "<0.1 %"
    return f"{percent:.0f} %" if abs(percent) >= 9.95 else f"{percent:.1f} %"


def format_count(count: int | float | None) -> str:
    """Write a count with thousands separators; whole numbers without decimals.

    >>> format_count(12345), format_count(2.5), format_count(3.0), format_count(None)
    ('12,345', '2.5', '3', 'unknown')
    """
    if count is None:
        return UNKNOWN
    return f"{count:,.0f}" if float(count).is_integer() else f"{count:,.1f}"


def _scaled(value: int | None, units: tuple[tuple[int, str], ...], base: str) -> str:
    if value is None:
        return UNKNOWN
    for size, unit in units:
        # 999,995 ns is written in the next unit, since three digits round it up to 1000.
        if abs(value) >= size * 0.9995:
            return f"{_three_digits(value / size)} {unit}"
    return f"{value} {base}"


def _three_digits(number: float) -> str:
    magnitude = abs(number)
    decimals = 2 if magnitude < 9.995 else 1 if magnitude < 99.95 else 0
    return f"{number:,.{decimals}f}"


def few(names: Iterable[str], most: int) -> str:
    """Write the first names, and how many more there are.

    >>> few(["a", "b", "c"], 2), few(["a"], 2)
    ('a, b and 1 more', 'a')
    """
    listed = list(names)
    more = len(listed) - most
    return ", ".join(listed[:most]) + (f" and {more} more" if more > 0 else "")


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """Write a count with its noun.

    >>> counted(1, "op"), counted(1200, "op"), counted(2, "copy"), counted(2, "matrix", "matrices")
    ('1 op', '1,200 ops', '2 copies', '2 matrices')
    """
    many = plural or (noun[:-1] + "ies" if noun.endswith("y") else noun + "s")
    return f"{count:,} {noun if count == 1 else many}"
