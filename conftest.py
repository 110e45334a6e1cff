pytest_plugins = ["pytester", "tests.caches"]
