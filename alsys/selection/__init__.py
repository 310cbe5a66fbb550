"""Which frames are labelled next: batches of many candidates, strata, features of frames, and what a label costs."""
