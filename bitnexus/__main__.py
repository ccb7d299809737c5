"""`python -m bitnexus`, the same as `bitnexus`."""

import sys

from bitnexus import cli

sys.exit(cli.main())
