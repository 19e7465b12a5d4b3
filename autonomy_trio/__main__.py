"""``python -m autonomy_trio``."""

import sys

try:
    from autonomy_trio.cli import main

    main()
except KeyboardInterrupt:  # one that came before or after a command could take it
    sys.exit(130)
