"""How each kind of answer is drawn; matplotlib is imported when something is."""
