"""One cell measured: decoded, timed, scored, with what else the machine did meanwhile."""
