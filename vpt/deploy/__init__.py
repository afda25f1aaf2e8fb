"""A prompted model as a file that runs without vpt. A new kind of file is one file here, which
registers itself; `import_all` finds it.
"""

from vpt.deploy.targets import TARGETS, Target
from vpt.sites import import_all

import_all(__name__, __path__)

__all__ = ["TARGETS", "Target"]
