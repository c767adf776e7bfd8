"""mlserving."""
