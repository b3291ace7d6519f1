"""The privfl federation app of the tests."""
