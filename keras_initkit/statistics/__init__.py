"""Statistics of one tensor, on the host and on the device."""
