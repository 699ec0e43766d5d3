"""The tests that every model of the zoo has to pass, for models of other packages.

A subclass in a test suite of pytest says how its model is built, and has all of them::

    from zoo.testing import ModelContract

    class TestMyModel(ModelContract):
        def model(self, input_dim, num_classes):
            return mymodel(input_dim, num_classes)

They need nothing but the jets that ship with the package. What a plain torch module cannot do is skipped.
"""

import pytest

# before they are imported, for a failure shows the numbers only where pytest has rewritten the asserts
pytest.register_assert_rewrite("zoo.testing.page", "zoo.testing.promises", "zoo.testing.subject")

from zoo.testing.page import Page  # noqa: E402
from zoo.testing.promises import Promises  # noqa: E402


class ModelContract(Promises, Page):
    """All promises of a model, as a class of tests; see `zoo.testing.subject.Subject` for what a subclass may say."""


__all__ = ["ModelContract"]
