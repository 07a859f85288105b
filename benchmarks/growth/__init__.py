"""Whether anything becomes slower as a store grows: the same work in a small, a larger and a large one."""
