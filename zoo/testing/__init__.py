"""The tests that every model of the zoo must pass, for models of other packages.

A subclass in a pytest test suite defines how its model is built, and inherits all tests::

    from zoo.testing import ModelContract

    class TestMyModel(ModelContract):
        def model(self, input_dim, num_classes):
            return mymodel(input_dim, num_classes)

They need nothing but the jets that ship with the package. Tests of what a plain torch module cannot do are skipped.
"""

import pytest

# before they are imported: a failure shows the numbers only if pytest has rewritten the asserts
pytest.register_assert_rewrite("zoo.testing.page", "zoo.testing.promises", "zoo.testing.subject")

from zoo.testing.page import Page  # noqa: E402
from zoo.testing.promises import Promises  # noqa: E402


class ModelContract(Promises, Page):
    """All promises of a model, as a class of tests; see `zoo.testing.subject.Subject` for what a subclass may set."""


__all__ = ["ModelContract"]
