"""Contrast of colours as WCAG 2.2 defines it."""

import re

LEGIBLE = 4.5  # the least contrast of words: success criterion 1.4.3


def channels(colour):
    """Red, green, blue, all in [0, 1], and opacity, of a colour as browsers write it."""
    if colour.startswith("#"):
        return [int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5)], 1.0
    values = [float(number) for number in re.findall(r"[\d.]+", colour.partition("(")[2])]
    scale = 1 if colour.startswith("color(srgb") else 255
    return [value / scale for value in values[:3]], (values[3:] or [1.0])[0]


def over(colour, below, opacity=1.0):
    """A colour, perhaps translucent, on an opaque one (red, green, blue)."""
    front, alpha = channels(colour)
    alpha *= opacity
    return [alpha * a + (1 - alpha) * b for a, b in zip(front, below)]


def luminance(rgb):
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in rgb]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    """Of two opaque colours (red, green, blue), from 1 to 21."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)
