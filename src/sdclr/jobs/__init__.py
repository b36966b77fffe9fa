"""The verbs: each walks through the rooms in a straight line and meets the others only through a run folder."""
