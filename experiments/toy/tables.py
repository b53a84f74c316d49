"""The results as Markdown: tables 26 to 28 of the paper in shape, and what the paper does not ask."""


def toy(stored):
    return ""


def figure1(stored):
    return ""


def figure3(stored):
    return ""
