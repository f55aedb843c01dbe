"""What decodes: an engine turns log-mel features into token ids."""
