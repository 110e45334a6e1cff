import pytest

pytest.register_assert_rewrite("tests.docs")
pytest_plugins = ["pytester", "tests.docs.pages", "tests.docs.builds", "tests.caches"]
