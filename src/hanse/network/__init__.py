"""Real parties over HTTPS: `hanse serve` and `hanse join`.

Loggers are named by module, `hanse.network...`, and say nothing unless the program configures `logging`. They
write one line for one thing, as `key=value` fields, without secrets, data or the texts of clients' errors.
"""

import logging

logging.getLogger(__name__).addHandler(logging.NullHandler())
