"""The one exception whose message is meant for the person at the keyboard."""


class UserError(ValueError):
    """A mistake in a config, a data file or a folder.

    The message is the whole explanation: what was found, what is allowed, which key to change. The command line
    prints it without a traceback and exits with status 2.
    """
