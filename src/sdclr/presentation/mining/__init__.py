"""The results of mining, for people and for other tools: the page, and the lists exported from it."""
