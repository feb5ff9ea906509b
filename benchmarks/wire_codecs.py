"""What each coding makes of a photograph, and what it takes: bytes, and milliseconds on one core.

    python -m benchmarks.wire_codecs [--side 224]

Photographs from scikit-image, each brought to the model's size. Of the times it is the least of several.
Prints one JSON object a coding.
"""

import argparse
import json
import time

import numpy as np

from benchmarks.photographs import photographs
from edvit_tf.rpc.codecs import EXACT, JPEG, WEBP, Coding, decode, encode
from edvit_tf.vit.config import ImageSize

CODINGS = (
    EXACT,
    Coding(WEBP),
    *(Coding(JPEG, quality) for quality in (85, 90, 95)),
    *(Coding(WEBP, quality) for quality in (85, 95)),
)
TIMES = 9


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--side", type=int, default=224)
    side = parser.parse_args().side
    images = list(photographs(ImageSize(side, side, 3)).values())
    for coding in CODINGS:
        sizes, encoding, decoding = [], [], []
        for image in images:
            encoded, decoded = [], []
            for _ in range(TIMES):
                start = time.perf_counter()
                picture = encode(image, coding)
                middle = time.perf_counter()
                decode(picture, image.shape)
                encoded.append(middle - start)
                decoded.append(time.perf_counter() - middle)
            sizes.append(len(picture.data))
            encoding.append(min(encoded))
            decoding.append(min(decoded))
        row = {
            "coding": str(coding),
            "bytes": round(float(np.mean(sizes))),
            "largest": max(sizes),
            "encode_ms": round(1000 * float(np.mean(encoding)), 2),
            "decode_ms": round(1000 * float(np.mean(decoding)), 2),
        }
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
