"""Care for the schema as a product: what is deprecated and until when, what a release changes, what errors mean."""
