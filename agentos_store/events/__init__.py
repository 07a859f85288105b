"""Events, and those who follow them."""
