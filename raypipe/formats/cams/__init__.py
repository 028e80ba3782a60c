"""Class activation maps that another program computed."""
