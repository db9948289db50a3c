"""``python -m layerkit`` does what the command ``layerkit`` does."""

import sys

from layerkit.cli import main

sys.exit(main())
