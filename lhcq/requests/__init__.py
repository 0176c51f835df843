"""What is asked for becomes a job: everything that decides the result is resolved, nothing is written.

A default that depends on a model, the longest prompt, the chunks of a file, the hash of a source: whoever asks, by a
verb or by a program, gets the same spec of the same request. A request that cannot be is refused here, in one line.
"""
