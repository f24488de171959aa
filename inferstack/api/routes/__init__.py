"""The routes, thin over `lifecycle`."""
