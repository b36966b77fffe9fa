"""The verbs: each calls the other packages in a straight line and shares data with other verbs only in a run folder."""
