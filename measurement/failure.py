"""The one exception that ends a command."""


class Failure(Exception):
    """Ends the command with one line on standard error and exit code 2."""
