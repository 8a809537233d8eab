"""PyMongo and Motor, made fair and exact."""
