"""``python -m flask_wxjsapi`` shows the demo, on http://127.0.0.1:5000 or another ``PORT``."""

import runpy
import sys
from pathlib import Path


def main() -> None:
    """Run ``examples/quickstart``, which a wheel has as ``_demo``."""
    here = Path(__file__).parent
    for demo in (here / "_demo", here.parent / "examples" / "quickstart"):
        if (demo / "__main__.py").exists():
            runpy.run_path(str(demo), run_name="__main__")
            return
    sys.exit("The demo is not in this installation: see examples/quickstart in the repository.")


if __name__ == "__main__":
    main()
