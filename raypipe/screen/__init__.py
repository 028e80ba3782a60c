"""What a command shows: one line a step, a live bar in a terminal, and whatever of raypipe's own a person must know.

All else, such as what Ray and its workers say, goes into the command's log.
"""
