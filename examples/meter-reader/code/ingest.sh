#!/bin/sh
# Export the data and note every file's digest, so that one line of evidence covers each set.
set -eu
python code/ingest.py data
modelward-repo manifest data/train --output data/train.manifest
modelward-repo manifest data/holdout --output data/holdout.manifest
