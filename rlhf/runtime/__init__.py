"""What every floor above stands on: files, folders, ranks, progress.

`files` writes whole or not at all, `folder` is a stage's folder with its manifest and checkpoints, `checkpoints` are
sealed with their checksums, `jsonl` is one row a line. `distributed` is what ranks agree on; `progress` the bars. All
of it is below the data and the models, which write files and show bars as well; it knows neither.
"""
