"""The warning about odd jets, separate from the code that finds them: it needs neither Arrow nor torch."""


class OddJetsWarning(UserWarning):
    """Jets used for training or scoring are odd; the message says how."""
