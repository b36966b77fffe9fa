"""What mining found, for people and for other tools: the page, and the lists that leave it."""
