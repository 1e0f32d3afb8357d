"""Hanse as another checkout has it.

python of_checkout.py WORKLOAD NUM_ROUNDS CHECKOUT
"""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    checkout = Path(sys.argv.pop(3))
    tools = checkout / "benchmarks" / "simulators" / "tools"
    sys.path[:0] = [str(checkout / "src"), str(tools)]
    runpy.run_path(str(tools / "with_hanse.py"), run_name="__main__")
