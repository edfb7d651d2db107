"""The programs of ``bin/``, one module each; what they do is done by the other modules of the package."""
