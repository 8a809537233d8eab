"""All that is Motor's, and the synchronous driver's in it.

One turnstile over all members stands before the thread pool, which has as many threads as the turnstile has permits;
an operation that has started can't be cancelled and holds its permit until its thread is done.
"""
