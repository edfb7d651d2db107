"""Real processes under real faults; see :mod:`fileserver.torture.run`."""
