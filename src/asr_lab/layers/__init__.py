"""Small layers that more than one kind of part uses."""
