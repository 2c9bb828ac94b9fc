"""From a request of frames to one committed transaction: admission, validation, group, commit."""
