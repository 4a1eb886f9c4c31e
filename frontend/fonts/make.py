"""Makes etude-math.woff2 from STIX Two Math: the characters of formulas in lessons and problems.

    npm pack @fontsource/stix-two-math@5.3.0
    pip install fonttools brotli
    python make.py package/files/stix-two-math-latin-400-normal.woff2

Browsers stretch brackets and roots, and place limits and scripts, by the MATH table of a font. The
licence is OFL.txt.
"""

import sys
from pathlib import Path

from fontTools.subset import Options, Subsetter
from fontTools.ttLib import TTFont

NAME = "Etude Math"
RANGES = [
    (0x20, 0x7E),
    (0xA0, 0xFF),
    (0x131, 0x131),
    (0x237, 0x237),
    (0x302, 0x304),  # hat, tilde, bar
    (0x307, 0x308),
    (0x391, 0x3A9),
    (0x3B1, 0x3F6),
    (0x2010, 0x2026),
    (0x2032, 0x2037),
    (0x203E, 0x203E),
    (0x2061, 0x2064),
    (0x20D7, 0x20D7),
    (0x210B, 0x2113),
    (0x2115, 0x211D),
    (0x2124, 0x2124),
    (0x2190, 0x2199),
    (0x21A6, 0x21A6),
    (0x21D0, 0x21D4),
    (0x2200, 0x222B),
    (0x2234, 0x2237),
    (0x223C, 0x224D),
    (0x2254, 0x2262),
    (0x2264, 0x226B),
    (0x2282, 0x228B),
    (0x2293, 0x229B),
    (0x22A4, 0x22A5),
    (0x22C0, 0x22C5),
    (0x22EE, 0x22F1),
    (0x2308, 0x230B),
    (0x23DE, 0x23DF),
    (0x27E8, 0x27E9),
    (0x2A01, 0x2A02),
    (0x1D400, 0x1D433),  # bold
    (0x1D434, 0x1D467),  # italic, as single letters are set
    (0x1D4D0, 0x1D4E9),  # bold script capitals
    (0x1D49C, 0x1D4B5),  # script capitals
    (0x1D538, 0x1D550),  # double-struck capitals
    (0x1D7D9, 0x1D7D9),  # double-struck one
    (0x1D6E2, 0x1D71B),  # italic Greek
]


def main() -> None:
    """Write the subset beside this file."""
    options = Options()
    options.flavor = "woff2"
    options.layout_features = ["ssty", "dtls", "ccmp", "mark", "mkmk"]
    options.hinting = False
    options.desubroutinize = True
    options.name_IDs = [0, 13, 14]
    font = TTFont(sys.argv[1])
    subsetter = Subsetter(options)
    subsetter.populate(unicodes=[code for a, b in RANGES for code in range(a, b + 1)])
    subsetter.subset(font)
    names = font["name"]
    for number, text in ((1, NAME), (2, "Regular"), (4, NAME), (6, NAME.replace(" ", ""))):
        names.setName(text, number, 3, 1, 0x409)
    font["head"].modified = font["head"].created
    font.recalcTimestamp = False
    font.flavor = "woff2"
    target = Path(__file__).with_name("etude-math.woff2")
    font.save(target)
    print(target.stat().st_size, "bytes,", len(font.getGlyphOrder()), "glyphs")


if __name__ == "__main__":
    main()
