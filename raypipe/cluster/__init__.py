"""What a cluster has, and what streams and trainings take of it."""
