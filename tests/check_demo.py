"""Hold `build/demo/report.json` against what the demo must reach: `python tests/check_demo.py REPORT`.

The accuracies are of the test split. A figure that falls below its bar fails the build, as a test does.
"""

import json
import sys
from pathlib import Path

LEAST_TEACHER = 0.885
MOST_LOST = 0.025
DEVICES = 3


def shortfalls(report: dict[str, object]) -> list[str]:
    """What is missing, a sentence each; empty when all is well."""
    teacher, fused, single, degraded = (
        float(str(report[f"{name}_accuracy"])) for name in ("teacher", "fused", "single", "degraded")
    )
    devices = report["devices"]
    demands = {
        f"the teacher reaches {teacher:.2%}, below {LEAST_TEACHER:.1%}": teacher >= LEAST_TEACHER,
        f"fused loses {teacher - fused:.2%}, more than {MOST_LOST:.1%}": teacher - fused <= MOST_LOST,
        f"fused ({fused:.2%}) is not above the single student ({single:.2%})": fused > single,
        f"a lost device gains accuracy ({degraded:.2%}): something is not lost": degraded < fused,
        "the lost device was not taken back": report["recovered"] is True,
        "devices were not found by zeroconf": report["discovered_by"] == "zeroconf",
        f"not every one of {DEVICES} devices answered": isinstance(devices, list) and len(devices) == DEVICES,
    }
    return [sentence for sentence, met in demands.items() if not met]


def main() -> int:
    """Print what is missing and say whether anything is."""
    missing = shortfalls(json.loads(Path(sys.argv[1]).read_text()))
    for sentence in missing:
        print(f"demo: {sentence}", file=sys.stderr)  # noqa: T201
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
