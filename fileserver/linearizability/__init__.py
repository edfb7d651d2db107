"""Was what clients saw linearizable? Histories, a model of the versioned file, and the search that decides.

`history` says what a history is, `history_json` keeps one in a file, `checker.check` judges it.
"""
