"""The warning of odd jets, apart from what finds them: it needs neither Arrow nor torch."""


class OddJetsWarning(UserWarning):
    """Jets that are trained on or scored are odd; the message says how."""
