"""Getting data ready for training: run a pipeline, validate a dataset, stream it."""
