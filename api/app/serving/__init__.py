"""The process that serves: worker, HTTP protocol and slot."""
