"""The stack as code: where it keeps things, what it is made of, how it is started, watched over and stopped."""
