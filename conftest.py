import os

import pytest

os.environ["LANGUAGE"] = "en"  # of the commands whose words are compared

pytest.register_assert_rewrite("tests.docs")
pytest_plugins = ["pytester", "tests.docs.pages", "tests.docs.builds", "tests.caches"]
