"""Numbers as people write them."""


def amount(number: float, unit: str = "") -> str:
    """Three digits and a decimal prefix: ``25.6 M``, ``102 MB``."""
    for power, prefix in ((12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if number >= 0.9995 * 10**power:
            return f"{three(number / 10**power)} {prefix}{unit}".rstrip()
    return f"{three(number)} {unit}".rstrip()


def three(number: float) -> str:
    """``0.0123``, ``1.23``, ``12.3``, ``123``, ``1,235``; below a thousand whole numbers without a point."""
    if number < 0.9995 or (number == int(number) and number < 1000):
        return f"{number:.3g}"
    return f"{number:,.{2 if number < 9.995 else 1 if number < 99.95 else 0}f}"
