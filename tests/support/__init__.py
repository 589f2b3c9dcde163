"""What tests share: servers, certificates, checks, and the helpers that fixtures in the conftest files hand out.

Nothing here is a test or a fixture, and nothing here imports from a folder of tests.
"""

import pytest

pytest.register_assert_rewrite("tests.support.checks", "tests.faults.driver")  # before either is imported
