import pytest

pytest.register_assert_rewrite("tests.docs")
pytest_plugins = ["pytester", "tests.caches", "tests.docs.pages"]
