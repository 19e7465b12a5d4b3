"""``python -m autonomy_trio``."""

from autonomy_trio.cli import main

main()
