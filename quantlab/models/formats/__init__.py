"""Files of other engines: what stands where in them."""
