"""Array code of weight operations that several verbs share."""
